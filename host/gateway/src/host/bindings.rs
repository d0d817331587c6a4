//! Bindings of roles; changes by compare-and-set.

use crate::app::App;
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::{ApiError, Code};
use crate::reply::{self, Page};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use stockade_core::plugin::Role;
use stockade_core::registry::{BindingEntry, BoundAt, Scope};

#[derive(Deserialize)]
struct Body {
    entries: Vec<BindingEntry>,
}

pub async fn list(State(app): State<App>, caller: Caller, page: Page) -> Result<Response, ApiError> {
    caller.need(Scope::Components)?;
    let mut bindings = app.registry.bindings(&caller.tenant)?;
    let role = |b: &BoundAt| b.value.role.to_string();
    bindings.sort_by_key(role);
    if let Some(after) = page.after() {
        bindings.retain(|b| role(b).as_str() > after);
    }
    bindings.truncate(page.limit);
    let data: Vec<Value> = bindings.iter().map(shown).collect();
    Ok(page.reply(&data, |b| b["role"].as_str().unwrap_or_default().to_owned()))
}

pub async fn get(State(app): State<App>, caller: Caller, Path(role): Path<String>) -> Result<Response, ApiError> {
    caller.need(Scope::Components)?;
    let role = parse(&role)?;
    let bound = app.registry.binding(&caller.tenant, &role)?;
    let bound = bound.ok_or_else(|| ApiError::not_found("binding", &role.to_string()))?;
    Ok(answer(&bound))
}

pub async fn put(
    State(app): State<App>,
    caller: Caller,
    Path(role): Path<String>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, ApiError> {
    caller.need(Scope::Components)?;
    let role = parse(&role)?;
    let expect = reply::precondition(&headers)?;
    let body: Body = body.read()?;
    // What a request will call is loaded before it is bound, so that no request waits for it.
    for entry in &body.entries {
        let found = app.registry.version(&caller.tenant, &entry.component, &entry.version)?;
        if let Some(version) = found {
            app.plugins.warm(&version.component()).await?;
        }
    }
    let bound = app.registry.bind(&caller.tenant, &role, body.entries, expect).await?;
    tracing::info!(tenant = %caller.tenant, %role, revision = bound.revision, "role bound");
    Ok(answer(&bound))
}

pub async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(role): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    caller.need(Scope::Components)?;
    let role = parse(&role)?;
    let expect = reply::precondition(&headers)?;
    app.registry.unbind(&caller.tenant, &role, expect).await?;
    tracing::info!(tenant = %caller.tenant, %role, "role unbound");
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /bindings/{role}/rollback`: roles hold slashes, so the last segment is told apart here.
pub async fn rollback(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Some(role) = path.strip_suffix("/rollback") else {
        return Err(ApiError::new(Code::MethodNotAllowed, "the route does not take this method"));
    };
    caller.need(Scope::Components)?;
    let role = parse(role)?;
    let expect = reply::precondition(&headers)?;
    let bound = app.registry.rollback(&caller.tenant, &role, expect).await?;
    tracing::info!(tenant = %caller.tenant, %role, revision = bound.revision, "role rolled back");
    Ok(answer(&bound))
}

fn parse(role: &str) -> Result<Role, ApiError> {
    role.parse::<Role>().map_err(|e| ApiError::new(Code::InvalidRequest, e.to_string()))
}

fn shown(bound: &BoundAt) -> Value {
    json!({
        "role": bound.value.role,
        "entries": bound.value.entries,
        "revision": bound.revision,
    })
}

fn answer(bound: &BoundAt) -> Response {
    reply::tagged(reply::json(&shown(bound)), bound.revision)
}
