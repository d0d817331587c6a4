//! Jobs as everybody makes them, over HTTP or from a component: checked whole before they are queued, so that what a
//! worker finds can be run.
//!
//! A specification from outside never names a path of this machine: models by their served names, data by file id or data
//! set, rewards and evaluators by component. One from a component names nothing that the component itself is not granted.

use crate::error::Fault;
use crate::id::{ComponentName, DatasetName, TenantId};
use crate::infer::Inference;
use crate::plugin::{Grants, Role};
use crate::registry::{DatasetPurpose, Job, JobKind, NewJob, Registry, RegistryError, TrainedModel, Wish};
use crate::train::{Outline, TrainError, Trainer};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Makes and steers jobs of tenants. Cheap to clone.
#[derive(Clone)]
pub struct Jobs {
    registry: Registry,
    inference: Arc<dyn Inference>,
    trainer: Arc<dyn Trainer>,
    /// Unfinished jobs of a tenant whose quotas say nothing.
    per_tenant: u32,
}

/// What somebody wants done.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    pub kind: JobKind,
    pub name: Option<String>,
    /// The job file as JSON.
    pub spec: Value,
    /// What the dialect wants to remember.
    pub dialect: Value,
    /// Set for a component's: what the job names must be among its grants.
    pub maker: Option<Maker>,
}

/// A component that makes jobs.
#[derive(Debug, Clone, PartialEq)]
pub struct Maker {
    pub component: ComponentName,
    pub grants: Arc<Grants>,
}

/// Why a job is not queued, or not steered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobsError {
    /// `field` is a path in the request, for example `spec.model.base`.
    #[error("{field}: {reason}")]
    Invalid { field: String, reason: String },
    /// No grant of the component's for what its job names.
    #[error("{grant}: {name}")]
    Denied { grant: &'static str, name: String },
    #[error("the set of unfinished jobs has reached the limit of {limit}")]
    TooMany { limit: u64 },
    #[error("today's budget of the tenant's jobs is used up: {quota} is {limit}")]
    Spent { quota: &'static str, limit: u64 },
    #[error("`{name}` is a served model")]
    NameTaken { name: String },
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl JobsError {
    pub fn fault(&self) -> Fault {
        match self {
            Self::Train(e) => e.fault(),
            Self::Registry(e) => e.fault(),
            _ => Fault::Caller,
        }
    }

    fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), reason: reason.into() }
    }
}

impl Jobs {
    /// `per_tenant`: unfinished jobs of a tenant whose quotas say nothing.
    pub fn new(registry: Registry, inference: Arc<dyn Inference>, trainer: Arc<dyn Trainer>, per_tenant: u32) -> Self {
        Self { registry, inference, trainer, per_tenant }
    }

    /// Checks an order and queues it. `random`: bits of the caller's for ids and a missing name.
    pub async fn create(&self, tenant: &TenantId, order: Order, random: u32) -> Result<Job, JobsError> {
        order.kind.is_served()?;
        let quotas = self.registry.tenant(tenant)?.map(|t| t.quotas).unwrap_or_default();
        self.within_budget(tenant)?;
        let mut spec = order.spec;
        let made = self.localize(tenant, &mut spec, order.name.as_deref(), random).await?;
        let queued = async {
            self.take_format(tenant, &mut spec)?;
            let outline = self.trainer.check(&spec)?;
            // The grants first: what a component may not have and what does not exist answer alike.
            if let Some(maker) = &order.maker {
                self.may_name(tenant, maker, &spec, &outline, &made)?;
            }
            self.check(tenant, &spec, &outline)?;
            let component = order.maker.map(|m| m.component);
            let new = NewJob { kind: order.kind, name: order.name, spec, outline, dialect: order.dialect, component };
            let unfinished = quotas.jobs.unwrap_or(self.per_tenant);
            self.registry.create_job(tenant, new, unfinished, random).await.map_err(too_many)
        };
        let queued: Result<Job, JobsError> = queued.await;
        if queued.is_err() {
            for id in &made {
                self.registry.delete_file(tenant, id).await?;
            }
        }
        queued
    }

    /// Pauses, resumes or cancels a job.
    pub async fn ask(&self, tenant: &TenantId, id: &str, wish: Wish) -> Result<Job, JobsError> {
        if wish == Wish::Resume {
            self.within_budget(tenant)?;
        }
        Ok(self.registry.ask_job(tenant, id, wish).await?)
    }

    /// A job that `component` has made; another's looks as if there were none.
    pub fn of_component(
        &self,
        tenant: &TenantId,
        component: &ComponentName,
        id: &str,
    ) -> Result<Option<Job>, RegistryError> {
        Ok(self.registry.job(tenant, id)?.filter(|job| job.component.as_ref() == Some(component)))
    }

    /// The jobs that `component` has made, oldest first, at most `limit`, after the one with the id `after`.
    pub fn list_of_component(
        &self,
        tenant: &TenantId,
        component: &ComponentName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Job>, RegistryError> {
        let (mut found, mut after) = (Vec::new(), after.map(String::from));
        while found.len() < limit {
            let page = self.registry.jobs(tenant).list::<Job>(after.as_deref(), PAGE)?;
            let Some(last) = page.last() else { break };
            after = Some(last.id.clone());
            found.extend(page.into_iter().map(|d| d.value).filter(|job| job.component.as_ref() == Some(component)));
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Refuses a name that a request would take for another model's.
    pub fn free_name(&self, tenant: &TenantId, name: &str) -> Result<(), JobsError> {
        let own = TrainedModel::served_as(tenant, name);
        let own = own.map_err(|e| JobsError::invalid("spec.output.name", e.to_string()))?;
        match self.registry.model_seen(tenant, self.inference.models(), name)? {
            Some(model) if model.id != own || !self.registry.owns_model(tenant, &own)? => {
                Err(JobsError::NameTaken { name: name.into() })
            }
            _ => Ok(()),
        }
    }

    /// Refuses when today's budget for jobs is used up.
    fn within_budget(&self, tenant: &TenantId) -> Result<(), JobsError> {
        match self.registry.spent_job_quota(tenant)? {
            None => Ok(()),
            Some((quota, limit)) => Err(JobsError::Spent { quota, limit }),
        }
    }

    /// Makes a job file one of this host: rows become a file, the result gets a name, folders are the host's business.
    /// Answers with the files that it has made.
    async fn localize(
        &self,
        tenant: &TenantId,
        spec: &mut Value,
        name: Option<&str>,
        random: u32,
    ) -> Result<Vec<String>, JobsError> {
        let Value::Object(spec) = spec else {
            return Err(JobsError::invalid("spec", "must be an object: the job file as JSON"));
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
                let place = format!("spec.data.{field}");
                let rows = match data.get(field) {
                    Some(Value::Array(rows)) => rows,
                    Some(Value::Object(one)) => match one.get("rows") {
                        Some(Value::Array(rows)) => rows,
                        _ => return Err(JobsError::invalid(format!("{place}.rows"), "must be an array")),
                    },
                    _ => continue,
                };
                let id = self.registry.put_rows(tenant, rows, &place, random).await?;
                data.insert(field.into(), id.clone().into());
                made.push(id);
            }
        }
        Ok(made)
    }

    /// The data set that is trained on knows how rows are to be read, where the job does not say it.
    fn take_format(&self, tenant: &TenantId, spec: &mut Value) -> Result<(), JobsError> {
        let Some(Value::Object(data)) = spec.get_mut("data") else { return Ok(()) };
        if data.get("format").is_some_and(|format| !format.is_null()) {
            return Ok(());
        }
        let format = |field: &str| {
            let name = data.get(field).and_then(Value::as_str).and_then(|name| DatasetName::new(name).ok());
            let set = name.map(|name| self.registry.dataset(tenant, &name)).transpose()?.flatten();
            Ok::<_, RegistryError>(set.and_then(|set| set.format))
        };
        let Some(train) = format("train")? else { return Ok(()) };
        if let Some(eval) = format("eval")?.filter(|eval| *eval != train) {
            let reason = format!("its format is {eval}, that of `train` is {train}; a job reads one");
            return Err(JobsError::invalid("spec.data.eval", reason));
        }
        data.insert("format".into(), train.into());
        Ok(())
    }

    /// Holds all that a job names against what its tenant has.
    fn check(&self, tenant: &TenantId, spec: &Value, outline: &Outline) -> Result<(), JobsError> {
        for (field, name) in models(spec, outline) {
            if self.registry.model_seen(tenant, self.inference.models(), name)?.is_none() {
                let shown: String = name.chars().take(128).collect();
                return Err(JobsError::invalid(field, format!("model `{shown}` is not served")));
            }
        }
        for name in &outline.data {
            let set = DatasetName::new(name).ok();
            let set = set.map(|n| self.registry.dataset(tenant, &n)).transpose()?.flatten();
            let trains = spec["data"]["train"].as_str() == Some(name);
            if trains && set.as_ref().is_some_and(|set| set.purpose == DatasetPurpose::Evaluation) {
                let reason = format!("data set `{name}` is there to evaluate on: a job that trains on it spoils it");
                return Err(JobsError::invalid("spec.data.train", reason));
            }
            if set.is_none() && self.registry.file(tenant, name)?.is_none() {
                let shown: String = name.chars().take(64).collect();
                return Err(JobsError::invalid("spec.data", format!("there is no file or data set `{shown}`")));
            }
        }
        for (field, role, name) in scorers(outline) {
            self.registry.pin_named(tenant, role, name).map_err(|e| JobsError::invalid(field, e.to_string()))?;
        }
        match &outline.output {
            Some(name) => self.free_name(tenant, name),
            None => Ok(()),
        }
    }

    /// Holds all that a job names against its maker's grants; `made` are the files of rows that came with it.
    fn may_name(
        &self,
        tenant: &TenantId,
        maker: &Maker,
        spec: &Value,
        outline: &Outline,
        made: &[String],
    ) -> Result<(), JobsError> {
        let grants = &maker.grants;
        let denied = |grant, name: &str| Err(JobsError::Denied { grant, name: name.chars().take(128).collect() });
        let named = models(spec, outline).map(|(_, name)| name);
        // Its result's name as well: over it, a component could put another model in the place of one of its tenant's.
        for name in named.chain(outline.output.as_deref()) {
            if !Grants::allows(&grants.models, name) {
                return denied("models", name);
            }
        }
        for name in outline.data.iter().filter(|name| !made.contains(name)) {
            if !Grants::allows(&grants.datasets, name) {
                return denied("datasets", name);
            }
            // A file of the tenant's is nothing that a grant could name.
            let set = DatasetName::new(name).ok();
            if set.map(|n| self.registry.dataset(tenant, &n)).transpose()?.flatten().is_none() {
                let shown: String = name.chars().take(64).collect();
                return Err(JobsError::invalid("spec.data", format!("there is no data set `{shown}`")));
            }
        }
        for (field, role, name) in scorers(outline) {
            let component = ComponentName::new(name.split('@').next().unwrap_or_default());
            let role = role(component.map_err(|e| JobsError::invalid(field, e.to_string()))?).to_string();
            if !Grants::allows(&grants.components, &role) {
                return denied("components", &role);
            }
        }
        Ok(())
    }
}

/// Jobs read at once.
const PAGE: usize = 256;

/// The served models that a job names, each with its field.
fn models<'a>(spec: &'a Value, outline: &'a Outline) -> impl Iterator<Item = (&'static str, &'a str)> {
    let base = outline.base.as_deref().map(|name| ("spec.model.base", name));
    base.into_iter().chain(spec["model"]["tokenizer"].as_str().map(|name| ("spec.model.tokenizer", name)))
}

/// The components that score for a job, each with its field and the role that it fills.
fn scorers(outline: &Outline) -> impl Iterator<Item = (&'static str, fn(ComponentName) -> Role, &str)> {
    let rewards = outline.rewards.iter().map(|name| ("spec.grpo.rewards", Role::Reward as fn(_) -> _, name.as_str()));
    let evaluators = outline.evaluators.iter();
    rewards.chain(evaluators.map(|name| ("spec.eval.evaluators", Role::Evaluator as fn(_) -> _, name.as_str())))
}

/// Too many unfinished jobs are a quota, not a matter of size.
fn too_many(e: RegistryError) -> JobsError {
    match e {
        RegistryError::TooLarge { what: "set of unfinished jobs", limit, .. } => {
            JobsError::TooMany { limit: limit as u64 }
        }
        e => e.into(),
    }
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Jobs")
    }
}
