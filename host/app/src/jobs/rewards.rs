//! Rewards by components: rollouts go out as the plugin API's values, numbers come back.

use super::components::{Components, message};
use serde_json::{Value, json};
use stockade_core::plugin::Role;
use stockade_core::train::{Rewards, Rollout, TrainError};

/// The exported function.
const SCORE: &str = "stockade:plugin/reward-scorer#score";

/// Scores with components that fill the role `reward/NAME`, one call for all of the rollouts.
pub struct ComponentRewards<'a>(pub &'a dyn Components);

impl Rewards for ComponentRewards<'_> {
    fn score(&self, component: &str, rollouts: &[Rollout]) -> Result<Vec<Option<f64>>, TrainError> {
        let fail = |reason: String| TrainError::Reward { component: component.into(), reason };
        let args = vec![Value::Array(rollouts.iter().map(rollout).collect())];
        let result = self.0.invoke(Role::Reward, component, SCORE, args).map_err(fail)?;
        let scores = result.as_array().map(Vec::as_slice).unwrap_or_default();
        if scores.len() != rollouts.len() {
            return Err(fail(format!("{} scores for {} rollouts", scores.len(), rollouts.len())));
        }
        let finite = |v: &Value| match v {
            Value::Null => Ok(None),
            v => v.as_f64().filter(|n| n.is_finite()).map(Some).ok_or_else(|| fail(format!("{v} is no finite number"))),
        };
        scores.iter().map(finite).collect()
    }
}

fn rollout(r: &Rollout) -> Value {
    json!({
        "messages": r.messages.iter().map(message).collect::<Vec<_>>(),
        "completion": r.completion,
        "reference": r.reference.as_ref().map(Value::to_string),
    })
}
