//! Sets of tools: several in one component, for example those of a server elsewhere. Bound as `tool/NAME`, its tools
//! are called `NAME__TOOL`.

use super::glue;
use crate::bindings::toolset::exports::stockade::plugin::toolset as raw;
use crate::types::{ToolOutput, ToolSpec};
use crate::{Result, config, panic};
use serde::de::DeserializeOwned;

/// Several tools.
pub trait Toolset: DeserializeOwned + 'static {
    /// The tools under their own names; at most 128.
    fn list(&self) -> Result<Vec<ToolSpec>>;

    /// Runs one of them; `arguments` is JSON, an object unless the model is mistaken. What the model can put right comes
    /// back as [`ToolOutput::failed`]; an error fails the turn.
    fn call(&self, name: &str, arguments: serde_json::Value) -> Result<ToolOutput>;
}

impl<T: Toolset> raw::Guest for glue::Toolset<T> {
    fn list() -> Result<Vec<ToolSpec>> {
        panic::install();
        config::load::<T>()?.list()
    }
    fn call(name: String, arguments: String) -> Result<ToolOutput> {
        panic::install();
        let tools = config::load::<T>()?;
        match serde_json::from_str(&arguments) {
            Ok(arguments) => tools.call(&name, arguments),
            // Models make mistakes: this one can read what was wrong and try again.
            Err(e) => Ok(ToolOutput::failed(format!("arguments: {e}"))),
        }
    }
}
