//! Rewards a completion whose final answer is the reference.
//!
//! Says nothing (`none`) of a rollout without a reference. What a completion's final answer is stands in [`answer`], what
//! is equal to what in [`value`].

mod answer;
mod value;

use answer::{Find, find};
use stockade_guest::prelude::*;
use stockade_guest::reward_scorer::Rollout;
use value::Value;

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ExactAnswer {
    find: Find,
    correct: f64,
    wrong: f64,
    missing: f64,
    marked: f64,
    tolerance: f64,
}

impl Default for ExactAnswer {
    fn default() -> Self {
        Self { find: Find::Auto, correct: 1.0, wrong: 0.0, missing: 0.0, marked: 0.0, tolerance: 1e-6 }
    }
}

impl RewardScorer for ExactAnswer {
    fn score(&self, rollouts: Vec<Rollout>) -> Result<Vec<Option<f64>>> {
        let weights = [self.correct, self.wrong, self.missing, self.marked];
        if !weights.iter().all(|w| w.is_finite()) || !(0.0..=0.5).contains(&self.tolerance) {
            return Err(Error::Invalid("rewards must be finite, tolerance from 0 to 0.5".into()));
        }
        Ok(rollouts.iter().map(|r| self.reward(r)).collect())
    }
}

impl ExactAnswer {
    fn reward(&self, rollout: &Rollout) -> Option<f64> {
        let wanted = references(rollout.reference.as_deref()?);
        if wanted.is_empty() {
            return None;
        }
        let numeric = wanted.iter().all(|w| w.number().is_some());
        let Some(found) = find(&rollout.completion, self.find, numeric) else { return Some(self.missing) };
        let given = Value::new(found.text);
        let right = wanted.iter().any(|w| w.equals(&given, self.tolerance));
        let form = if found.marked { self.marked } else { 0.0 };
        Some(form + if right { self.correct } else { self.wrong })
    }
}

/// The answers that are right: a text or number, or a list of them. A solution that ends in a marked answer stands for
/// that answer.
fn references(json: &str) -> Vec<Value> {
    let one = |value: &serde_json::Value| {
        let text = match value {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Number(number) => number.to_string(),
            serde_json::Value::Bool(yes) => yes.to_string(),
            _ => return None,
        };
        let marked = find(&text, Find::Marked, false).map(|found| found.text.to_string());
        Some(Value::new(&marked.unwrap_or(text)))
    };
    match serde_json::from_str(json) {
        Ok(serde_json::Value::Array(many)) => many.iter().filter_map(one).collect(),
        Ok(value) => one(&value).into_iter().collect(),
        Err(_) => Vec::new(),
    }
}

stockade_guest::export!(ExactAnswer as reward_scorer);

#[cfg(test)]
mod tests;
