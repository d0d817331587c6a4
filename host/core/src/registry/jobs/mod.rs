//! Jobs: long work as durable records, with a lease for whoever works on one.
//!
//! A worker claims a job, says that it is alive, writes down how far it is, and ends it. Each claim raises the job's
//! fencing number, and every write of a worker names the number that it holds.
//!
//! Invariants:
//! - at most one worker writes to a job: one whose number is not the job's newest changes nothing
//! - progress, the events that tell of it and the budget that it took are one batch: none is there without the others,
//!   and a run that repeats steps after a crash adds them once
//! - a job that has ended never changes again

mod events;
mod rules;
mod usage;

pub use events::{EventKind, JobEvent, NewEvent};
pub use rules::{Lease, Wish, Worker};
pub use usage::JobUsage;

use super::collections::{Collection, Full, new_document_id};
use super::{Registry, RegistryError, Versioned, keys, now};
use crate::id::{ComponentName, ComponentRef, TenantId};
use crate::plugin::Role;
use crate::store::{Batch, Expect, Revision};
use crate::train::{Outline, Saved, StepMetrics};
use events::EventCounts;
use rules::Held;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most jobs that a tenant keeps, ended ones included; one more is refused until some are deleted.
const MAX_JOBS: usize = 1_000;
/// Largest specification as JSON text; rows stand in files.
pub const MAX_JOB_SPEC_BYTES: usize = 64 << 10;
/// Longest name in bytes.
const MAX_JOB_NAME_BYTES: usize = 128;
/// Checkpoints that a record names; a trainer keeps fewer.
const MAX_CHECKPOINTS: usize = 64;
/// Attempts of a writer that keeps losing races.
const ATTEMPTS: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    Train,
    Eval,
    Generate,
    Batch,
}

impl JobKind {
    /// # Errors
    /// [`RegistryError::NotServed`] for a kind that no worker of this host does.
    pub fn is_served(self) -> Result<(), RegistryError> {
        match self {
            Self::Train => Ok(()),
            Self::Eval => Err(RegistryError::NotServed("a job of kind `eval`")),
            Self::Generate => Err(RegistryError::NotServed("a job of kind `generate`")),
            Self::Batch => Err(RegistryError::NotServed("a job of kind `batch`")),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// Waits for a worker.
    Queued,
    Running,
    /// Waits for somebody to resume it.
    Paused,
    Succeeded,
    Failed,
    Cancelled,
}

impl JobStatus {
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    pub id: String,
    pub kind: JobKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// As it was asked for; data by file id or data set.
    pub spec: Value,
    /// What it asks for; its `effective` is left out.
    pub outline: Outline,
    /// What the dialect that made it needs to show it as it was asked for.
    #[serde(default)]
    pub dialect: Value,
    /// The component that has made it; `None`: somebody over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<ComponentName>,
    pub status: JobStatus,
    /// What somebody has asked of the running job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wish: Option<Wish>,
    /// Seconds since 1970, as are all three.
    pub created_at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// The newest fencing number; 0 before the first claim.
    pub fence: u64,
    /// Runs since the job last came further by a step or a checkpoint, the present one included.
    #[serde(default)]
    pub attempts: u32,
    pub progress: Progress,
    /// What scores for it, from its first run on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scorers: Vec<Scorer>,
    /// Those that are still on disk are known to the job's folder.
    #[serde(default)]
    pub checkpoints: Vec<Checkpoint>,
    /// Of a job that has succeeded.
    #[serde(default)]
    pub outcome: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<JobError>,
    pub events: EventCounts,
}

/// How far a job is. Steps are recorded once, also when a run repeats some after a crash.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Progress {
    pub step: u64,
    /// 0: not known yet.
    pub steps: u64,
    pub tokens: u64,
    /// Time that workers have spent on it.
    pub milliseconds: u64,
    /// Of the newest step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_loss: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
}

impl Progress {
    /// 0.0 to 1.0.
    pub fn share(&self) -> f32 {
        if self.steps == 0 { 0.0 } else { (self.step as f32 / self.steps as f32).min(1.0) }
    }
}

/// A checkpoint as the record names it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    #[serde(flatten)]
    pub saved: Saved,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Of the newest step at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
}

/// A component that scores for a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scorer {
    /// `reward/NAME` or `evaluator/NAME`.
    pub role: Role,
    /// As the job calls it: NAME or NAME@VERSION.
    pub name: String,
    pub component: ComponentRef,
    /// What it is configured with.
    pub config: Value,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// Stable; `invalid_request`, `too_large`, `component_failed`, `host_lost` or `internal`.
    pub code: String,
    pub message: String,
}

/// What the maker of a job decides.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    pub kind: JobKind,
    pub name: Option<String>,
    pub spec: Value,
    pub outline: Outline,
    pub dialect: Value,
    pub component: Option<ComponentName>,
}

/// How a worker's run of a job ended.
#[derive(Debug, Clone, PartialEq)]
pub enum JobEnd {
    /// With its outcome.
    Succeeded(Value),
    Failed(JobError),
    Paused,
    Cancelled,
    /// The worker has to let go of it; another, or the same after a restart, goes on.
    Released,
}

/// A worker's hold of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    pub tenant: TenantId,
    pub job: Job,
}

/// Events that a [`Report`] makes before it is full: they are one batch of the store.
const MAX_REPORT: usize = 128;

/// What a worker has to tell since it last did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// In order; those that the record has already are left out.
    pub steps: Vec<StepMetrics>,
    pub checkpoints: Vec<Saved>,
    pub notes: Vec<String>,
    /// What scores in this run; empty: as the record has it.
    pub scorers: Vec<Scorer>,
    /// Time spent since the last report.
    pub milliseconds: u64,
}

impl Report {
    /// Whether it holds as much as one may; a step with samples makes two events.
    pub fn is_full(&self) -> bool {
        let sampled = self.steps.iter().filter(|step| !step.samples.is_empty()).count();
        self.steps.len() + sampled + self.checkpoints.len() + self.notes.len() >= MAX_REPORT
    }
}

impl Registry {
    /// A tenant's jobs, for listing; written through the methods here alone.
    pub fn jobs(&self, tenant: &TenantId) -> Collection {
        self.collection(tenant, "jobs", MAX_JOBS, Full::Refuse)
    }

    pub fn job(&self, tenant: &TenantId, id: &str) -> Result<Option<Job>, RegistryError> {
        Ok(self.job_row(tenant, id)?.map(|row| row.value))
    }

    fn job_row(&self, tenant: &TenantId, id: &str) -> Result<Option<Versioned<Job>>, RegistryError> {
        self.jobs(tenant).get::<Job>(id)
    }

    /// Queues a job. `random`: bits of the caller's for its id.
    ///
    /// # Errors
    /// [`RegistryError::Invalid`] for a name or specification out of bounds, [`RegistryError::NotServed`] for a kind that
    /// no worker does, [`RegistryError::TooLarge`] when `unfinished` jobs of the tenant wait or run already.
    pub async fn create_job(
        &self,
        tenant: &TenantId,
        new: NewJob,
        unfinished: u32,
        random: u32,
    ) -> Result<Job, RegistryError> {
        new.kind.is_served()?;
        let named = |n: &String| !n.is_empty() && n.len() <= MAX_JOB_NAME_BYTES && !n.chars().any(char::is_control);
        if !new.name.as_ref().is_none_or(named) {
            let reason = format!("1 to {MAX_JOB_NAME_BYTES} bytes without control characters");
            return Err(RegistryError::invalid("name", reason));
        }
        let size = new.spec.to_string().len();
        if size > MAX_JOB_SPEC_BYTES {
            return Err(RegistryError::TooLarge { what: "job specification", size, limit: MAX_JOB_SPEC_BYTES });
        }
        let waiting = self.unfinished_jobs(tenant)?;
        if waiting >= unfinished as usize {
            let (size, limit) = (waiting + 1, unfinished as usize);
            return Err(RegistryError::TooLarge { what: "set of unfinished jobs", size, limit });
        }
        let id = new_document_id("job", random);
        let mut job = Job {
            id: id.clone(),
            kind: new.kind,
            name: new.name,
            spec: new.spec,
            outline: Outline { effective: Value::Null, ..new.outline },
            dialect: new.dialect,
            component: new.component,
            status: JobStatus::Queued,
            wish: None,
            created_at: now(),
            started_at: None,
            finished_at: None,
            lease: None,
            fence: 0,
            attempts: 0,
            progress: Progress::default(),
            scorers: Vec::new(),
            checkpoints: Vec::new(),
            outcome: Value::Null,
            error: None,
            events: EventCounts::default(),
        };
        job.progress.steps = job.outline.steps.unwrap_or(0);
        let events = [NewEvent::status(&job, "the job is queued")];
        let batch = self.event_batch(tenant, &mut job, &events)?;
        let index = keys::open_job(&id, tenant);
        let extend = |b: Batch| merge(b, &batch).put(index.clone(), id.clone());
        self.jobs(tenant).add_with(&id, &job, extend).await?;
        Ok(job)
    }

    fn unfinished_jobs(&self, tenant: &TenantId) -> Result<usize, RegistryError> {
        Ok(self.open_jobs()?.iter().filter(|(t, _)| t == tenant).count())
    }

    /// All jobs that have not ended, oldest first.
    fn open_jobs(&self) -> Result<Vec<(TenantId, String)>, RegistryError> {
        let (mut found, mut after) = (Vec::new(), None::<Vec<u8>>);
        loop {
            let rows = self.store().scan(keys::OPEN_JOBS.as_bytes(), after.as_deref(), 512)?;
            let Some(last) = rows.last() else { return Ok(found) };
            after = Some(last.key.to_vec());
            for row in &rows {
                let key = String::from_utf8_lossy(&row.key);
                let tenant = key.rsplit('/').next().and_then(|t| TenantId::new(t).ok());
                found.extend(tenant.map(|t| (t, String::from_utf8_lossy(&row.value).into_owned())));
            }
        }
    }

    /// Takes a job that waits, or one whose worker is gone, for `lease_ms` from `now_ms` on (milliseconds since 1970).
    ///
    /// Of several tenants, the one goes first that has been worked for least today; of a tenant's jobs the oldest. A job
    /// that too many runs were lost to is ended instead.
    pub async fn claim_job(
        &self,
        worker: &Worker,
        now_ms: u64,
        lease_ms: u64,
    ) -> Result<Option<Claimed>, RegistryError> {
        let mut candidates: Vec<(u64, TenantId, String)> = Vec::new();
        for (tenant, id) in self.open_jobs()? {
            match self.job(&tenant, &id)? {
                Some(job) if job.is_claimable(worker, now_ms) => {
                    if !candidates.iter().any(|(_, t, _)| *t == tenant) {
                        candidates.push((self.job_usage(&tenant, now_ms / 1000)?.milliseconds, tenant, id));
                    }
                }
                Some(job) if !job.status.is_terminal() => {}
                // The tenant is gone, or a crash came between the job's end and this.
                _ => {
                    self.store().commit(Batch::new().delete(keys::open_job(&id, &tenant))).await?;
                }
            }
        }
        candidates.sort_by_key(|(used, _, _)| *used);
        for (_, tenant, id) in candidates {
            let Some(row) = self.job_row(&tenant, &id)? else { continue };
            let mut job = row.value;
            let given_up = job.give_up(worker, now_ms);
            if given_up.is_none() && !job.claim(worker, now_ms, lease_ms) {
                continue;
            }
            let said = if job.fence == 1 { "the job runs" } else { "the job goes on" };
            let events = given_up.clone().unwrap_or_else(|| vec![NewEvent::status(&job, said)]);
            match self.put_job(&tenant, &mut job, row.revision, &events, |b| b).await {
                Ok(()) if given_up.is_some() => {}
                Ok(()) => return Ok(Some(Claimed { tenant, job })),
                // Somebody else was quicker.
                Err(RegistryError::RevisionMismatch { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    /// Writes down how far a worker is, renews its lease, and answers with the job as it is now.
    ///
    /// # Errors
    /// [`RegistryError::LeaseLost`] when the job is no longer the worker's.
    pub async fn report_job(
        &self,
        claimed: &Claimed,
        report: &Report,
        now_ms: u64,
        lease_ms: u64,
    ) -> Result<Job, RegistryError> {
        let held = Held::of(claimed);
        self.write_held(claimed, |job| {
            job.hold(&held)?;
            job.renew(now_ms, lease_ms);
            Ok((job.take(report, now_ms / 1000), report.clone()))
        })
        .await
    }

    /// Ends a worker's run of a job, with what was not reported yet.
    ///
    /// # Errors
    /// [`RegistryError::LeaseLost`] when the job is no longer the worker's.
    pub async fn end_job(
        &self,
        claimed: &Claimed,
        report: &Report,
        end: &JobEnd,
        now_ms: u64,
    ) -> Result<Job, RegistryError> {
        let held = Held::of(claimed);
        self.write_held(claimed, |job| {
            job.hold(&held)?;
            let mut events = job.take(report, now_ms / 1000);
            events.extend(job.settle(end, now_ms / 1000));
            Ok((events, report.clone()))
        })
        .await
    }

    async fn write_held(
        &self,
        claimed: &Claimed,
        change: impl Fn(&mut Job) -> Result<(Vec<NewEvent>, Report), RegistryError>,
    ) -> Result<Job, RegistryError> {
        let (tenant, id) = (&claimed.tenant, &claimed.job.id);
        for _ in 0..ATTEMPTS {
            let lost = || RegistryError::LeaseLost { job: id.clone() };
            let row = self.job_row(tenant, id)?.ok_or_else(lost)?;
            let mut job = row.value;
            let before = job.progress.tokens;
            let (events, report) = change(&mut job)?;
            let spent = JobUsage { tokens: job.progress.tokens - before, milliseconds: report.milliseconds };
            let usage = self.usage_write(tenant, id, spent)?;
            let extend = |b: Batch| match &usage {
                Some((key, value)) => b.put(key.clone(), value.clone()),
                None => b,
            };
            match self.put_job(tenant, &mut job, row.revision, &events, extend).await {
                Ok(()) => return Ok(job),
                // A client has asked something of the job meanwhile.
                Err(RegistryError::RevisionMismatch { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Err(RegistryError::Conflict("the job is being changed by too many at once".into()))
    }

    /// Asks a job to pause or to end, or a paused one to go on.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], and [`RegistryError::Conflict`] where the job's status does not allow it.
    pub async fn ask_job(&self, tenant: &TenantId, id: &str, wish: Wish) -> Result<Job, RegistryError> {
        for _ in 0..ATTEMPTS {
            let row = self.job_row(tenant, id)?.ok_or_else(|| unknown(id))?;
            let mut job = row.value;
            let Some(events) = job.ask(wish, now())? else { return Ok(job) };
            match self.put_job(tenant, &mut job, row.revision, &events, |b| b).await {
                Ok(()) => return Ok(job),
                Err(RegistryError::RevisionMismatch { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Err(RegistryError::Conflict("the job is being changed by too many at once".into()))
    }

    /// Removes a job that has ended, with its events; `false` when there is none.
    pub async fn delete_job(&self, tenant: &TenantId, id: &str) -> Result<bool, RegistryError> {
        let Some(row) = self.job_row(tenant, id)? else { return Ok(false) };
        if !row.value.status.is_terminal() {
            return Err(RegistryError::Conflict(format!("the job is {}: cancel it first", row.value.status.as_str())));
        }
        let deleted = self.jobs(tenant).delete(id, Expect::Revision(row.revision)).await?;
        if deleted {
            self.clear_events(tenant, id).await?;
        }
        Ok(deleted)
    }

    /// One batch: the record where it has `revision`, its new events, and the row of unfinished jobs.
    async fn put_job(
        &self,
        tenant: &TenantId,
        job: &mut Job,
        revision: Revision,
        events: &[NewEvent],
        extend: impl Fn(Batch) -> Batch,
    ) -> Result<(), RegistryError> {
        let batch = self.event_batch(tenant, job, events)?;
        let index = keys::open_job(&job.id, tenant);
        let over = job.status.is_terminal();
        let whole = |b: Batch| {
            let b = extend(merge(b, &batch));
            if over { b.delete(index.clone()) } else { b }
        };
        self.jobs(tenant).replace_with(&job.id, job, Expect::Revision(revision), whole).await?;
        Ok(())
    }
}

fn merge(mut batch: Batch, more: &Batch) -> Batch {
    batch.writes.extend(more.writes.iter().cloned());
    batch
}

fn unknown(id: &str) -> RegistryError {
    RegistryError::NotFound { what: "job", name: id.chars().take(64).collect() }
}

#[cfg(test)]
mod tests;
