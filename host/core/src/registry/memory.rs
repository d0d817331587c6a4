//! A store that keeps everything in memory and nothing on disk: for tests and for trying a component without a server.

use crate::error::BoxFuture;
use crate::id::Digest;
use crate::store::{
    Batch, Blobs, Expect, MAX_BATCH_OPS, MAX_KEY_BYTES, MAX_VALUE_BYTES, Revision, Row, Store, StoreError,
};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Ordered rows and blobs in memory; holds the same limits and conflicts as a durable store.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    rows: BTreeMap<Bytes, (Bytes, Revision)>,
    blobs: HashMap<Digest, Bytes>,
    revision: Revision,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn apply(&mut self, batch: Batch) -> Result<Revision, StoreError> {
        check("batch", batch.expects.len().max(batch.writes.len()), MAX_BATCH_OPS)?;
        for (key, value) in &batch.writes {
            check("key", key.len(), MAX_KEY_BYTES)?;
            check("value", value.as_ref().map_or(0, Bytes::len), MAX_VALUE_BYTES)?;
        }
        for (key, expect) in &batch.expects {
            let found = self.rows.get(key).map(|r| r.1);
            let holds = match expect {
                Expect::Absent => found.is_none(),
                Expect::Present => found.is_some(),
                Expect::Revision(r) => found == Some(*r),
            };
            if !holds {
                return Err(StoreError::Conflict { key: key.clone(), found });
            }
        }
        self.revision += 1;
        for (key, value) in batch.writes {
            match value {
                Some(value) => self.rows.insert(key, (value, self.revision)),
                None => self.rows.remove(&key),
            };
        }
        Ok(self.revision)
    }
}

fn check(what: &'static str, size: usize, limit: usize) -> Result<(), StoreError> {
    if size > limit {
        return Err(StoreError::TooLarge { what, size, limit });
    }
    Ok(())
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Row>, StoreError> {
        let state = self.lock();
        let row = state.rows.get_key_value(key);
        Ok(row.map(|(key, (value, revision))| Row { key: key.clone(), value: value.clone(), revision: *revision }))
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, StoreError> {
        let state = self.lock();
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let rows = state
            .rows
            .range::<[u8], _>((from, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit);
        let rows =
            rows.map(|(key, (value, revision))| Row { key: key.clone(), value: value.clone(), revision: *revision });
        Ok(rows.collect())
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Revision, StoreError>> {
        Box::pin(async move { self.lock().apply(batch) })
    }
}

impl Blobs for MemoryStore {
    fn put(&self, bytes: Bytes) -> BoxFuture<'_, Result<Digest, StoreError>> {
        Box::pin(async move {
            let digest = Digest(Sha256::digest(&bytes).into());
            self.lock().blobs.insert(digest, bytes);
            Ok(digest)
        })
    }
    fn get(&self, digest: Digest) -> BoxFuture<'_, Result<Bytes, StoreError>> {
        Box::pin(async move {
            let found = self.lock().blobs.get(&digest).cloned();
            found.ok_or(StoreError::NoBlob(digest))
        })
    }
    fn piece(&self, digest: Digest, offset: u64, length: usize) -> BoxFuture<'_, Result<Bytes, StoreError>> {
        Box::pin(async move {
            let whole = Blobs::get(self, digest).await?;
            let start = usize::try_from(offset).map_or(whole.len(), |o| o.min(whole.len()));
            Ok(whole.slice(start..whole.len().min(start.saturating_add(length))))
        })
    }
    fn delete(&self, digest: Digest) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.lock().blobs.remove(&digest);
            Ok(())
        })
    }
    fn list(&self) -> BoxFuture<'_, Result<Vec<(Digest, u64)>, StoreError>> {
        Box::pin(
            async move { Ok(self.lock().blobs.iter().map(|(digest, bytes)| (*digest, bytes.len() as u64)).collect()) },
        )
    }
    fn path(&self, _: Digest) -> Option<std::path::PathBuf> {
        None
    }
}
