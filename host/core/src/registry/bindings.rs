//! Bindings: which component versions fill a tenant's roles, in which order, with which configuration.
//!
//! Invariant: every bound version exists and can fill its role. The previous binding of a role is kept beside the
//! present one, so that a rollback is one call.

use super::components::version_not_found;
use super::{Registry, RegistryError, Versioned, keys, parse, to_bytes};
use crate::id::{ComponentName, TenantId, Version};
use crate::plugin::{Mode, OnFailure, Role};
use crate::store::{Expect, StoreError};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most entries of a list role.
pub const MAX_ENTRIES: usize = 16;
/// Most roles that a tenant may have bound.
pub const MAX_ROLES: usize = 256;
/// Largest configuration of an entry, as JSON text.
const MAX_CONFIG_BYTES: usize = 64 << 10;

/// One bound component.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindingEntry {
    pub component: ComponentName,
    pub version: Version,
    /// Handed to the component as JSON.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub config: Value,
    #[serde(default)]
    pub mode: Mode,
    #[serde(default)]
    pub on_failure: OnFailure,
    /// The text shown when this shield blocks; may stand in `config` instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// Part of the interface, not served yet: present only to be refused in so many words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Value>,
}

/// A role's entries now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Binding {
    pub role: Role,
    pub entries: Vec<BindingEntry>,
}

/// A binding and the revision that its `ETag` carries.
pub type BoundAt = Versioned<Binding>;

/// The row: `entries` is `None` once the role was unbound.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Record {
    entries: Option<Vec<BindingEntry>>,
    previous: Option<Vec<BindingEntry>>,
}

impl Registry {
    pub fn binding(&self, tenant: &TenantId, role: &Role) -> Result<Option<BoundAt>, RegistryError> {
        let Some(found) = self.binding_record(tenant, role)? else {
            return Ok(None);
        };
        Ok(found
            .value
            .entries
            .map(|entries| Versioned { value: Binding { role: role.clone(), entries }, revision: found.revision }))
    }

    /// All bound roles, by role text.
    pub fn bindings(&self, tenant: &TenantId) -> Result<Vec<BoundAt>, RegistryError> {
        let prefix = keys::bindings(tenant);
        let mut out = Vec::new();
        for row in self.store().scan(&prefix, None, MAX_ROLES)? {
            let text = String::from_utf8_lossy(&row.key[prefix.len()..]).into_owned();
            if let Ok(role) = text.parse::<Role>() {
                out.extend(self.binding(tenant, &role)?);
            }
        }
        Ok(out)
    }

    /// Replaces a role's entries when `expect` holds of the present binding ([`Expect::Absent`]: unbound).
    pub async fn bind(
        &self,
        tenant: &TenantId,
        role: &Role,
        entries: Vec<BindingEntry>,
        expect: Option<Expect>,
    ) -> Result<BoundAt, RegistryError> {
        self.tenant_row(tenant)?;
        self.check_entries(tenant, role, &entries)?;
        let rows = self.store().scan(&keys::bindings(tenant), None, MAX_ROLES)?;
        let place = keys::binding(tenant, role);
        if rows.len() >= MAX_ROLES && !rows.iter().any(|r| r.key == place.head) {
            return Err(RegistryError::TooLarge { what: "set of bound roles", size: rows.len(), limit: MAX_ROLES });
        }
        self.change(tenant, role, expect, |old| {
            Ok(Record { entries: Some(entries.clone()), previous: old.entries.or(old.previous) })
        })
        .await
    }

    /// Unbinds a role; a rollback brings it back.
    pub async fn unbind(&self, tenant: &TenantId, role: &Role, expect: Option<Expect>) -> Result<(), RegistryError> {
        let expect = expect.or(Some(Expect::Present));
        let changed = self
            .change(tenant, role, expect, |old| Ok(Record { entries: None, previous: old.entries.or(old.previous) }))
            .await;
        match changed {
            Ok(_) => Ok(()),
            Err(RegistryError::RevisionMismatch { found: None }) => Err(not_bound(role)),
            Err(e) => Err(e),
        }
    }

    /// Swaps a role's present and previous entries.
    pub async fn rollback(
        &self,
        tenant: &TenantId,
        role: &Role,
        expect: Option<Expect>,
    ) -> Result<BoundAt, RegistryError> {
        if self.binding_record(tenant, role)?.is_none() {
            return Err(not_bound(role));
        }
        let nothing = || RegistryError::Conflict(format!("{role} has no previous binding"));
        self.change(tenant, role, expect, |old| {
            Ok(Record { entries: Some(old.previous.ok_or_else(nothing)?), previous: old.entries })
        })
        .await
    }

    /// The role that binds this version, if any.
    pub(super) fn bound_role(
        &self,
        tenant: &TenantId,
        name: &ComponentName,
        version: &Version,
    ) -> Result<Option<Role>, RegistryError> {
        let bound = self.bindings(tenant)?.into_iter().find(|b| {
            let mut entries = b.value.entries.iter();
            entries.any(|e| e.component == *name && e.version == *version)
        });
        Ok(bound.map(|b| b.value.role))
    }

    fn binding_record(&self, tenant: &TenantId, role: &Role) -> Result<Option<Versioned<Record>>, RegistryError> {
        let found = self.read_value(&keys::binding(tenant, role))?;
        let Some(found) = found else { return Ok(None) };
        Ok(Some(Versioned { value: parse("binding", &found.value)?, revision: found.revision }))
    }

    async fn change(
        &self,
        tenant: &TenantId,
        role: &Role,
        expect: Option<Expect>,
        next: impl Fn(Record) -> Result<Record, RegistryError>,
    ) -> Result<BoundAt, RegistryError> {
        let place = keys::binding(tenant, role);
        let pins = keys::pins(tenant);
        let tenant_key = keys::tenant(tenant);
        loop {
            let old = self.binding_record(tenant, role)?;
            let row = old.as_ref().map(|o| o.revision);
            let old = old.map(|o| o.value).unwrap_or_default();
            let bound = row.filter(|_| old.entries.is_some());
            let holds = match expect {
                None => true,
                Some(Expect::Absent) => bound.is_none(),
                Some(Expect::Present) => bound.is_some(),
                Some(Expect::Revision(r)) => bound == Some(r),
            };
            if !holds {
                return Err(RegistryError::RevisionMismatch { found: bound });
            }
            let record = next(old)?;
            let entries = record.entries.clone().unwrap_or_default();
            let versions = entries.iter().map(|e| keys::version(tenant, &e.component, &e.version).head);
            let versions: Vec<Vec<u8>> = versions.collect();
            let seen = row.map_or(Expect::Absent, Expect::Revision);
            let written = self
                .write_value(&place, Some(&to_bytes(&record)?), Some(seen), |batch| {
                    let batch = batch.expect(tenant_key.clone(), Expect::Present).put(pins.clone(), Bytes::new());
                    let exist = |b: crate::store::Batch, v: &Vec<u8>| b.expect(v.clone(), Expect::Present);
                    versions.iter().fold(batch, exist)
                })
                .await;
            match written {
                Ok(revision) => {
                    return Ok(Versioned { value: Binding { role: role.clone(), entries }, revision });
                }
                // Someone else changed the binding in between: look again whether `expect` still holds.
                Err(RegistryError::RevisionMismatch { .. }) => {}
                Err(RegistryError::Store(StoreError::Conflict { key, .. })) => {
                    let gone = versions.iter().position(|v| *v == key);
                    return Err(match gone {
                        Some(i) => version_not_found(&entries[i].component, &entries[i].version),
                        None => RegistryError::NotFound { what: "tenant", name: tenant.to_string() },
                    });
                }
                Err(e) => return Err(e),
            }
        }
    }

    fn check_entries(&self, tenant: &TenantId, role: &Role, entries: &[BindingEntry]) -> Result<(), RegistryError> {
        // A list role bound to nothing is a tenant's word that it wants no shield.
        let (min, max) = if role.is_list() { (0, MAX_ENTRIES) } else { (1, 1) };
        if entries.len() < min || entries.len() > max {
            return Err(RegistryError::invalid("entries", format!("{role} takes {min} to {max}; DELETE unbinds it")));
        }
        for (i, entry) in entries.iter().enumerate() {
            if entry.canary.is_some() {
                return Err(RegistryError::NotServed("a canary split"));
            }
            let size = to_bytes(&entry.config)?.len() + entry.refusal.as_ref().map_or(0, String::len);
            if size > MAX_CONFIG_BYTES {
                return Err(RegistryError::TooLarge { what: "binding configuration", size, limit: MAX_CONFIG_BYTES });
            }
            let version = self
                .version(tenant, &entry.component, &entry.version)?
                .ok_or_else(|| version_not_found(&entry.component, &entry.version))?;
            if !version.admitted.roles.iter().any(|kind| role.takes(*kind)) {
                return Err(RegistryError::invalid(
                    format!("entries[{i}]"),
                    format!("{} cannot fill the role {role}", version.component()),
                ));
            }
        }
        Ok(())
    }
}

fn not_bound(role: &Role) -> RegistryError {
    RegistryError::NotFound { what: "binding", name: role.to_string() }
}
