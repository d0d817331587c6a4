//! Memory in banks: texts found again by meaning, words, keys and edges, and documents taken apart.
//!
//! All of it stands in one state bucket and a vector index a bank; each call is a fresh instance that finds it there.
//! Invariant: an item is there from the moment that its row (a chunk: its document's row) is written, and everything
//! that leads to it, vectors, words and edges, is written before. What leads to nothing, since a call was cut off, is
//! passed over and in time removed.

mod bank;
mod chunking;
mod embedding;
mod extract;
mod fusion;
mod graph;
mod ingest;
mod insert;
mod keyword;
mod records;
mod search;
mod segment;
mod words;

use stockade_guest::memory::{Bank, BankKind, Document, Hit, Ingested, Item, Query};
use stockade_guest::prelude::*;

/// Most items or ids of one call.
const MAX_ITEMS: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Banks {
    #[serde(default = "default_bucket")]
    bucket: String,
    #[serde(default = "default_model")]
    embedding_model: String,
    #[serde(default = "default_language")]
    language: String,
}

fn default_bucket() -> String {
    "memory".into()
}
fn default_model() -> String {
    "minilm".into()
}
fn default_language() -> String {
    "english".into()
}

impl Memory for Banks {
    fn create(&self, name: String, kind: BankKind, config: String) -> Result<()> {
        self.make(&name, kind, &config).map(|_| ())
    }

    fn banks(&self, after: Option<String>, limit: u32) -> Result<Vec<Bank>> {
        within(limit)?;
        self.list_banks(after.as_deref(), limit)
    }

    fn drop(&self, bank: String) -> Result<()> {
        self.bank(&bank)?.remove()
    }

    fn insert(&self, bank: String, items: Vec<Item>) -> Result<Vec<String>> {
        at_most("items", items.len())?;
        insert::insert(&self.bank_or_new(&bank)?, items)
    }

    fn ingest(&self, bank: String, document: Document) -> Result<Ingested> {
        ingest::ingest(&self.bank_or_new(&bank)?, document)
    }

    fn get(&self, bank: String, ids: Vec<String>) -> Result<Vec<Item>> {
        at_most("ids", ids.len())?;
        let Some(bank) = self.find(&bank)? else { return Ok(Vec::new()) };
        let mut live = records::Live::new(&bank);
        let found = ids.into_iter().map(|id| Ok(live.get(&id)?.map(|record| record.into_item(id))));
        found.filter_map(Result::transpose).collect()
    }

    fn list(&self, bank: String, document: Option<String>, after: Option<String>, limit: u32) -> Result<Vec<Item>> {
        within(limit)?;
        let Some(bank) = self.find(&bank)? else { return Ok(Vec::new()) };
        records::list(&bank, document.as_deref(), after, limit as usize)
    }

    fn search(&self, bank: String, query: Query) -> Result<Vec<Hit>> {
        within(query.limit)?;
        let Some(bank) = self.find(&bank)? else { return Ok(Vec::new()) };
        search::search(&bank, query)
    }

    fn delete(&self, bank: String, ids: Vec<String>) -> Result<u32> {
        at_most("ids", ids.len())?;
        let Some(bank) = self.find(&bank)? else { return Ok(0) };
        insert::delete(&bank, ids)
    }

    fn forget(&self, bank: String, document: String) -> Result<u32> {
        let Some(bank) = self.find(&bank)? else { return Ok(0) };
        ingest::forget(&bank, &document)
    }
}

fn within(limit: u32) -> Result<()> {
    if (1..=1000).contains(&limit) { Ok(()) } else { Err(Error::Invalid("limit: 1 to 1000".into())) }
}

fn at_most(what: &str, n: usize) -> Result<()> {
    if n <= MAX_ITEMS { Ok(()) } else { Err(Error::TooLarge(format!("{what}: at most {MAX_ITEMS} a call"))) }
}

/// Hexadecimal digits of a text's or file's sha256: the same content has the same name.
fn digest(parts: &[&[u8]]) -> String {
    use sha2::Digest as _;
    let mut hash = sha2::Sha256::new();
    for part in parts {
        // Lengths keep one part's end from passing for the next one's beginning.
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(16).map(|b| format!("{b:02x}")).collect()
}

stockade_guest::export!(Banks as memory);

#[cfg(test)]
mod tests;
