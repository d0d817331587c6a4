//! All indexes of a host: making, dropping, and the memory that the loaded ones take.

use crate::index::Index;
use crate::rows;
use crate::settings::Settings;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use stockade_core::TenantId;
use stockade_core::error::BoxFuture;
use stockade_core::id::ComponentName;
use stockade_core::registry::tenant_row_key;
use stockade_core::store::{Batch, Expect, Store, StoreError};
use stockade_core::vectors::{IndexSettings, MAX_DIMENSIONS, VectorError, VectorIndex, Vectors};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Vectors that go into a graph before searches and writes get a turn: one takes about a millisecond.
const BUILD_STEP: usize = 1;
/// Rows that one batch of a drop deletes.
const DROP_STEP: usize = 512;

type Open = HashMap<(TenantId, String), Arc<Index>>;

/// The indexes of a store. The last drop ends the thread that builds graphs.
pub struct Indexes {
    shared: Arc<Shared>,
}

/// What all indexes share.
pub(crate) struct Shared {
    pub store: Arc<dyn Store>,
    pub settings: Settings,
    open: Mutex<Open>,
    /// Held while an index is made or dropped.
    changing: Mutex<()>,
    clock: AtomicU64,
    at_once: Arc<Semaphore>,
    to_build: Sender<Weak<Index>>,
    ended: Arc<AtomicBool>,
}

impl Indexes {
    /// Nothing is read until an index is opened.
    pub fn new(store: Arc<dyn Store>, settings: Settings) -> Self {
        let (to_build, queue) = channel();
        let ended = Arc::new(AtomicBool::new(false));
        let stop = ended.clone();
        let builder = std::thread::Builder::new().name("vector-builder".into());
        if let Err(e) = builder.spawn(move || build_graphs(&queue, &stop)) {
            // Searches stay right without graphs, and slow.
            tracing::error!(error = %e, "the thread that builds vector graphs cannot be started");
        }
        Self {
            shared: Arc::new(Shared {
                store,
                at_once: Arc::new(Semaphore::new(settings.at_once)),
                settings,
                open: Mutex::default(),
                changing: Mutex::new(()),
                clock: AtomicU64::new(0),
                to_build,
                ended,
            }),
        }
    }
}

impl Drop for Indexes {
    fn drop(&mut self) {
        self.shared.ended.store(true, Relaxed);
        // Indexes know what they share, and that knows them.
        self.shared.open.lock().clear();
        self.shared.build(Weak::new());
    }
}

fn build_graphs(queue: &Receiver<Weak<Index>>, ended: &AtomicBool) {
    while let Ok(index) = queue.recv() {
        // Upgraded anew for each step: an index that nobody has any more is not kept alive by its building.
        while !ended.load(Relaxed) && index.upgrade().is_some_and(|index| index.build(BUILD_STEP)) {}
        if ended.load(Relaxed) {
            return;
        }
    }
}

impl Vectors for Indexes {
    fn open(
        &self,
        tenant: &TenantId,
        name: &str,
        settings: IndexSettings,
    ) -> BoxFuture<'_, Result<Arc<dyn VectorIndex>, VectorError>> {
        let (shared, tenant, name) = (self.shared.clone(), tenant.clone(), name.to_string());
        Box::pin(async move {
            let me = shared.clone();
            let opened = shared.off_thread(move |runtime| me.open(&tenant, &name, settings, runtime)).await?;
            Ok(opened as Arc<dyn VectorIndex>)
        })
    }

    fn drop_index(&self, tenant: &TenantId, name: &str) -> BoxFuture<'_, Result<(), VectorError>> {
        let (shared, tenant, name) = (self.shared.clone(), tenant.clone(), name.to_string());
        Box::pin(async move {
            let me = shared.clone();
            shared.off_thread(move |runtime| me.drop_index(&tenant, &name, runtime)).await
        })
    }
}

impl Shared {
    /// Runs work on a blocking thread, a bounded number at once. It runs to its end even if the future is dropped.
    pub async fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Handle) -> Result<T, VectorError> + Send + 'static,
    ) -> Result<T, VectorError> {
        let permit = self.at_once.clone().acquire_owned().await.map_err(|_| VectorError::CutOff)?;
        let runtime = Handle::try_current().map_err(|_| VectorError::CutOff)?;
        let inside = runtime.clone();
        let task = runtime.spawn_blocking(move || {
            let _permit = permit;
            work(&inside)
        });
        task.await.map_err(|_| VectorError::CutOff)?
    }

    fn open(
        self: &Arc<Self>,
        tenant: &TenantId,
        name: &str,
        settings: IndexSettings,
        runtime: &Handle,
    ) -> Result<Arc<Index>, VectorError> {
        let invalid = |field, reason: String| VectorError::Invalid { field, reason };
        ComponentName::new(name).map_err(|e| invalid("name", e.rule.into()))?;
        if !(1..=MAX_DIMENSIONS).contains(&settings.dimensions) {
            return Err(invalid("dimensions", format!("1 to {MAX_DIMENSIONS}")));
        }
        let _changing = self.changing.lock();
        let key = rows::settings_key(tenant, name);
        let revision = match self.store.get(&key)? {
            Some(row) => {
                let found: IndexSettings = serde_json::from_slice(&row.value)
                    .map_err(|_| StoreError::Corrupt { what: format!("settings of index {name}") })?;
                if found != settings {
                    return Err(VectorError::OtherSettings { name: name.into(), found });
                }
                row.revision
            }
            None => self.make(tenant, name, settings, runtime)?,
        };
        let mut open = self.open.lock();
        let index = open.entry((tenant.clone(), name.to_string()));
        let fresh = || Index::new(self, tenant.clone(), name.into(), settings, revision);
        let index = index.and_modify(|index| {
            if index.revision != revision {
                *index = fresh();
            }
        });
        Ok(index.or_insert_with(fresh).clone())
    }

    fn make(
        &self,
        tenant: &TenantId,
        name: &str,
        settings: IndexSettings,
        runtime: &Handle,
    ) -> Result<u64, VectorError> {
        let most = self.settings.max_indexes;
        if self.store.scan(&rows::settings_prefix(tenant), None, most)?.len() >= most {
            return Err(VectorError::TooLarge { what: "indexes", limit: most });
        }
        // What a drop that was cut off has left behind must not come back to life.
        self.purge(tenant, name, runtime)?;
        let key = rows::settings_key(tenant, name);
        let value = serde_json::to_vec(&settings)
            .map_err(|e| VectorError::Invalid { field: "settings", reason: e.to_string() })?;
        let batch = Batch::new()
            .expect(tenant_row_key(tenant), Expect::Present)
            .expect(key.clone(), Expect::Absent)
            .put(key, value);
        match runtime.block_on(self.store.commit(batch)) {
            Ok(revision) => Ok(revision),
            Err(StoreError::Conflict { .. }) => Err(VectorError::NotFound(name.into())),
            Err(e) => Err(e.into()),
        }
    }

    fn drop_index(&self, tenant: &TenantId, name: &str, runtime: &Handle) -> Result<(), VectorError> {
        let _changing = self.changing.lock();
        let key = rows::settings_key(tenant, name);
        if self.store.get(&key)?.is_none() {
            return Err(VectorError::NotFound(name.into()));
        }
        runtime.block_on(self.store.commit(Batch::new().delete(key)))?;
        self.open.lock().remove(&(tenant.clone(), name.to_string()));
        self.purge(tenant, name, runtime)
    }

    fn purge(&self, tenant: &TenantId, name: &str, runtime: &Handle) -> Result<(), VectorError> {
        let prefix = rows::entries_prefix(tenant, name);
        loop {
            let page = self.store.scan(&prefix, None, DROP_STEP)?;
            if page.is_empty() {
                return Ok(());
            }
            let batch = page.into_iter().fold(Batch::new(), |batch, row| batch.delete(row.key));
            runtime.block_on(self.store.commit(batch))?;
        }
    }

    pub fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Relaxed)
    }

    pub fn build(&self, index: Weak<Index>) {
        // Fails only when the builder could not be started, which was said then.
        let _ = self.to_build.send(index);
    }

    /// Unloads the least recently used indexes until `more` bytes for `index` fit.
    ///
    /// # Errors
    /// [`VectorError::TooLarge`] when the tenant's bound is too small for this index alone.
    pub fn make_room(&self, tenant: &TenantId, index: &Index, more: usize) -> Result<(), VectorError> {
        if more > 0 && index.bytes.load(Relaxed) + more > self.settings.tenant_bytes {
            return Err(VectorError::TooLarge {
                what: "bytes of an index in memory",
                limit: self.settings.tenant_bytes,
            });
        }
        let mut others: Vec<Arc<Index>> = self.open.lock().values().cloned().collect();
        others.retain(|other| other.bytes.load(Relaxed) > 0);
        others.sort_by_key(|other| other.last_used.load(Relaxed));
        let sum = |of: Option<&TenantId>| {
            let counted = others.iter().filter(|other| of.is_none_or(|tenant| other.tenant == *tenant));
            counted.map(|other| other.bytes.load(Relaxed)).sum::<usize>()
        };
        let mut over_tenant = (sum(Some(tenant)) + more).saturating_sub(self.settings.tenant_bytes);
        let mut over_total = (sum(None) + more).saturating_sub(self.settings.total_bytes);
        for other in others.iter().filter(|other| !std::ptr::eq(&***other, index)) {
            let ours = other.tenant == *tenant;
            if (over_tenant > 0 && ours) || over_total > 0 {
                let bytes = other.bytes.load(Relaxed);
                other.unload();
                if ours {
                    over_tenant = over_tenant.saturating_sub(bytes);
                }
                over_total = over_total.saturating_sub(bytes);
            }
        }
        Ok(())
    }
}
