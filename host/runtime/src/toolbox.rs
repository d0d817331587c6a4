//! Bound tools, whether their component offers one or a set, for guests and the gateway alike.

use crate::bindings::types::{Error, ToolOutput, ToolSpec};
use crate::call::Stop;
use crate::exports::{self, TOOLSET};
use crate::guest::Context;
use crate::runtime::Inner;
use crate::screen;
use std::sync::Arc;
use stockade_core::plugin::{Role, TOOLSET_SEPARATOR};

/// Most tools of a set.
const MAX_TOOLS: usize = 128;
/// Longest name of a tool that models are told.
const MAX_NAME_BYTES: usize = 64;

/// The tools of the call's component under their bound names.
pub(crate) async fn list(host: &Arc<Inner>, context: Arc<Context>) -> Result<Vec<ToolSpec>, Stop> {
    let bound = bound_name(&context, None);
    if !is_set(host, &context).await? {
        let spec = host.ask_plain(context, exports::TOOL_DESCRIBE).await?;
        return Ok(vec![ToolSpec { name: bound, ..spec }]);
    }
    let specs: Vec<ToolSpec> = host.ask(context, exports::TOOLSET_LIST, ()).await?;
    if specs.len() > MAX_TOOLS {
        let text = format!("a set has at most {MAX_TOOLS} tools, not {}", specs.len());
        return Err(Stop::Answered(Error::TooLarge(text), None));
    }
    let named = specs.into_iter().map(|spec| {
        let name = format!("{bound}{TOOLSET_SEPARATOR}{}", spec.name);
        if spec.name.is_empty()
            || name.len() > MAX_NAME_BYTES
            || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
        {
            let rule = format!("1 to {MAX_NAME_BYTES} of a-z, A-Z, 0-9, `_`, `-`");
            return Err(Stop::Answered(Error::Invalid(format!("tool `{name}`: {rule}")), None));
        }
        Ok(ToolSpec { name, ..spec })
    });
    named.collect()
}

/// Calls the component's one tool, or `tool` of its set, between the tenant's shields.
pub(crate) async fn call(
    host: &Arc<Inner>,
    context: Arc<Context>,
    tool: Option<String>,
    arguments: String,
) -> Result<ToolOutput, Stop> {
    let name = bound_name(&context, tool.as_deref());
    let arguments = screen::arguments(host, &context, &name, arguments).await?;
    let answered = run(host, context.clone(), tool, arguments).await;
    screen::result(host, &context, &name, answered).await
}

/// What models call the tool.
fn bound_name(context: &Context, tool: Option<&str>) -> String {
    let bound = match &context.call.target.role {
        Role::Tool(name) => name.to_string(),
        other => other.to_string(),
    };
    match tool {
        None => bound,
        Some(tool) => format!("{bound}{TOOLSET_SEPARATOR}{tool}"),
    }
}

async fn run(
    host: &Arc<Inner>,
    context: Arc<Context>,
    tool: Option<String>,
    arguments: String,
) -> Result<ToolOutput, Stop> {
    match (is_set(host, &context).await?, tool) {
        (false, None) => host.ask(context, exports::TOOL_CALL, (arguments,)).await,
        (true, Some(tool)) => host.ask(context, exports::TOOLSET_CALL, (tool, arguments)).await,
        (_, tool) => {
            let name = tool.unwrap_or_else(|| context.call.target.role.to_string());
            Err(Stop::Answered(Error::NotFound(format!("tool `{name}`")), None))
        }
    }
}

/// Whether the component offers several tools.
async fn is_set(host: &Arc<Inner>, context: &Context) -> Result<bool, Stop> {
    let machine = host.machine(false).map_err(Stop::Broken)?;
    let loaded = machine.load(host, &context.call.target.component).await.map_err(Stop::Broken)?;
    Ok(loaded.component.get_export_index(None, TOOLSET).is_some())
}
