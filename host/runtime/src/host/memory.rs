//! `memory`: the tenant's bound memory, called as it is, each bank under the name that the request's scope gives it.

use super::{Answer, denied, pass};
use crate::bindings::memory::{Hit, Host, HostWithStore, Item, Query};
use crate::bindings::types::Error;
use crate::exports;
use crate::guest::Guest;
use stockade_core::plugin::Role;
use wasmtime::component::{Accessor, HasSelf};

impl Host for Guest {}

impl<T: Send + 'static> HostWithStore<T> for HasSelf<Guest> {
    async fn insert(a: &Accessor<T, Self>, bank: String, items: Vec<Item>) -> Answer<Vec<String>> {
        match scoped(a, bank, true) {
            Ok(bank) => pass(a, &Role::Memory, exports::MEMORY_INSERT, (bank, items)).await,
            Err(e) => Ok(Err(e)),
        }
    }
    async fn search(a: &Accessor<T, Self>, bank: String, query: Query) -> Answer<Vec<Hit>> {
        match scoped(a, bank, false) {
            Ok(bank) => pass(a, &Role::Memory, exports::MEMORY_SEARCH, (bank, query)).await,
            Err(e) => Ok(Err(e)),
        }
    }
    async fn delete(a: &Accessor<T, Self>, bank: String, ids: Vec<String>) -> Answer<u32> {
        match scoped(a, bank, true) {
            Ok(bank) => pass(a, &Role::Memory, exports::MEMORY_DELETE, (bank, ids)).await,
            Err(e) => Ok(Err(e)),
        }
    }
}

/// The bank that the request's assistant means by this name.
fn scoped<T: Send + 'static>(a: &Accessor<T, HasSelf<Guest>>, bank: String, write: bool) -> Result<String, Error> {
    let pins = a.with(|mut store| store.get().context.call.pins.clone());
    pins.bank(bank.clone(), write).ok_or_else(|| denied("bank", &bank))
}
