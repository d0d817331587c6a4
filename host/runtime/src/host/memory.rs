//! `memory`: the tenant's bound memory, called as it is.

use super::{Answer, pass};
use crate::bindings::memory::{Bank, BankKind, Document, Hit, Host, HostWithStore, Ingested, Item, Query};
use crate::exports;
use crate::guest::Guest;
use stockade_core::plugin::Role;
use wasmtime::component::{Accessor, HasSelf};

impl Host for Guest {}

impl<T: Send + 'static> HostWithStore<T> for HasSelf<Guest> {
    async fn create(a: &Accessor<T, Self>, name: String, kind: BankKind, config: String) -> Answer<()> {
        pass(a, &Role::Memory, exports::MEMORY_CREATE, (name, kind, config)).await
    }
    async fn banks(a: &Accessor<T, Self>, after: Option<String>, limit: u32) -> Answer<Vec<Bank>> {
        pass(a, &Role::Memory, exports::MEMORY_BANKS, (after, limit)).await
    }
    async fn drop(a: &Accessor<T, Self>, bank: String) -> Answer<()> {
        pass(a, &Role::Memory, exports::MEMORY_DROP, (bank,)).await
    }
    async fn insert(a: &Accessor<T, Self>, bank: String, items: Vec<Item>) -> Answer<Vec<String>> {
        pass(a, &Role::Memory, exports::MEMORY_INSERT, (bank, items)).await
    }
    async fn ingest(a: &Accessor<T, Self>, bank: String, document: Document) -> Answer<Ingested> {
        pass(a, &Role::Memory, exports::MEMORY_INGEST, (bank, document)).await
    }
    async fn get(a: &Accessor<T, Self>, bank: String, ids: Vec<String>) -> Answer<Vec<Item>> {
        pass(a, &Role::Memory, exports::MEMORY_GET, (bank, ids)).await
    }
    async fn list(
        a: &Accessor<T, Self>,
        bank: String,
        document: Option<String>,
        after: Option<String>,
        limit: u32,
    ) -> Answer<Vec<Item>> {
        pass(a, &Role::Memory, exports::MEMORY_LIST, (bank, document, after, limit)).await
    }
    async fn search(a: &Accessor<T, Self>, bank: String, query: Query) -> Answer<Vec<Hit>> {
        pass(a, &Role::Memory, exports::MEMORY_SEARCH, (bank, query)).await
    }
    async fn delete(a: &Accessor<T, Self>, bank: String, ids: Vec<String>) -> Answer<u32> {
        pass(a, &Role::Memory, exports::MEMORY_DELETE, (bank, ids)).await
    }
    async fn forget(a: &Accessor<T, Self>, bank: String, document: String) -> Answer<u32> {
        pass(a, &Role::Memory, exports::MEMORY_FORGET, (bank, document)).await
    }
}
