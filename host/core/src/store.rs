//! The durable-state seam: an ordered map with compare-and-set batches, and content-addressed blobs.
//!
//! Invariant: when [`Store::commit`] or [`Blobs::put`] answers `Ok`, the bytes are fsynced and survive a power
//! cut. A batch is applied whole or not at all, and a reader never sees half of one.

use crate::error::{BoxError, BoxFuture, Fault};
use crate::id::Digest;
use bytes::Bytes;

/// Largest key in bytes.
pub const MAX_KEY_BYTES: usize = 640;
/// Largest value in bytes; anything larger is a blob that a row names.
pub const MAX_VALUE_BYTES: usize = 4096;
/// Most operations in one batch.
pub const MAX_BATCH_OPS: usize = 1024;

/// The commit sequence number that last changed a row: strictly growing over the whole store, never 0.
pub type Revision = u64;

/// A row as read: its value and the commit that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub key: Bytes,
    pub value: Bytes,
    pub revision: Revision,
}

/// What must hold of a key for a batch to be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The key has no row.
    Absent,
    /// The key has some row.
    Present,
    /// The key's row has exactly this revision.
    Revision(Revision),
}

/// A compare-and-set batch: all `expects` are checked, then all writes applied, atomically.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    pub expects: Vec<(Bytes, Expect)>,
    /// `Some(value)` puts, `None` deletes. A later write of the same key wins.
    pub writes: Vec<(Bytes, Option<Bytes>)>,
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }
    pub fn expect(mut self, key: impl Into<Bytes>, expect: Expect) -> Self {
        self.expects.push((key.into(), expect));
        self
    }
    pub fn put(mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.writes.push((key.into(), Some(value.into())));
        self
    }
    pub fn delete(mut self, key: impl Into<Bytes>) -> Self {
        self.writes.push((key.into(), None));
        self
    }
    /// Both, as one.
    pub fn and(mut self, other: Self) -> Self {
        self.expects.extend(other.expects);
        self.writes.extend(other.writes);
        self
    }
}

/// Why state could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// An expectation of the batch did not hold; nothing was written.
    #[error("the row has changed since it was read")]
    Conflict {
        key: Bytes,
        /// The row's revision now, `None` when it is absent.
        found: Option<Revision>,
    },
    #[error("{what} of {size} bytes exceeds the limit of {limit}")]
    TooLarge { what: &'static str, size: usize, limit: usize },
    #[error("no blob {0}")]
    NoBlob(Digest),
    #[error("no space left for state")]
    Full,
    #[error("stored bytes of {what} are damaged")]
    Corrupt { what: String },
    #[error("state failed in {stage}")]
    Io {
        stage: &'static str,
        #[source]
        source: BoxError,
    },
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    pub fn fault(&self) -> Fault {
        match self {
            Self::Conflict { .. } | Self::TooLarge { .. } | Self::NoBlob(_) => Fault::Caller,
            Self::Full | Self::Corrupt { .. } | Self::Io { .. } | Self::Closed => Fault::Host,
        }
    }
}

/// An ordered map of small values.
///
/// Reads see every acknowledged commit and may see a commit whose fsync is still under way only after it is
/// acknowledged; they are cheap (memory or page cache) and may be called from async code.
pub trait Store: Send + Sync + 'static {
    fn get(&self, key: &[u8]) -> Result<Option<Row>, StoreError>;

    /// Rows whose key starts with `prefix` and is greater than `after` (a whole key), in key order, at most `limit`.
    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, StoreError>;

    /// Applies `batch` and answers with its revision once it is fsynced. Commits of concurrent callers share an fsync.
    /// Dropping the future does not undo a commit that was already queued.
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Revision, StoreError>>;
}

/// Content-addressed bytes, named by their sha256.
pub trait Blobs: Send + Sync + 'static {
    /// Stores `bytes` (temporary file, fsync, rename, fsync of the folder); the same bytes again cost a lookup.
    fn put(&self, bytes: Bytes) -> BoxFuture<'_, Result<Digest, StoreError>>;
    /// The whole blob, checked against its digest.
    fn get(&self, digest: Digest) -> BoxFuture<'_, Result<Bytes, StoreError>>;
    /// At most `length` bytes from the byte `offset` on, not checked against the digest; fewer only at the blob's end.
    fn piece(&self, digest: Digest, offset: u64, length: usize) -> BoxFuture<'_, Result<Bytes, StoreError>>;
    fn delete(&self, digest: Digest) -> BoxFuture<'_, Result<(), StoreError>>;
    /// All blobs with their sizes in bytes, in no order.
    fn list(&self) -> BoxFuture<'_, Result<Vec<(Digest, u64)>, StoreError>>;
    /// The file that holds a blob, for readers that map or stream it themselves.
    fn path(&self, digest: Digest) -> Option<std::path::PathBuf>;
}
