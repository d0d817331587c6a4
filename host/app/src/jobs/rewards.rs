//! Rewards by components, in the sandbox: rollouts go out as the plugin API's values, numbers come back.

use super::worker::Parts;
use crate::embedded;
use crate::failure::Failure;
use crate::sandbox::Sandbox;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use stockade_core::TenantId;
use stockade_core::chat::{Message, Part};
use stockade_core::id::RequestId;
use stockade_core::plugin::{Call, Pins, Plugins, TraceLog};
use stockade_core::train::{Rewards, Rollout, TrainError};

/// The exported function.
const SCORE: &str = "stockade:plugin/reward-scorer#score";

/// Scores with what a tenant has bound as `reward/NAME`, or holds as NAME or NAME@VERSION.
pub struct BoundRewards<'a> {
    pub parts: &'a Parts,
    pub tenant: &'a TenantId,
}

impl Rewards for BoundRewards<'_> {
    fn score(&self, component: &str, rollouts: &[Rollout]) -> Result<Vec<Option<f64>>, TrainError> {
        let fail = |reason: String| TrainError::Reward { component: component.into(), reason };
        let (registry, tenant) = (&self.parts.registry, self.tenant);
        let target = registry.pin_reward(tenant, component).map_err(|e| fail(e.to_string()))?;
        let pins = registry.pins(tenant).unwrap_or_else(|_| Arc::new(Pins::default()));
        let call = Call {
            tenant: tenant.clone(),
            request: RequestId("job".into()),
            target,
            pins,
            trace: Arc::new(TraceLog::default()),
            depth: 0,
        };
        self.parts.runtime.block_on(score(&*self.parts.plugins, call, component, rollouts))
    }
}

/// Scores with components of this machine, for a run without a server: `.wasm` files, and those that come with the host.
pub struct RewardFiles {
    runtime: tokio::runtime::Runtime,
    loaded: Vec<(String, Sandbox)>,
}

impl RewardFiles {
    /// Loads what a job names; paths stand from `beside` or from here.
    pub fn load(names: &[String], beside: &Path) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut loaded = Vec::new();
        for name in names {
            let shipped =
                embedded::SHIPPED.iter().find(|(shipped, _)| shipped == name).map(|(_, bytes)| bytes.to_vec());
            let bytes = match [beside.join(name), name.into()].into_iter().find(|p| p.is_file()) {
                Some(path) => std::fs::read(path)?,
                None => shipped.ok_or_else(|| {
                    Failure::not_found(format!(
                        "reward `{name}` is no .wasm file and no component that comes with the host"
                    ))
                })?,
            };
            loaded.push((name.clone(), runtime.block_on(Sandbox::load(&bytes))?));
        }
        Ok(Self { runtime, loaded })
    }
}

impl Rewards for RewardFiles {
    fn score(&self, component: &str, rollouts: &[Rollout]) -> Result<Vec<Option<f64>>, TrainError> {
        let missing = || TrainError::Reward { component: component.into(), reason: "is not loaded".into() };
        let (_, sandbox) = self.loaded.iter().find(|(name, _)| name == component).ok_or_else(missing)?;
        self.runtime.block_on(score(&sandbox.plugins, sandbox.call(json!({})), component, rollouts))
    }
}

/// One call for all of `rollouts`.
pub async fn score(
    plugins: &dyn Plugins,
    call: Call,
    component: &str,
    rollouts: &[Rollout],
) -> Result<Vec<Option<f64>>, TrainError> {
    let fail = |reason: String| TrainError::Reward { component: component.into(), reason };
    let args = vec![Value::Array(rollouts.iter().map(rollout).collect())];
    let done = plugins.invoke(call, SCORE.into(), args).await.map_err(|e| fail(e.to_string()))?;
    let scores = done.result.as_array().map(Vec::as_slice).unwrap_or_default();
    if scores.len() != rollouts.len() {
        return Err(fail(format!("{} scores for {} rollouts", scores.len(), rollouts.len())));
    }
    let finite = |v: &Value| match v {
        Value::Null => Ok(None),
        v => v.as_f64().filter(|n| n.is_finite()).map(Some).ok_or_else(|| fail(format!("{v} is no finite number"))),
    };
    scores.iter().map(finite).collect()
}

fn rollout(r: &Rollout) -> Value {
    json!({
        "messages": r.messages.iter().map(message).collect::<Vec<_>>(),
        "completion": r.completion,
        "reference": r.reference.as_ref().map(Value::to_string),
    })
}

/// A message in the plugin API's words. Pictures do not come here: no trainer has them.
fn message(m: &Message) -> Value {
    let part = |p: &Part| match p {
        Part::Text { text } => Some(json!({"text": text})),
        Part::Reasoning { text } => Some(json!({"reasoning": text})),
        Part::ToolCall(call) => {
            Some(json!({"tool-call": {"id": call.id, "name": call.name, "arguments": call.arguments}}))
        }
        Part::ToolResult(result) => Some(json!({"tool-result": {
            "call-id": result.call_id, "content": result.content, "is-error": result.is_error}})),
        Part::Image(_) => None,
    };
    let parts: Vec<Value> = m.parts.iter().filter_map(part).collect();
    json!({"role": m.role.as_str(), "parts": parts, "name": m.name})
}
