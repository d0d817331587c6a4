//! Which blobs are named by a record, and the end of those that are not.
//!
//! Invariants:
//! - a blob goes only while nobody is between putting one and writing the row that names it ([`Naming`])
//! - the row goes first: what a crash leaves is a blob that nobody names, which the next sweep collects
//! - a record that names a blob is written once and never rewritten, so that no scan misses it
//!
//! The sweep does not know what records there are. A digest that stands anywhere in a row keeps its blob, so that a new
//! kind of record needs no line here; only traces, which tell what was, keep nothing.

use super::{Registry, RegistryError, keys};
use crate::id::{Digest, TenantId};
use crate::store::Row;
use std::collections::HashMap;
use tokio::sync::RwLockReadGuard;

/// Rows read at once.
const STRIDE: usize = 512;
/// Letters of a digest's text.
const LETTERS: usize = 64;

/// Held from before a blob is put until the row that names it is written.
pub(super) type Naming<'a> = RwLockReadGuard<'a, ()>;

/// What a sweep deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Swept {
    pub blobs: u64,
    pub blob_bytes: u64,
}

/// Blobs that no row is known to name so far, with their sizes in bytes.
type Unnamed = HashMap<Digest, u64>;

impl Registry {
    pub(super) async fn naming(&self) -> Naming<'_> {
        self.inner.naming.read().await
    }

    /// Deletes every blob that no row names.
    pub async fn sweep_blobs(&self) -> Result<Swept, RegistryError> {
        // Mostly there is nothing to collect, which the rows that do name blobs tell sooner than all rows.
        if self.unnamed_by_tenants().await?.is_empty() {
            return Ok(Swept::default());
        }
        let _alone = self.inner.naming.write().await;
        let mut unnamed = self.all_blobs().await?;
        self.strike(b"", &mut unnamed)?;
        let mut swept = Swept::default();
        for (digest, bytes) in unnamed {
            self.inner.blobs.delete(digest).await?;
            swept.blobs += 1;
            swept.blob_bytes += bytes;
        }
        Ok(swept)
    }

    /// Deletes a component's bytes, whose version is gone, unless another version is made of them. Requests that have pinned
    /// the version go on with what was compiled of it.
    pub(super) async fn release_component(&self, digest: Digest) -> Result<(), RegistryError> {
        let _alone = self.inner.naming.write().await;
        let mut unnamed = Unnamed::from([(digest, 0)]);
        self.each_tenant(|tenant| self.strike_below(tenant, keys::COMPONENTS, &mut unnamed))?;
        if !unnamed.is_empty() {
            self.inner.blobs.delete(digest).await?;
        }
        Ok(())
    }

    async fn unnamed_by_tenants(&self) -> Result<Unnamed, RegistryError> {
        let mut unnamed = self.all_blobs().await?;
        self.each_tenant(|tenant| {
            self.strike_below(tenant, keys::COMPONENTS, &mut unnamed)?;
            self.strike_below(tenant, keys::FILES, &mut unnamed)
        })?;
        Ok(unnamed)
    }

    async fn all_blobs(&self) -> Result<Unnamed, RegistryError> {
        Ok(self.inner.blobs.list().await?.into_iter().collect())
    }

    /// Strikes what a tenant's values below `rest` name, their parts included.
    fn strike_below(&self, tenant: &TenantId, rest: &str, unnamed: &mut Unnamed) -> Result<(), RegistryError> {
        keys::rows_below(tenant, rest).iter().try_for_each(|prefix| self.strike(prefix, unnamed))
    }

    /// Strikes every blob whose digest stands in a row under `prefix`.
    fn strike(&self, prefix: &[u8], unnamed: &mut Unnamed) -> Result<(), RegistryError> {
        let mut reader = Reader::default();
        let mut after: Option<bytes::Bytes> = None;
        while !unnamed.is_empty() {
            let rows = self.store().scan(prefix, after.as_deref(), STRIDE)?;
            let Some(last) = rows.last() else { break };
            after = Some(last.key.clone());
            for row in rows.iter().filter(|row| !keys::is_trace(&row.key)) {
                reader.read(row, |digest| {
                    unnamed.remove(&digest);
                });
            }
        }
        Ok(())
    }
}

/// Finds digests in rows. Parts of a value follow one another, so what ends a row may go on in the next.
#[derive(Default)]
struct Reader {
    /// The hexadecimal letters read last, without anything else between them.
    run: Vec<u8>,
}

impl Reader {
    fn read(&mut self, row: &Row, mut found: impl FnMut(Digest)) {
        for &byte in row.value.iter() {
            if !matches!(byte, b'0'..=b'9' | b'a'..=b'f') {
                self.run.clear();
                continue;
            }
            self.run.push(byte);
            if self.run.len() >= LETTERS {
                let last = &self.run[self.run.len() - LETTERS..];
                if let Some(digest) = std::str::from_utf8(last).ok().and_then(|text| text.parse().ok()) {
                    found(digest);
                }
                if self.run.len() == 2 * LETTERS {
                    self.run.drain(..LETTERS);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "blobs_tests.rs"]
mod tests;
