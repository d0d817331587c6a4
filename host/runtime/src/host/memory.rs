//! `memory`: the tenant's bound memory, called as it is.

use super::{Answer, pass};
use crate::bindings::memory::{Hit, Host, HostWithStore, Item, Query};
use crate::exports;
use crate::guest::Guest;
use stockade_core::plugin::Role;
use wasmtime::component::{Accessor, HasSelf};

impl Host for Guest {}

impl<T: Send + 'static> HostWithStore<T> for HasSelf<Guest> {
    async fn insert(a: &Accessor<T, Self>, bank: String, items: Vec<Item>) -> Answer<Vec<String>> {
        pass(a, &Role::Memory, exports::MEMORY_INSERT, (bank, items)).await
    }
    async fn search(a: &Accessor<T, Self>, bank: String, query: Query) -> Answer<Vec<Hit>> {
        pass(a, &Role::Memory, exports::MEMORY_SEARCH, (bank, query)).await
    }
    async fn delete(a: &Accessor<T, Self>, bank: String, ids: Vec<String>) -> Answer<u32> {
        pass(a, &Role::Memory, exports::MEMORY_DELETE, (bank, ids)).await
    }
}
