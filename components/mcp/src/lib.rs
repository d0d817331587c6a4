//! The tools of an MCP server: the component speaks the Model Context Protocol over streamable HTTP and offers what the
//! server lists.
//!
//! Invariant: a session lives for one call. What a server sends is data: it is bounded, read as JSON and passed on as text.

mod content;
mod names;
mod session;
mod sse;

use session::Session;
use std::collections::BTreeMap;
use stockade_guest::prelude::*;
use stockade_guest::warn;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mcp {
    url: String,
    #[serde(default)]
    secret: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    tools: Option<Vec<String>>,
    #[serde(default = "a_minute")]
    timeout_ms: u32,
    /// For whoever reads the binding.
    #[serde(default, rename = "group")]
    _group: Option<String>,
}

fn a_minute() -> u32 {
    60_000
}

/// Most tools that are offered; the host takes no more.
const MAX_TOOLS: usize = 128;
/// Most pages of a list.
const MAX_PAGES: usize = 20;

impl Toolset for Mcp {
    fn list(&self) -> Result<Vec<ToolSpec>> {
        let mut session = Session::open(self)?;
        let mut specs = Vec::new();
        let mut cursor = Value::Null;
        for _ in 0..MAX_PAGES {
            let params = if cursor.is_null() { json!({}) } else { json!({"cursor": cursor}) };
            let mut page = session.ask("tools/list", params)?.map_err(|e| Error::Other(e.to_string()))?;
            let Value::Array(tools) = page["tools"].take() else {
                return Err(Error::Other("the server's list of tools is none".into()));
            };
            specs.extend(tools.iter().filter_map(|tool| self.spec(tool)));
            cursor = page["nextCursor"].take();
            if cursor.is_null() {
                break;
            }
        }
        session.close();
        if specs.len() > MAX_TOOLS {
            warn!("{} of {} tools are left out", specs.len() - MAX_TOOLS, specs.len());
            specs.truncate(MAX_TOOLS);
        }
        Ok(specs)
    }

    fn call(&self, name: &str, arguments: Value) -> Result<ToolOutput> {
        let name = names::theirs(name);
        if !arguments.is_object() {
            return Ok(ToolOutput::failed("arguments: an object was expected"));
        }
        if !self.may_call(&name) {
            return Err(Error::NotFound(format!("tool `{name}`")));
        }
        let mut session = Session::open(self)?;
        let answer = session.ask("tools/call", json!({"name": name, "arguments": arguments}))?;
        session.close();
        Ok(match answer {
            Ok(result) => content::output(&result),
            // An unknown tool or bad arguments: the model can read what was wrong.
            Err(refusal) => ToolOutput::failed(refusal.to_string()),
        })
    }
}

impl Mcp {
    fn may_call(&self, name: &str) -> bool {
        self.tools.as_ref().is_none_or(|allowed| allowed.iter().any(|a| a == name))
    }

    /// A tool as the host takes it; `None` for what may not be seen or has no name that a model could call.
    fn spec(&self, tool: &Value) -> Option<ToolSpec> {
        let name = tool["name"].as_str().filter(|name| self.may_call(name))?;
        let Some(ours) = names::ours(name) else {
            warn!("a tool with the name {name:?} is left out");
            return None;
        };
        let description = tool["description"].as_str().or(tool["title"].as_str()).unwrap_or_default();
        let schema = &tool["inputSchema"];
        let object = json!({"type": "object"});
        Some(ToolSpec::new(ours, description, if schema.is_object() { schema } else { &object }))
    }
}

stockade_guest::export!(Mcp as toolset);

#[cfg(test)]
mod tests;
