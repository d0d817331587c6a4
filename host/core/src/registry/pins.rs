//! A tenant's bindings resolved to exact bytes and grants: what a request pins at its start and keeps to its end.
//!
//! Resolved once per change and cached; on the hot path it costs one read of the tenant's `pins` row.

use super::{BindingEntry, Registry, RegistryError, keys};
use crate::id::TenantId;
use crate::plugin::{Pinned, Pins, PluginKind, Role};
use crate::store::{Revision, StoreError};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most tenants whose pins are kept resolved.
const MAX_CACHED: usize = 4096;

type Resolved = (Option<Revision>, Arc<Pins>);

#[derive(Default)]
pub(super) struct Cache {
    tenants: Mutex<HashMap<TenantId, Resolved>>,
}

impl Cache {
    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, Resolved>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub(super) fn forget(&self, tenant: &TenantId) {
        self.lock().remove(tenant);
    }
}

impl Registry {
    /// All of a tenant's bindings as they are now.
    pub fn pins(&self, tenant: &TenantId) -> Result<Arc<Pins>, RegistryError> {
        let revision = self.pins_revision(tenant)?;
        if let Some((cached, pins)) = self.inner.pins.lock().get(tenant)
            && *cached == revision
        {
            return Ok(pins.clone());
        }
        self.resolve(tenant, revision)
    }

    fn pins_revision(&self, tenant: &TenantId) -> Result<Option<Revision>, RegistryError> {
        Ok(self.store().get(&keys::pins(tenant))?.map(|r| r.revision))
    }

    fn resolve(&self, tenant: &TenantId, mut revision: Option<Revision>) -> Result<Arc<Pins>, RegistryError> {
        loop {
            let resolved = self.read_pins(tenant);
            let after = self.pins_revision(tenant)?;
            if after != revision {
                // A change came in between: what was read may mix old and new.
                revision = after;
                continue;
            }
            let pins = Arc::new(resolved?);
            let mut cache = self.inner.pins.lock();
            if cache.len() >= MAX_CACHED {
                cache.clear();
            }
            cache.insert(tenant.clone(), (revision, pins.clone()));
            return Ok(pins);
        }
    }

    fn read_pins(&self, tenant: &TenantId) -> Result<Pins, RegistryError> {
        let mut entries = BTreeMap::new();
        for bound in self.bindings(tenant)? {
            let role = bound.value.role;
            let mut pinned = Vec::with_capacity(bound.value.entries.len());
            for mut entry in bound.value.entries {
                let version = self.version(tenant, &entry.component, &entry.version)?;
                let version = version.ok_or_else(|| StoreError::Corrupt { what: format!("binding of {role}") })?;
                let refusal = take_refusal(&role, &mut entry);
                pinned.push(Arc::new(Pinned {
                    role: role.clone(),
                    component: version.component(),
                    config: entry.config,
                    grants: Arc::new(self.grants(tenant, &entry.component)?.value),
                    mode: entry.mode,
                    on_failure: entry.on_failure,
                    refusal,
                }));
            }
            entries.insert(role, pinned);
        }
        Ok(Pins { entries, banks: None })
    }
}

/// A shield's refusal text is the host's to show: it is taken out of the configuration that the component sees.
fn take_refusal(role: &Role, entry: &mut BindingEntry) -> Option<String> {
    if !role.takes(PluginKind::Shield) {
        return None;
    }
    let in_config = match &mut entry.config {
        Value::Object(config) if config.get("refusal").is_some_and(Value::is_string) => config.shift_remove("refusal"),
        _ => None,
    };
    let in_config = in_config.and_then(|v| v.as_str().map(String::from));
    entry.refusal.take().or(in_config)
}
