//! Stored traces, and token counters.

use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::reply::{self, Page};
use axum::extract::{Path, State};
use axum::response::Response;
use stockade_core::registry::Scope;

const READERS: [Scope; 2] = [Scope::Inference, Scope::Components];

pub async fn list(State(app): State<App>, caller: Caller, page: Page) -> Result<Response, ApiError> {
    caller.need_any(&READERS)?;
    let traces = app.registry.traces(&caller.tenant, page.after(), page.limit)?;
    Ok(page.reply(&traces, |t| t.id.clone()))
}

pub async fn get(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    caller.need_any(&READERS)?;
    let trace = app.registry.trace(&caller.tenant, &id)?;
    let trace = trace.ok_or_else(|| ApiError::not_found("trace", &id))?;
    Ok(reply::json(&trace))
}

/// Rows by day and model; written within a fraction of a second after a request's end.
pub async fn usage(State(app): State<App>, caller: Caller, page: Page) -> Result<Response, ApiError> {
    caller.need_any(&READERS)?;
    let rows = app.registry.usage(&caller.tenant, None, page.after(), page.limit)?;
    Ok(page.reply(&rows, |r| format!("{}/{}", r.day, r.model)))
}
