//! Files that a tenant has uploaded: the record in a collection, the bytes in a blob of its own.
//!
//! Invariant: a file's blob begins with its id, so no two files share one and deleting a file deletes its bytes.

use super::{Collection, Full, Registry, RegistryError};
use crate::id::{Digest, TenantId};
use crate::store::{Expect, StoreError};
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// Most files of a tenant, and most bytes of them together.
const MAX_FILES: usize = 10_000;
const MAX_TOTAL_BYTES: u64 = 16 << 30;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    pub filename: String,
    /// What for, in the client's words.
    pub purpose: String,
    /// As the client declared it; empty when it did not.
    pub media_type: String,
    pub bytes: u64,
    /// Seconds since 1970.
    pub created_at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    digest: Digest,
}

impl FileRecord {
    /// Whether this is the sha256 of its blob.
    pub(super) fn is_of(&self, sha256: &[u8]) -> bool {
        self.digest.0 == *sha256
    }
}

/// What a new file is called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileLabel {
    pub filename: String,
    pub purpose: String,
    pub media_type: String,
    pub expires_at: Option<u64>,
}

/// Whether a name is spelled like a file's id.
pub(super) fn is_id(name: &str) -> bool {
    name.strip_prefix("file_").is_some_and(|key| key.len() == 24 && key.bytes().all(|b| b.is_ascii_hexdigit()))
}

impl Registry {
    pub fn files(&self, tenant: &TenantId) -> Collection {
        self.collection(tenant, "files", MAX_FILES, Full::Refuse)
    }

    pub fn file(&self, tenant: &TenantId, id: &str) -> Result<Option<FileRecord>, RegistryError> {
        let found = self.files(tenant).get::<FileRecord>(id)?.map(|v| v.value);
        Ok(found.filter(|f| f.expires_at.is_none_or(|at| at > super::now())))
    }

    /// Stores a file under an id of [`super::new_document_id`]: the bytes first, then the row that names them.
    pub async fn put_file(
        &self,
        tenant: &TenantId,
        id: &str,
        label: FileLabel,
        data: &[u8],
    ) -> Result<FileRecord, RegistryError> {
        let held: u64 = self.files(tenant).list::<FileRecord>(None, MAX_FILES)?.iter().map(|f| f.value.bytes).sum();
        let bytes = data.len() as u64;
        if held.saturating_add(bytes) > MAX_TOTAL_BYTES {
            let (size, limit) = ((held + bytes) as usize, MAX_TOTAL_BYTES as usize);
            return Err(RegistryError::TooLarge { what: "set of files", size, limit });
        }
        let mut blob = BytesMut::with_capacity(id.len() + data.len());
        blob.extend_from_slice(id.as_bytes());
        blob.extend_from_slice(data);
        let _naming = self.naming().await;
        let digest = self.inner.blobs.put(blob.freeze()).await?;
        let FileLabel { filename, purpose, media_type, expires_at } = label;
        let record = FileRecord { filename, purpose, media_type, bytes, created_at: super::now(), expires_at, digest };
        match self.files(tenant).add(id, &record).await {
            Ok(_) => Ok(record),
            Err(e) => {
                self.inner.blobs.delete(digest).await?;
                Err(e)
            }
        }
    }

    pub async fn file_bytes(&self, id: &str, record: &FileRecord) -> Result<Bytes, RegistryError> {
        let blob = self.inner.blobs.get(record.digest).await?;
        if !blob.starts_with(id.as_bytes()) {
            return Err(StoreError::Corrupt { what: format!("file {id}") }.into());
        }
        Ok(blob.slice(id.len()..))
    }

    /// At most `length` bytes of a file from the byte `offset` on; fewer only at its end.
    pub async fn file_piece(
        &self,
        id: &str,
        record: &FileRecord,
        offset: u64,
        length: usize,
    ) -> Result<Bytes, RegistryError> {
        let offset = offset.saturating_add(id.len() as u64);
        Ok(self.inner.blobs.piece(record.digest, offset, length).await?)
    }

    /// `false` when there is no such file.
    pub async fn delete_file(&self, tenant: &TenantId, id: &str) -> Result<bool, RegistryError> {
        let Some(found) = self.files(tenant).get::<FileRecord>(id)? else { return Ok(false) };
        // The row first: what is left after a crash is a blob that nobody names, not a name without bytes.
        let deleted = self.files(tenant).delete(id, Expect::Revision(found.revision)).await?;
        if deleted {
            self.inner.blobs.delete(found.value.digest).await?;
        }
        Ok(deleted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{MemoryStore, new_document_id};
    use std::sync::Arc;

    #[tokio::test]
    async fn a_file_reads_back_and_its_bytes_go_with_it() {
        let store = Arc::new(MemoryStore::new());
        let registry = Registry::new(store.clone(), store);
        registry.ensure_default_tenant().await.unwrap();
        let tenant = TenantId::default_tenant();
        let label = FileLabel { filename: "a.txt".into(), ..FileLabel::default() };
        let (one, two) = (new_document_id("file", 1), new_document_id("file", 2));
        let first = registry.put_file(&tenant, &one, label.clone(), b"same").await.unwrap();
        let second = registry.put_file(&tenant, &two, label, b"same").await.unwrap();
        assert_ne!(first.digest, second.digest);
        assert!(registry.delete_file(&tenant, &one).await.unwrap());
        assert!(!registry.delete_file(&tenant, &one).await.unwrap());
        assert!(registry.blobs().get(first.digest).await.is_err());
        assert_eq!(&registry.file_bytes(&two, &second).await.unwrap()[..], b"same");
        assert_eq!(registry.file(&tenant, &two).unwrap(), Some(second));
    }
}
