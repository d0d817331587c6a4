//! `memory`: the tenant's bound memory, each bank under the name that the request's scope gives it, and what it finds by way
//! of the input shields.

use super::{Answer, denied, pass};
use crate::bindings::memory::{Bank, BankKind, Document, Hit, Host, HostWithStore, Ingested, Item, Query};
use crate::bindings::types::Error;
use crate::exports;
use crate::guest::Guest;
use crate::screen;
use stockade_core::plugin::Role;
use wasmtime::component::{Accessor, HasSelf};

impl Host for Guest {}

impl<T: Send + 'static> HostWithStore<T> for HasSelf<Guest> {
    async fn create(a: &Accessor<T, Self>, name: String, kind: BankKind, config: String) -> Answer<()> {
        match scoped(a, name, true) {
            Ok(bank) => pass(a, &Role::Memory, exports::MEMORY_CREATE, (bank, kind, config)).await,
            Err(e) => Ok(Err(e)),
        }
    }
    async fn banks(a: &Accessor<T, Self>, after: Option<String>, limit: u32) -> Answer<Vec<Bank>> {
        // The names of all banks are not for a request that may touch some of them.
        if a.with(|mut store| store.get().context.call.pins.banks.is_some()) {
            return Ok(Err(denied("bank", "*")));
        }
        pass(a, &Role::Memory, exports::MEMORY_BANKS, (after, limit)).await
    }
    async fn drop(a: &Accessor<T, Self>, bank: String) -> Answer<()> {
        match scoped(a, bank, true) {
            Ok(bank) => pass(a, &Role::Memory, exports::MEMORY_DROP, (bank,)).await,
            Err(e) => Ok(Err(e)),
        }
    }
    async fn insert(a: &Accessor<T, Self>, bank: String, items: Vec<Item>) -> Answer<Vec<String>> {
        match scoped(a, bank, true) {
            Ok(bank) => pass(a, &Role::Memory, exports::MEMORY_INSERT, (bank, items)).await,
            Err(e) => Ok(Err(e)),
        }
    }
    async fn ingest(a: &Accessor<T, Self>, bank: String, document: Document) -> Answer<Ingested> {
        match scoped(a, bank, true) {
            Ok(bank) => pass(a, &Role::Memory, exports::MEMORY_INGEST, (bank, document)).await,
            Err(e) => Ok(Err(e)),
        }
    }
    async fn get(a: &Accessor<T, Self>, bank: String, ids: Vec<String>) -> Answer<Vec<Item>> {
        match scoped(a, bank, false) {
            Ok(bank) => shown(a, pass(a, &Role::Memory, exports::MEMORY_GET, (bank, ids)).await?, texts).await,
            Err(e) => Ok(Err(e)),
        }
    }
    async fn list(
        a: &Accessor<T, Self>,
        bank: String,
        document: Option<String>,
        after: Option<String>,
        limit: u32,
    ) -> Answer<Vec<Item>> {
        match scoped(a, bank, false) {
            Ok(bank) => {
                shown(a, pass(a, &Role::Memory, exports::MEMORY_LIST, (bank, document, after, limit)).await?, texts)
                    .await
            }
            Err(e) => Ok(Err(e)),
        }
    }
    async fn search(a: &Accessor<T, Self>, bank: String, query: Query) -> Answer<Vec<Hit>> {
        match scoped(a, bank, false) {
            Ok(bank) => {
                let found = pass(a, &Role::Memory, exports::MEMORY_SEARCH, (bank, query)).await?;
                shown(a, found, |hit: &mut Hit| texts(&mut hit.item)).await
            }
            Err(e) => Ok(Err(e)),
        }
    }
    async fn delete(a: &Accessor<T, Self>, bank: String, ids: Vec<String>) -> Answer<u32> {
        match scoped(a, bank, true) {
            Ok(bank) => pass(a, &Role::Memory, exports::MEMORY_DELETE, (bank, ids)).await,
            Err(e) => Ok(Err(e)),
        }
    }
    async fn forget(a: &Accessor<T, Self>, bank: String, document: String) -> Answer<u32> {
        match scoped(a, bank, true) {
            Ok(bank) => pass(a, &Role::Memory, exports::MEMORY_FORGET, (bank, document)).await,
            Err(e) => Ok(Err(e)),
        }
    }
}

/// The bank that the request's assistant means by this name.
fn scoped<T: Send + 'static>(a: &Accessor<T, HasSelf<Guest>>, bank: String, write: bool) -> Result<String, Error> {
    let pins = a.with(|mut store| store.get().context.call.pins.clone());
    pins.bank(bank.clone(), write).ok_or_else(|| denied("bank", &bank))
}

fn texts(item: &mut Item) -> [&mut String; 2] {
    [&mut item.text, &mut item.metadata]
}

/// What the input shields let the caller see of what was found. What they block is left out.
async fn shown<T: Send + 'static, I: Send>(
    a: &Accessor<T, HasSelf<Guest>>,
    found: Result<Vec<I>, Error>,
    texts: fn(&mut I) -> [&mut String; 2],
) -> Answer<Vec<I>> {
    let items = match found {
        Ok(items) => items,
        Err(e) => return Ok(Err(e)),
    };
    let (host, context) = a.with(|mut store| {
        let guest = store.get();
        (guest.host.clone(), guest.context.clone())
    });
    let shown = screen::found(&host, &context, items, texts).await;
    Ok(shown.map_err(|stop| stop.into_guest_error()))
}
