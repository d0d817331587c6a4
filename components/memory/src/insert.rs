//! Items one by one: adding, replacing, removing.

use crate::bank::{Bank, invalid};
use crate::records::{self, Live, MAX_TEXT_BYTES, Record, Version};
use crate::{digest, embedding, graph, keyword};
use std::collections::BTreeMap;
use stockade_guest::memory::Item;
use stockade_guest::prelude::*;
use stockade_guest::state::Write;
use stockade_guest::system;

/// Adds or replaces items; answers with their ids in order.
pub fn insert(bank: &Bank, items: Vec<Item>) -> Result<Vec<String>> {
    let version = Version::fresh();
    let mut ids = Vec::with_capacity(items.len());
    let mut new: BTreeMap<String, Record> = BTreeMap::new();
    for item in items {
        if item.document.is_some() {
            return Err(invalid("document", "chunks come in by `ingest`"));
        }
        if item.text.len() > MAX_TEXT_BYTES {
            return Err(Error::TooLarge(format!("text: at most {MAX_TEXT_BYTES} bytes")));
        }
        let id = if item.id.is_empty() { digest(&[item.text.as_bytes()]) } else { item.id };
        records::check_id(&id)?;
        let metadata = records::metadata(&item.metadata)?;
        if bank.settings.kind == crate::bank::Kind::Graph {
            graph::edges(&metadata)?;
        }
        let expires_at = item.expires_at.or_else(|| expiry(bank));
        ids.push(id.clone());
        new.insert(id, Record { version, text: item.text, metadata, document: None, expires_at });
    }
    let mut old: BTreeMap<&str, Record> = BTreeMap::new();
    for id in new.keys() {
        if let Some((record, _)) = bank.bucket.get_json(&bank.item_key(id))? {
            old.insert(id, record);
        }
    }
    lead_to(bank, &new)?;
    records::write(bank, &new)?;
    let mut unlinks = Vec::new();
    for (id, record) in &old {
        unlinks.extend(graph::unlink(bank, id, &record.metadata, new.get(*id).map(|r| &r.metadata))?);
    }
    bank.bucket.write_all(&unlinks)?;
    embedding::remove(bank, old.iter().map(|(id, record)| (*id, record.version)))?;
    Ok(ids)
}

/// When an item that says nothing itself is gone.
pub fn expiry(bank: &Bank) -> Option<u64> {
    bank.settings.config.ttl_seconds.map(|ttl| system::now() + ttl * 1000)
}

/// Writes all that leads to records which are to be written next.
pub fn lead_to(bank: &Bank, new: &BTreeMap<String, Record>) -> Result<()> {
    embedding::add(bank, new)?;
    keyword::add(bank, new)?;
    graph::link(bank, new)
}

pub fn delete(bank: &Bank, ids: Vec<String>) -> Result<u32> {
    let mut live = Live::new(bank);
    let mut gone: BTreeMap<String, Record> = BTreeMap::new();
    for id in ids {
        if let Some(record) = live.get(&id)? {
            gone.insert(id, record);
        }
    }
    let removed: Vec<(&str, &Record)> = gone.iter().map(|(id, record)| (id.as_str(), record)).collect();
    remove(bank, &removed)?;
    Ok(gone.len() as u32)
}

/// Removes items, their vectors and their edges. Their words lead to nothing until their segment is merged.
pub fn remove(bank: &Bank, gone: &[(&str, &Record)]) -> Result<()> {
    let mut writes: Vec<Write> = gone.iter().map(|(id, _)| Write::delete(bank.item_key(id))).collect();
    for (id, record) in gone {
        writes.extend(graph::unlink(bank, id, &record.metadata, None)?);
    }
    bank.bucket.write_all(&writes)?;
    embedding::remove(bank, gone.iter().map(|(id, record)| (*id, record.version)))
}
