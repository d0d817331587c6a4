//! Prompt stores keep prompts in immutable versions under movable labels. Others reach the bound one by
//! [`crate::prompts`].

pub use crate::bindings::prompt_store::exports::stockade::plugin::prompt_store::{
    Change, ChatItem, Content, Definition, Difference, Exposure, Filter, Form, Format, Label, LabelChange, LabelMove,
    Partial, Prompt, Rendered, Selector, Share, Sticky, Summary, Template, TemplateMessage, Unit, Variable,
    VariableKind, Version,
};

use super::glue;
use crate::bindings::prompt_store::exports::stockade::plugin::prompt_store as raw;
use crate::types::Error;
use crate::{Result, config, panic};
use serde::de::DeserializeOwned;

fn unserved<T>(what: &str) -> Result<T> {
    Err(Error::Unavailable(format!("this prompt store does not serve `{what}`")))
}

/// Prompts with immutable versions and movable labels. Each method's contract is the one of the WIT; the least that a
/// store has to serve is reading.
pub trait PromptStore: DeserializeOwned + 'static {
    fn get(&self, name: String, selector: Selector) -> Result<Prompt>;
    /// Prompts after the name `after`, in order, at most `limit`.
    fn find(&self, filter: Filter, after: Option<String>, limit: u32) -> Result<Vec<Summary>>;
    /// Fills the variables in; `variables` is a JSON object.
    fn render(&self, name: String, selector: Selector, variables: String) -> Result<Rendered>;

    /// Adds a version; the same definition as the latest version adds none and returns that one.
    fn put(&self, _name: String, _definition: Definition, _change: Change) -> Result<Version> {
        unserved("put")
    }
    fn versions(&self, _name: String, _after: Option<u32>, _limit: u32) -> Result<Vec<Version>> {
        unserved("versions")
    }
    /// Points a label at versions if its revision is the expected one, else `Error::Conflict`.
    fn set_label(&self, _name: String, _label: String, _change: LabelChange) -> Result<Label> {
        unserved("set-label")
    }
    fn delete_label(&self, _name: String, _label: String, _change: LabelChange) -> Result<()> {
        unserved("delete-label")
    }
    fn label_moves(&self, _name: String) -> Result<Vec<LabelMove>> {
        unserved("label-moves")
    }
    fn delete(&self, _name: String, _version: Option<u32>, _force: bool) -> Result<()> {
        unserved("delete")
    }
    fn render_inline(&self, _definition: Definition, _variables: String) -> Result<Content> {
        unserved("render-inline")
    }
    fn diff(&self, _name: String, _before: Selector, _after: Selector, _unit: Unit) -> Result<Vec<Difference>> {
        unserved("diff")
    }
    fn dump(&self, _name: String, _selector: Selector, _form: Form) -> Result<String> {
        unserved("dump")
    }
    fn load(&self, _name: Option<String>, _text: String, _form: Form, _change: Change) -> Result<Vec<Version>> {
        unserved("load")
    }
}

fn store<T: PromptStore>() -> Result<std::rc::Rc<T>> {
    panic::install();
    config::load::<T>()
}

impl<T: PromptStore> raw::Guest for glue::PromptStore<T> {
    fn put(name: String, definition: Definition, change: Change) -> Result<Version> {
        store::<T>()?.put(name, definition, change)
    }
    fn get(name: String, selector: Selector) -> Result<Prompt> {
        store::<T>()?.get(name, selector)
    }
    fn versions(name: String, after: Option<u32>, limit: u32) -> Result<Vec<Version>> {
        store::<T>()?.versions(name, after, limit)
    }
    fn find(filter: Filter, after: Option<String>, limit: u32) -> Result<Vec<Summary>> {
        store::<T>()?.find(filter, after, limit)
    }
    fn set_label(name: String, label: String, change: LabelChange) -> Result<Label> {
        store::<T>()?.set_label(name, label, change)
    }
    fn delete_label(name: String, label: String, change: LabelChange) -> Result<()> {
        store::<T>()?.delete_label(name, label, change)
    }
    fn label_moves(name: String) -> Result<Vec<LabelMove>> {
        store::<T>()?.label_moves(name)
    }
    fn delete(name: String, version: Option<u32>, force: bool) -> Result<()> {
        store::<T>()?.delete(name, version, force)
    }
    fn render(name: String, selector: Selector, variables: String) -> Result<Rendered> {
        store::<T>()?.render(name, selector, variables)
    }
    fn render_inline(definition: Definition, variables: String) -> Result<Content> {
        store::<T>()?.render_inline(definition, variables)
    }
    fn diff(name: String, before: Selector, after: Selector, unit: Unit) -> Result<Vec<Difference>> {
        store::<T>()?.diff(name, before, after, unit)
    }
    fn dump(name: String, selector: Selector, form: Form) -> Result<String> {
        store::<T>()?.dump(name, selector, form)
    }
    fn load(name: Option<String>, text: String, form: Form, change: Change) -> Result<Vec<Version>> {
        store::<T>()?.load(name, text, form, change)
    }
}
