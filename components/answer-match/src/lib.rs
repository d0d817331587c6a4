//! Compares answers with the expected one: by their words as SQuAD's script does, and by their last number.
//!
//! A sample without an expected answer has no scores; `number` has none where no number is expected.

mod compare;

use compare::{contains, f1, last_number, words};
use stockade_guest::evaluator::{Metric, Sample, Score};
use stockade_guest::prelude::*;

/// Most answers of a sample that are right.
const MAX_EXPECTED: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Measure {
    /// The same words.
    Exact,
    /// The expected words stand in the answer, one after the other.
    Contains,
    /// Harmonic mean of precision and recall over the words.
    F1,
    /// The last number of the answer has the expected one's value.
    Number,
}

impl Measure {
    fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Contains => "contains",
            Self::F1 => "f1",
            Self::Number => "number",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AnswerMatch {
    metrics: Vec<Measure>,
    tolerance: f64,
}

impl Default for AnswerMatch {
    fn default() -> Self {
        Self { metrics: vec![Measure::Exact, Measure::Contains, Measure::F1, Measure::Number], tolerance: 1e-6 }
    }
}

impl Evaluator for AnswerMatch {
    fn metrics(&self) -> Vec<Metric> {
        let metric = |measure: &Measure| Metric { name: measure.name().into(), higher_is_better: true };
        self.metrics.iter().map(metric).collect()
    }

    fn evaluate(&self, samples: Vec<Sample>) -> Result<Vec<Vec<Score>>> {
        if !(0.0..=0.5).contains(&self.tolerance) {
            return Err(Error::Invalid("tolerance must be from 0 to 0.5".into()));
        }
        samples.iter().map(|sample| self.scores(sample)).collect()
    }
}

impl AnswerMatch {
    fn scores(&self, sample: &Sample) -> Result<Vec<Score>> {
        let expected = expected(sample.expected.as_deref())?;
        let given = words(&sample.output);
        let best = |measure: Measure| {
            let each = expected.iter().filter_map(|wanted| self.value(measure, wanted, &given, &sample.output));
            each.reduce(f64::max)
        };
        let score = |measure: &Measure| {
            let value = best(*measure)?;
            Some(Score { metric: measure.name().into(), value, explanation: None })
        };
        Ok(self.metrics.iter().filter_map(score).collect())
    }

    /// `None` where the measure says nothing of this expected answer.
    fn value(&self, measure: Measure, wanted: &str, given: &[String], output: &str) -> Option<f64> {
        let wanted_words = words(wanted);
        let truth = |yes: bool| if yes { 1.0 } else { 0.0 };
        match measure {
            Measure::Exact => Some(truth(wanted_words == given)),
            Measure::Contains => Some(truth(contains(given, &wanted_words))),
            Measure::F1 => Some(f1(given, &wanted_words)),
            Measure::Number => {
                let wanted = last_number(wanted)?;
                let near = |given: f64| (wanted - given).abs() <= self.tolerance * wanted.abs().max(given.abs());
                Some(truth(last_number(output).is_some_and(near)))
            }
        }
    }
}

/// The answers that are right: a text, number or truth value, or a list of them. None where there is none, or something
/// else.
fn expected(json: Option<&str>) -> Result<Vec<String>> {
    let Some(json) = json else { return Ok(Vec::new()) };
    let value: Value =
        serde_json::from_str(json).map_err(|e| Error::Invalid(format!("the expected answer is no JSON: {e}")))?;
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(yes) => Some(yes.to_string()),
        _ => None,
    };
    Ok(match &value {
        Value::Array(many) => many.iter().filter_map(text).take(MAX_EXPECTED).collect(),
        one => text(one).into_iter().collect(),
    })
}

stockade_guest::export!(AnswerMatch as evaluator);

#[cfg(test)]
mod tests;
