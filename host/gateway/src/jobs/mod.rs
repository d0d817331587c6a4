//! What the dialects' routes of jobs share. How a job comes about is [`stockade_core::jobs`]'s.

pub mod stream;

use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::host::jobs::kept;
use stockade_core::TenantId;
use stockade_core::jobs::Order;
use stockade_core::registry::{Checkpoint, Job, JobKind, Scope, Wish};
use stockade_core::train::Publication;

/// Most jobs of a tenant.
const MAX_JOBS: usize = 1_000;

/// Checks an order and queues it.
pub async fn create(app: &App, caller: &Caller, order: Order) -> Result<Job, ApiError> {
    caller.need(Scope::Jobs)?;
    if let Some(base) = order.spec["model"]["base"].as_str() {
        serve_named(app, &caller.tenant, base).await?;
    }
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

/// What stands between a result's name and the step of a checkpoint in the name of that.
const STEP: &str = ":step-";

/// The name under which a checkpoint is served, unless somebody gives it another.
pub fn checkpoint_name(job: &Job, step: u64) -> String {
    let name = job.outline.output.as_deref().unwrap_or(&job.id);
    format!("{name}{STEP}{step}")
}

/// Serves a checkpoint of a tenant's job as `name` from now on.
pub async fn serve(app: &App, tenant: &TenantId, job: &Job, found: &Checkpoint, name: &str) -> Result<(), ApiError> {
    app.jobs.free_name(tenant, name)?;
    let publication = Publication {
        tenant: tenant.clone(),
        name: name.into(),
        path: found.saved.path.clone(),
        base: job.outline.base.clone(),
        job: job.id.clone(),
        step: Some(found.saved.step),
    };
    app.publisher.publish(publication).await?;
    Ok(())
}

/// Serves the checkpoint that a request names as its model, where that is one and is not served yet: lists of checkpoints
/// tell these names. Anything else is left to whoever looks for the model.
pub async fn serve_named(app: &App, tenant: &TenantId, name: &str) -> Result<(), ApiError> {
    let step = name.rsplit_once(STEP).and_then(|(_, step)| step.parse::<u64>().ok());
    let Some(step) = step.filter(|_| app.model(tenant, name).is_err()) else { return Ok(()) };
    let jobs = app.registry.jobs(tenant).list::<Job>(None, MAX_JOBS)?;
    // Of several jobs with one name for their results the newest.
    for job in jobs.iter().rev().map(|document| &document.value).filter(|job| checkpoint_name(job, step) == name) {
        if let Some(found) = kept(job).iter().find(|c| c.saved.step == step) {
            return serve(app, tenant, job, found, name).await;
        }
    }
    Ok(())
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
