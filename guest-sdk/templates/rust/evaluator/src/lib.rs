//! Scores answers by exact match with the expected one.

use stockade_guest::evaluator::{Metric, Sample, Score};
use stockade_guest::prelude::*;

#[derive(Deserialize)]
struct Plugin {}

impl Evaluator for Plugin {
    fn metrics(&self) -> Vec<Metric> {
        vec![Metric { name: "exact-match".into(), higher_is_better: true }]
    }

    fn evaluate(&self, samples: Vec<Sample>) -> Result<Vec<Vec<Score>>> {
        let score = |sample: Sample| {
            let expected: Option<Value> = sample.expected.map(|e| serde_json::from_str(&e)).transpose()?;
            let same = expected.as_ref().and_then(Value::as_str).is_some_and(|e| e == sample.output.trim());
            let value = if same { 1.0 } else { 0.0 };
            Ok(vec![Score { metric: "exact-match".into(), value, explanation: None }])
        };
        samples.into_iter().map(score).collect()
    }
}

stockade_guest::export!(Plugin as evaluator);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_answers_score_one() {
        let plugin = testing::plugin::<Plugin>(json!({})).unwrap();
        let sample = |output: &str| Sample {
            input: "{}".into(),
            messages: Vec::new(),
            output: output.into(),
            expected: Some(r#""42""#.into()),
        };
        let scores = plugin.evaluate(vec![sample(" 42\n"), sample("43")]).unwrap();
        assert_eq!((scores[0][0].value, scores[1][0].value), (1.0, 0.0));
    }
}
