//! Jobs: made, listed, followed, paused, resumed, cancelled and deleted; their checkpoints served.

use crate::app::App;
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::{ApiError, Code};
use crate::fields::Fields;
use crate::jobs::{self, stream};
use crate::reply::{self, Asked, Page};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use stockade_core::jobs::Order;
use stockade_core::registry::{Checkpoint, Job, Scope, Scorer, Wish};

/// `{kind, name?, spec}`
pub async fn create(State(app): State<App>, caller: Caller, JsonBody(body): JsonBody) -> Result<Response, ApiError> {
    let f = Fields::root(&body)?;
    let order = Order {
        kind: jobs::kind(&f)?,
        name: f.str("name")?.map(String::from),
        spec: f.need("spec")?.clone(),
        dialect: Value::Null,
        maker: None,
    };
    let job = jobs::create(&app, &caller, order).await?;
    Ok(reply::json_as(StatusCode::CREATED, &shown(&job)))
}

pub async fn list(State(app): State<App>, caller: Caller, page: Page) -> Result<Response, ApiError> {
    caller.need(Scope::Jobs)?;
    let found = app.registry.jobs(&caller.tenant).list::<Job>(page.after(), page.limit)?;
    let data: Vec<Value> = found.iter().map(|d| shown(&d.value)).collect();
    Ok(page.reply(&data, |j| j["id"].as_str().unwrap_or_default().to_owned()))
}

pub async fn get(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    Ok(reply::json(&shown(&jobs::find(&app, &caller, &id)?)))
}

pub async fn delete(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    caller.need(Scope::Jobs)?;
    match app.registry.delete_job(&caller.tenant, &id).await? {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(jobs::unknown(&id)),
    }
}

#[derive(Debug, Deserialize)]
pub struct EventsQuery {
    after: Option<u64>,
    /// `false`: what is there now, as JSON.
    stream: Option<bool>,
}

/// Most events that a job keeps, with room.
const MAX_EVENTS: usize = 4096;

pub async fn events(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Asked(query): Asked<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let job = jobs::find(&app, &caller, &id)?;
    let after = stream::after(&headers, query.after)?;
    if query.stream == Some(false) {
        let events = app.registry.job_events(&caller.tenant, &job.id, after, MAX_EVENTS)?;
        return Ok(reply::json(&json!({"data": events, "next": null})));
    }
    Ok(stream::reply(app, caller.tenant, job.id, after))
}

pub async fn pause(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    Ok(reply::json(&shown(&jobs::ask(&app, &caller, &id, Wish::Pause).await?)))
}

pub async fn resume(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    Ok(reply::json(&shown(&jobs::ask(&app, &caller, &id, Wish::Resume).await?)))
}

pub async fn cancel(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    Ok(reply::json(&shown(&jobs::ask(&app, &caller, &id, Wish::Cancel).await?)))
}

pub async fn checkpoints(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    let job = jobs::find(&app, &caller, &id)?;
    let data: Vec<Value> = kept(&job).iter().map(|c| checkpoint(&job, c)).collect();
    Ok(reply::json(&json!({"data": data, "next": null})))
}

/// `{name?}`: serves a checkpoint under a name of its own.
pub async fn serve_checkpoint(
    State(app): State<App>,
    caller: Caller,
    Path((id, step)): Path<(String, u64)>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let job = jobs::find(&app, &caller, &id)?;
    let found = kept(&job).into_iter().find(|c| c.saved.step == step);
    let found = found.ok_or_else(|| ApiError::not_found("checkpoint of step", &step.to_string()))?;
    let name = Fields::root(&body)?.str("name")?.map_or_else(|| jobs::checkpoint_name(&job, step), String::from);
    jobs::serve(&app, &caller.tenant, &job, &found, &name).await?;
    Ok(reply::json_as(StatusCode::CREATED, &json!({"model": name, "job": job.id, "step": step})))
}

/// A tenant's trained model is served no longer, and its files go.
pub async fn delete_model(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    caller.need(Scope::Jobs)?;
    let model = app.model(&caller.tenant, &id)?;
    if !app.publisher.withdraw(&caller.tenant, &model.id).await? {
        return Err(ApiError::new(Code::Forbidden, "only models that the tenant has trained can be deleted"));
    }
    Ok(reply::json(&json!({"id": id, "object": "model", "deleted": true})))
}

/// Those that the trainer has not let go of since.
pub fn kept(job: &Job) -> Vec<Checkpoint> {
    job.checkpoints.iter().filter(|c| c.saved.path.is_dir()).cloned().collect()
}

fn checkpoint(job: &Job, c: &Checkpoint) -> Value {
    json!({
        "step": c.saved.step,
        "created_at": c.created_at,
        "loss": c.loss,
        "eval_loss": c.saved.eval_loss,
        "name": jobs::checkpoint_name(job, c.saved.step),
    })
}

/// Its configuration is the binding's to show.
fn scorer(scorer: &Scorer) -> Value {
    let component = &scorer.component;
    json!({
        "role": scorer.role,
        "name": scorer.name,
        "component": component.name,
        "version": component.version,
        "digest": component.digest,
    })
}

fn shown(job: &Job) -> Value {
    let outline = &job.outline;
    json!({
        "id": job.id,
        "kind": job.kind,
        "name": job.name,
        "component": job.component,
        "status": job.status,
        "asked": job.wish,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "progress": {
            "share": job.progress.share(),
            "step": job.progress.step,
            "steps": job.progress.steps,
            "tokens": job.progress.tokens,
            "seconds": job.progress.milliseconds as f64 / 1000.0,
            "loss": job.progress.loss,
            "eval_loss": job.progress.eval_loss,
            "tokens_per_second": job.progress.tokens_per_second,
        },
        "method": outline.method,
        "base": outline.base,
        "model": jobs::model_of(job),
        "outcome": job.outcome,
        "error": job.error,
        "scorers": job.scorers.iter().map(scorer).collect::<Vec<_>>(),
        "spec": job.spec,
    })
}
