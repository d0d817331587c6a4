//! Llama Stack's tool routes over the tenant's bound tools, in their last shapes (0.2 and 0.6 clients read the same
//! replies). A tool group is a binding `tool/NAME`; one that was registered with an MCP endpoint binds the component `mcp`.

pub mod groups;
pub mod runtime;
mod shape;

use crate::error::ApiError;
use crate::run::Run;
use serde_json::{Value, json};
use std::sync::Arc;
use stockade_core::chat::ToolSpec;
use stockade_core::plugin::{Pinned, Pins, Role, TOOLSET_SEPARATOR};

/// The component that speaks to MCP servers.
const MCP: &str = "mcp";

/// Llama Stack's own tool groups and the shipped components that do their work: group, component, its tools.
const BUILTIN: [(&str, &str, &[&str]); 2] = [
    ("builtin::rag", "knowledge-search", &["knowledge_search"]),
    ("builtin::code_interpreter", "code-interpreter-python", &["code_interpreter"]),
];

/// A tool group: its identifier and what it is bound to.
struct Group {
    id: String,
    bound: String,
    pinned: Arc<Pinned>,
}

impl Group {
    fn all(pins: &Pins) -> Vec<Self> {
        let group = |(name, pinned): (&stockade_core::id::ComponentName, &Arc<Pinned>)| Self {
            id: pinned.config["group"].as_str().unwrap_or(name.as_str()).into(),
            bound: name.to_string(),
            pinned: pinned.clone(),
        };
        pins.tools().map(group).collect()
    }

    /// By its identifier, its bound name, or Llama Stack's name for it.
    fn find(pins: &Pins, id: &str) -> Result<Self, ApiError> {
        // `builtin::rag/knowledge_search` names a tool of the group.
        let id = id.split('/').next().unwrap_or_default();
        let ours = BUILTIN.iter().find(|(group, ..)| *group == id).map_or(id, |(_, component, _)| component);
        let found = Self::all(pins).into_iter().find(|g| g.id == id || g.bound == ours);
        found.ok_or_else(|| ApiError::not_found("tool group", id))
    }

    /// With the caller's own headers for the MCP server, where it is one.
    fn with_headers(mut self, headers: &Value) -> Self {
        self.pinned = with_headers(self.pinned, headers);
        self
    }

    async fn tools(&self, run: &Run) -> Result<Vec<ToolSpec>, ApiError> {
        Ok(run.app.plugins.tools(run.call(&self.pinned)).await?)
    }
}

fn with_headers(pinned: Arc<Pinned>, headers: &Value) -> Arc<Pinned> {
    let Some(headers) = headers.as_object().filter(|h| !h.is_empty()) else { return pinned };
    if pinned.component.name.as_str() != MCP {
        return pinned;
    }
    let mut pinned = (*pinned).clone();
    let mut all = pinned.config["headers"].as_object().cloned().unwrap_or_default();
    all.extend(headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())));
    pinned.config["headers"] = Value::Object(all);
    Arc::new(pinned)
}

/// The component that offers a tool, and the tool's own name in a set. Besides the names that models are told, Llama
/// Stack's are taken: underscores for hyphens, its built-in tools, and a tool of a set by its own name where that is the
/// only one.
async fn resolve(run: &Run, name: &str) -> Result<(Arc<Pinned>, Option<String>), ApiError> {
    let pins = run.pins();
    let builtin =
        BUILTIN.iter().find(|(.., tools)| tools.contains(&name)).map(|(_, component, _)| component.to_string());
    let hyphens = match name.split_once(TOOLSET_SEPARATOR) {
        Some((set, tool)) => format!("{}{TOOLSET_SEPARATOR}{tool}", set.replace('_', "-")),
        None => name.replace('_', "-"),
    };
    for known in [Some(name.to_string()), Some(hyphens), builtin].into_iter().flatten() {
        if let Some((pinned, tool)) = pins.tool(&known) {
            return Ok((pinned.clone(), tool));
        }
    }
    let mut found = Vec::new();
    for group in Group::all(pins) {
        // A server that is away has nothing to offer now.
        let tools = group.tools(run).await.unwrap_or_default();
        let whole = format!("{}{TOOLSET_SEPARATOR}{name}", group.bound);
        found.extend(tools.iter().any(|t| t.name == whole).then(|| group.pinned.clone()));
    }
    match found.as_slice() {
        [one] => Ok((one.clone(), Some(name.into()))),
        [] => Err(ApiError::not_found("tool", name)),
        _ => Err(ApiError::invalid("tool_name", "several groups have a tool of this name: write GROUP__TOOL")),
    }
}

/// Headers for one MCP server: an `authorization` of the request, or those of the provider data that 0.2 clients send.
fn mcp_headers(authorization: Option<&str>, provider_data: Option<&str>, url: Option<&str>) -> Value {
    if let Some(token) = authorization {
        return json!({"authorization": format!("Bearer {token}")});
    }
    let data = provider_data.filter(|d| d.len() <= 16 << 10).and_then(|d| serde_json::from_str::<Value>(d).ok());
    let headers = data.as_ref().and_then(|d| d["mcp_headers"].get(url?)).cloned().unwrap_or_default();
    let texts = headers.as_object().is_some_and(|h| h.values().all(Value::is_string));
    if texts { headers } else { Value::Null }
}

/// The name that a tool group is bound under: `builtin::rag/knowledge_search`, `mcp::wiki`, `GROUP/NAME` or `NAME`.
pub fn bound_to(id: &str) -> Result<String, ApiError> {
    let group = id.split('/').next().unwrap_or_default();
    if let Some((_, component, _)) = BUILTIN.iter().find(|(builtin, ..)| *builtin == group) {
        return Ok(component.to_string());
    }
    if group.contains("::") {
        return groups::bound_name(group);
    }
    Ok(id.rsplit('/').next().unwrap_or_default().into())
}

fn role_of(bound: &str) -> Result<Role, ApiError> {
    format!("tool/{bound}").parse().map_err(|_| ApiError::invalid("toolgroup_id", "no name can be made of it"))
}

fn shortened(text: &str) -> String {
    text.chars().take(128).collect()
}
