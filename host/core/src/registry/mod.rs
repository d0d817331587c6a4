//! Typed access to the records that a host keeps in its [`Store`] and [`Blobs`].
//!
//! Owns the key layout ([`keys`]), the JSON of each record and the rules between records (a bound version cannot be
//! deleted, a version never changes its bytes). Refuses to own durability, which is the store's, and policy on who
//! may call what, which is the gateway's.
//!
//! Invariants:
//! - every key of a tenant starts with `t/TENANT/`; tenant names hold no `/`, so no tenant's scan reaches another's rows
//! - a row that names a blob is written after the blob, and deleted before it
//! - whatever changes what a request would pin (bindings, grants) also writes the tenant's `pins` row, in the same
//!   batch: its revision is the version of [`Registry::pins`]

mod api_keys;
mod assistants;
mod bindings;
mod blobs;
mod buckets;
mod casting;
mod collections;
mod components;
mod datasets;
mod files;
mod grants;
mod interruptions;
mod jobs;
mod keys;
mod memory;
mod models;
mod pins;
mod recorder;
mod secrets;
mod tenants;
mod traces;
mod usage;
mod values;

pub use api_keys::{ApiKey, NewKey, Scope, secret_text};
pub use assistants::{
    Assistant, AssistantVersion, BankRef, BankScope, Memory, OrchestratorRef, PromptRef, ShieldRef, Shields, TurnLimits,
};
pub use bindings::{Binding, BindingEntry, BoundAt, MAX_ENTRIES, MAX_ROLES};
pub use blobs::Swept;
pub use buckets::{
    Bucket, BucketKey, BucketValue, BucketWrite, MAX_STATE_KEY_BYTES, MAX_STATE_VALUE_BYTES, MAX_STATE_WRITES,
    ValueKind,
};
pub use casting::{Party, keep_tools};
pub use collections::{Collection, Document, Full, new_document_id};
pub use components::{ComponentSummary, PutVersion, VersionRecord};
pub use datasets::{Dataset, DatasetPurpose, FileForm, FilePieces, MAX_ROW_BYTES, RowPage};
pub use files::{FileLabel, FileRecord};
pub use interruptions::{Dialect, Waiting};
pub use jobs::{
    Checkpoint, Claimed, EventKind, Job, JobEnd, JobError, JobEvent, JobKind, JobStatus, JobUsage, Lease,
    MAX_JOB_SPEC_BYTES, NewEvent, NewJob, Progress, Report, Scorer, Wish, Worker,
};
pub use memory::MemoryStore;
pub use models::TrainedModel;
pub use recorder::{Recorder, Recording};
pub use secrets::Sealing;
pub use tenants::{Quotas, Tenant, tenant_row_key, tenant_rows};
pub use traces::{Span, TraceRecord, new_trace_id};
pub use usage::{UsageDelta, UsageRow, day};
pub use values::{MAX_LARGE_BYTES, Versioned};

use crate::error::Fault;
use crate::store::{Blobs, Revision, Store, StoreError};
use crate::vault::{Vault, VaultError};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// All records of a host. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    blobs: Arc<dyn Blobs>,
    vault: Option<Arc<dyn Vault>>,
    /// See [`blobs`].
    naming: tokio::sync::RwLock<()>,
    pins: pins::Cache,
    counts: traces::Counts,
    sizes: collections::Sizes,
    owners: models::Owners,
}

impl Registry {
    /// Without a vault: for stores that are nowhere on disk, and for work that leaves secrets alone.
    pub fn new(store: Arc<dyn Store>, blobs: Arc<dyn Blobs>) -> Self {
        Self::build(store, blobs, None)
    }

    /// Secrets are sealed by `vault`.
    pub fn with_vault(store: Arc<dyn Store>, blobs: Arc<dyn Blobs>, vault: Arc<dyn Vault>) -> Self {
        Self::build(store, blobs, Some(vault))
    }

    fn build(store: Arc<dyn Store>, blobs: Arc<dyn Blobs>, vault: Option<Arc<dyn Vault>>) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                blobs,
                vault,
                naming: tokio::sync::RwLock::default(),
                pins: pins::Cache::default(),
                counts: traces::Counts::default(),
                sizes: collections::Sizes::default(),
                owners: models::Owners::default(),
            }),
        }
    }

    /// The bytes behind component versions and files. What is put here without a record that names it goes with the next
    /// sweep.
    pub fn blobs(&self) -> &Arc<dyn Blobs> {
        &self.inner.blobs
    }

    /// The rows behind the records, for parts that keep their own beside them.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registry")
    }
}

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    #[error("no {what} `{name}`")]
    NotFound { what: &'static str, name: String },
    #[error("{what} `{name}` exists already")]
    Exists { what: &'static str, name: String },
    /// The version is taken by other bytes.
    #[error("version {version} of `{component}` holds other bytes")]
    VersionExists { component: String, version: String },
    #[error("version {version} of `{component}` is bound to {role}")]
    InUse { component: String, version: String, role: String },
    /// The record's revision is not the expected one.
    #[error("the record has changed")]
    RevisionMismatch { found: Option<Revision> },
    #[error("{0}")]
    Conflict(String),
    #[error("{field}: {reason}")]
    Invalid { field: String, reason: String },
    /// Part of the interface that this host does not serve yet.
    #[error("{0} is not served by this host")]
    NotServed(&'static str),
    /// Another worker has taken the job.
    #[error("the job `{job}` is no longer this worker's")]
    LeaseLost { job: String },
    #[error("{what} of {size} bytes exceeds the limit of {limit}")]
    TooLarge { what: &'static str, size: usize, limit: usize },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("secret `{name}` cannot be kept or read")]
    Sealed {
        name: String,
        #[source]
        source: VaultError,
    },
}

impl RegistryError {
    pub fn fault(&self) -> Fault {
        match self {
            Self::Store(e) => e.fault(),
            Self::Sealed { .. } => Fault::Host,
            _ => Fault::Caller,
        }
    }

    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), reason: reason.into() }
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// A record out of a row's bytes.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, RegistryError> {
    serde_json::from_slice(bytes).map_err(|_| StoreError::Corrupt { what: what.into() }.into())
}

/// A record as a row's bytes.
pub(crate) fn to_bytes<T: serde::Serialize>(record: &T) -> Result<Vec<u8>, RegistryError> {
    serde_json::to_vec(record)
        .map_err(|e| StoreError::Io { stage: "writing a record as JSON", source: Box::new(e) }.into())
}

#[cfg(test)]
mod tests;
