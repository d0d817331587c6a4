//! Curves of a training run: read from the lines of its metrics, drawn in a terminal, as SVG or as PNG.

pub mod braille;
mod font;
pub mod png;
pub mod svg;

use serde_json::Value;

/// Fields of a line that are no curve.
const NOT_DRAWN: [&str; 5] = ["step", "steps", "tokens", "seconds", "epoch"];
/// Curves that are drawn, by their names; others follow by name, as many as there is room for.
const FIRST: [&str; 12] = [
    "loss",
    "reward",
    "accuracy",
    "margin",
    "lr",
    "grad_norm",
    "tokens_per_second",
    "kl",
    "entropy",
    "completion_length",
    "clip_ratio",
    "zero_variance",
];
/// Curves of evaluator components: they follow the first of all.
const EVALUATORS: &str = "eval/";
/// Most panels of a picture.
pub const MAX_PANELS: usize = 8;
/// Most points of a curve that are kept; beyond, every second one goes.
const MAX_POINTS: usize = 4096;

/// One curve: a name and its points, by step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Curve {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    /// Points that are taken in, of those that come.
    stride: usize,
    seen: usize,
}

impl Curve {
    fn new(name: &str) -> Self {
        Self { name: name.into(), stride: 1, ..Self::default() }
    }

    fn push(&mut self, x: f64, y: f64) {
        // The newest always stands at the end.
        let keeps = self.seen.is_multiple_of(self.stride);
        if !keeps {
            self.points.pop();
        }
        self.points.push((x, y));
        self.seen += 1;
        if self.points.len() > MAX_POINTS {
            self.stride *= 2;
            let mut at = 0;
            self.points.retain(|_| {
                at += 1;
                at % 2 == 1
            });
        }
    }

    pub fn last(&self) -> Option<f64> {
        self.points.last().map(|p| p.1)
    }
}

/// All curves of a run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Curves {
    curves: Vec<Curve>,
}

/// What is drawn together: a curve, and its evaluation's where it has one.
#[derive(Debug)]
pub struct Panel<'a> {
    pub curves: Vec<&'a Curve>,
}

impl Curves {
    /// Takes in a line of `metrics.jsonl`; numbers beside `step` are curves.
    pub fn add(&mut self, line: &Value) {
        let Some(step) = line["step"].as_f64() else { return };
        for (name, value) in line.as_object().into_iter().flatten() {
            let Some(value) = value.as_f64().filter(|v| v.is_finite()) else { continue };
            if NOT_DRAWN.contains(&name.as_str()) {
                continue;
            }
            let at = self.curves.iter().position(|c| c.name == *name).unwrap_or_else(|| {
                self.curves.push(Curve::new(name));
                self.curves.len() - 1
            });
            self.curves[at].push(step, value);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.curves.is_empty()
    }

    pub fn get(&self, name: &str) -> Option<&Curve> {
        self.curves.iter().find(|c| c.name == name)
    }

    /// The panels, the loss first.
    pub fn panels<'a>(&'a self) -> Vec<Panel<'a>> {
        let rank = |c: &Curve| match FIRST.iter().position(|n| *n == c.name) {
            _ if c.name.starts_with(EVALUATORS) => 1,
            Some(at) => 2 * at,
            None => 2 * FIRST.len(),
        };
        let mut shown: Vec<&Curve> = self.curves.iter().filter(|c| c.name != "eval_loss").collect();
        shown.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.name.cmp(&b.name)));
        let panel = |c: &'a Curve| {
            let beside = if c.name == "loss" { self.get("eval_loss") } else { None };
            Panel { curves: std::iter::once(c).chain(beside).collect() }
        };
        shown.into_iter().take(MAX_PANELS).map(panel).collect()
    }
}

/// The ends of an axis and the values that it is marked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    pub low: f64,
    pub high: f64,
    pub ticks: Vec<f64>,
}

impl Axis {
    /// Around all values, marked at about `n` round ones.
    pub fn around(values: impl Iterator<Item = f64>, n: usize) -> Self {
        let (mut low, mut high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        if high - low <= high.abs().max(low.abs()) * 1e-9 {
            let room = if high == 0.0 { 1.0 } else { high.abs() * 0.1 };
            (low, high) = (low - room, high + room);
        }
        let rough = (high - low) / n.max(1) as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough).unwrap_or(rough);
        let first = (low / step).ceil() as i64;
        let ticks = (0..=n as i64 + 1).map(|i| (first + i) as f64 * step);
        Self { low, high, ticks: ticks.take_while(|t| *t <= high + step * 1e-6).collect() }
    }

    /// 0.0 at the low end, 1.0 at the high one.
    pub fn share(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }
}

/// A number in few characters.
pub fn short(value: f64) -> String {
    let size = value.abs();
    let text = match size {
        _ if value == 0.0 => "0".into(),
        _ if !(1e-3..1e6).contains(&size) => format!("{value:.1e}"),
        _ if size >= 100.0 => format!("{value:.0}"),
        _ if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    };
    match text.contains('.') && !text.contains('e') {
        true => text.trim_end_matches('0').trim_end_matches('.').into(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_become_curves_and_long_ones_are_thinned() {
        let mut curves = Curves::default();
        let n = 20_000;
        for step in 1..=n {
            let mut line = json!({"step": step, "steps": n, "loss": 1.0 / f64::from(step), "skipped": "x", "lr": 0.1});
            if step % 100 == 0 {
                line["eval_loss"] = 0.5.into();
                line["eval/match/exact"] = 0.25.into();
            }
            curves.add(&line);
        }
        let loss = curves.get("loss").unwrap();
        assert!((1024..=MAX_POINTS).contains(&loss.points.len()), "{}", loss.points.len());
        assert_eq!(loss.points.last().unwrap().0, f64::from(n));
        assert!(loss.points.windows(2).all(|w| w[0].0 < w[1].0));
        let panels = curves.panels();
        assert_eq!(
            panels.iter().map(|p| p.curves[0].name.as_str()).collect::<Vec<_>>(),
            ["loss", "eval/match/exact", "lr"]
        );
        assert_eq!(panels[0].curves.len(), 2);
    }

    #[test]
    fn axes_have_round_marks_inside_and_flat_curves_get_room() {
        let axis = Axis::around([0.13, 4.9].into_iter(), 5);
        assert_eq!(axis.ticks, [1.0, 2.0, 3.0, 4.0]);
        let flat = Axis::around([2.0, 2.0].into_iter(), 4);
        assert!(flat.low < 2.0 && flat.high > 2.0 && (flat.share(2.0) - 0.5).abs() < 1e-9);
        let none = Axis::around(std::iter::empty(), 4);
        assert_eq!((none.low, none.high), (0.0, 1.0));
        let mixed = Axis::around([-1e-12, 1e12].into_iter(), 4);
        assert!(!mixed.ticks.is_empty() && mixed.ticks.len() <= 6);
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in
            [(0.0, "0"), (1.5, "1.5"), (12345.0, "12345"), (0.05, "0.05"), (2e-5, "2.0e-5"), (-3.0, "-3")]
        {
            assert_eq!(short(value), text);
        }
    }
}
