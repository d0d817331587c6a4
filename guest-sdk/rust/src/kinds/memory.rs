//! Memories keep texts and find them again. Others reach the bound one by [`crate::memories`].

pub use crate::bindings::memory::exports::stockade::plugin::memory::{
    Bank, BankKind, Document, Hit, Ingested, Item, Query, SearchMode,
};

use super::glue;
use crate::bindings::memory::exports::stockade::plugin::memory as raw;
use crate::{Error, Result, config, panic};
use serde::de::DeserializeOwned;

/// Long-term memory in named banks. Each method's contract is the one of the WIT; those with a default are what a simple
/// memory may leave out.
pub trait Memory: DeserializeOwned + 'static {
    fn create(&self, _name: String, _kind: BankKind, _config: String) -> Result<()> {
        left_out("banks that are made")
    }
    fn banks(&self, _after: Option<String>, _limit: u32) -> Result<Vec<Bank>> {
        left_out("a list of banks")
    }
    fn drop(&self, _bank: String) -> Result<()> {
        left_out("dropping banks")
    }
    /// Adds or replaces items and returns their ids in order.
    fn insert(&self, bank: String, items: Vec<Item>) -> Result<Vec<String>>;
    fn ingest(&self, _bank: String, _document: Document) -> Result<Ingested> {
        left_out("documents")
    }
    /// Items in the order of `ids`; unknown ones are left out.
    fn get(&self, bank: String, ids: Vec<String>) -> Result<Vec<Item>>;
    fn list(&self, _bank: String, _document: Option<String>, _after: Option<String>, _limit: u32) -> Result<Vec<Item>> {
        left_out("a list of items")
    }
    /// Best first.
    fn search(&self, bank: String, query: Query) -> Result<Vec<Hit>>;
    /// Returns how many were there.
    fn delete(&self, bank: String, ids: Vec<String>) -> Result<u32>;
    fn forget(&self, _bank: String, _document: String) -> Result<u32> {
        left_out("documents")
    }
}

fn left_out<T>(what: &str) -> Result<T> {
    Err(Error::Unavailable(format!("this memory has no part for {what}")))
}

impl<T: Memory> raw::Guest for glue::Memory<T> {
    fn create(name: String, kind: BankKind, config: String) -> Result<()> {
        panic::install();
        config::load::<T>()?.create(name, kind, config)
    }
    fn banks(after: Option<String>, limit: u32) -> Result<Vec<Bank>> {
        panic::install();
        config::load::<T>()?.banks(after, limit)
    }
    fn drop(bank: String) -> Result<()> {
        panic::install();
        Memory::drop(&*config::load::<T>()?, bank)
    }
    fn insert(bank: String, items: Vec<Item>) -> Result<Vec<String>> {
        panic::install();
        config::load::<T>()?.insert(bank, items)
    }
    fn ingest(bank: String, document: Document) -> Result<Ingested> {
        panic::install();
        config::load::<T>()?.ingest(bank, document)
    }
    fn get(bank: String, ids: Vec<String>) -> Result<Vec<Item>> {
        panic::install();
        config::load::<T>()?.get(bank, ids)
    }
    fn list(bank: String, document: Option<String>, after: Option<String>, limit: u32) -> Result<Vec<Item>> {
        panic::install();
        config::load::<T>()?.list(bank, document, after, limit)
    }
    fn search(bank: String, query: Query) -> Result<Vec<Hit>> {
        panic::install();
        config::load::<T>()?.search(bank, query)
    }
    fn delete(bank: String, ids: Vec<String>) -> Result<u32> {
        panic::install();
        config::load::<T>()?.delete(bank, ids)
    }
    fn forget(bank: String, document: String) -> Result<u32> {
        panic::install();
        config::load::<T>()?.forget(bank, document)
    }
}
