//! Memories keep texts and find them again. Others reach the bound one by [`crate::memories`].

pub use crate::bindings::memory::exports::stockade::plugin::memory::{Hit, Item, Query};

use super::glue;
use crate::bindings::memory::exports::stockade::plugin::memory as raw;
use crate::{Result, config, panic};
use serde::de::DeserializeOwned;

/// Long-term memory in named banks.
pub trait Memory: DeserializeOwned + 'static {
    /// Adds or replaces items and returns their ids in order.
    fn insert(&self, bank: String, items: Vec<Item>) -> Result<Vec<String>>;
    /// Best first.
    fn search(&self, bank: String, query: Query) -> Result<Vec<Hit>>;
    /// Returns how many were there.
    fn delete(&self, bank: String, ids: Vec<String>) -> Result<u32>;
}

impl<T: Memory> raw::Guest for glue::Memory<T> {
    fn insert(bank: String, items: Vec<Item>) -> Result<Vec<String>> {
        panic::install();
        config::load::<T>()?.insert(bank, items)
    }
    fn search(bank: String, query: Query) -> Result<Vec<Hit>> {
        panic::install();
        config::load::<T>()?.search(bank, query)
    }
    fn delete(bank: String, ids: Vec<String>) -> Result<u32> {
        panic::install();
        config::load::<T>()?.delete(bank, ids)
    }
}
