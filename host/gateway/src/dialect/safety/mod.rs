//! Shields called by name: Llama Stack's `/v1/safety` and `/v1/shields`, OpenAI's `/v1/moderations`.

pub mod moderations;
pub mod run_shield;
pub mod shields;

use crate::app::App;
use crate::error::ApiError;
use crate::held;
use serde_json::{Map, Value};
use std::sync::Arc;
use stockade_core::TenantId;
use stockade_core::id::ComponentName;
use stockade_core::plugin::{Pinned, Pins, PluginKind, Role};
use stockade_core::registry::VersionRecord;

/// A shield by its name: one that the tenant has bound, else the newest version of a shield that it holds, else one that
/// comes with the host.
fn resolve(app: &App, tenant: &TenantId, pins: &Pins, name: &str) -> Result<Found, ApiError> {
    let unknown = || ApiError::not_found("shield", name);
    let component = ComponentName::new(name).map_err(|_| unknown())?;
    if let Some(pinned) = pins.shield(&component) {
        let record = app.registry.version(tenant, &pinned.component.name, &pinned.component.version)?;
        return Ok(Found { pinned: pinned.clone(), record });
    }
    let found = held::find(app, tenant, &component, PluginKind::Shield)?;
    let record = found.ok_or_else(unknown)?;
    let pinned = held::pin(app, tenant, Role::Shield(record.name.clone()), &record, Value::Null)?;
    Ok(Found { pinned: Arc::new(pinned), record: Some(record) })
}

struct Found {
    pinned: Arc<Pinned>,
    record: Option<VersionRecord>,
}

impl Found {
    /// The shield with `params` laid over its configuration. Parameters that its manifest does not know are refused.
    fn with(&self, params: &Map<String, Value>) -> Result<Arc<Pinned>, ApiError> {
        if params.is_empty() {
            return Ok(self.pinned.clone());
        }
        if let Some(name) = params.keys().find(|name| !self.takes(name)) {
            let reason = format!("is no setting of shield `{}`", self.pinned.component.name);
            return Err(ApiError::invalid(format!("params.{name}"), reason));
        }
        let mut pinned = Pinned::clone(&self.pinned);
        let mut config = match pinned.config {
            Value::Object(config) => config,
            _ => Map::new(),
        };
        config.extend(params.clone());
        pinned.config = Value::Object(config);
        Ok(Arc::new(pinned))
    }

    /// Whether its configuration has this setting; one without a manifest may have any.
    fn takes(&self, setting: &str) -> bool {
        let manifest = self.record.as_ref().map(|r| &r.admitted.manifest).filter(|m| m.is_object());
        manifest.is_none_or(|m| m["config"]["properties"].get(setting).is_some())
    }
}
