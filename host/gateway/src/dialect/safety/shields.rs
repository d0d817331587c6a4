//! `/v1/shields`: what can be called by name. Registering binds a component to `shield/NAME`.

use crate::app::App;
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::held;
use crate::reply;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use stockade_core::TenantId;
use stockade_core::id::{ComponentName, ComponentRef};
use stockade_core::plugin::{PluginKind, Role};
use stockade_core::registry::{BindingEntry, Scope};

/// Most of a tenant's own components that are looked through for shields.
const MAX_LISTED: usize = 1000;

pub async fn list(State(app): State<App>, caller: Caller) -> Result<Response, ApiError> {
    caller.need_any(&[Scope::Inference, Scope::Components])?;
    Ok(reply::json(&json!({"data": all(&app, &caller)?.into_values().collect::<Vec<_>>()})))
}

pub async fn get(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Result<Response, ApiError> {
    caller.need_any(&[Scope::Inference, Scope::Components])?;
    let found = all(&app, &caller)?.remove(&name);
    Ok(reply::json(&found.ok_or_else(|| ApiError::not_found("shield", &name))?))
}

/// Every name that `run-shield` takes, with what answers to it.
fn all(app: &App, caller: &Caller) -> Result<BTreeMap<String, Value>, ApiError> {
    let mut out = BTreeMap::new();
    let default = TenantId::default_tenant();
    for name in &app.shipped {
        if let Some(record) = held::newest(app, &default, name, PluginKind::Shield)? {
            out.insert(name.to_string(), shown(name.as_str(), &record.component(), &Value::Null));
        }
    }
    for summary in app.registry.components(&caller.tenant, None, MAX_LISTED)? {
        if let Some(record) = held::newest(app, &caller.tenant, &summary.name, PluginKind::Shield)? {
            out.insert(summary.name.to_string(), shown(summary.name.as_str(), &record.component(), &Value::Null));
        }
    }
    let pins = app.registry.pins(&caller.tenant)?;
    let shields = pins.entries.iter().filter(|(role, _)| role.takes(PluginKind::Shield));
    // A name that was given on purpose comes after, and hides, a component's own.
    for (role, entries) in shields {
        for pinned in entries {
            let name = match role {
                Role::Shield(name) => name,
                _ => &pinned.component.name,
            };
            out.insert(name.to_string(), shown(name.as_str(), &pinned.component, &pinned.config));
        }
    }
    Ok(out)
}

fn shown(name: &str, component: &ComponentRef, config: &Value) -> Value {
    json!({
        "identifier": name,
        "type": "shield",
        "provider_id": "stockade",
        "provider_resource_id": component.to_string(),
        "params": if config.is_object() { config.clone() } else { json!({}) },
    })
}

/// `{shield_id, provider_shield_id?, params?}`: the newest version of the component `provider_shield_id`, without one of
/// `shield_id`, answers to the name from now on.
pub async fn register(State(app): State<App>, caller: Caller, JsonBody(body): JsonBody) -> Result<Response, ApiError> {
    caller.need(Scope::Components)?;
    let f = Fields::root(&body)?;
    let name = f.need_str("shield_id")?;
    let component = f.str("provider_shield_id")?.unwrap_or(name);
    let wrong = |field: &str| f.wrong(field, "is no name of a component");
    let name = ComponentName::new(name).map_err(|_| wrong("shield_id"))?;
    let component = ComponentName::new(component).map_err(|_| wrong("provider_shield_id"))?;
    let record = held::newest(&app, &caller.tenant, &component, PluginKind::Shield)?;
    let record = record.ok_or_else(|| ApiError::not_found("shield", component.as_str()))?;
    let params = f.object("params")?.map(|p| Value::Object(p.map().clone())).unwrap_or_else(|| json!({}));
    let entry: BindingEntry = JsonBody(json!({
        "component": component, "version": record.version, "config": params,
    }))
    .read()?;
    app.plugins.warm(&record.component()).await?;
    app.registry.bind(&caller.tenant, &Role::Shield(name.clone()), vec![entry], None).await?;
    Ok(reply::json(&shown(name.as_str(), &record.component(), &params)))
}

pub async fn unregister(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    caller.need(Scope::Components)?;
    let known = ComponentName::new(&name).map_err(|_| ApiError::not_found("shield", &name))?;
    app.registry.unbind(&caller.tenant, &Role::Shield(known), None).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
