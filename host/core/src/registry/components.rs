//! Component versions: a name and version of a tenant, the digest of its bytes, and what the gate found in them.
//!
//! Invariant: a version never changes its bytes, and a bound version is never deleted. Bytes go with the last version
//! that is made of them.

use super::{Registry, RegistryError, Versioned, keys, now, parse, to_bytes};
use crate::id::{ComponentName, ComponentRef, TenantId, Version};
use crate::plugin::Admitted;
use crate::store::{Expect, Revision, StoreError};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Most versions that a tenant may hold, over all its components.
const MAX_VERSIONS: usize = 1_000;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionRecord {
    pub name: ComponentName,
    pub version: Version,
    pub admitted: Admitted,
    /// Seconds since 1970.
    pub created_at: u64,
}

impl VersionRecord {
    pub fn component(&self) -> ComponentRef {
        ComponentRef { name: self.name.clone(), version: self.version.clone(), digest: self.admitted.digest }
    }
}

/// How [`Registry::put_version`] ended.
#[derive(Debug, Clone, PartialEq)]
pub enum PutVersion {
    Created(VersionRecord),
    /// The version held these bytes already.
    Unchanged(VersionRecord),
}

/// A component and the names of its versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentSummary {
    pub name: ComponentName,
    /// The one uploaded last.
    pub latest: Version,
    pub versions: Vec<Version>,
    /// Revision of the latest version's row.
    #[serde(skip)]
    newest: Revision,
}

impl ComponentSummary {
    fn add(&mut self, version: Version, revision: Revision) {
        if revision > self.newest {
            self.newest = revision;
            self.latest = version.clone();
        }
        self.versions.push(version);
    }
}

impl Registry {
    /// Stores an admitted upload: the blob first, then the row that names it.
    ///
    /// # Errors
    /// [`RegistryError::VersionExists`] when the version holds other bytes.
    pub async fn put_version(
        &self,
        tenant: &TenantId,
        name: &ComponentName,
        version: &Version,
        admitted: Admitted,
        bytes: Bytes,
    ) -> Result<PutVersion, RegistryError> {
        if let Some(found) = self.version(tenant, name, version)? {
            return same_bytes(found, &admitted);
        }
        self.tenant_row(tenant)?;
        let taken = self.store().scan(&keys::components(tenant), None, MAX_VERSIONS)?;
        if taken.len() >= MAX_VERSIONS {
            return Err(RegistryError::TooLarge {
                what: "set of component versions",
                size: taken.len(),
                limit: MAX_VERSIONS,
            });
        }
        let _naming = self.naming().await;
        let digest = self.inner.blobs.put(bytes).await?;
        if digest != admitted.digest {
            return Err(RegistryError::invalid("digest", "the bytes are not those that were admitted"));
        }
        let record = VersionRecord { name: name.clone(), version: version.clone(), admitted, created_at: now() };
        let place = keys::version(tenant, name, version);
        let tenant_key = keys::tenant(tenant);
        let written = self
            .write_value(&place, Some(&to_bytes(&record)?), Some(Expect::Absent), |batch| {
                batch.expect(tenant_key.clone(), Expect::Present)
            })
            .await;
        match written {
            Ok(_) => Ok(PutVersion::Created(record)),
            // Another upload of this version came first.
            Err(RegistryError::RevisionMismatch { .. }) => {
                let found = self.version(tenant, name, version)?;
                match found {
                    Some(found) => same_bytes(found, &record.admitted),
                    None => Err(RegistryError::Conflict("the version was deleted meanwhile".into())),
                }
            }
            Err(e) => Err(e),
        }
    }

    pub fn version(
        &self,
        tenant: &TenantId,
        name: &ComponentName,
        version: &Version,
    ) -> Result<Option<VersionRecord>, RegistryError> {
        Ok(self.version_row(tenant, name, version)?.map(|v| v.value))
    }

    pub(super) fn version_row(
        &self,
        tenant: &TenantId,
        name: &ComponentName,
        version: &Version,
    ) -> Result<Option<Versioned<VersionRecord>>, RegistryError> {
        let found = self.read_value(&keys::version(tenant, name, version))?;
        let Some(found) = found else { return Ok(None) };
        Ok(Some(Versioned { value: parse("component version", &found.value)?, revision: found.revision }))
    }

    /// A component's versions, by version text.
    pub fn versions(
        &self,
        tenant: &TenantId,
        name: &ComponentName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<VersionRecord>, RegistryError> {
        let prefix = keys::versions(tenant, name);
        let after = after.map(|a| [&prefix[..], a.as_bytes()].concat());
        let rows = self.store().scan(&prefix, after.as_deref(), limit)?;
        let mut out = Vec::with_capacity(rows.len());
        for row in rows {
            let version = String::from_utf8_lossy(&row.key[prefix.len()..]).into_owned();
            if let Ok(version) = Version::new(&version) {
                out.extend(self.version(tenant, name, &version)?);
            }
        }
        Ok(out)
    }

    /// One component with all its versions.
    pub fn component(
        &self,
        tenant: &TenantId,
        name: &ComponentName,
    ) -> Result<Option<ComponentSummary>, RegistryError> {
        let prefix = keys::versions(tenant, name);
        let mut found: Option<ComponentSummary> = None;
        for row in self.store().scan(&prefix, None, MAX_VERSIONS)? {
            let text = String::from_utf8_lossy(&row.key[prefix.len()..]);
            let Ok(version) = Version::new(&text) else {
                continue;
            };
            match &mut found {
                Some(c) => c.add(version, row.revision),
                None => {
                    found = Some(ComponentSummary {
                        name: name.clone(),
                        latest: version.clone(),
                        versions: vec![version],
                        newest: row.revision,
                    });
                }
            }
        }
        Ok(found)
    }

    /// Components with their versions, in key order, at most `limit`, after the one named `after`.
    pub fn components(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ComponentSummary>, RegistryError> {
        let prefix = keys::components(tenant);
        let mut out: Vec<ComponentSummary> = Vec::new();
        // No version name begins with a byte this high, so this is past all versions of `after`.
        let mut after = after.map(|a| [&prefix[..], a.as_bytes(), b"/\xff"].concat());
        loop {
            let rows = self.store().scan(&prefix, after.as_deref(), 512)?;
            let Some(last) = rows.last() else {
                return Ok(out);
            };
            after = Some(last.key.to_vec());
            for row in &rows {
                let text = String::from_utf8_lossy(&row.key[prefix.len()..]);
                let Some((name, version)) = text.split_once('/') else {
                    continue;
                };
                let (Ok(name), Ok(version)) = (ComponentName::new(name), Version::new(version)) else {
                    continue;
                };
                let full = out.len() == limit;
                match out.last_mut() {
                    Some(c) if c.name == name => c.add(version, row.revision),
                    _ if full => return Ok(out),
                    _ => out.push(ComponentSummary {
                        name,
                        latest: version.clone(),
                        versions: vec![version],
                        newest: row.revision,
                    }),
                }
            }
        }
    }

    /// Deletes a version, and its bytes when no other is made of them.
    ///
    /// # Errors
    /// [`RegistryError::InUse`] while some role binds the version.
    pub async fn delete_version(
        &self,
        tenant: &TenantId,
        name: &ComponentName,
        version: &Version,
    ) -> Result<(), RegistryError> {
        let pins = keys::pins(tenant);
        loop {
            // Whoever binds this version meanwhile changes the pins row, and the batch fails.
            let seen = self.store().get(&pins)?;
            let expect = seen.map_or(Expect::Absent, |r| Expect::Revision(r.revision));
            if let Some(role) = self.bound_role(tenant, name, version)? {
                return Err(RegistryError::InUse {
                    component: name.to_string(),
                    version: version.to_string(),
                    role: role.to_string(),
                });
            }
            let Some(found) = self.version_row(tenant, name, version)? else {
                return Err(version_not_found(name, version));
            };
            let place = keys::version(tenant, name, version);
            let seen = Some(Expect::Revision(found.revision));
            match self.write_value(&place, None, seen, |batch| batch.expect(pins.clone(), expect)).await {
                Ok(_) => {
                    let digest = found.value.admitted.digest;
                    if let Err(error) = self.release_component(digest).await {
                        tracing::warn!(%digest, %error, "bytes of a deleted version stay until the next sweep");
                    }
                    return Ok(());
                }
                // Bound, or deleted and made again meanwhile.
                Err(RegistryError::RevisionMismatch { .. } | RegistryError::Store(StoreError::Conflict { .. })) => {}
                Err(e) => return Err(e),
            }
        }
    }
}

pub(super) fn version_not_found(name: &ComponentName, version: &Version) -> RegistryError {
    RegistryError::NotFound { what: "component version", name: format!("{name}@{version}") }
}

fn same_bytes(found: VersionRecord, admitted: &Admitted) -> Result<PutVersion, RegistryError> {
    if found.admitted.digest == admitted.digest {
        Ok(PutVersion::Unchanged(found))
    } else {
        Err(RegistryError::VersionExists { component: found.name.to_string(), version: found.version.to_string() })
    }
}
