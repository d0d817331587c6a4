//! Jobs as every dialect makes them: checked whole before they are queued, so that what a worker finds can be run.
//!
//! A specification from outside never names a path of this machine: models by their served names, data by file id or
//! data set, rewards and evaluators by component.

pub mod rows;
pub mod stream;

use crate::app::App;
use crate::auth::Caller;
use crate::error::{ApiError, Code};
use crate::fields::Fields;
use serde_json::{Map, Value};
use stockade_core::TenantId;
use stockade_core::id::DatasetName;
use stockade_core::plugin::Role;
use stockade_core::registry::{Job, JobKind, NewJob, RegistryError, Scope, TrainedModel, Wish};
use stockade_core::train::Outline;

/// What somebody wants done.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    pub kind: JobKind,
    pub name: Option<String>,
    /// The job file as JSON.
    pub spec: Value,
    /// What the dialect wants to remember.
    pub dialect: Value,
}

/// Checks an order and queues it.
pub async fn create(app: &App, caller: &Caller, order: Order) -> Result<Job, ApiError> {
    caller.need(Scope::Jobs)?;
    let tenant = &caller.tenant;
    let quotas = app.registry.tenant(tenant)?.map(|t| t.quotas).unwrap_or_default();
    within_budget(app, tenant)?;
    let unfinished = quotas.jobs.unwrap_or(app.settings.jobs_per_tenant);
    order.kind.is_served()?;
    let random = getrandom::u32().unwrap_or_default();
    let mut spec = order.spec;
    let made = localize(app, tenant, &mut spec, order.name.as_deref(), random).await?;
    let queued = async {
        let outline = app.trainer.check(&spec)?;
        check(app, tenant, &spec, &outline)?;
        let new = NewJob { kind: order.kind, name: order.name, spec, outline, dialect: order.dialect };
        app.registry.create_job(tenant, new, unfinished, random).await.map_err(too_many)
    };
    let queued: Result<Job, ApiError> = queued.await;
    if queued.is_err() {
        for id in &made {
            app.registry.delete_file(tenant, id).await?;
        }
    }
    queued
}

/// Too many unfinished jobs are a quota, not a matter of size.
fn too_many(e: RegistryError) -> ApiError {
    match e {
        RegistryError::TooLarge { what: what @ "set of unfinished jobs", limit, .. } => {
            let detail = format!("the {what} has reached the limit of {limit}");
            ApiError::new(Code::QuotaExceeded, detail).with("quota", "jobs").with("limit", limit)
        }
        e => e.into(),
    }
}

/// Refuses when today's budget for jobs is used up.
fn within_budget(app: &App, tenant: &TenantId) -> Result<(), ApiError> {
    match app.registry.spent_job_quota(tenant)? {
        None => Ok(()),
        Some((quota, limit)) => {
            let detail = format!("today's budget of the tenant's jobs is used up: {quota} is {limit}");
            Err(ApiError::new(Code::QuotaExceeded, detail).with("quota", quota).with("limit", limit).retry_after(3600))
        }
    }
}

/// Makes a job file one of this host: rows become a file, the result gets a name, folders are the host's business.
/// Answers with the files that it has made.
async fn localize(
    app: &App,
    tenant: &TenantId,
    spec: &mut Value,
    name: Option<&str>,
    random: u32,
) -> Result<Vec<String>, ApiError> {
    let Value::Object(spec) = spec else {
        return Err(ApiError::invalid("spec", "must be an object: the job file as JSON"));
    };
    let method = spec.get("method").and_then(Value::as_str).unwrap_or("train").to_string();
    let output = spec.entry("output").or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(output) = output {
        output.shift_remove("dir");
        let name = || name.map_or_else(|| format!("{method}-{random:08x}"), String::from);
        output.entry("name").or_insert_with(|| name().into());
    }
    let mut made = Vec::new();
    if let Some(Value::Object(data)) = spec.get_mut("data") {
        if let Some(rows) = data.shift_remove("rows") {
            data.entry("train").or_insert(rows);
        }
        for field in ["train", "eval"] {
            let rows = match data.get(field) {
                Some(Value::Array(rows)) => rows,
                Some(Value::Object(one)) => match one.get("rows") {
                    Some(Value::Array(rows)) => rows,
                    _ => return Err(ApiError::invalid(format!("spec.data.{field}.rows"), "must be an array")),
                },
                _ => continue,
            };
            let id = rows::store(app, tenant, rows, &format!("spec.data.{field}")).await?;
            data.insert(field.into(), id.clone().into());
            made.push(id);
        }
    }
    Ok(made)
}

/// Holds all that a job names against what its tenant has.
fn check(app: &App, tenant: &TenantId, spec: &Value, outline: &Outline) -> Result<(), ApiError> {
    let tokenizer = spec["model"]["tokenizer"].as_str();
    for (field, name) in
        outline.base.as_deref().map(|b| ("base", b)).into_iter().chain(tokenizer.map(|t| ("tokenizer", t)))
    {
        if app.model(tenant, name).is_err() {
            let shown: String = name.chars().take(128).collect();
            return Err(ApiError::invalid(format!("spec.model.{field}"), format!("model `{shown}` is not served")));
        }
    }
    for name in &outline.data {
        let set = DatasetName::new(name).ok();
        let set = set.map(|n| app.registry.dataset(tenant, &n)).transpose()?.flatten();
        if set.is_none() && app.registry.file(tenant, name)?.is_none() {
            let shown: String = name.chars().take(64).collect();
            return Err(ApiError::invalid("spec.data", format!("there is no file or data set `{shown}`")));
        }
    }
    let scorers = [
        ("spec.grpo.rewards", Role::Reward as fn(_) -> _, &outline.rewards),
        ("spec.eval.evaluators", Role::Evaluator, &outline.evaluators),
    ];
    for (field, role, names) in scorers {
        for name in names {
            app.registry.pin_named(tenant, role, name).map_err(|e| ApiError::invalid(field, e.to_string()))?;
        }
    }
    match &outline.output {
        Some(name) => free_name(app, tenant, name),
        None => Ok(()),
    }
}

/// Refuses a name that a request would take for another model's.
pub fn free_name(app: &App, tenant: &TenantId, name: &str) -> Result<(), ApiError> {
    let id = TrainedModel::served_as(tenant, name).map_err(|e| ApiError::invalid("spec.output.name", e.to_string()))?;
    let taken = match app.model(tenant, name) {
        Ok(model) => model.id != id || !app.registry.owns_model(tenant, &id)?,
        Err(_) => false,
    };
    if taken {
        return Err(
            ApiError::new(Code::Conflict, format!("`{name}` is a served model")).with("param", "spec.output.name")
        );
    }
    Ok(())
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
    if wish == Wish::Resume {
        within_budget(app, &caller.tenant)?;
    }
    Ok(app.registry.ask_job(&caller.tenant, id, wish).await?)
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
