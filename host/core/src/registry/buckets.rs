//! State buckets: a tenant's own keys and values, for its clients and for its components.
//!
//! A value is JSON text or bytes of at most 1 MiB, kept exactly as given.

use super::keys;
use super::values::Change;
use super::{Registry, RegistryError, Versioned};
use crate::id::{ComponentName, TenantId};
use crate::store::{Expect, Revision, StoreError};
use bytes::Bytes;
use std::collections::BTreeSet;

/// Longest key in bytes: with tenant, bucket and what marks a part, it stays below the store's longest key.
pub const MAX_STATE_KEY_BYTES: usize = 256;
/// Largest value in bytes.
pub const MAX_STATE_VALUE_BYTES: usize = 1 << 20;

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    Json,
    Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketValue {
    pub kind: ValueKind,
    pub bytes: Bytes,
}

impl BucketValue {
    pub fn json(text: impl Into<Bytes>) -> Self {
        Self { kind: ValueKind::Json, bytes: text.into() }
    }
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self { kind: ValueKind::Bytes, bytes: bytes.into() }
    }
}

/// Most writes of one commit.
pub const MAX_STATE_WRITES: usize = 256;

/// One of several writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketWrite {
    pub key: String,
    /// `None` deletes.
    pub value: Option<BucketValue>,
    pub expect: Option<Expect>,
}

/// A listed key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketKey {
    pub key: String,
    pub revision: Revision,
}

/// One bucket of one tenant. Buckets need no making: an empty one holds no rows.
#[derive(Debug, Clone)]
pub struct Bucket {
    registry: Registry,
    tenant: TenantId,
    name: ComponentName,
}

impl Registry {
    /// # Errors
    /// [`RegistryError::Invalid`] when `name` is no slug.
    pub fn bucket(&self, tenant: &TenantId, name: &str) -> Result<Bucket, RegistryError> {
        let name = ComponentName::new(name).map_err(|e| RegistryError::invalid("bucket", e.rule))?;
        Ok(Bucket { registry: self.clone(), tenant: tenant.clone(), name })
    }
}

impl Bucket {
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    pub fn get(&self, key: &str) -> Result<Option<Versioned<BucketValue>>, RegistryError> {
        check_key(key)?;
        let place = keys::state(&self.tenant, self.name.as_str(), key);
        let Some(found) = self.registry.read_value(&place)? else {
            return Ok(None);
        };
        let kind = match found.value.first() {
            Some(b'j') => ValueKind::Json,
            Some(b'b') => ValueKind::Bytes,
            _ => {
                return Err(StoreError::Corrupt { what: format!("state of bucket {}", self.name) }.into());
            }
        };
        Ok(Some(found.map(|bytes| BucketValue { kind, bytes: bytes.slice(1..) })))
    }

    /// Puts a value when `expect` holds of the present one.
    ///
    /// # Errors
    /// [`RegistryError::RevisionMismatch`] when `expect` does not hold.
    pub async fn set(&self, key: &str, value: &BucketValue, expect: Option<Expect>) -> Result<Revision, RegistryError> {
        check_key(key)?;
        let bytes = stored(value)?;
        let place = keys::state(&self.tenant, self.name.as_str(), key);
        let tenant = keys::tenant(&self.tenant);
        let written = self
            .registry
            .write_value(&place, Some(&bytes), expect, |batch| batch.expect(tenant.clone(), Expect::Present))
            .await;
        written.map_err(|e| self.tenant_gone(e))
    }

    /// Does all of `writes`, each of another key, or none, in one commit. A delete of what is not there is none.
    ///
    /// # Errors
    /// [`RegistryError::RevisionMismatch`] when an expectation does not hold.
    pub async fn commit(&self, writes: &[BucketWrite]) -> Result<Revision, RegistryError> {
        if writes.is_empty() {
            return Err(RegistryError::invalid("writes", "at least one"));
        }
        if writes.len() > MAX_STATE_WRITES {
            return Err(RegistryError::TooLarge { what: "writes", size: writes.len(), limit: MAX_STATE_WRITES });
        }
        let mut keys = BTreeSet::new();
        let mut rows = Vec::with_capacity(writes.len());
        for BucketWrite { key, value, .. } in writes {
            check_key(key)?;
            if !keys.insert(key) {
                return Err(RegistryError::invalid("writes", "two of the same key"));
            }
            rows.push((keys::state(&self.tenant, self.name.as_str(), key), value.as_ref().map(stored).transpose()?));
        }
        let changes = writes.iter().zip(&rows).map(|(write, row)| Change {
            place: &row.0,
            value: row.1.as_deref(),
            want: write.expect,
        });
        let changes: Vec<Change> = changes.collect();
        let tenant = keys::tenant(&self.tenant);
        let written = self.registry.write_values(&changes, |batch| batch.expect(tenant.clone(), Expect::Present)).await;
        written.map_err(|e| self.tenant_gone(e))
    }

    /// Deletes a value when `expect` holds of it; `false` when there was none.
    pub async fn delete(&self, key: &str, expect: Option<Expect>) -> Result<bool, RegistryError> {
        check_key(key)?;
        let place = keys::state(&self.tenant, self.name.as_str(), key);
        let want = Some(expect.unwrap_or(Expect::Present));
        let done = self.registry.write_value(&place, None, want, |b| b).await;
        match done {
            Ok(_) => Ok(true),
            Err(RegistryError::RevisionMismatch { found: None }) if expect.is_none() => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Keys that start with `prefix`, in byte order, after the key `after`, at most `limit`.
    pub fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<BucketKey>, RegistryError> {
        let bucket = keys::bucket(&self.tenant, self.name.as_str());
        let after = after.map(|a| [&bucket[..], a.as_bytes()].concat());
        let from = [&bucket[..], prefix.as_bytes()].concat();
        let rows = self.registry.store().scan(&from, after.as_deref(), limit)?;
        let keys = rows.into_iter().map(|row| BucketKey {
            key: String::from_utf8_lossy(&row.key[bucket.len()..]).into_owned(),
            revision: row.revision,
        });
        Ok(keys.collect())
    }

    fn tenant_gone(&self, e: RegistryError) -> RegistryError {
        match e {
            RegistryError::Store(StoreError::Conflict { .. }) => {
                RegistryError::NotFound { what: "tenant", name: self.tenant.to_string() }
            }
            e => e,
        }
    }
}

/// A value as its row has it: what it is, then its bytes.
fn stored(value: &BucketValue) -> Result<Vec<u8>, RegistryError> {
    let size = value.bytes.len();
    if size > MAX_STATE_VALUE_BYTES {
        return Err(RegistryError::TooLarge { what: "state value", size, limit: MAX_STATE_VALUE_BYTES });
    }
    let kind = match value.kind {
        ValueKind::Json => b'j',
        ValueKind::Bytes => b'b',
    };
    Ok([&[kind], &value.bytes[..]].concat())
}

fn check_key(key: &str) -> Result<(), RegistryError> {
    if key.is_empty() || key.len() > MAX_STATE_KEY_BYTES || key.chars().any(char::is_control) {
        return Err(RegistryError::invalid(
            "key",
            format!("1 to {MAX_STATE_KEY_BYTES} bytes without control characters"),
        ));
    }
    Ok(())
}
