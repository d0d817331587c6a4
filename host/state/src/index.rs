//! The index: sled, holding what snapshot and journal say, for fast reads. It is a cache and is never believed.
//!
//! Invariants:
//! - Only what is durable in the journal is applied, so a reader never sees a commit before its fsync, and an index
//!   that is ahead of the journal proves that the journal has lost its end.
//! - A batch is applied under the write side of a lock whose read side every read holds, so nobody sees half of one.
//! - The rows, the commit they are as of, their number and a sum over their hashes change in one sled batch. sled 0.34
//!   opens damaged files without a word and with rows missing; counting and summing at open notices that.
//!
//! Keys in sled are `m` for the [`Applied`] record and `r` + key for a row, whose value is revision u64 LE + value.

use crate::error::{IndexError, OpenError};
use crate::record::Commit;
use bytes::{Buf, Bytes};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use stockade_core::store::{Revision, Row};

const APPLIED_KEY: &[u8] = b"m";
const ROW_PREFIX: u8 = b'r';
/// Rows that one sled batch loads while the index is built.
const LOAD_ROWS: usize = 1024;
/// How long sled may keep applied rows in memory alone. After a crash they come from the journal again; a shorter
/// period costs writes beside the journal's own.
const FLUSH_MS: u64 = 1000;

/// Which commit the index is as of, and what it should then hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    pub last: Revision,
    /// CRC of the journal record that ends with `last`, 0 if a snapshot did.
    pub crc: u32,
    pub rows: Rows,
}

/// Number and sum of a set of rows, in any order. Equal sets have equal sums; one row lost, added or changed changes
/// the sum but for one case in 2^32. No defence against someone who chooses rows to fool it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    pub count: u64,
    sum: u64,
}

impl Rows {
    pub fn add(&mut self, key: &[u8], revision: Revision, value: &[u8]) {
        self.count = self.count.wrapping_add(1);
        self.sum = self.sum.wrapping_add(hash(key, revision, value));
    }
    fn remove(&mut self, key: &[u8], revision: Revision, value: &[u8]) {
        self.count = self.count.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(hash(key, revision, value));
    }
}

/// The last write of each key: revision and value, `None` for a delete.
pub(crate) type Changes = BTreeMap<Bytes, (Revision, Option<Bytes>)>;

/// Overlays `changes` with a commit.
pub(crate) fn overlay(changes: &mut Changes, commit: Commit) {
    for (key, value) in commit.writes {
        changes.insert(key, (commit.revision, value));
    }
}

pub(crate) struct Index {
    db: sled::Db,
    /// Held for reading by every read, for writing while a batch is applied.
    gate: RwLock<()>,
}

impl Index {
    /// Opens the index in `folder`, creating an empty one if there is none.
    pub fn open(folder: &Path, cache_bytes: u64) -> Result<Self, IndexError> {
        let config = sled::Config::new().path(folder).cache_capacity(cache_bytes).flush_every_ms(Some(FLUSH_MS));
        Ok(Self { db: guarded(|| config.open())?, gate: RwLock::new(()) })
    }

    /// What the index is as of, if its rows are all there; `None` for one that is new, half built or damaged.
    pub fn check(&self) -> Result<Option<Applied>, IndexError> {
        let Some(bytes) = guarded(|| self.db.get(APPLIED_KEY))? else {
            return Ok(None);
        };
        let Some(applied) = Applied::decode(&bytes) else {
            return Ok(None);
        };
        let mut rows = Rows::default();
        guarded(|| {
            for item in self.db.range::<&[u8], _>([ROW_PREFIX].as_slice()..) {
                let (key, value) = item?;
                match split(&value) {
                    Ok((revision, value)) => rows.add(&key[1..], revision, value),
                    Err(_) => rows.count = u64::MAX,
                }
            }
            Ok(())
        })?;
        Ok((rows == applied.rows).then_some(applied))
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Row>, IndexError> {
        let _whole = self.gate.read();
        guarded(|| self.db.get(row_key(key)))?.map(|stored| row(key, &stored)).transpose()
    }

    /// As [`stockade_core::store::Store::scan`].
    pub fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, IndexError> {
        let prefix = row_key(prefix);
        let start = match after.map(row_key) {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix.clone()),
        };
        let _whole = self.gate.read();
        let found = guarded(|| {
            self.db
                .range::<Vec<u8>, _>((start, Bound::Unbounded))
                .take_while(|item| !matches!(item, Ok((key, _)) if !key.starts_with(&prefix)))
                .take(limit)
                .collect::<Result<Vec<_>, _>>()
        })?;
        found.into_iter().map(|(key, stored)| row(&key[1..], &stored)).collect()
    }

    /// Applies `changes`, which make the index as of commit `last`, and updates `applied`.
    pub fn apply(&self, changes: &Changes, last: Revision, crc: u32, applied: &mut Applied) -> Result<(), IndexError> {
        let mut next = Applied { last, crc, ..*applied };
        let mut batch = sled::Batch::default();
        for (key, (revision, value)) in changes {
            let stored_key = row_key(key);
            if let Some(old) = guarded(|| self.db.get(&stored_key))? {
                let (revision, value) = split(&old)?;
                next.rows.remove(key, revision, value);
            }
            match value {
                Some(value) => {
                    next.rows.add(key, *revision, value);
                    batch.insert(stored_key, stored(*revision, value));
                }
                None => batch.remove(stored_key),
            }
        }
        batch.insert(APPLIED_KEY, next.encode().to_vec());
        let _alone = self.gate.write();
        guarded(|| self.db.apply_batch(batch))?;
        *applied = next;
        Ok(())
    }

    /// Fills an empty index with the rows of a snapshot. Only the last step makes it pass [`Self::check`].
    pub fn load(
        &self,
        last: Revision,
        rows: impl Iterator<Item = Result<Row, OpenError>>,
    ) -> Result<Applied, OpenError> {
        let failed = |source| OpenError::Index { stage: "loading a snapshot", source };
        let mut applied = Applied { last, ..Applied::default() };
        let mut batch = sled::Batch::default();
        for (i, row) in rows.enumerate() {
            let row = row?;
            applied.rows.add(&row.key, row.revision, &row.value);
            batch.insert(row_key(&row.key), stored(row.revision, &row.value));
            if (i + 1).is_multiple_of(LOAD_ROWS) {
                let full = std::mem::take(&mut batch);
                guarded(|| self.db.apply_batch(full)).map_err(failed)?;
            }
        }
        batch.insert(APPLIED_KEY, applied.encode().to_vec());
        guarded(|| self.db.apply_batch(batch)).map_err(failed)?;
        Ok(applied)
    }

    /// Writes everything applied to disk, so that the next open has nothing to replay.
    pub fn flush(&self) -> Result<(), IndexError> {
        guarded(|| self.db.flush()).map(drop)
    }

    /// Bytes on disk.
    pub fn size_on_disk(&self) -> Result<u64, IndexError> {
        guarded(|| self.db.size_on_disk())
    }
}

const APPLIED_BYTES: usize = 32;

impl Applied {
    fn encode(&self) -> [u8; APPLIED_BYTES] {
        let mut bytes = [0; APPLIED_BYTES];
        bytes[..8].copy_from_slice(&self.last.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.crc.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.rows.count.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.rows.sum.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = bytes;
        let applied = (bytes.len() == APPLIED_BYTES).then(|| Self {
            last: fields.get_u64_le(),
            crc: fields.get_u32_le(),
            rows: Rows { count: fields.get_u64_le(), sum: fields.get_u64_le() },
        })?;
        (applied.encode() == bytes).then_some(applied)
    }
}

fn row_key(key: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(key.len() + 1);
    stored.push(ROW_PREFIX);
    stored.extend_from_slice(key);
    stored
}

fn stored(revision: Revision, value: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(value.len() + 8);
    stored.extend_from_slice(&revision.to_le_bytes());
    stored.extend_from_slice(value);
    stored
}

fn split(stored: &[u8]) -> Result<(Revision, &[u8]), IndexError> {
    let (revision, value) = stored.split_first_chunk().ok_or(IndexError::ShortRow)?;
    Ok((Revision::from_le_bytes(*revision), value))
}

fn row(key: &[u8], stored: &[u8]) -> Result<Row, IndexError> {
    let (revision, value) = split(stored)?;
    Ok(Row { key: Bytes::copy_from_slice(key), value: Bytes::copy_from_slice(value), revision })
}

/// CRC of key, revision and value, spread over 64 bits by the finalizer of splitmix64 so that sums do not cancel.
fn hash(key: &[u8], revision: Revision, value: &[u8]) -> u64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&(key.len() as u16).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    let mut x = u64::from(hasher.finalize()) ^ revision.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// sled panics on some damaged files instead of answering.
fn guarded<T>(work: impl FnOnce() -> sled::Result<T>) -> Result<T, IndexError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => Ok(result?),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            Err(IndexError::Panicked(text.unwrap_or("no text").to_owned()))
        }
    }
}
