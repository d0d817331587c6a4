//! Components that a run calls by the names of its job, in the sandbox: what a tenant of this host has bound or holds, or
//! files of this machine. [`super::rewards`] and [`super::evaluators`] say what they are asked.

use super::watcher::Watcher;
use super::worker::Parts;
use crate::embedded;
use crate::failure::Failure;
use crate::sandbox::Sandbox;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use stockade_core::TenantId;
use stockade_core::chat::{Message, Part};
use stockade_core::id::{ComponentName, RequestId};
use stockade_core::plugin::{Call, Pinned, Pins, Plugins, Role, TraceLog};
use stockade_core::registry::{Job, Registry, RegistryError, Scorer};
use stockade_core::train::TrainError;

/// Calls components by name. Blocks.
pub trait Components: Sync {
    /// What the exported `function` of the component NAME in the role that `role` makes answers, or why it does not.
    fn invoke(
        &self,
        role: fn(ComponentName) -> Role,
        name: &str,
        function: &str,
        args: Vec<Value>,
    ) -> Result<Value, String>;
}

/// What a tenant has bound as `ROLE/NAME`, or holds as NAME or NAME@VERSION: looked up once for each run.
///
/// Invariant: all calls of a run are calls of one version with one configuration, and a later run of the job makes the
/// same ones for as long as the tenant holds that version.
pub struct BoundComponents<'a> {
    parts: &'a Parts,
    tenant: &'a TenantId,
    /// By the job's names.
    scorers: Vec<(String, Arc<Pinned>)>,
    /// For what these call in turn.
    pins: Arc<Pins>,
}

impl<'a> BoundComponents<'a> {
    /// Looks up what `job` names, as its runs before had it, and notes what that is where it is new.
    ///
    /// # Errors
    /// [`TrainError::Reward`] and [`TrainError::Evaluator`] for what the tenant has not.
    pub fn pin(parts: &'a Parts, tenant: &'a TenantId, job: &Job, watcher: &Watcher) -> Result<Self, TrainError> {
        let mut scorers = Vec::new();
        for component in &job.outline.rewards {
            let fail = |reason: String| TrainError::Reward { component: component.clone(), reason };
            scorers.push(pinned(&parts.registry, tenant, job, Role::Reward, component, watcher).map_err(fail)?);
        }
        for component in &job.outline.evaluators {
            let fail = |reason: String| TrainError::Evaluator { component: component.clone(), reason };
            scorers.push(pinned(&parts.registry, tenant, job, Role::Evaluator, component, watcher).map_err(fail)?);
        }
        let pins = parts.registry.pins(tenant).unwrap_or_else(|_| Arc::new(Pins::default()));
        Ok(Self { parts, tenant, scorers, pins })
    }

    /// For the job's record.
    pub fn scorers(&self) -> Vec<Scorer> {
        let scorer = |(name, pinned): &(String, Arc<Pinned>)| Scorer {
            role: pinned.role.clone(),
            name: name.clone(),
            component: pinned.component.clone(),
            config: pinned.config.clone(),
        };
        self.scorers.iter().map(scorer).collect()
    }
}

fn pinned(
    registry: &Registry,
    tenant: &TenantId,
    job: &Job,
    role: fn(ComponentName) -> Role,
    name: &str,
    watcher: &Watcher,
) -> Result<(String, Arc<Pinned>), String> {
    let filled = role_of(role, name).ok_or("is no component's name")?;
    let before = job.scorers.iter().find(|scorer| scorer.role == filled && scorer.name == name);
    let again = before.and_then(|Scorer { component, config, .. }| {
        let pinned = registry.pin(tenant, filled.clone(), &component.name, Some(&component.version), config.clone());
        pinned.ok().filter(|pinned| pinned.component == *component)
    });
    if let Some(again) = again {
        return Ok((name.to_owned(), Arc::new(again)));
    }
    let found = registry.pin_named(tenant, role, name).map_err(|e: RegistryError| e.to_string())?;
    let (component, digest) = (&found.component, &found.component.digest);
    match before {
        None => watcher.tell(&format!("{filled} is {component}, sha256 {digest}")),
        Some(before) => watcher.tell(&format!(
            "{filled} has changed: {}, sha256 {}, is gone; from here on it is {component}, sha256 {digest}",
            before.component, before.component.digest
        )),
    }
    Ok((name.to_owned(), found))
}

/// The role that a component of this name fills for a job.
fn role_of(role: fn(ComponentName) -> Role, name: &str) -> Option<Role> {
    ComponentName::new(name.split('@').next()?).ok().map(role)
}

impl Components for BoundComponents<'_> {
    fn invoke(
        &self,
        role: fn(ComponentName) -> Role,
        name: &str,
        function: &str,
        args: Vec<Value>,
    ) -> Result<Value, String> {
        let role = role_of(role, name);
        let found = self.scorers.iter().find(|(known, pinned)| known == name && Some(&pinned.role) == role.as_ref());
        let (_, target) = found.ok_or("is none of the job's components")?;
        let call = Call {
            tenant: self.tenant.clone(),
            request: RequestId("job".into()),
            target: target.clone(),
            pins: self.pins.clone(),
            trace: Arc::new(TraceLog::default()),
            depth: 0,
        };
        let done = self.parts.runtime.block_on(self.parts.plugins.invoke(call, function.into(), args));
        done.map(|done| done.result).map_err(|e| e.to_string())
    }
}

/// Components of this machine, for a run without a server: `.wasm` files, and those that come with the host.
pub struct ComponentFiles {
    runtime: tokio::runtime::Runtime,
    loaded: Vec<(String, Sandbox)>,
}

impl ComponentFiles {
    /// Loads what a job names; paths stand from `beside` or from here.
    pub fn load<'a>(names: impl Iterator<Item = &'a String>, beside: &Path) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut loaded: Vec<(String, Sandbox)> = Vec::new();
        for name in names {
            if loaded.iter().any(|(known, _)| known == name) {
                continue;
            }
            let shipped =
                embedded::SHIPPED.iter().find(|(shipped, _)| shipped == name).map(|(_, bytes)| bytes.to_vec());
            let bytes = match [beside.join(name), name.into()].into_iter().find(|p| p.is_file()) {
                Some(path) => std::fs::read(path)?,
                None => shipped.ok_or_else(|| {
                    Failure::not_found(format!("`{name}` is no .wasm file and no component that comes with the host"))
                })?,
            };
            loaded.push((name.clone(), runtime.block_on(Sandbox::load(&bytes))?));
        }
        Ok(Self { runtime, loaded })
    }
}

impl Components for ComponentFiles {
    fn invoke(
        &self,
        _: fn(ComponentName) -> Role,
        name: &str,
        function: &str,
        args: Vec<Value>,
    ) -> Result<Value, String> {
        let (_, sandbox) = self.loaded.iter().find(|(known, _)| known == name).ok_or("is not loaded")?;
        let done = self.runtime.block_on(sandbox.plugins.invoke(sandbox.call(json!({})), function.into(), args));
        done.map(|done| done.result).map_err(|e| e.to_string())
    }
}

/// A message in the plugin API's words. Pictures do not come here: no trainer has them.
pub fn message(m: &Message) -> Value {
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
