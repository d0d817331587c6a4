//! Tenants: made, listed, bounded and deleted by the host's own admin keys; a tenant's key sees its own alone.

use super::{has_field, name_error};
use crate::app::App;
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::{ApiError, Code};
use crate::reply::{self, Page};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stockade_core::TenantId;
use stockade_core::registry::{Quotas, Tenant};

#[derive(Deserialize)]
struct New {
    name: TenantId,
    #[serde(default)]
    quotas: Option<Quotas>,
}

/// A tenant as it is shown: `name` is its id.
#[derive(Serialize)]
struct Shown {
    id: TenantId,
    name: TenantId,
    quotas: Quotas,
    created_at: u64,
}

impl From<Tenant> for Shown {
    fn from(t: Tenant) -> Self {
        Self { id: t.id.clone(), name: t.id, quotas: t.quotas, created_at: t.created_at }
    }
}

pub async fn create(State(app): State<App>, caller: Caller, body: JsonBody) -> Result<Response, ApiError> {
    caller.need_operator()?;
    let new: New = body.read()?;
    let quotas = new.quotas.unwrap_or_default();
    let tenant = app.registry.create_tenant(new.name, quotas).await?;
    Ok(reply::json_as(StatusCode::CREATED, &Shown::from(tenant)))
}

pub async fn list(State(app): State<App>, caller: Caller, page: Page) -> Result<Response, ApiError> {
    let tenants = if caller.is_operator() {
        app.registry.tenants(page.after(), page.limit)?
    } else if page.after().is_none_or(|a| a < caller.tenant.as_str()) {
        app.registry.tenant(&caller.tenant)?.into_iter().collect()
    } else {
        Vec::new()
    };
    let shown: Vec<Shown> = tenants.into_iter().map(Shown::from).collect();
    Ok(page.reply(&shown, |t| t.id.to_string()))
}

pub async fn get(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    let (id, tenant) = reach(&app, &caller, &id)?;
    let tenant = tenant.ok_or_else(|| ApiError::not_found("tenant", id.as_str()))?;
    Ok(reply::json(&Shown::from(tenant)))
}

pub async fn patch(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let (id, tenant) = reach(&app, &caller, &id)?;
    caller.need_operator()?;
    let tenant = tenant.ok_or_else(|| ApiError::not_found("tenant", id.as_str()))?;
    if !has_field(&body, "quotas") {
        return Err(ApiError::invalid("quotas", "is required"));
    }
    let merged = merge(json!(tenant.quotas), &body["quotas"])?;
    let quotas: Quotas = JsonBody(merged).read()?;
    let tenant = app.registry.set_quotas(&id, quotas).await?;
    Ok(reply::json(&Shown::from(tenant)))
}

/// The named quotas change, `null` takes one away, the others stay.
fn merge(mut old: Value, change: &Value) -> Result<Value, ApiError> {
    let (Value::Object(quotas), Value::Object(change)) = (&mut old, change) else {
        return Err(ApiError::invalid("quotas", "must be an object"));
    };
    for (name, value) in change {
        quotas.insert(name.clone(), value.clone());
    }
    Ok(old)
}

pub async fn delete(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    let (id, _) = reach(&app, &caller, &id)?;
    caller.need_operator()?;
    app.registry.delete_tenant(&id).await?;
    app.plugins.sweep().await;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The tenant of a path, when the caller may know of it.
fn reach(app: &App, caller: &Caller, id: &str) -> Result<(TenantId, Option<Tenant>), ApiError> {
    let id = TenantId::new(id).map_err(|e| match caller.is_operator() {
        true => name_error(e),
        false => ApiError::new(Code::NotFound, "no such tenant"),
    })?;
    caller.need_reach(&id)?;
    let tenant = app.registry.tenant(&id)?;
    Ok((id, tenant))
}
