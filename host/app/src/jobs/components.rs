//! Components that a run calls by the names of its job, in the sandbox: what a tenant of this host has bound or holds, or
//! files of this machine. [`super::rewards`] and [`super::evaluators`] say what they are asked.

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
use stockade_core::plugin::{Call, Pins, Plugins, Role, TraceLog};

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

/// What a tenant has bound as `ROLE/NAME`, or holds as NAME or NAME@VERSION.
pub struct BoundComponents<'a> {
    pub parts: &'a Parts,
    pub tenant: &'a TenantId,
}

impl Components for BoundComponents<'_> {
    fn invoke(
        &self,
        role: fn(ComponentName) -> Role,
        name: &str,
        function: &str,
        args: Vec<Value>,
    ) -> Result<Value, String> {
        let (registry, tenant) = (&self.parts.registry, self.tenant);
        let target = registry.pin_named(tenant, role, name).map_err(|e| e.to_string())?;
        let pins = registry.pins(tenant).unwrap_or_else(|_| Arc::new(Pins::default()));
        let call = Call {
            tenant: tenant.clone(),
            request: RequestId("job".into()),
            target,
            pins,
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
