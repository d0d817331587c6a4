//! `[eval]`: when the run is evaluated, what the weights are asked then, and who scores their answers.

use super::optim::MAX_STEPS;
use super::read::Section;
use super::{DataSpec, Method};
use serde::Serialize;
use std::collections::BTreeSet;
use stockade_core::train::TrainError;

/// Most prompts that are answered at an evaluation.
const MAX_SAMPLES: u64 = 1024;
/// Prompts that are answered where evaluators are named and no number is.
const SAMPLES: usize = 32;
/// Most answers that are shown.
const MAX_SHOWN: u64 = 8;
/// Most evaluator components.
const MAX_EVALUATORS: usize = 8;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EvalSpec {
    /// Steps between evaluations; the last step is always evaluated.
    pub every: u64,
    /// Rows that are read, from the front; 0: all.
    pub rows: usize,
    /// Evaluations without a better one before the run ends; 0: never.
    pub patience: u64,
    /// By how much a loss or a metric must be better to count.
    pub min_delta: f64,
    /// Of the held-out rows, the first so many are answered by the weights as they are; 0: none.
    pub samples: usize,
    /// Of the answers, the first so many are told with the run.
    pub show: usize,
    /// Longest answer.
    pub max_tokens: usize,
    /// Answers are drawn at; 0: the likeliest tokens.
    pub temperature: f64,
    /// Components that score the answers.
    pub evaluators: Vec<String>,
    /// `EVALUATOR/METRIC` that tells the best evaluation; absent: the loss does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_by: Option<String>,
}

/// What an evaluator is called in metrics: the component's name without version, a file's without folder and ending.
pub fn label(evaluator: &str) -> &str {
    let file = evaluator.rsplit('/').next().unwrap_or(evaluator);
    let name = file.strip_suffix(".wasm").unwrap_or(file);
    name.split_once('@').map_or(name, |(name, _)| name)
}

/// `every`: of checkpoints, which are the default occasions to evaluate.
pub(super) fn read(mut eval: Section<'_>, every: u64, method: Method, data: &DataSpec) -> Result<EvalSpec, TrainError> {
    let evaluators = eval.texts("evaluators")?.unwrap_or_default();
    let labels: BTreeSet<&str> = evaluators.iter().map(|name| label(name)).collect();
    if evaluators.len() > MAX_EVALUATORS {
        return Err(eval.refuse("evaluators", format!("more than {MAX_EVALUATORS}")));
    }
    if labels.len() < evaluators.len() || labels.contains("") {
        return Err(eval.refuse("evaluators", "two of them have one name, or one has none"));
    }
    let default = if evaluators.is_empty() { 0 } else { SAMPLES };
    let samples = eval.size("samples", 0..=MAX_SAMPLES)?.unwrap_or(default);
    if samples == 0 && !evaluators.is_empty() {
        return Err(eval.refuse("samples", "evaluators score answers: it takes at least 1"));
    }
    let reason = match method {
        Method::Reward | Method::Classify | Method::Embed => Some(format!("a model of `{method}` writes no answers")),
        _ if data.eval.is_none() && data.eval_split == 0.0 => {
            Some("no row is held out: it takes data.eval or data.eval_split".into())
        }
        _ => None,
    };
    if let Some(reason) = reason.filter(|_| samples > 0) {
        return Err(eval.refuse("samples", reason));
    }
    let best_by = eval.text("best_by")?;
    if let Some(metric) = &best_by
        && !metric.split_once('/').is_some_and(|(label, metric)| labels.contains(label) && !metric.is_empty())
    {
        return Err(eval.refuse("best_by", "expected EVALUATOR/METRIC of one of `evaluators`"));
    }
    let spec = EvalSpec {
        every: eval.integer("every", 1..=MAX_STEPS)?.unwrap_or(every),
        rows: eval.size("rows", 0..=1 << 32)?.unwrap_or(0),
        patience: eval.integer("patience", 0..=1_000_000)?.unwrap_or(0),
        min_delta: eval.number("min_delta", 0.0..=1e6)?.unwrap_or(0.0),
        samples,
        show: eval.size("show", 0..=MAX_SHOWN)?.unwrap_or(4),
        max_tokens: eval.size("max_tokens", 1..=4096)?.unwrap_or(128),
        temperature: eval.number("temperature", 0.0..=2.0)?.unwrap_or(0.0),
        best_by,
        evaluators,
    };
    eval.finish()?;
    Ok(spec)
}
