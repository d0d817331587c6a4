//! The store seam over the folder: reads go to the index, commits to the writer's queue.

use crate::blobs::BlobFolder;
use crate::error::OpenError;
use crate::folder::create_folder;
use crate::index::Index;
use crate::journal::{Through, plainly};
use crate::maintenance::{self, Compacted, Copied, Verified};
use crate::recover::{IndexOrigin, Paths, lock, recover};
use crate::writer::{Command, Pending, Sealed, Thresholds, Writer};
use parking_lot::Mutex;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use stockade_core::error::BoxFuture;
use stockade_core::store::{Batch, MAX_BATCH_OPS, MAX_KEY_BYTES, MAX_VALUE_BYTES, Revision, Row, Store, StoreError};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, oneshot};

/// Sizes, all in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A segment of the journal that has reached this size is sealed. Sealed segments are what compaction and backup
    /// read; smaller ones only cost file names.
    pub segment_bytes: u64,
    /// Journal to collect before it is compacted into a snapshot (or the size of the last snapshot, if larger). Bounds
    /// the replay at open and the memory of a compaction.
    pub compact_after_bytes: u64,
    /// Batches waiting for the writer; further commits wait outside the queue.
    pub queue_bytes: usize,
    /// Pages that the index keeps in memory.
    pub cache_bytes: u64,
    /// Largest blob. A blob is held in memory while it is written or read whole.
    pub max_blob_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            compact_after_bytes: 64 << 20,
            queue_bytes: 32 << 20,
            cache_bytes: 64 << 20,
            max_blob_bytes: 1 << 30,
        }
    }
}

/// What an open state looks like from outside.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Status {
    pub folder: PathBuf,
    /// Last acknowledged commit, 0 if there has been none.
    pub last_commit: Revision,
    pub rows: u64,
    pub snapshot_bytes: u64,
    /// Bytes of the index on disk; it may be deleted while the state is closed.
    pub index_bytes: u64,
    /// How the index came up when the state was opened.
    pub index: IndexOrigin,
}

/// What the writer, the readers and maintenance share. The folder's lock lives as long as the last of them.
pub(crate) struct Shared {
    pub paths: Paths,
    pub index: Index,
    /// Held by whatever deletes or copies files of the journal or blobs.
    pub maintenance: Mutex<()>,
    pub max_blob_bytes: u64,
    pub last: AtomicU64,
    pub rows: AtomicU64,
    pub snapshot_bytes: AtomicU64,
    _lock: File,
}

/// An open state folder.
///
/// Dropping it waits for the commits that are queued and for a running compaction; [`State::close`] does so without
/// blocking. The folder stays locked until the blob handles and started maintenance are gone as well.
pub struct State {
    shared: Arc<Shared>,
    origin: IndexOrigin,
    room: Arc<Semaphore>,
    queue_bytes: usize,
    /// `None` only while dropping.
    queue: Option<UnboundedSender<Command>>,
    writer: Option<JoinHandle<()>>,
}

impl State {
    /// Opens the state in `folder`, creating it if there is none. Blocks: call it before the runtime is busy.
    ///
    /// # Errors
    /// - [`OpenError::Locked`]: another process (or another `State` of this one) has it open
    /// - [`OpenError::NewerLayout`]: a later version of this program wrote it
    /// - [`OpenError::Corrupt`], [`OpenError::JournalBehind`]: acknowledged data is damaged or missing
    pub fn open(folder: &Path, config: Config) -> Result<Self, OpenError> {
        Self::open_through(folder, config, plainly)
    }

    pub(crate) fn open_through(folder: &Path, config: Config, through: Through) -> Result<Self, OpenError> {
        create_folder(folder)?;
        let lock = lock(folder)?;
        let paths = Paths::new(folder);
        let recovered = recover(&paths, config.cache_bytes, through)?;
        crate::blobs::remove_unfinished(&paths.blobs)?;
        let shared = Arc::new(Shared {
            paths,
            index: recovered.index,
            maintenance: Mutex::new(()),
            max_blob_bytes: config.max_blob_bytes,
            last: AtomicU64::new(recovered.applied.last),
            rows: AtomicU64::new(recovered.applied.rows.count),
            snapshot_bytes: AtomicU64::new(recovered.snapshot_bytes),
            _lock: lock,
        });
        let writer = Writer {
            shared: shared.clone(),
            journal: recovered.journal,
            applied: recovered.applied,
            thresholds: Thresholds {
                segment_bytes: config.segment_bytes,
                compact_after_bytes: config.compact_after_bytes,
            },
            sealed_bytes: recovered.sealed_bytes,
            broken: None,
            compactions: Vec::new(),
        };
        let (queue, commands) = unbounded_channel();
        let writer = std::thread::Builder::new()
            .name("state-writer".into())
            .spawn(move || writer.run(commands))
            .map_err(OpenError::io("starting the writer", folder))?;
        let queue_bytes = config.queue_bytes.clamp(1, Semaphore::MAX_PERMITS);
        Ok(Self {
            shared,
            origin: recovered.origin,
            room: Arc::new(Semaphore::new(queue_bytes)),
            queue_bytes,
            queue: Some(queue),
            writer: Some(writer),
        })
    }

    /// The blobs of this folder.
    pub fn blobs(&self) -> Arc<BlobFolder> {
        Arc::new(BlobFolder::new(self.shared.clone()))
    }

    pub fn status(&self) -> Status {
        Status {
            folder: self.shared.paths.root.clone(),
            last_commit: self.shared.last.load(Relaxed),
            rows: self.shared.rows.load(Relaxed),
            snapshot_bytes: self.shared.snapshot_bytes.load(Relaxed),
            index_bytes: self.shared.index.size_on_disk().unwrap_or(0),
            index: self.origin,
        }
    }

    /// Replaces the journal so far by a snapshot. Commits go on meanwhile. Happens by itself, too:
    /// [`Config::compact_after_bytes`].
    pub async fn compact(&self) -> Result<Compacted, StoreError> {
        self.ask(Command::Compact).await
    }

    /// Copies snapshot, journal and blobs as of one moment into `to`, which must be empty or absent. Commits go on
    /// meanwhile; compaction and the deletion of blobs wait. `to` opens like any state folder.
    pub async fn backup(&self, to: &Path) -> Result<Copied, StoreError> {
        let to = to.to_owned();
        self.maintain(move |shared, seal| maintenance::backup(shared, seal, &to)).await
    }

    /// Reads everything there is and compares: checksums of snapshot and segments, the index against both, every blob
    /// against its name. Commits stall while the index is read.
    pub async fn verify(&self) -> Result<Verified, StoreError> {
        self.maintain(maintenance::verify_open).await
    }

    /// Waits until all that is queued is committed and the index is on disk.
    pub async fn close(mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            let _ = off_thread(move || {
                let _ = writer.join();
            })
            .await;
        }
    }

    fn queue(&self) -> Result<&UnboundedSender<Command>, StoreError> {
        self.queue.as_ref().ok_or(StoreError::Closed)
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Command,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.queue()?.send(command(reply)).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Runs `work` on a blocking thread under the maintenance lock, with a way to seal the journal.
    async fn maintain<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared, &Seal) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = self.shared.clone();
        let queue = self.queue()?.clone();
        off_thread(move || {
            let _alone = shared.maintenance.lock();
            work(&shared, &|| {
                let (reply, answer) = oneshot::channel();
                queue.send(Command::Seal(reply)).map_err(|_| StoreError::Closed)?;
                answer.blocking_recv().map_err(|_| StoreError::Closed)?
            })
        })
        .await?
    }
}

/// Asks the writer to put all commits so far into sealed segments.
pub(crate) type Seal<'a> = dyn Fn() -> Result<Sealed, StoreError> + 'a;

impl Drop for State {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Store for State {
    fn get(&self, key: &[u8]) -> Result<Option<Row>, StoreError> {
        self.shared.index.get(key).map_err(OpenError::reading)
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, StoreError> {
        self.shared.index.scan(prefix, after, limit).map_err(OpenError::reading)
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Revision, StoreError>> {
        Box::pin(async move {
            let bytes = check_sizes(&batch)?;
            let share = bytes.min(self.queue_bytes).try_into().unwrap_or(u32::MAX);
            let room = self.room.clone().acquire_many_owned(share).await.map_err(|_| StoreError::Closed)?;
            self.ask(|reply| Command::Commit(Pending { batch, reply, room })).await
        })
    }
}

/// Checks a batch against the limits of the seam; answers about how many bytes it holds in memory.
fn check_sizes(batch: &Batch) -> Result<usize, StoreError> {
    let within = |what, size, limit| {
        if size <= limit { Ok(size) } else { Err(StoreError::TooLarge { what, size, limit }) }
    };
    let mut bytes = 256;
    for ops in [batch.expects.len(), batch.writes.len()] {
        bytes += 64 * within("batch", ops, MAX_BATCH_OPS)?;
    }
    for (key, _) in &batch.expects {
        bytes += within("key", key.len(), MAX_KEY_BYTES)?;
    }
    for (key, value) in &batch.writes {
        bytes += within("key", key.len(), MAX_KEY_BYTES)?;
        bytes += within("value", value.as_ref().map_or(0, |v| v.len()), MAX_VALUE_BYTES)?;
    }
    Ok(bytes)
}

/// Runs blocking work beside the async threads. It runs to its end even if the future is dropped.
pub(crate) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    let failed = |source| StoreError::Io { stage: "blocking task", source };
    tokio::runtime::Handle::try_current()
        .map_err(|e| failed(Box::new(e)))?
        .spawn_blocking(work)
        .await
        .map_err(|e| failed(Box::new(e)))
}

#[cfg(test)]
mod tests;
