//! `/v1/fine_tuning/jobs` in OpenAI's shape: a finetuning job is a job whose result is a LoRA adapter of its model.

mod request;
mod shown;

use crate::app::App;
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::host::jobs::kept;
use crate::jobs;
use crate::reply::{self, Asked, Listing};
use axum::extract::{Path, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use stockade_core::registry::{Job, Scope, Wish};

/// Most events that a job keeps, with room.
const MAX_EVENTS: usize = 4096;
/// Most events or checkpoints of a page.
const MAX_PAGE: usize = 100;

pub async fn create(State(app): State<App>, caller: Caller, JsonBody(body): JsonBody) -> Result<Response, ApiError> {
    caller.need(Scope::Jobs)?;
    let f = Fields::root(&body)?;
    let examples = app.registry.count_rows(&caller.tenant, f.need_str("training_file")?, request::MAX_COUNTED).await?;
    let order = request::read(&f, examples)?;
    let job = jobs::create(&app, &caller, order).await.map_err(request::in_their_words)?;
    Ok(reply::json(&shown::job(&job, &caller.tenant)))
}

pub async fn list(State(app): State<App>, caller: Caller, listing: Listing) -> Result<Response, ApiError> {
    caller.need(Scope::Jobs)?;
    let found = listing.read::<Job>(&app.registry.jobs(&caller.tenant))?;
    Ok(listing.reply(found.iter().map(|d| shown::job(&d.value, &caller.tenant)).collect()))
}

pub async fn get(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    Ok(reply::json(&shown::job(&jobs::find(&app, &caller, &id)?, &caller.tenant)))
}

pub async fn pause(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    Ok(reply::json(&shown::job(&jobs::ask(&app, &caller, &id, Wish::Pause).await?, &caller.tenant)))
}

pub async fn resume(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    Ok(reply::json(&shown::job(&jobs::ask(&app, &caller, &id, Wish::Resume).await?, &caller.tenant)))
}

pub async fn cancel(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    Ok(reply::json(&shown::job(&jobs::ask(&app, &caller, &id, Wish::Cancel).await?, &caller.tenant)))
}

#[derive(Debug, Deserialize)]
pub struct PageQuery {
    limit: Option<usize>,
    after: Option<String>,
}

/// Newest first.
pub async fn events(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Asked(query): Asked<PageQuery>,
) -> Result<Response, ApiError> {
    let job = jobs::find(&app, &caller, &id)?;
    let events = app.registry.job_events(&caller.tenant, &job.id, 0, MAX_EVENTS)?;
    page(events.iter().rev().map(|e| shown::event(&job, e)).collect(), &query)
}

/// Newest first.
pub async fn checkpoints(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Asked(query): Asked<PageQuery>,
) -> Result<Response, ApiError> {
    let job = jobs::find(&app, &caller, &id)?;
    page(kept(&job).iter().rev().map(|c| shown::checkpoint(&job, c)).collect(), &query)
}

fn page(all: Vec<Value>, query: &PageQuery) -> Result<Response, ApiError> {
    let limit = query.limit.unwrap_or(20);
    if limit == 0 || limit > MAX_PAGE {
        return Err(ApiError::invalid("limit", format!("must be from 1 to {MAX_PAGE}")));
    }
    let begin = match &query.after {
        Some(after) => all.iter().position(|v| v["id"] == after.as_str()).map_or(all.len(), |at| at + 1),
        None => 0,
    };
    let has_more = all.len() - begin > limit;
    let data: Vec<Value> = all.into_iter().skip(begin).take(limit).collect();
    let id = |v: Option<&Value>| v.map_or(Value::Null, |v| v["id"].clone());
    let (first, last) = (id(data.first()), id(data.last()));
    Ok(reply::json(&json!({"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": has_more})))
}
