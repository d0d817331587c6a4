//! The vector seam: nearest-neighbour indexes of a tenant. Implemented by `vectors`.
//!
//! Invariant: when a write answers `Ok`, it is in the [`Store`](crate::store::Store) and survives a power cut; what
//! serves searches in memory can be made again from there.

use crate::error::{BoxFuture, Fault};
use crate::id::TenantId;
use crate::store::StoreError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Most dimensions of an index.
pub const MAX_DIMENSIONS: u32 = 4096;
/// Longest id in bytes.
pub const MAX_ID_BYTES: usize = 200;
/// Largest attributes, as JSON text in bytes.
pub const MAX_ATTRIBUTES_BYTES: usize = 4096;
/// Most entries of one upsert.
pub const MAX_ENTRIES: usize = 256;
/// Most ids of one delete.
pub const MAX_DELETED: usize = 1000;
/// Most neighbours of one search.
pub const MAX_NEIGHBOURS: usize = 1000;

/// What "close" means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// Score: the cosine.
    Cosine,
    /// Score: the inner product.
    Dot,
    /// Score: minus the distance.
    Euclidean,
}

/// What an index is, from its making on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexSettings {
    pub dimensions: u32,
    pub metric: Metric,
}

/// A vector with its name and what filters match on.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub id: String,
    /// `[D]`, finite.
    pub vector: Vec<f32>,
    pub attributes: Map<String, Value>,
}

/// What to look for.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// `[D]`, finite.
    pub vector: Vec<f32>,
    /// 1 to [`MAX_NEIGHBOURS`].
    pub limit: usize,
    pub filter: Option<Value>,
    /// Compare with every vector, whatever the size.
    pub exact: bool,
}

/// A found entry; a larger score is closer.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbour {
    pub id: String,
    pub score: f32,
    pub attributes: Map<String, Value>,
}

/// Why an index could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VectorError {
    #[error("no index `{0}`")]
    NotFound(String),
    #[error("index `{name}` has {} dimensions and metric {:?}", .found.dimensions, .found.metric)]
    OtherSettings { name: String, found: IndexSettings },
    #[error("{field}: {reason}")]
    Invalid { field: &'static str, reason: String },
    #[error("{what} exceed the limit of {limit}")]
    TooLarge { what: &'static str, limit: usize },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the vector work was cut off")]
    CutOff,
}

impl VectorError {
    pub fn fault(&self) -> Fault {
        match self {
            Self::NotFound(_) | Self::OtherSettings { .. } | Self::Invalid { .. } | Self::TooLarge { .. } => {
                Fault::Caller
            }
            Self::Store(e) => e.fault(),
            Self::CutOff => Fault::Host,
        }
    }
}

/// Indexes by tenant and name.
pub trait Vectors: Send + Sync + 'static {
    /// Opens an index, making it where there is none.
    ///
    /// # Errors
    /// [`VectorError::OtherSettings`] where it exists with others.
    fn open(
        &self,
        tenant: &TenantId,
        name: &str,
        settings: IndexSettings,
    ) -> BoxFuture<'_, Result<Arc<dyn VectorIndex>, VectorError>>;

    /// Removes an index with all its vectors. Open handles answer [`VectorError::NotFound`] from then on.
    fn drop_index(&self, tenant: &TenantId, name: &str) -> BoxFuture<'_, Result<(), VectorError>>;
}

/// One open index. Work that computes runs beside the async threads.
pub trait VectorIndex: Send + Sync + 'static {
    /// Adds or replaces at most [`MAX_ENTRIES`]. Each entry is written whole; a failure may leave some of them written.
    fn upsert(&self, entries: Vec<Entry>) -> BoxFuture<'_, Result<(), VectorError>>;
    /// Removes at most [`MAX_DELETED`] and answers how many were there.
    fn delete(&self, ids: Vec<String>) -> BoxFuture<'_, Result<u32, VectorError>>;
    /// Closest first.
    fn search(&self, query: Query) -> BoxFuture<'_, Result<Vec<Neighbour>, VectorError>>;
    fn size(&self) -> BoxFuture<'_, Result<u64, VectorError>>;
}
