//! Evaluations by components: answers go out as the plugin API's samples, scores come back.

use super::components::{Components, message};
use serde_json::{Value, json};
use stockade_core::plugin::Role;
use stockade_core::train::{Evaluators, Metric, Sample, Score, TrainError};

/// The exported functions.
const METRICS: &str = "stockade:plugin/evaluator#metrics";
const EVALUATE: &str = "stockade:plugin/evaluator#evaluate";

/// Scores with components that fill the role `evaluator/NAME`, one call for all of the samples.
pub struct ComponentEvaluators<'a>(pub &'a dyn Components);

impl Evaluators for ComponentEvaluators<'_> {
    fn metrics(&self, component: &str) -> Result<Vec<Metric>, TrainError> {
        let fail = |reason: String| TrainError::Evaluator { component: component.into(), reason };
        let result = self.0.invoke(Role::Evaluator, component, METRICS, Vec::new()).map_err(fail)?;
        let metric = |value: &Value| {
            Some(Metric {
                name: value["name"].as_str()?.into(),
                higher_is_better: value["higher-is-better"].as_bool()?,
            })
        };
        let metrics = result.as_array().and_then(|all| all.iter().map(metric).collect());
        metrics.ok_or_else(|| fail(format!("`{METRICS}` answers with something else")))
    }

    fn evaluate(&self, component: &str, samples: &[Sample]) -> Result<Vec<Vec<Score>>, TrainError> {
        let fail = |reason: String| TrainError::Evaluator { component: component.into(), reason };
        let args = vec![Value::Array(samples.iter().map(sample).collect())];
        let result = self.0.invoke(Role::Evaluator, component, EVALUATE, args).map_err(fail)?;
        let scores = result.as_array().and_then(|lists| lists.iter().map(scores).collect());
        scores.ok_or_else(|| fail("a score is no finite number of a metric".into()))
    }
}

fn scores(list: &Value) -> Option<Vec<Score>> {
    let score =
        |value: &Value| Some(Score { metric: value["metric"].as_str()?.into(), value: value["value"].as_f64()? });
    list.as_array()?.iter().map(score).collect()
}

fn sample(s: &Sample) -> Value {
    json!({
        "input": s.input.to_string(),
        "messages": s.messages.iter().map(message).collect::<Vec<_>>(),
        "output": s.output,
        "expected": s.expected.as_ref().map(Value::to_string),
    })
}
