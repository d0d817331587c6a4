//! Tools do something for a model: one tool a component; for several see [`super::toolset`].

use super::glue;
use crate::bindings::tool::exports::stockade::plugin::tool as raw;
use crate::types::{ToolOutput, ToolSpec};
use crate::{Result, config, panic};
use serde::de::DeserializeOwned;

/// One tool.
pub trait Tool: DeserializeOwned + 'static {
    /// What the model's arguments are read into.
    type Arguments: DeserializeOwned;

    /// What the tool is; the same in every call. The host replaces the name by the bound one.
    fn describe(&self) -> ToolSpec;

    /// Runs it. What the model can put right comes back as [`ToolOutput::failed`]; an error fails the turn.
    fn call(&self, arguments: Self::Arguments) -> Result<ToolOutput>;
}

impl ToolOutput {
    pub fn ok(content: impl Into<String>) -> Self {
        Self { content: content.into(), is_error: false }
    }
    /// The tool could not do it; `why` is for the model to read.
    pub fn failed(why: impl Into<String>) -> Self {
        Self { content: why.into(), is_error: true }
    }
}

impl<T: Tool> raw::Guest for glue::Tool<T> {
    fn describe() -> ToolSpec {
        panic::install();
        config::load_or_panic::<T>().describe()
    }
    fn call(arguments: String) -> Result<ToolOutput> {
        panic::install();
        let tool = config::load::<T>()?;
        match serde_json::from_str(&arguments) {
            Ok(arguments) => tool.call(arguments),
            // Models make mistakes: this one can read what was wrong and try again.
            Err(e) => Ok(ToolOutput::failed(format!("arguments: {e}"))),
        }
    }
}
