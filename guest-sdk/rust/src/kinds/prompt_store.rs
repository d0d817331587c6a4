//! Prompt stores keep prompts in immutable versions under movable labels. Others reach the bound one by
//! [`crate::prompts`].

pub use crate::bindings::prompt_store::exports::stockade::plugin::prompt_store::{
    Content, Definition, Prompt, Rendered, Selector, Template, TemplateMessage, Variable, VariableKind,
};

use super::glue;
use crate::bindings::prompt_store::exports::stockade::plugin::prompt_store as raw;
use crate::{Result, config, panic};
use serde::de::DeserializeOwned;

/// Prompts with immutable versions and movable labels. Each method's contract is the one of the WIT.
pub trait PromptStore: DeserializeOwned + 'static {
    /// Adds a version and returns its number; the same definition as the latest version returns that one's.
    fn put(&self, name: String, definition: Definition) -> Result<u32>;
    fn get(&self, name: String, selector: Selector) -> Result<Prompt>;
    /// Names after `after`, in order, at most `limit`.
    fn names(&self, after: Option<String>, limit: u32) -> Result<Vec<String>>;
    /// Points a label at a version if it points at `expected` now, else `Error::Conflict`.
    fn set_label(&self, name: String, label: String, version: u32, expected: Option<u32>) -> Result<()>;
    fn delete_label(&self, name: String, label: String) -> Result<()>;
    /// Fills the variables in; `variables` is a JSON object.
    fn render(&self, name: String, selector: Selector, variables: String) -> Result<Rendered>;
}

impl<T: PromptStore> raw::Guest for glue::PromptStore<T> {
    fn put(name: String, definition: Definition) -> Result<u32> {
        panic::install();
        config::load::<T>()?.put(name, definition)
    }
    fn get(name: String, selector: Selector) -> Result<Prompt> {
        panic::install();
        config::load::<T>()?.get(name, selector)
    }
    fn names(after: Option<String>, limit: u32) -> Result<Vec<String>> {
        panic::install();
        config::load::<T>()?.names(after, limit)
    }
    fn set_label(name: String, label: String, version: u32, expected: Option<u32>) -> Result<()> {
        panic::install();
        config::load::<T>()?.set_label(name, label, version, expected)
    }
    fn delete_label(name: String, label: String) -> Result<()> {
        panic::install();
        config::load::<T>()?.delete_label(name, label)
    }
    fn render(name: String, selector: Selector, variables: String) -> Result<Rendered> {
        panic::install();
        config::load::<T>()?.render(name, selector, variables)
    }
}
