//! What the dialects' routes of jobs share. How a job comes about is [`stockade_core::jobs`]'s.

pub mod stream;

use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::fields::Fields;
use stockade_core::jobs::Order;
use stockade_core::registry::{Job, JobKind, Scope, Wish};

/// Checks an order and queues it.
pub async fn create(app: &App, caller: &Caller, order: Order) -> Result<Job, ApiError> {
    caller.need(Scope::Jobs)?;
    Ok(app.jobs.create(&caller.tenant, order, getrandom::u32().unwrap_or_default()).await?)
}

/// A job of the caller's tenant.
pub fn find(app: &App, caller: &Caller, id: &str) -> Result<Job, ApiError> {
    caller.need(Scope::Jobs)?;
    app.registry.job(&caller.tenant, id)?.ok_or_else(|| unknown(id))
}

pub fn unknown(id: &str) -> ApiError {
    ApiError::not_found("job", &id.chars().take(64).collect::<String>())
}

/// Pauses, resumes or cancels a job.
pub async fn ask(app: &App, caller: &Caller, id: &str, wish: Wish) -> Result<Job, ApiError> {
    caller.need(Scope::Jobs)?;
    Ok(app.jobs.ask(&caller.tenant, id, wish).await?)
}

/// The served name of a job's result, as its tenant calls it.
pub fn model_of(job: &Job) -> Option<&str> {
    job.outcome["model"].as_str()
}

/// A name of a checkpoint, once somebody serves it without giving another.
pub fn checkpoint_name(job: &Job, step: u64) -> String {
    let name = job.outline.output.as_deref().unwrap_or(&job.id);
    format!("{name}:step-{step}")
}

/// The kind of a job in a request.
pub fn kind(f: &Fields<'_>) -> Result<JobKind, ApiError> {
    match f.need_str("kind")? {
        "train" => Ok(JobKind::Train),
        "eval" => Ok(JobKind::Eval),
        "generate" => Ok(JobKind::Generate),
        "batch" => Ok(JobKind::Batch),
        _ => Err(f.wrong("kind", "must be train, eval, generate or batch")),
    }
}
