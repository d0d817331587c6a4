//! What each component of a tenant may reach. Nothing without a row here.

use super::{Registry, RegistryError, Versioned, keys, parse, to_bytes};
use crate::id::{ComponentName, TenantId};
use crate::plugin::Grants;
use crate::store::{Expect, Revision};
use bytes::Bytes;

/// Most entries in any list of a grants record.
const MAX_LIST: usize = 64;
/// Longest entry in bytes.
const MAX_ENTRY_BYTES: usize = 512;

impl Registry {
    /// A component's grants; the default (nothing, revision 0) when none were ever given.
    pub fn grants(&self, tenant: &TenantId, name: &ComponentName) -> Result<Versioned<Grants>, RegistryError> {
        match self.read_value(&keys::grants(tenant, name))? {
            Some(row) => Ok(Versioned { value: parse("grants", &row.value)?, revision: row.revision }),
            None => Ok(Versioned { value: Grants::default(), revision: 0 }),
        }
    }

    /// Replaces a component's grants when `expect` holds of the present ones.
    pub async fn set_grants(
        &self,
        tenant: &TenantId,
        name: &ComponentName,
        grants: &Grants,
        expect: Option<Expect>,
    ) -> Result<Revision, RegistryError> {
        check(grants)?;
        self.tenant_row(tenant)?;
        let pins = keys::pins(tenant);
        let place = keys::grants(tenant, name);
        let tenant_key = keys::tenant(tenant);
        let bytes = to_bytes(grants)?;
        self.write_value(&place, Some(&bytes), expect, |batch| {
            batch.expect(tenant_key.clone(), Expect::Present).put(pins.clone(), Bytes::new())
        })
        .await
    }
}

fn check(grants: &Grants) -> Result<(), RegistryError> {
    let lists = [
        ("models", &grants.models),
        ("buckets", &grants.buckets),
        ("http", &grants.http),
        ("secrets", &grants.secrets),
        ("components", &grants.components),
        ("datasets", &grants.datasets),
        ("jobs", &grants.jobs),
    ];
    for (field, list) in lists {
        let sound = |e: &String| !e.is_empty() && e.len() <= MAX_ENTRY_BYTES;
        if list.len() > MAX_LIST || !list.iter().all(sound) {
            return Err(RegistryError::invalid(
                field,
                format!("at most {MAX_LIST} entries of 1 to {MAX_ENTRY_BYTES} bytes"),
            ));
        }
    }
    let sound = |p: &str| p.starts_with('/') && p.len() <= 4096 && !p.contains('\0');
    let directories = &grants.directories;
    if directories.len() > MAX_LIST || !directories.iter().all(|d| sound(&d.host_path) && sound(&d.guest_path)) {
        return Err(RegistryError::invalid(
            "directories",
            format!("at most {MAX_LIST} entries with absolute `host_path` and `guest_path`"),
        ));
    }
    Ok(())
}
