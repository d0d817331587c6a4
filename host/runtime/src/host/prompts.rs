//! `prompt-store`: the tenant's bound prompt store, called as it is.

use super::{Answer, pass};
use crate::bindings::prompt_store::{Definition, Host, HostWithStore, Prompt, Rendered, Selector};
use crate::exports;
use crate::guest::Guest;
use stockade_core::plugin::Role;
use wasmtime::component::{Accessor, HasSelf};

impl Host for Guest {}

impl<T: Send + 'static> HostWithStore<T> for HasSelf<Guest> {
    async fn put(a: &Accessor<T, Self>, name: String, definition: Definition) -> Answer<u32> {
        pass(a, &Role::PromptStore, exports::PROMPT_PUT, (name, definition)).await
    }
    async fn get(a: &Accessor<T, Self>, name: String, selector: Selector) -> Answer<Prompt> {
        pass(a, &Role::PromptStore, exports::PROMPT_GET, (name, selector)).await
    }
    async fn names(a: &Accessor<T, Self>, after: Option<String>, limit: u32) -> Answer<Vec<String>> {
        pass(a, &Role::PromptStore, exports::PROMPT_NAMES, (after, limit)).await
    }
    async fn set_label(
        a: &Accessor<T, Self>,
        name: String,
        label: String,
        version: u32,
        expected: Option<u32>,
    ) -> Answer<()> {
        pass(a, &Role::PromptStore, exports::PROMPT_SET_LABEL, (name, label, version, expected)).await
    }
    async fn delete_label(a: &Accessor<T, Self>, name: String, label: String) -> Answer<()> {
        pass(a, &Role::PromptStore, exports::PROMPT_DELETE_LABEL, (name, label)).await
    }
    async fn render(a: &Accessor<T, Self>, name: String, selector: Selector, variables: String) -> Answer<Rendered> {
        pass(a, &Role::PromptStore, exports::PROMPT_RENDER, (name, selector, variables)).await
    }
}
