//! Collections: a tenant's JSON documents under ids that the host gives, oldest first, a bounded number of them.
//!
//! Responses, conversations and their items, sessions and their turns, and interruptions are kept here. An id is
//! `PREFIX_KEY`; its key begins with the time of its making, so documents sort by age, and the prefix tells people what
//! they look at.

use super::{Registry, RegistryError, Versioned, keys, parse, to_bytes};
use crate::id::TenantId;
use crate::store::{Batch, Expect, Revision, StoreError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Longest id in bytes.
const MAX_ID_BYTES: usize = 64;
/// Rows read at once where all of a collection is walked.
const STRIDE: usize = 256;
/// Most collections whose size is known without counting.
const MAX_COUNTED: usize = 4096;

/// What a full collection does with one document more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The oldest goes, with what its `below` collection holds.
    DropOldest,
    /// It is refused as too large.
    Refuse,
}

/// One of a tenant's collections. Needs no making: an empty one holds no rows.
#[derive(Debug, Clone)]
pub struct Collection {
    registry: Registry,
    tenant: TenantId,
    path: String,
    /// The collection that belongs to each document of this one, by its name before the document's id.
    below: Option<&'static str>,
    max: usize,
    full: Full,
}

/// A document with the id that it is kept under.
#[derive(Debug, Clone, PartialEq)]
pub struct Document<T> {
    pub id: String,
    pub value: T,
}

/// A fresh id of this prefix: microseconds since 1970, a count that never repeats within the process, random bits of the
/// caller's.
pub fn new_document_id(prefix: &str, random: u32) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64);
    // Ids of one process sort in the order of their making, also within a microsecond and when the clock is set back.
    let mut last = COUNT.load(Ordering::Relaxed);
    let at = loop {
        let next = now.max(last + 1);
        match COUNT.compare_exchange_weak(last, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => break next,
            Err(seen) => last = seen,
        }
    };
    format!("{prefix}_{at:016x}{random:08x}")
}

/// The part of an id that it is kept under; `None` for a text that is no id.
fn key_of(id: &str) -> Option<&str> {
    let sound = id.len() <= MAX_ID_BYTES && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let key = id.rsplit_once('_').map_or(id, |(_, key)| key);
    (sound && key.len() == 24).then_some(key)
}

/// How many documents each collection has; counted once, then kept.
#[derive(Default)]
pub(super) struct Sizes {
    known: Mutex<HashMap<Vec<u8>, usize>>,
}

impl Sizes {
    fn change<T>(&self, f: impl FnOnce(&mut HashMap<Vec<u8>, usize>) -> T) -> T {
        f(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
    pub(super) fn forget(&self) {
        self.change(HashMap::clear);
    }
}

#[derive(serde::Deserialize)]
struct Stored<T> {
    id: String,
    value: T,
}

impl Registry {
    /// The collection at `path`: names and ids with `/` between them, made by the host, never by a client.
    pub fn collection(&self, tenant: &TenantId, path: impl Into<String>, max: usize, full: Full) -> Collection {
        Collection { registry: self.clone(), tenant: tenant.clone(), path: path.into(), below: None, max, full }
    }
}

impl Collection {
    /// Each document's own collection is `NAME/ID` and goes with it.
    pub fn with_below(mut self, name: &'static str) -> Self {
        self.below = Some(name);
        self
    }

    pub fn get<T: DeserializeOwned>(&self, id: &str) -> Result<Option<Versioned<T>>, RegistryError> {
        let Some(key) = key_of(id) else { return Ok(None) };
        let found = self.registry.read_value(&keys::document(&self.tenant, &self.path, key))?;
        let Some(found) = found else { return Ok(None) };
        let stored: Stored<T> = parse("document", &found.value)?;
        // The prefix is part of the id, though not of the key.
        Ok((stored.id == id).then_some(Versioned { value: stored.value, revision: found.revision }))
    }

    /// Adds a document under an id of [`new_document_id`].
    pub async fn add<T: Serialize>(&self, id: &str, value: &T) -> Result<Revision, RegistryError> {
        self.add_with(id, value, |batch| batch).await
    }

    /// As [`Self::add`]; `extend` adds writes to the batch.
    pub(super) async fn add_with<T: Serialize>(
        &self,
        id: &str,
        value: &T,
        extend: impl Fn(Batch) -> Batch,
    ) -> Result<Revision, RegistryError> {
        let size = self.size()?;
        if size >= self.max {
            match self.full {
                Full::DropOldest => self.drop_oldest(size + 1 - self.max).await?,
                Full::Refuse => {
                    return Err(RegistryError::TooLarge { what: "collection", size: size + 1, limit: self.max });
                }
            }
        }
        let revision = self.put(id, value, Some(Expect::Absent), extend).await?;
        self.resized(|n| n + 1);
        Ok(revision)
    }

    /// Replaces a document when `expect` holds of it.
    pub async fn replace<T: Serialize>(&self, id: &str, value: &T, expect: Expect) -> Result<Revision, RegistryError> {
        self.put(id, value, Some(expect), |batch| batch).await
    }

    /// As [`Self::replace`]; `extend` adds writes to the batch.
    pub(super) async fn replace_with<T: Serialize>(
        &self,
        id: &str,
        value: &T,
        expect: Expect,
        extend: impl Fn(Batch) -> Batch,
    ) -> Result<Revision, RegistryError> {
        self.put(id, value, Some(expect), extend).await
    }

    async fn put<T: Serialize>(
        &self,
        id: &str,
        value: &T,
        expect: Option<Expect>,
        extend: impl Fn(Batch) -> Batch,
    ) -> Result<Revision, RegistryError> {
        let key = key_of(id).ok_or_else(|| RegistryError::invalid("id", "is no id of this host"))?;
        let bytes = to_bytes(&serde_json::json!({"id": id, "value": value}))?;
        let place = keys::document(&self.tenant, &self.path, key);
        let tenant = keys::tenant(&self.tenant);
        let whole = |batch: Batch| extend(batch.expect(tenant.clone(), Expect::Present));
        match self.registry.write_value(&place, Some(&bytes), expect, whole).await {
            Err(RegistryError::Store(StoreError::Conflict { .. })) => {
                Err(RegistryError::NotFound { what: "tenant", name: self.tenant.to_string() })
            }
            done => done,
        }
    }

    /// Removes a document with the collection below it when `expect` holds of it; `false` when it does not.
    pub async fn delete(&self, id: &str, expect: Expect) -> Result<bool, RegistryError> {
        let Some(key) = key_of(id) else { return Ok(false) };
        let place = keys::document(&self.tenant, &self.path, key);
        match self.registry.write_value(&place, None, Some(expect), |b| b).await {
            Ok(_) => {}
            Err(RegistryError::RevisionMismatch { .. }) => return Ok(false),
            Err(e) => return Err(e),
        }
        self.resized(|n| n.saturating_sub(1));
        if let Some(name) = self.below {
            self.registry.clear(&self.tenant, &format!("{name}/{id}")).await?;
        }
        Ok(true)
    }

    /// Oldest first, at most `limit`, after the document `after`.
    pub fn list<T: DeserializeOwned>(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Document<T>>, RegistryError> {
        let prefix = keys::documents(&self.tenant, &self.path);
        let after = match after {
            Some(id) => match key_of(id) {
                Some(key) => Some([&prefix[..], key.as_bytes()].concat()),
                None => return Ok(Vec::new()),
            },
            None => None,
        };
        let rows = self.registry.store().scan(&prefix, after.as_deref(), limit)?;
        self.read_rows(&prefix, rows.iter().map(|r| &r.key[..]))
    }

    /// Newest first, at most `limit`, before the document `before`.
    pub fn list_back<T: DeserializeOwned>(
        &self,
        before: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Document<T>>, RegistryError> {
        let prefix = keys::documents(&self.tenant, &self.path);
        let end = match before {
            Some(id) => match key_of(id) {
                Some(key) => Some([&prefix[..], key.as_bytes()].concat()),
                None => return Ok(Vec::new()),
            },
            None => None,
        };
        let mut found: Vec<Vec<u8>> = self.keys()?;
        if let Some(end) = end {
            found.retain(|key| *key < end);
        }
        let newest = found.iter().rev().take(limit).map(Vec::as_slice);
        self.read_rows(&prefix, newest)
    }

    fn read_rows<'a, T: DeserializeOwned>(
        &self,
        prefix: &[u8],
        rows: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Vec<Document<T>>, RegistryError> {
        let mut out = Vec::new();
        for row in rows {
            let key = String::from_utf8_lossy(&row[prefix.len()..]).into_owned();
            if let Some(found) = self.registry.read_value(&keys::document(&self.tenant, &self.path, &key))? {
                let stored: Stored<T> = parse("document", &found.value)?;
                out.push(Document { id: stored.id, value: stored.value });
            }
        }
        Ok(out)
    }

    /// All head rows' keys, oldest first: as many as the collection may hold.
    fn keys(&self) -> Result<Vec<Vec<u8>>, RegistryError> {
        let prefix = keys::documents(&self.tenant, &self.path);
        let (mut out, mut after) = (Vec::new(), None::<Vec<u8>>);
        loop {
            let rows = self.registry.store().scan(&prefix, after.as_deref(), STRIDE)?;
            let Some(last) = rows.last() else { return Ok(out) };
            after = Some(last.key.to_vec());
            out.extend(rows.iter().map(|r| r.key.to_vec()));
        }
    }

    pub fn size(&self) -> Result<usize, RegistryError> {
        let prefix = keys::documents(&self.tenant, &self.path);
        if let Some(size) = self.registry.inner.sizes.change(|s| s.get(&prefix).copied()) {
            return Ok(size);
        }
        let size = self.keys()?.len();
        self.registry.inner.sizes.change(|s| {
            if s.len() >= MAX_COUNTED {
                s.clear();
            }
            s.insert(prefix, size)
        });
        Ok(size)
    }

    fn resized(&self, f: impl FnOnce(usize) -> usize) {
        let prefix = keys::documents(&self.tenant, &self.path);
        self.registry.inner.sizes.change(|s| {
            if let Some(size) = s.get_mut(&prefix) {
                *size = f(*size);
            }
        });
    }

    async fn drop_oldest(&self, n: usize) -> Result<(), RegistryError> {
        let oldest: Vec<Document<serde::de::IgnoredAny>> = self.list(None, n.min(STRIDE))?;
        for document in oldest {
            self.delete(&document.id, Expect::Present).await?;
        }
        Ok(())
    }
}

impl Registry {
    /// Removes all documents of a collection; what is below them stays.
    async fn clear(&self, tenant: &TenantId, path: &str) -> Result<(), RegistryError> {
        let prefix = keys::documents(tenant, path);
        loop {
            let rows = self.store().scan(&prefix, None, STRIDE)?;
            if rows.is_empty() {
                self.inner.sizes.change(|s| s.remove(&prefix));
                return Ok(());
            }
            for row in rows {
                let key = String::from_utf8_lossy(&row.key[prefix.len()..]).into_owned();
                self.write_value(&keys::document(tenant, path, &key), None, None, |b| b).await?;
            }
        }
    }
}

#[cfg(test)]
#[path = "collections_tests.rs"]
mod tests;
