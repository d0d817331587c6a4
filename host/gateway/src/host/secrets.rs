//! Secrets that components read by name, where granted. A value goes in and is never shown again.

use crate::app::App;
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::reply::Page;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use stockade_core::registry::Scope;

pub async fn list(State(app): State<App>, caller: Caller, page: Page) -> Result<Response, ApiError> {
    caller.need(Scope::Components)?;
    let names = app.registry.secret_names(&caller.tenant, page.after(), page.limit)?;
    let data: Vec<Value> = names.iter().map(|n| json!({"name": n})).collect();
    Ok(page.reply(&data, |s| s["name"].as_str().unwrap_or_default().to_owned()))
}

pub async fn put(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    caller.need(Scope::Components)?;
    let value = Fields::root(&body)?.need_str("value")?;
    app.registry.set_secret(&caller.tenant, &name, value).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub async fn delete(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Result<Response, ApiError> {
    caller.need(Scope::Components)?;
    match app.registry.delete_secret(&caller.tenant, &name).await? {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(ApiError::not_found("secret", &name)),
    }
}
