//! `prompt-store`: the tenant's bound prompt store, called as it is.
//!
//! Invariants:
//! - what a component has rendered stands in its request's trace, with the version and the label that chose it
//! - a component never forces a protected label

use super::{Answer, pass};
use crate::bindings::prompt_store::{
    Change, Content, Definition, Difference, Filter, Form, Host, HostWithStore, Label, LabelChange, LabelMove, Prompt,
    Rendered, Selector, Summary, Unit, Version,
};
use crate::exports;
use crate::guest::Guest;
use stockade_core::plugin::{PromptUse, Role};
use wasmtime::component::{Accessor, HasSelf};

const STORE: Role = Role::PromptStore;

impl Host for Guest {}

impl<T: Send + 'static> HostWithStore<T> for HasSelf<Guest> {
    async fn put(a: &Accessor<T, Self>, name: String, definition: Definition, change: Change) -> Answer<Version> {
        pass(a, &STORE, exports::PROMPT_PUT, (name, definition, change)).await
    }
    async fn get(a: &Accessor<T, Self>, name: String, selector: Selector) -> Answer<Prompt> {
        pass(a, &STORE, exports::PROMPT_GET, (name, selector)).await
    }
    async fn versions(a: &Accessor<T, Self>, name: String, after: Option<u32>, limit: u32) -> Answer<Vec<Version>> {
        pass(a, &STORE, exports::PROMPT_VERSIONS, (name, after, limit)).await
    }
    async fn find(a: &Accessor<T, Self>, filter: Filter, after: Option<String>, limit: u32) -> Answer<Vec<Summary>> {
        pass(a, &STORE, exports::PROMPT_FIND, (filter, after, limit)).await
    }
    async fn set_label(a: &Accessor<T, Self>, name: String, label: String, change: LabelChange) -> Answer<Label> {
        let change = LabelChange { force: false, ..change };
        pass(a, &STORE, exports::PROMPT_SET_LABEL, (name, label, change)).await
    }
    async fn delete_label(a: &Accessor<T, Self>, name: String, label: String, change: LabelChange) -> Answer<()> {
        let change = LabelChange { force: false, ..change };
        pass(a, &STORE, exports::PROMPT_DELETE_LABEL, (name, label, change)).await
    }
    async fn label_moves(a: &Accessor<T, Self>, name: String) -> Answer<Vec<LabelMove>> {
        pass(a, &STORE, exports::PROMPT_LABEL_MOVES, (name,)).await
    }
    async fn delete(a: &Accessor<T, Self>, name: String, version: Option<u32>, _force: bool) -> Answer<()> {
        pass(a, &STORE, exports::PROMPT_DELETE, (name, version, false)).await
    }
    async fn render(a: &Accessor<T, Self>, name: String, selector: Selector, variables: String) -> Answer<Rendered> {
        let answer = pass(a, &STORE, exports::PROMPT_RENDER, (name.clone(), selector, variables)).await?;
        if let Ok(rendered) = &answer {
            a.with(|mut store| store.get().context.call.trace.record_prompt(used(name, rendered)));
        }
        Ok(answer)
    }
    async fn render_inline(a: &Accessor<T, Self>, definition: Definition, variables: String) -> Answer<Content> {
        pass(a, &STORE, exports::PROMPT_RENDER_INLINE, (definition, variables)).await
    }
    async fn diff(
        a: &Accessor<T, Self>,
        name: String,
        before: Selector,
        after: Selector,
        unit: Unit,
    ) -> Answer<Vec<Difference>> {
        pass(a, &STORE, exports::PROMPT_DIFF, (name, before, after, unit)).await
    }
    async fn dump(a: &Accessor<T, Self>, name: String, selector: Selector, form: Form) -> Answer<String> {
        pass(a, &STORE, exports::PROMPT_DUMP, (name, selector, form)).await
    }
    async fn load(
        a: &Accessor<T, Self>,
        name: Option<String>,
        text: String,
        form: Form,
        change: Change,
    ) -> Answer<Vec<Version>> {
        pass(a, &STORE, exports::PROMPT_LOAD, (name, text, form, change)).await
    }
}

fn used(name: String, rendered: &Rendered) -> PromptUse {
    PromptUse {
        name,
        version: rendered.version,
        digest: rendered.digest.clone(),
        label: rendered.exposure.as_ref().map(|e| e.label.clone()),
        label_revision: rendered.exposure.as_ref().map(|e| e.revision),
    }
}
