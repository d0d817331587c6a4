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
/// Characters of an answer's line where nothing is drawn.
const SAMPLE_COLUMNS: usize = 240;

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
    /// What was shown last.
    written: Value,
    /// The first answer of the latest evaluation, in a line.
    sample: Option<String>,
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
        self.take_samples(&mut state, &metrics["samples"]);
        let step = metrics["step"].as_f64().unwrap_or(0.0);
        state.first.get_or_insert((step, Instant::now()));
        let every = if self.draws { DRAW_EVERY } else { LINE_EVERY };
        let evaluated = !metrics["eval_loss"].is_null() && !self.draws;
        if evaluated || state.shown.is_none_or(|at| at.elapsed() >= every) {
            self.show(&mut state);
        }
    }

    /// Answers of the weights.
    pub fn samples(&self, samples: &Value) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.take_samples(&mut state, samples);
        if self.draws && !state.curves.is_empty() {
            self.show(&mut state);
        }
    }

    /// Where curves are drawn, the latest stands below them; elsewhere all are written.
    fn take_samples(&self, state: &mut State, samples: &Value) {
        let columns = if self.draws { width() } else { SAMPLE_COLUMNS };
        let lines: Vec<String> = samples.as_array().into_iter().flatten().map(|s| sample(s, columns)).collect();
        if !self.draws && !self.output.json {
            lines.iter().for_each(|line| eprintln!("{line}"));
        }
        // Those of the start and of an evaluation may come together: the latter's follow.
        let latest =
            samples.as_array().and_then(|all| all.iter().position(|s| s["step"] == all[all.len() - 1]["step"]));
        state.sample = latest.and_then(|at| lines.into_iter().nth(at)).or(state.sample.take());
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
        if self.draws && !state.curves.is_empty() || state.written != state.latest {
            self.show(&mut state);
        }
        state.lines = 0;
    }

    fn show(&self, state: &mut State) {
        state.shown = Some(Instant::now());
        state.written = state.latest.clone();
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
        lines.extend(state.sample.clone());
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
        let first = ["loss", "eval_loss", "reward"].map(text);
        let evaluators = self.latest.as_object().into_iter().flat_map(|line| line.keys());
        let evaluators = evaluators.filter_map(|name| name.strip_prefix("eval/").and(text(name)));
        let last = ["lr", "grad_norm", "tokens_per_second"].map(text);
        let rest: String =
            first.into_iter().flatten().chain(evaluators).chain(last.into_iter().chain([left]).flatten()).collect();
        format!("step {step}/{steps}{rest}")
    }
}

/// A sample in a line of at most `columns` characters: the end of the prompt and the beginning of the answer.
fn sample(sample: &Value, columns: usize) -> String {
    // What a model writes must not steer the terminal.
    let plain = |name: &str| -> Vec<char> {
        let text = sample[name].as_str().unwrap_or_default();
        text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    };
    let (prompt, answer) = (plain("prompt"), plain("answer"));
    let prompt = &prompt[prompt.len().saturating_sub(columns / 3)..];
    let line = format!(
        "  after {}: {} -> {}",
        sample["step"],
        prompt.iter().collect::<String>(),
        answer.iter().collect::<String>()
    );
    line.chars().take(columns).collect()
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
    fn a_sample_is_a_line_that_steers_no_terminal() {
        let shown = json!({"step": 20, "prompt": "Translate this:\n\u{1b}[2JHello", "answer": " Bon\u{7}jour\n"});
        assert_eq!(sample(&shown, 80), "  after 20: Translate this:  [2JHello -> Bon jour");
        assert_eq!(sample(&shown, 24), "  after 20: [2JHello -> ");
        assert_eq!(sample(&Value::Null, 80), "  after null:  -> ");
    }

    #[test]
    fn the_latest_evaluation_is_the_one_that_stays() {
        let screen = Screen { draws: true, ..Screen::new(false, Output { json: false }) };
        let of = |step: u64, answer: &str| json!({"step": step, "prompt": "p", "answer": answer});
        screen.samples(&json!([of(0, "a"), of(0, "b"), of(5, "c"), of(5, "d")]));
        screen.samples(&Value::Null);
        assert_eq!(screen.state.lock().unwrap().sample.as_deref(), Some("  after 5: p -> c"));
    }

    #[test]
    fn the_status_names_what_there_is() {
        let state = State { latest: json!({"step": 3, "steps": 10, "loss": 2.5, "lr": 1e-4}), ..State::default() };
        assert_eq!(state.status(), "step 3/10  loss 2.5  lr 1.0e-4");
        let latest = json!({"step": 3, "steps": 10, "loss": 2.5, "eval/match/exact": 0.25, "eval_loss": 2});
        let evaluated = State { latest, ..State::default() };
        assert_eq!(evaluated.status(), "step 3/10  loss 2.5  eval loss 2  eval/match/exact 0.25");
        assert_eq!(
            (duration(30.2), duration(600.0), duration(7_260.0)),
            ("30 s".into(), "10 min".into(), "2 h 1 min".into())
        );
    }
}
