//! Llama Stack's `/v1alpha/post-training/*` and `/v1beta/datasets`, in the shapes of their last releases.
//!
//! A client names its job by a `job_uuid` of its own; it is the job's name here, and a tenant has one job of a name.

pub mod datasets;
mod request;

use crate::app::App;
use crate::auth::Caller;
use crate::body::{JsonBody, LateBody};
use crate::dialect::agents::time::rfc3339;
use crate::error::{ApiError, Code};
use crate::fields::Fields;
use crate::host::jobs::kept;
use crate::jobs;
use crate::reply::{self, Asked};
use axum::extract::{Path, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use stockade_core::jobs::Order;
use stockade_core::registry::{Checkpoint, Job, JobStatus, Scope, Wish};

/// Most jobs of a tenant.
const MAX_JOBS: usize = 1_000;

pub async fn supervised(
    State(app): State<App>,
    caller: Caller,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    create(&app, &caller, request::supervised(&Fields::root(&body)?)?).await
}

pub async fn preference(
    State(app): State<App>,
    caller: Caller,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    create(&app, &caller, request::preference(&Fields::root(&body)?)?).await
}

async fn create(app: &App, caller: &Caller, order: Order) -> Result<Response, ApiError> {
    caller.need(Scope::Jobs)?;
    let uuid = order.name.clone().unwrap_or_default();
    if by_name(app, caller, &uuid)?.is_some() {
        return Err(ApiError::new(Code::Conflict, format!("there is a job `{uuid}` already")).with("param", "job_uuid"));
    }
    jobs::create(app, caller, order).await?;
    Ok(reply::json(&json!({"job_uuid": uuid})))
}

pub async fn list(State(app): State<App>, caller: Caller) -> Result<Response, ApiError> {
    caller.need(Scope::Jobs)?;
    let found = app.registry.jobs(&caller.tenant).list::<Job>(None, MAX_JOBS)?;
    let data: Vec<Value> = found.iter().map(|d| json!({"job_uuid": uuid(&d.value)})).collect();
    Ok(reply::json(&json!({"data": data})))
}

#[derive(Debug, Deserialize)]
pub struct Named {
    job_uuid: String,
}

pub async fn status(State(app): State<App>, caller: Caller, Asked(q): Asked<Named>) -> Result<Response, ApiError> {
    Ok(reply::json(&shown(&find(&app, &caller, &q.job_uuid)?)))
}

pub async fn status_of(State(app): State<App>, caller: Caller, Path(uuid): Path<String>) -> Result<Response, ApiError> {
    Ok(reply::json(&shown(&find(&app, &caller, &uuid)?)))
}

pub async fn artifacts(State(app): State<App>, caller: Caller, Asked(q): Asked<Named>) -> Result<Response, ApiError> {
    artifacts_of(State(app), caller, Path(q.job_uuid)).await
}

pub async fn artifacts_of(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let job = find(&app, &caller, &name)?;
    Ok(reply::json(&json!({"job_uuid": uuid(&job), "checkpoints": checkpoints(&job)})))
}

/// `job_uuid` in the query or in the body.
pub async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Asked(q): Asked<PerhapsNamed>,
    body: LateBody,
) -> Result<Response, ApiError> {
    let uuid = match q.job_uuid {
        Some(uuid) => uuid,
        None => Fields::root(&body.read(&app).await?)?.need_str("job_uuid")?.to_string(),
    };
    cancel_of(State(app), caller, Path(uuid)).await
}

#[derive(Debug, Deserialize)]
pub struct PerhapsNamed {
    job_uuid: Option<String>,
}

pub async fn cancel_of(State(app): State<App>, caller: Caller, Path(uuid): Path<String>) -> Result<Response, ApiError> {
    let job = find(&app, &caller, &uuid)?;
    jobs::ask(&app, &caller, &job.id, Wish::Cancel).await?;
    Ok(reply::json(&Value::Null))
}

/// By the client's name, else by our id.
fn find(app: &App, caller: &Caller, uuid: &str) -> Result<Job, ApiError> {
    match by_name(app, caller, uuid)? {
        Some(job) => Ok(job),
        None => jobs::find(app, caller, uuid),
    }
}

fn by_name(app: &App, caller: &Caller, uuid: &str) -> Result<Option<Job>, ApiError> {
    caller.need(Scope::Jobs)?;
    let all = app.registry.jobs(&caller.tenant).list::<Job>(None, MAX_JOBS)?;
    Ok(all.into_iter().map(|d| d.value).find(|job| job.name.as_deref() == Some(uuid)))
}

fn uuid(job: &Job) -> &str {
    job.name.as_deref().unwrap_or(&job.id)
}

fn shown(job: &Job) -> Value {
    let status = match job.status {
        // A paused job is one that goes on some time.
        JobStatus::Queued | JobStatus::Paused => "scheduled",
        JobStatus::Running => "in_progress",
        JobStatus::Succeeded => "completed",
        JobStatus::Failed => "failed",
        JobStatus::Cancelled => "cancelled",
    };
    json!({
        "job_uuid": uuid(job),
        "status": status,
        "scheduled_at": rfc3339(job.created_at),
        "started_at": job.started_at.map(rfc3339),
        "completed_at": job.finished_at.map(rfc3339),
        "resources_allocated": null,
        "checkpoints": checkpoints(job),
        "model": jobs::model_of(job),
        "error": job.error,
    })
}

/// Those on disk, and the served result last.
fn checkpoints(job: &Job) -> Vec<Value> {
    let epoch = |step: u64| match job.spec["optim"]["epochs"].as_u64() {
        Some(epochs) if job.progress.steps > 0 => epochs * step / job.progress.steps,
        _ => 0,
    };
    let entry = |identifier: &str, step: u64, created_at: u64, loss: Option<f64>, eval_loss: Option<f64>| {
        let eval = eval_loss.or(loss);
        let metrics = loss.zip(eval).map(|(train, eval)| {
            json!({"epoch": epoch(step), "train_loss": train, "validation_loss": eval, "perplexity": eval.exp()})
        });
        json!({
            "identifier": identifier,
            "created_at": rfc3339(created_at),
            "epoch": epoch(step),
            "post_training_job_id": uuid(job),
            "path": identifier,
            "training_metrics": metrics,
        })
    };
    let one = |c: &Checkpoint| {
        entry(&jobs::checkpoint_name(job, c.saved.step), c.saved.step, c.created_at, c.loss, c.saved.eval_loss)
    };
    let mut all: Vec<Value> = kept(job).iter().map(one).collect();
    if let (Some(model), Some(at)) = (jobs::model_of(job), job.finished_at) {
        all.push(entry(model, job.progress.step, at, job.progress.loss, job.progress.eval_loss));
    }
    all
}
