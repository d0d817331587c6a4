//! `state`: the tenant's buckets by granted names.

use super::{Answer, denied, enter};
use crate::bindings::state::{
    Change, Entry, Expectation, Host, HostBucket, HostBucketWithStore, HostWithStore, Key, Write,
};
use crate::bindings::types::Error;
use crate::guest::Guest;
use stockade_core::plugin::Grants;
use stockade_core::registry::{self, BucketValue, BucketWrite, MAX_STATE_VALUE_BYTES, RegistryError};
use stockade_core::store::{Expect, StoreError};
use wasmtime::component::{Accessor, HasSelf, Resource};

/// Most entries of a scan.
const MAX_SCAN: u32 = 1000;

/// An opened bucket. The grant was checked when it was opened; grants of a request never change.
#[derive(Clone)]
pub struct Bucket(registry::Bucket);

impl Host for Guest {}

impl<T: Send + 'static> HostWithStore<T> for HasSelf<Guest> {
    async fn open(a: &Accessor<T, Self>, name: String) -> Answer<Resource<Bucket>> {
        let me = enter(a).await?;
        if !Grants::allows(&me.grants().buckets, &name) {
            return Ok(Err(denied("buckets", &name)));
        }
        match me.host.registry.bucket(&me.context.call.tenant, &name) {
            Ok(bucket) => a.with(|mut s| Ok(Ok(s.get().table.push(Bucket(bucket))?))),
            Err(e) => Ok(Err(registry_error(e))),
        }
    }
}

impl HostBucket for Guest {
    fn drop(&mut self, this: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl<T: Send + 'static> HostBucketWithStore<T> for HasSelf<Guest> {
    async fn get(a: &Accessor<T, Self>, this: Resource<Bucket>, key: String) -> Answer<Option<Entry>> {
        let _me = enter(a).await?;
        let bucket = bucket(a, &this)?;
        Ok(read(&bucket, key).map_err(registry_error))
    }

    async fn set(
        a: &Accessor<T, Self>,
        this: Resource<Bucket>,
        key: String,
        value: Vec<u8>,
        expect: Expectation,
    ) -> Answer<u64> {
        let me = enter(a).await?;
        me.meter.output(value.len())?;
        let bucket = bucket(a, &this)?;
        let value = BucketValue::bytes(value);
        let written = bucket.0.set(&key, &value, expectation(expect)).await;
        Ok(written.map_err(registry_error))
    }

    async fn delete(a: &Accessor<T, Self>, this: Resource<Bucket>, key: String, expect: Expectation) -> Answer<()> {
        let _me = enter(a).await?;
        let bucket = bucket(a, &this)?;
        if matches!(expect, Expectation::Absent) {
            // Nothing to delete if it holds, and a conflict if it does not.
            return Ok(match bucket.0.get(&key) {
                Ok(None) => Ok(()),
                Ok(Some(_)) => Err(Error::Conflict("the key exists".into())),
                Err(e) => Err(registry_error(e)),
            });
        }
        let done = bucket.0.delete(&key, expectation(expect)).await;
        Ok(done.map(|_| ()).map_err(registry_error))
    }

    async fn commit(a: &Accessor<T, Self>, this: Resource<Bucket>, writes: Vec<Write>) -> Answer<u64> {
        let me = enter(a).await?;
        let bytes = |w: &Write| if let Change::Set(value) = &w.change { value.len() } else { 0 };
        me.meter.output(writes.iter().map(bytes).sum())?;
        let bucket = bucket(a, &this)?;
        let write = |w: Write| BucketWrite {
            key: w.key,
            value: match w.change {
                Change::Set(value) => Some(BucketValue::bytes(value)),
                Change::Delete => None,
            },
            expect: expectation(w.expect),
        };
        let writes: Vec<BucketWrite> = writes.into_iter().map(write).collect();
        Ok(bucket.0.commit(&writes).await.map_err(registry_error))
    }

    async fn keys(
        a: &Accessor<T, Self>,
        this: Resource<Bucket>,
        prefix: String,
        after: Option<String>,
        limit: u32,
    ) -> Answer<Vec<Key>> {
        let _me = enter(a).await?;
        let bucket = bucket(a, &this)?;
        if !(1..=MAX_SCAN).contains(&limit) {
            return Ok(Err(Error::Invalid(format!("limit: 1 to {MAX_SCAN}"))));
        }
        let keys = bucket.0.list(&prefix, after.as_deref(), limit as usize).map_err(registry_error);
        Ok(keys.map(|keys| keys.into_iter().map(|k| Key { key: k.key, revision: k.revision }).collect()))
    }

    async fn scan(
        a: &Accessor<T, Self>,
        this: Resource<Bucket>,
        prefix: String,
        after: Option<String>,
        limit: u32,
    ) -> Answer<Vec<Entry>> {
        let _me = enter(a).await?;
        let bucket = bucket(a, &this)?;
        if !(1..=MAX_SCAN).contains(&limit) {
            return Ok(Err(Error::Invalid(format!("limit: 1 to {MAX_SCAN}"))));
        }
        Ok(scan(&bucket, &prefix, after.as_deref(), limit as usize).map_err(registry_error))
    }
}

fn bucket<T: Send>(a: &Accessor<T, HasSelf<Guest>>, this: &Resource<Bucket>) -> wasmtime::Result<Bucket> {
    a.with(|mut s| Ok(s.get().table.get(this)?.clone()))
}

fn read(bucket: &Bucket, key: String) -> Result<Option<Entry>, RegistryError> {
    let found = bucket.0.get(&key)?;
    Ok(found.map(|v| Entry { key, value: v.value.bytes.to_vec(), revision: v.revision }))
}

/// Entries up to [`MAX_STATE_VALUE_BYTES`] together, but always one where there is one.
fn scan(bucket: &Bucket, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Entry>, RegistryError> {
    let mut entries = Vec::new();
    let mut bytes = 0;
    let mut after = after.map(str::to_string);
    // Keys of which none survives until it is read are skipped, so that an empty answer means the end.
    while entries.is_empty() {
        let keys = bucket.0.list(prefix, after.as_deref(), limit)?;
        let Some(last) = keys.last() else {
            break;
        };
        after = Some(last.key.clone());
        for key in keys {
            let Some(entry) = read(bucket, key.key)? else {
                continue;
            };
            bytes += entry.key.len() + entry.value.len();
            if bytes > MAX_STATE_VALUE_BYTES && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
    }
    Ok(entries)
}

fn expectation(e: Expectation) -> Option<Expect> {
    match e {
        Expectation::Anything => None,
        Expectation::Absent => Some(Expect::Absent),
        Expectation::Revision(r) => Some(Expect::Revision(r)),
    }
}

/// What a guest learns of a failed read or write.
pub(crate) fn registry_error(e: RegistryError) -> Error {
    match e {
        RegistryError::NotFound { what, name } => Error::NotFound(format!("{what} `{name}`")),
        RegistryError::RevisionMismatch { .. } | RegistryError::Conflict(_) => {
            Error::Conflict("the key has changed since it was read".into())
        }
        RegistryError::Invalid { .. } => Error::Invalid(e.to_string()),
        RegistryError::TooLarge { .. } | RegistryError::Store(StoreError::TooLarge { .. }) => {
            Error::TooLarge(e.to_string())
        }
        e => {
            tracing::error!(error = &e as &dyn std::error::Error, "state failed under a component");
            Error::Other("state failed".into())
        }
    }
}
