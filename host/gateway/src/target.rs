//! What a request's `model` names: a served model, or one of the tenant's assistants.
//!
//! Invariant: a served model is never shadowed by an assistant of its name.

use crate::app::App;
use crate::chain::{self, Ask};
use crate::dialect::responses::file_search::FileSearch;
use crate::error::{ApiError, Code};
use crate::fields::Fields;
use crate::held;
use crate::jobs;
use crate::run::{Cast, Run};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use stockade_core::TenantId;
use stockade_core::id::{AssistantName, ComponentName};
use stockade_core::infer::{ModelInfo, ModelKind};
use stockade_core::plugin::{Pinned, Pins, Role};
use stockade_core::registry::{AssistantVersion, Party, PromptRef, keep_tools};

/// What a request may say in place of an orchestrator's configuration.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Overlay {
    /// The tenant's tools that the turn may call; `None`: as configured.
    pub tools: Option<Vec<ComponentName>>,
    /// The system prompt.
    pub prompt: Option<PromptRef>,
    /// A search in place of the orchestrator.
    pub search: Option<FileSearch>,
    pub bounds: Vec<Bound>,
}

/// A bound of a request's on the tenant's tools, which the orchestrator keeps: one of its own `limits`.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    /// As the request calls it.
    field: &'static str,
    limit: &'static str,
    most: u32,
}

const CALLS_AT_ONCE: &str = "calls_at_once";

impl Bound {
    /// Most calls in a turn.
    pub fn tool_calls(most: u32) -> Self {
        Self { field: "max_tool_calls", limit: "tool_calls", most }
    }

    /// One call of a model's reply, unless the request takes several.
    pub fn one_call(several: bool) -> Option<Self> {
        (!several).then_some(Self { field: "parallel_tool_calls", limit: CALLS_AT_ONCE, most: 1 })
    }

    /// Most calls of a model's reply in an orchestrator's configuration.
    pub fn of_calls_at_once(config: &Value) -> Option<u64> {
        config["limits"][CALLS_AT_ONCE].as_u64()
    }

    /// Lowers the limit in a configuration; a lower one stays.
    fn over(&self, config: &mut Map<String, Value>) {
        let limits = config.entry("limits").or_insert_with(|| json!({}));
        let bound = limits[self.limit].as_u64().map_or(u64::from(self.most), |n| n.min(self.most.into()));
        match limits {
            Value::Object(limits) => {
                limits.insert(self.limit.into(), bound.into());
            }
            other => *other = json!({self.limit: bound}),
        }
    }
}

impl Overlay {
    fn over(self, app: &App, tenant: &TenantId, mut pins: Arc<Pins>) -> Result<Arc<Pins>, ApiError> {
        if let Some(search) = &self.search {
            pins = Arc::new(search.over(app, tenant, Pins::clone(&*pins))?);
        }
        let bound = pins.one(&Role::Orchestrator);
        if self.tools.is_none() && self.prompt.is_none() && (self.bounds.is_empty() || bound.is_none()) {
            return Ok(pins);
        }
        let bound = bound.ok_or_else(|| ApiError::new(Code::Conflict, "the tenant has bound no orchestrator"))?;
        let mut orchestrator = Pinned::clone(bound);
        let mut pins = Pins::clone(&*pins);
        let mut config = orchestrator.config.as_object().cloned().unwrap_or_default();
        if let Some(tools) = &self.tools {
            keep_tools(&mut pins, tools)?;
            config.insert("tools".into(), json!(tools));
        }
        if let Some(prompt) = &self.prompt {
            config.shift_remove("system");
            config.insert("prompt".into(), json!(prompt));
        }
        // Without a tool of the tenant's there is nothing to bound.
        if pins.tools().next().is_some() && !self.bounds.is_empty() {
            let record = held::record(app, tenant, &orchestrator.component)?;
            let manifest = record.map(|r| r.admitted.manifest).unwrap_or_default();
            let limits = &manifest["config"]["properties"]["limits"]["properties"];
            for bound in &self.bounds {
                if limits.get(bound.limit).is_none() {
                    let reason = format!("{} has no `limits.{}`", orchestrator.component, bound.limit);
                    return Err(ApiError::invalid(bound.field, reason));
                }
                bound.over(&mut config);
            }
        }
        orchestrator.config = config.into();
        pins.entries.insert(Role::Orchestrator, vec![Arc::new(orchestrator)]);
        Ok(Arc::new(pins))
    }
}

#[derive(Debug, Clone)]
pub struct Target {
    pub model: ModelInfo,
    pub assistant: Option<AssistantVersion>,
}

impl Target {
    /// The target that a request's body names; a checkpoint is served from its first use on.
    pub async fn named(app: &App, tenant: &TenantId, body: &Value) -> Result<Self, ApiError> {
        let name = Fields::root(body)?.need_str("model")?;
        jobs::serve_named(app, tenant, name).await?;
        Self::resolve(app, tenant, name)
    }

    /// A served model, or an assistant as `NAME` (its newest version) or `NAME@NUMBER`.
    pub fn resolve(app: &App, tenant: &TenantId, name: &str) -> Result<Self, ApiError> {
        let unknown = match app.model_of(tenant, name, ModelKind::Generator) {
            Ok(model) => return Ok(Self { model, assistant: None }),
            Err(e) if e.code == Code::NotFound => e,
            Err(e) => return Err(e),
        };
        let (name, version) = match name.rsplit_once('@') {
            Some((name, version)) => (name, Some(version.parse::<u32>().map_err(|_| unknown.clone())?)),
            None => (name, None),
        };
        let name = AssistantName::new(name).map_err(|_| unknown.clone())?;
        let found = match version {
            Some(version) => app.registry.assistant_version(tenant, &name, version)?,
            None => app.registry.assistant(tenant, &name)?,
        };
        let assistant = found.ok_or(unknown)?;
        Self::of(app, tenant, assistant)
    }

    /// An assistant's version.
    pub fn of(app: &App, tenant: &TenantId, assistant: AssistantVersion) -> Result<Self, ApiError> {
        let model = app.model_of(tenant, &assistant.definition.model, ModelKind::Generator)?;
        Ok(Self { model, assistant: Some(assistant) })
    }

    /// Puts the assistant's sampling into a request that leaves it out; `max_tokens` as the dialect calls it.
    pub fn fill_in(&self, body: &mut Value, max_tokens: &str) {
        let (Some(assistant), Value::Object(body)) = (&self.assistant, body) else {
            return;
        };
        for (field, value) in &assistant.definition.sampling {
            let field = if field == "max_tokens" { max_tokens } else { field };
            if body.get(field).is_none_or(Value::is_null) {
                body.insert(field.into(), value.clone());
            }
        }
    }

    /// Pins what the assistant runs, and what the request itself says of its tools and prompt. Values of the prompt's
    /// variables pass the input shields: the component that renders them does so behind the chain.
    pub async fn cast(&self, run: &Arc<Run>, party: Party, mut overlay: Overlay) -> Result<(), ApiError> {
        let pins = match &self.assistant {
            Some(assistant) => run.app.registry.pins_of(&run.tenant, assistant, &party)?,
            None => run.pins().clone(),
        };
        if self.assistant.is_some() && overlay.search.is_some() {
            let reason = "file_search stands beside a model; an assistant looks into its own memory";
            return Err(ApiError::invalid("tools", reason));
        }
        if let Some(prompt) = &mut overlay.prompt {
            chain::check_variables(run, &pins, &mut prompt.variables).await?;
        }
        let pins = overlay.over(&run.app, &run.tenant, pins)?;
        run.cast(Cast { assistant: self.assistant.clone(), party, pins });
        Ok(())
    }

    /// The ask within the assistant's bound on tokens.
    pub fn bounded(&self, mut ask: Ask) -> Ask {
        let bound = self.assistant.as_ref().and_then(|a| a.definition.limits.tokens);
        if let Some(bound) = bound {
            let asked = ask.sampling.max_tokens;
            ask.sampling.max_tokens = Some(asked.map_or(bound, |n| n.min(bound)));
        }
        ask
    }
}
