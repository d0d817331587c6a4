//! Rows of items and documents, and which of them count.

use crate::bank::{Bank, invalid};
use serde_json::Map;
use std::collections::{BTreeMap, HashMap};
use stockade_guest::memory::Item;
use stockade_guest::prelude::*;
use stockade_guest::state::Write;
use stockade_guest::system;

pub const MAX_ID_BYTES: usize = 128;
pub const MAX_METADATA_BYTES: usize = 3 << 10;
/// Largest text of an item: its row stays below a state value's bound, whatever JSON escapes.
pub const MAX_TEXT_BYTES: usize = 128 << 10;
/// Milliseconds after which a call that wrote something must be over: twice the longest deadline.
const SETTLED_MS: u64 = 20 * 60 * 1000;
/// Most expired items that one call removes on its way.
const SWEEP: usize = 64;

/// Names one writing of an item: the time in milliseconds and 16 random bits. Vectors and words carry it, so that what
/// belongs to an earlier writing, or to one that was cut off, is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

impl Version {
    pub fn fresh() -> Self {
        let random = system::random(2);
        let random = random.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        Self(system::now() << 16 | random)
    }

    /// Whether the call that made it must be over.
    pub fn is_settled(self) -> bool {
        (self.0 >> 16) + SETTLED_MS < system::now()
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub version: Version,
    pub text: String,
    pub metadata: Map<String, Value>,
    /// The document's id; the version is then the document's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

impl Record {
    pub fn into_item(self, id: String) -> Item {
        Item {
            id,
            text: self.text,
            metadata: Value::Object(self.metadata).to_string(),
            document: self.document,
            expires_at: self.expires_at,
        }
    }

    pub fn is_expired(&self) -> bool {
        self.expires_at.is_some_and(|at| at <= system::now())
    }
}

/// A document as a whole; its chunks count while its version is theirs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DocumentRecord {
    pub version: Version,
    pub name: String,
    /// Of the bytes, the metadata and the chunking: the same again is no work.
    pub digest: String,
    pub chunks: u32,
    pub bytes: u64,
}

/// Reads records and judges them, each document once.
pub struct Live<'a> {
    bank: &'a Bank,
    documents: HashMap<String, Option<Version>>,
    swept: usize,
}

impl<'a> Live<'a> {
    pub fn new(bank: &'a Bank) -> Self {
        Self { bank, documents: HashMap::new(), swept: 0 }
    }

    /// The item, if it is there and counts.
    pub fn get(&mut self, id: &str) -> Result<Option<Record>> {
        // What cannot be a key is nobody's id.
        if check_id(id).is_err() {
            return Ok(None);
        }
        match self.bank.bucket.get_json::<Record>(&self.bank.item_key(id))? {
            Some((record, _)) if self.counts(id, &record)? => Ok(Some(record)),
            _ => Ok(None),
        }
    }

    /// Whether an item counts; removes it where its time is over.
    pub fn counts(&mut self, id: &str, record: &Record) -> Result<bool> {
        if record.is_expired() {
            if self.swept < SWEEP {
                self.swept += 1;
                crate::insert::remove(self.bank, &[(id, record)])?;
            }
            return Ok(false);
        }
        let Some(document) = &record.document else { return Ok(true) };
        if !self.documents.contains_key(document) {
            let found = self.bank.bucket.get_json::<DocumentRecord>(&self.bank.document_key(document))?;
            self.documents.insert(document.clone(), found.map(|(d, _)| d.version));
        }
        Ok(self.documents[document] == Some(record.version))
    }
}

/// Items that count, by id.
pub fn list(bank: &Bank, document: Option<&str>, after: Option<String>, limit: usize) -> Result<Vec<Item>> {
    let base = bank.item_key("");
    let prefix = match document {
        Some(document) => bank.item_key(&format!("{document}#")),
        None => base.clone(),
    };
    let mut after = after.map(|id| bank.item_key(&id));
    let mut live = Live::new(bank);
    let mut items = Vec::new();
    while items.len() < limit {
        let page = bank.bucket.scan(&prefix, after.as_deref(), 1000)?;
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        for entry in page {
            let id = &entry.key[base.len()..];
            let record: Record = serde_json::from_slice(&entry.value)?;
            let wanted = document.is_none() || record.document.as_deref() == document;
            if items.len() < limit && wanted && live.counts(id, &record)? {
                items.push(record.into_item(id.into()));
            }
        }
    }
    Ok(items)
}

/// Writes items, in as few commits as hold them.
pub fn write(bank: &Bank, new: &BTreeMap<String, Record>) -> Result<()> {
    let writes = new.iter().map(|(id, record)| Write::set_json(bank.item_key(id), record));
    bank.bucket.write_all(&writes.collect::<Result<Vec<_>>>()?)
}

pub fn check_id(id: &str) -> Result<()> {
    named("id", id, MAX_ID_BYTES)
}

pub fn named(what: &str, id: &str, most: usize) -> Result<()> {
    if (1..=most).contains(&id.len()) && !id.chars().any(char::is_control) {
        return Ok(());
    }
    Err(invalid(what, format!("1 to {most} bytes without control characters")))
}

pub fn metadata(text: &str) -> Result<Map<String, Value>> {
    if text.len() > MAX_METADATA_BYTES {
        return Err(Error::TooLarge(format!("metadata: at most {MAX_METADATA_BYTES} bytes")));
    }
    let fields: Map<String, Value> = serde_json::from_str(text).map_err(|e| invalid("metadata", e))?;
    match fields.keys().find(|key| key.starts_with('~')) {
        Some(key) => Err(invalid("metadata", format!("`{key}`: names that begin with `~` are the memory's own"))),
        None => Ok(fields),
    }
}
