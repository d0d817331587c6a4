//! Components that need no binding: the newest version that a tenant holds, else one that comes with the host.

use crate::app::App;
use crate::error::ApiError;
use serde_json::Value;
use stockade_core::id::ComponentName;
use stockade_core::plugin::{Pinned, PluginKind, Role};
use stockade_core::registry::VersionRecord;
use stockade_core::{ComponentRef, TenantId};

/// A version of this kind, of the tenant's own or else of what comes with the host.
pub fn find(
    app: &App,
    tenant: &TenantId,
    name: &ComponentName,
    kind: PluginKind,
) -> Result<Option<VersionRecord>, ApiError> {
    match newest(app, tenant, name, kind)? {
        None if app.shipped.contains(name) => newest(app, &TenantId::default_tenant(), name, kind),
        found => Ok(found),
    }
}

/// The newest version that a tenant holds, if it is of this kind.
pub fn newest(
    app: &App,
    tenant: &TenantId,
    name: &ComponentName,
    kind: PluginKind,
) -> Result<Option<VersionRecord>, ApiError> {
    let Some(summary) = app.registry.component(tenant, name)? else { return Ok(None) };
    let record = app.registry.version(tenant, name, &summary.latest)?;
    Ok(record.filter(|r| r.admitted.roles.contains(&kind)))
}

/// The record of a component's version, of the tenant's own or else of what comes with the host.
pub fn record(app: &App, tenant: &TenantId, component: &ComponentRef) -> Result<Option<VersionRecord>, ApiError> {
    let read = |tenant: &TenantId| {
        let record = app.registry.version(tenant, &component.name, &component.version)?;
        Ok::<_, ApiError>(record.filter(|r| r.component() == *component))
    };
    match read(tenant)? {
        None if app.shipped.contains(&component.name) => read(&TenantId::default_tenant()),
        found => Ok(found),
    }
}

/// A version that is not bound, with the tenant's grants for it; one that comes with the host has what it wants until the
/// tenant has said something else.
pub fn pin(
    app: &App,
    tenant: &TenantId,
    role: Role,
    record: &VersionRecord,
    config: Value,
) -> Result<Pinned, ApiError> {
    let mut grants = app.registry.grants(tenant, &record.name)?;
    if grants.revision == 0 && app.shipped.contains(&record.name) {
        grants.value = record.admitted.grants_wanted.clone();
    }
    Ok(Pinned::new(role, record.component(), config, grants.value))
}
