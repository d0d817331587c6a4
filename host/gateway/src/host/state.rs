//! A tenant's state buckets from outside: JSON values, read back byte for byte.

use crate::app::App;
use crate::auth::Caller;
use crate::body;
use crate::error::ApiError;
use crate::reply::{self, Page};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use stockade_core::registry::{BucketValue, MAX_STATE_VALUE_BYTES, Scope, ValueKind};

pub async fn get(
    State(app): State<App>,
    caller: Caller,
    Path((bucket, key)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    caller.need(Scope::Components)?;
    let found = app.registry.bucket(&caller.tenant, &bucket)?.get(&key)?;
    let found = found.ok_or_else(|| ApiError::not_found("value", &key))?;
    let media = match found.value.kind {
        ValueKind::Json => "application/json",
        ValueKind::Bytes => "application/octet-stream",
    };
    let reply = ([(header::CONTENT_TYPE, media)], found.value.bytes).into_response();
    Ok(reply::tagged(reply, found.revision))
}

pub async fn put(
    State(app): State<App>,
    caller: Caller,
    Path((bucket, key)): Path<(String, String)>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    caller.need(Scope::Components)?;
    let bucket = app.registry.bucket(&caller.tenant, &bucket)?;
    let expect = reply::precondition(&headers)?;
    let settings = &app.settings;
    let bytes = body::collect(request, MAX_STATE_VALUE_BYTES, settings.body_timeout).await?;
    body::parse(&bytes, settings.max_json_depth, settings.max_json_values)?;
    let revision = bucket.set(&key, &BucketValue::json(bytes), expect).await?;
    let reply = reply::json(&json!({"bucket": bucket.name(), "key": key, "revision": revision}));
    Ok(reply::tagged(reply, revision))
}

pub async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path((bucket, key)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    caller.need(Scope::Components)?;
    let bucket = app.registry.bucket(&caller.tenant, &bucket)?;
    let expect = reply::precondition(&headers)?;
    match bucket.delete(&key, expect).await? {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(ApiError::not_found("value", &key)),
    }
}

pub async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(bucket): Path<String>,
    page: Page,
) -> Result<Response, ApiError> {
    caller.need(Scope::Components)?;
    let bucket = app.registry.bucket(&caller.tenant, &bucket)?;
    let keys = bucket.list("", page.after(), page.limit)?;
    let data: Vec<Value> = keys.iter().map(|k| json!({"key": k.key, "revision": k.revision})).collect();
    Ok(page.reply(&data, |k| k["key"].as_str().unwrap_or_default().to_owned()))
}
