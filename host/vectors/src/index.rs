//! One index of one tenant: rows first, memory after.
//!
//! Invariants:
//! - a write changes memory after its commit and under the same lock, so no reader that loads between misses it
//! - work runs to its end on a blocking thread even if the caller goes away: a commit is never left unapplied

use crate::contents::Contents;
use crate::filter::Filter;
use crate::indexes::Shared;
use crate::rows;
use parking_lot::{Mutex, RwLock};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use stockade_core::TenantId;
use stockade_core::error::BoxFuture;
use stockade_core::registry::tenant_row_key;
use stockade_core::store::{Batch, Expect, MAX_BATCH_OPS, Revision, StoreError};
use stockade_core::vectors::{
    Entry, IndexSettings, MAX_ATTRIBUTES_BYTES, MAX_DELETED, MAX_ENTRIES, MAX_ID_BYTES, MAX_NEIGHBOURS, Neighbour,
    Query, VectorError, VectorIndex,
};
use tokio::runtime::Handle;

pub(crate) struct Index {
    shared: Arc<Shared>,
    me: Weak<Self>,
    pub tenant: TenantId,
    pub name: String,
    pub settings: IndexSettings,
    /// Of the settings' row: another one is another index of the same name.
    pub revision: Revision,
    /// Held from before a commit until memory has it.
    writing: Mutex<()>,
    contents: Mutex<Option<Arc<RwLock<Contents>>>>,
    /// Memory it takes, 0 while it is not loaded.
    pub bytes: AtomicUsize,
    /// A tick of the shared clock.
    pub last_used: AtomicU64,
}

impl Index {
    pub fn new(
        shared: &Arc<Shared>,
        tenant: TenantId,
        name: String,
        settings: IndexSettings,
        revision: Revision,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            shared: shared.clone(),
            me: me.clone(),
            tenant,
            name,
            settings,
            revision,
            writing: Mutex::new(()),
            contents: Mutex::new(None),
            bytes: AtomicUsize::new(0),
            last_used: AtomicU64::new(0),
        })
    }

    /// Does a few steps of building its graph; whether there is more to do.
    pub fn build(&self, most: usize) -> bool {
        let loaded = self.contents.lock().clone();
        loaded.is_some_and(|contents| {
            let more = contents.write().build(most);
            let bytes = contents.read().bytes();
            // Unless it was unloaded meanwhile.
            if self.contents.lock().as_ref().is_some_and(|now| Arc::ptr_eq(now, &contents)) {
                self.bytes.store(bytes, Relaxed);
            }
            more
        })
    }

    /// Gives its memory back, unless it is being written to.
    pub fn unload(&self) {
        if let Some(_writing) = self.writing.try_lock() {
            self.forget();
        }
    }

    fn forget(&self) {
        *self.contents.lock() = None;
        self.bytes.store(0, Relaxed);
    }

    fn entries_prefix(&self) -> Vec<u8> {
        rows::entries_prefix(&self.tenant, &self.name)
    }

    /// The loaded contents, from the rows where they are not in memory.
    fn loaded(&self) -> Result<Arc<RwLock<Contents>>, VectorError> {
        self.last_used.store(self.shared.tick(), Relaxed);
        let key = rows::settings_key(&self.tenant, &self.name);
        let row = self.shared.store.get(&key)?;
        if row.is_none_or(|row| row.revision != self.revision) {
            self.forget();
            return Err(VectorError::NotFound(self.name.clone()));
        }
        let mut slot = self.contents.lock();
        if let Some(contents) = &*slot {
            return Ok(contents.clone());
        }
        let mut contents = Contents::new(self.settings, self.shared.settings.clone());
        let store = &*self.shared.store;
        rows::read(store, &self.entries_prefix(), self.settings, |page| contents.upsert(page))?;
        self.bytes.store(contents.bytes(), Relaxed);
        tracing::debug!(tenant = %self.tenant, index = self.name, vectors = contents.len(), "vectors are loaded");
        let contents = Arc::new(RwLock::new(contents));
        *slot = Some(contents.clone());
        drop(slot);
        self.shared.make_room(&self.tenant, self, 0)?;
        self.ask_for_building(&contents);
        Ok(contents)
    }

    fn ask_for_building(&self, contents: &RwLock<Contents>) {
        if !contents.read().is_built() {
            self.shared.build(self.me.clone());
        }
    }

    fn write(&self, entries: Vec<Entry>, runtime: &Handle) -> Result<(), VectorError> {
        check_entries(&entries, self.settings)?;
        let _writing = self.writing.lock();
        let contents = self.loaded()?;
        let prefix = self.entries_prefix();
        let mut batch = self.batch();
        let mut written: Vec<(Entry, usize)> = Vec::new();
        let mut rows_now: HashMap<String, usize> = HashMap::new();
        for entry in entries {
            let attributes = text_of(&entry.attributes)?;
            let bytes = rows::encode(&entry.vector, &attributes);
            let new = rows::parts(self.settings, attributes.len());
            let old = match rows_now.get(&entry.id) {
                Some(rows) => *rows,
                None => match contents.read().attributes(&entry.id) {
                    Some(old) => rows::parts(self.settings, text_of(old)?.len()),
                    None => 0,
                },
            };
            if batch.writes.len() + new.max(old) > MAX_BATCH_OPS {
                self.commit(batch, std::mem::take(&mut written), &contents, runtime)?;
                batch = self.batch();
            }
            let parts = bytes.chunks(stockade_core::store::MAX_VALUE_BYTES).enumerate();
            for (part, value) in parts {
                batch = batch.put(rows::part_key(&prefix, &entry.id, part), value.to_vec());
            }
            for part in new..old {
                batch = batch.delete(rows::part_key(&prefix, &entry.id, part));
            }
            rows_now.insert(entry.id.clone(), new);
            written.push((entry, attributes.len()));
        }
        if !written.is_empty() {
            self.commit(batch, written, &contents, runtime)?;
        }
        self.ask_for_building(&contents);
        Ok(())
    }

    /// A batch that holds only while this index and its tenant exist.
    fn batch(&self) -> Batch {
        Batch::new()
            .expect(tenant_row_key(&self.tenant), Expect::Present)
            .expect(rows::settings_key(&self.tenant, &self.name), Expect::Revision(self.revision))
    }

    fn commit(
        &self,
        batch: Batch,
        written: Vec<(Entry, usize)>,
        contents: &RwLock<Contents>,
        runtime: &Handle,
    ) -> Result<(), VectorError> {
        let more = {
            let contents = contents.read();
            let new = written.iter().filter(|(e, _)| !contents.has(&e.id));
            new.map(|(e, attributes)| contents.bytes_of(&e.id, *attributes)).sum()
        };
        self.make_room_inside(more, contents);
        self.shared.make_room(&self.tenant, self, more)?;
        self.commit_rows(batch, runtime)?;
        let mut contents = contents.write();
        contents.upsert(written);
        self.bytes.store(contents.bytes(), Relaxed);
        Ok(())
    }

    /// What was deleted takes no room from what is written, though graphs may still hold it.
    fn make_room_inside(&self, more: usize, contents: &RwLock<Contents>) {
        let (most, now) = (self.shared.settings.tenant_bytes, self.bytes.load(Relaxed));
        if now + more > most && now - contents.read().spare_bytes().min(now) + more <= most {
            let mut contents = contents.write();
            contents.shed();
            self.bytes.store(contents.bytes(), Relaxed);
        }
    }

    fn commit_rows(&self, batch: Batch, runtime: &Handle) -> Result<(), VectorError> {
        match runtime.block_on(self.shared.store.commit(batch)) {
            Ok(_) => Ok(()),
            Err(StoreError::Conflict { .. }) => Err(VectorError::NotFound(self.name.clone())),
            Err(e) => Err(e.into()),
        }
    }

    fn remove(&self, mut ids: Vec<String>, runtime: &Handle) -> Result<u32, VectorError> {
        if ids.len() > MAX_DELETED {
            return Err(VectorError::TooLarge { what: "ids", limit: MAX_DELETED });
        }
        let _writing = self.writing.lock();
        let contents = self.loaded()?;
        let prefix = self.entries_prefix();
        ids.sort_unstable();
        ids.dedup();
        let mut gone = 0;
        let mut batch = self.batch();
        let mut deleted: Vec<String> = Vec::new();
        for id in ids {
            let parts = match contents.read().attributes(&id) {
                Some(attributes) => rows::parts(self.settings, text_of(attributes)?.len()),
                None => continue,
            };
            if batch.writes.len() + parts > MAX_BATCH_OPS {
                self.commit_rows(batch, runtime)?;
                gone += contents.write().delete(&std::mem::take(&mut deleted));
                batch = self.batch();
            }
            batch = (0..parts).fold(batch, |batch, part| batch.delete(rows::part_key(&prefix, &id, part)));
            deleted.push(id);
        }
        if !deleted.is_empty() {
            self.commit_rows(batch, runtime)?;
            gone += contents.write().delete(&deleted);
        }
        self.bytes.store(contents.read().bytes(), Relaxed);
        self.ask_for_building(&contents);
        Ok(u32::try_from(gone).unwrap_or(u32::MAX))
    }

    fn find(&self, query: Query) -> Result<Vec<Neighbour>, VectorError> {
        check_vector(&query.vector, self.settings)?;
        if !(1..=MAX_NEIGHBOURS).contains(&query.limit) {
            return Err(invalid("limit", format!("1 to {MAX_NEIGHBOURS}")));
        }
        let filter = query.filter.as_ref().map(Filter::parse).transpose().map_err(|e| invalid("filter", e))?;
        let contents = self.loaded()?;
        let contents = contents.read();
        Ok(contents.search(query.vector, query.limit, filter.as_ref(), query.exact))
    }

    /// Runs work of this index on a blocking thread, a bounded number at once.
    fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self, &Handle) -> Result<T, VectorError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, VectorError>> {
        let me = self.me.clone();
        Box::pin(async move {
            let me = me.upgrade().ok_or(VectorError::CutOff)?;
            let shared = me.shared.clone();
            shared.off_thread(move |runtime| work(&me, runtime)).await
        })
    }
}

impl VectorIndex for Index {
    fn upsert(&self, entries: Vec<Entry>) -> BoxFuture<'_, Result<(), VectorError>> {
        self.off_thread(|me, runtime| me.write(entries, runtime))
    }
    fn delete(&self, ids: Vec<String>) -> BoxFuture<'_, Result<u32, VectorError>> {
        self.off_thread(|me, runtime| me.remove(ids, runtime))
    }
    fn search(&self, query: Query) -> BoxFuture<'_, Result<Vec<Neighbour>, VectorError>> {
        self.off_thread(|me, _| me.find(query))
    }
    fn size(&self) -> BoxFuture<'_, Result<u64, VectorError>> {
        self.off_thread(|me, _| Ok(me.loaded()?.read().len() as u64))
    }
}

fn invalid(field: &'static str, reason: impl Into<String>) -> VectorError {
    VectorError::Invalid { field, reason: reason.into() }
}

fn text_of(attributes: &Map<String, Value>) -> Result<String, VectorError> {
    serde_json::to_string(attributes).map_err(|e| invalid("attributes", e.to_string()))
}

fn check_entries(entries: &[Entry], index: IndexSettings) -> Result<(), VectorError> {
    if entries.len() > MAX_ENTRIES {
        return Err(VectorError::TooLarge { what: "entries", limit: MAX_ENTRIES });
    }
    for entry in entries {
        if entry.id.is_empty() || entry.id.len() > MAX_ID_BYTES || entry.id.chars().any(char::is_control) {
            return Err(invalid("id", format!("1 to {MAX_ID_BYTES} bytes without control characters")));
        }
        check_vector(&entry.vector, index)?;
        if text_of(&entry.attributes)?.len() > MAX_ATTRIBUTES_BYTES {
            return Err(VectorError::TooLarge { what: "bytes of attributes", limit: MAX_ATTRIBUTES_BYTES });
        }
    }
    Ok(())
}

fn check_vector(vector: &[f32], index: IndexSettings) -> Result<(), VectorError> {
    if vector.len() != index.dimensions as usize {
        return Err(invalid("vector", format!("{} dimensions in an index of {}", vector.len(), index.dimensions)));
    }
    if vector.iter().any(|x| !x.is_finite()) {
        return Err(invalid("vector", "not finite"));
    }
    Ok(())
}
