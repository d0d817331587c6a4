//! A run in the terminal: lines of progress, or with `--watch` its curves, drawn over themselves.

use crate::curves::{Curves, braille, short};
use crate::output::{Output, is_interactive, print_line};
use serde_json::Value;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often curves are drawn, and how often a line is written where there are none.
const DRAW_EVERY: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(2);
/// Curves shown one below the other, and rows of each.
const PANELS: usize = 3;
const ROWS: usize = 9;

pub struct Screen {
    output: Output,
    draws: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    curves: Curves,
    latest: Value,
    /// First step of this process, and when it came.
    first: Option<(f64, Instant)>,
    shown: Option<Instant>,
    /// Lines that the last drawing has taken.
    lines: usize,
}

impl Screen {
    /// Curves need a terminal; elsewhere lines are written.
    pub fn new(watch: bool, output: Output) -> Self {
        Self { output, draws: watch && is_interactive() && !output.json, state: Mutex::default() }
    }

    /// A line of the metrics.
    pub fn step(&self, metrics: &Value) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.output.json {
            print_line(&metrics.to_string());
        }
        state.curves.add(metrics);
        state.latest = metrics.clone();
        let step = metrics["step"].as_f64().unwrap_or(0.0);
        state.first.get_or_insert((step, Instant::now()));
        let every = if self.draws { DRAW_EVERY } else { LINE_EVERY };
        let evaluated = !metrics["eval_loss"].is_null() && !self.draws;
        if evaluated || state.shown.is_none_or(|at| at.elapsed() >= every) {
            self.show(&mut state);
        }
    }

    pub fn note(&self, text: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.erase();
        eprintln!("{text}");
        if self.draws && !state.curves.is_empty() {
            self.show(&mut state);
        }
    }

    /// Shows the last step.
    pub fn finish(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.curves.is_empty() {
            self.show(&mut state);
        }
        state.lines = 0;
    }

    fn show(&self, state: &mut State) {
        state.shown = Some(Instant::now());
        let status = state.status();
        if !self.draws {
            eprintln!("{status}");
            return;
        }
        let mut lines = Vec::new();
        for panel in state.curves.panels().iter().take(PANELS) {
            lines.extend(braille::draw(panel, width(), ROWS));
        }
        lines.push(status);
        state.erase();
        let mut out = std::io::stderr().lock();
        let _ = writeln!(out, "{}", lines.join("\n"));
        state.lines = lines.len();
    }
}

impl State {
    /// Takes the last drawing back.
    fn erase(&mut self) {
        if self.lines > 0 {
            eprint!("\x1b[{}A\x1b[J", self.lines);
            self.lines = 0;
        }
    }

    fn status(&self) -> String {
        let number = |name: &str| self.latest[name].as_f64();
        let text = |name: &str| number(name).map(|v| format!("  {} {}", name.replace('_', " "), short(v)));
        let (step, steps) = (number("step").unwrap_or(0.0), number("steps").unwrap_or(0.0));
        let left = self.first.filter(|(first, _)| step > *first).map(|(first, at)| {
            let seconds = at.elapsed().as_secs_f64() / (step - first) * (steps - step).max(0.0);
            format!("  {} left", duration(seconds))
        });
        let shown = ["loss", "eval_loss", "reward", "lr", "grad_norm", "tokens_per_second"].map(text);
        let rest: String = shown.into_iter().chain([left]).flatten().collect();
        format!("step {step}/{steps}{rest}")
    }
}

fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..=99 => format!("{whole} s"),
        100..=5_999 => format!("{} min", whole / 60),
        _ => format!("{} h {} min", whole / 3600, whole / 60 % 60),
    }
}

/// Columns of the terminal.
fn width() -> usize {
    // SAFETY: a plain struct of integers may be all zero, and TIOCGWINSZ writes into no more than it.
    let size = unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, &mut size);
        size
    };
    if size.ws_col == 0 { 80 } else { usize::from(size.ws_col).min(160) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_status_names_what_there_is() {
        let state = State { latest: json!({"step": 3, "steps": 10, "loss": 2.5, "lr": 1e-4}), ..State::default() };
        assert_eq!(state.status(), "step 3/10  loss 2.5  lr 1.0e-4");
        assert_eq!(
            (duration(30.2), duration(600.0), duration(7_260.0)),
            ("30 s".into(), "10 min".into(), "2 h 1 min".into())
        );
    }
}
