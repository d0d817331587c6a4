//! `jobs`: long work by granted kinds; a component sees and steers those jobs alone that it has made.

use super::datasets::{guest_error, within};
use super::{Answer, Entered, denied, enter};
use crate::bindings::jobs::{self as wit, Host, HostWithStore};
use crate::bindings::types::Error;
use crate::convert;
use crate::guest::Guest;
use serde_json::Value;
use std::time::{Duration, Instant};
use stockade_core::error::Fault;
use stockade_core::jobs::{Jobs, JobsError, Maker, Order};
use stockade_core::plugin::Grants;
use stockade_core::registry::{EventKind, Job, JobEvent, JobKind, JobStatus, Wish};
use stockade_core::train::TrainError;
use wasmtime::component::{Accessor, HasSelf};

/// Most jobs of a list.
const MAX_JOBS: u32 = 100;
/// Most events of an answer.
const MAX_EVENTS: u32 = 1000;
/// Longest wait for an event.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// How often the log is looked at while nothing comes.
const LOOK: Duration = Duration::from_millis(200);

impl Host for Guest {}

impl<T: Send + 'static> HostWithStore<T> for HasSelf<Guest> {
    async fn submit(a: &Accessor<T, Self>, kind: wit::Kind, name: Option<String>, spec: String) -> Answer<wit::Job> {
        let me = enter(a).await?;
        me.meter.output(spec.len())?;
        Ok(submit(&me, kind, name, &spec).await)
    }

    async fn get(a: &Accessor<T, Self>, id: String) -> Answer<wit::Job> {
        let me = enter(a).await?;
        Ok(own(&me, &id).map(job_out))
    }

    async fn list(a: &Accessor<T, Self>, after: Option<String>, limit: u32) -> Answer<Vec<wit::Job>> {
        let me = enter(a).await?;
        Ok(within("limit", limit, MAX_JOBS).and_then(|limit| {
            let found =
                served(&me)?.list_of_component(&me.context.call.tenant, me.component(), after.as_deref(), limit);
            Ok(found.map_err(guest_error)?.into_iter().map(job_out).collect())
        }))
    }

    async fn events(
        a: &Accessor<T, Self>,
        id: String,
        after: u64,
        limit: u32,
        wait_ms: u32,
    ) -> Answer<Vec<wit::Event>> {
        let me = enter(a).await?;
        let left = me.meter.deadline().saturating_duration_since(Instant::now());
        let wait = Duration::from_millis(wait_ms.into()).min(MAX_WAIT).min(left);
        Ok(match within("limit", limit, MAX_EVENTS) {
            Ok(limit) => events(&me, &id, after, limit, wait).await,
            Err(e) => Err(e),
        })
    }

    async fn pause(a: &Accessor<T, Self>, id: String) -> Answer<wit::Job> {
        let me = enter(a).await?;
        Ok(ask(&me, &id, Wish::Pause).await)
    }

    async fn resume(a: &Accessor<T, Self>, id: String) -> Answer<wit::Job> {
        let me = enter(a).await?;
        Ok(ask(&me, &id, Wish::Resume).await)
    }

    async fn cancel(a: &Accessor<T, Self>, id: String) -> Answer<wit::Job> {
        let me = enter(a).await?;
        Ok(ask(&me, &id, Wish::Cancel).await)
    }

    async fn delete(a: &Accessor<T, Self>, id: String) -> Answer<()> {
        let me = enter(a).await?;
        Ok(match own(&me, &id) {
            Ok(job) => {
                let deleted = me.host.registry.delete_job(&me.context.call.tenant, &job.id).await;
                deleted.map(|_| ()).map_err(guest_error)
            }
            Err(e) => Err(e),
        })
    }
}

/// The host's jobs, for a component that has a grant for some.
fn served(me: &Entered) -> Result<&Jobs, Error> {
    if me.grants().jobs.is_empty() {
        return Err(denied("jobs", "*"));
    }
    me.host.jobs.as_ref().ok_or_else(|| Error::Unavailable("this host runs no jobs".into()))
}

/// A job that the calling component has made.
fn own(me: &Entered, id: &str) -> Result<Job, Error> {
    let found = served(me)?.of_component(&me.context.call.tenant, me.component(), id).map_err(guest_error)?;
    found.ok_or_else(|| Error::NotFound(format!("job `{}`", id.chars().take(64).collect::<String>())))
}

async fn submit(me: &Entered, kind: wit::Kind, name: Option<String>, spec: &str) -> Result<wit::Job, Error> {
    let jobs = served(me)?;
    let (kind, granted) = kind_in(kind);
    if !Grants::allows(&me.grants().jobs, granted) {
        return Err(denied("jobs", granted));
    }
    let spec = convert::json("spec", spec)?;
    let maker = Maker { component: me.component().clone(), grants: me.context.call.target.grants.clone() };
    let order = Order { kind, name, spec, dialect: Value::Null, maker: Some(maker) };
    let made = jobs.create(&me.context.call.tenant, order, getrandom::u32().unwrap_or_default()).await;
    made.map(job_out).map_err(jobs_error)
}

async fn ask(me: &Entered, id: &str, wish: Wish) -> Result<wit::Job, Error> {
    let job = own(me, id)?;
    let asked = served(me)?.ask(&me.context.call.tenant, &job.id, wish).await;
    asked.map(job_out).map_err(jobs_error)
}

async fn events(me: &Entered, id: &str, after: u64, limit: usize, wait: Duration) -> Result<Vec<wit::Event>, Error> {
    let began = Instant::now();
    loop {
        // The status first: what an ended job had to tell is then in the log.
        let job = own(me, id)?;
        let found = me.host.registry.job_events(&me.context.call.tenant, &job.id, after, limit);
        let found = found.map_err(guest_error)?;
        let left = wait.saturating_sub(began.elapsed());
        if !found.is_empty() || job.status.is_terminal() || left.is_zero() {
            return Ok(found.into_iter().map(event_out).collect());
        }
        tokio::time::sleep(LOOK.min(left)).await;
    }
}

/// A kind, and what it is called in grants.
fn kind_in(kind: wit::Kind) -> (JobKind, &'static str) {
    match kind {
        wit::Kind::Train => (JobKind::Train, "train"),
        wit::Kind::Eval => (JobKind::Eval, "eval"),
        wit::Kind::Generate => (JobKind::Generate, "generate"),
        wit::Kind::Batch => (JobKind::Batch, "batch"),
    }
}

fn job_out(job: Job) -> wit::Job {
    let milliseconds = |seconds: u64| seconds.saturating_mul(1000);
    wit::Job {
        kind: match job.kind {
            JobKind::Train => wit::Kind::Train,
            JobKind::Eval => wit::Kind::Eval,
            JobKind::Generate => wit::Kind::Generate,
            JobKind::Batch => wit::Kind::Batch,
        },
        status: status_out(job.status),
        progress: wit::Progress {
            share: job.progress.share(),
            step: job.progress.step,
            steps: job.progress.steps,
            tokens: job.progress.tokens,
            loss: job.progress.loss,
            eval_loss: job.progress.eval_loss,
        },
        id: job.id,
        name: job.name,
        model: job.outline.output,
        outcome: job.outcome.to_string(),
        failure: job.error.map(|e| wit::Failure { code: e.code, message: e.message }),
        created_at: milliseconds(job.created_at),
        started_at: job.started_at.map(milliseconds),
        finished_at: job.finished_at.map(milliseconds),
    }
}

fn status_out(status: JobStatus) -> wit::Status {
    match status {
        JobStatus::Queued => wit::Status::Queued,
        JobStatus::Running => wit::Status::Running,
        JobStatus::Paused => wit::Status::Paused,
        JobStatus::Succeeded => wit::Status::Succeeded,
        JobStatus::Failed => wit::Status::Failed,
        JobStatus::Cancelled => wit::Status::Cancelled,
    }
}

fn event_out(e: JobEvent) -> wit::Event {
    let status = || serde_json::from_value(e.event.data["status"].clone()).map(status_out);
    let what = match e.event.kind {
        EventKind::Status => status().map_or(wit::Occurrence::Note, wit::Occurrence::Status),
        EventKind::Metrics => wit::Occurrence::Step(e.event.data.to_string()),
        EventKind::Checkpoint => wit::Occurrence::Checkpoint(e.event.data["step"].as_u64().unwrap_or(0)),
        EventKind::Note | EventKind::Samples => wit::Occurrence::Note,
    };
    wit::Event { number: e.id, at: e.created_at.saturating_mul(1000), message: e.event.message, what }
}

/// What a guest learns of a job that is not queued or not steered.
fn jobs_error(e: JobsError) -> Error {
    match e {
        JobsError::Invalid { .. } => Error::Invalid(e.to_string()),
        JobsError::Denied { grant, name } => denied(grant, &name),
        JobsError::TooMany { .. } | JobsError::Spent { .. } => Error::TooLarge(e.to_string()),
        JobsError::NameTaken { .. } => Error::Conflict(e.to_string()),
        JobsError::Registry(e) => guest_error(e),
        JobsError::Train(TrainError::Spec { field, reason }) => Error::Invalid(format!("spec.{field}: {reason}")),
        JobsError::Train(TrainError::Memory { .. }) => Error::TooLarge(e.to_string()),
        e if e.fault() == Fault::Caller => Error::Invalid(e.to_string()),
        e => {
            tracing::error!(error = &e as &dyn std::error::Error, "jobs failed under a component");
            Error::Other("jobs failed".into())
        }
    }
}
