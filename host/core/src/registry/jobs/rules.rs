//! What may happen to a job, and to whom it belongs: all rules, as functions of the record alone.
//!
//! ```text
//! queued ──claim──► running ──► succeeded | failed | cancelled
//!   ▲ │               │ ▲
//!   │ └─pause─► paused◄┘ └─claim─ running, its worker gone
//!   └────resume────┘
//! ```

use super::{Checkpoint, Claimed, Job, JobEnd, JobError, JobStatus, MAX_CHECKPOINTS, NewEvent, Report};
use crate::registry::RegistryError;
use serde::{Deserialize, Serialize};

/// Runs in a row that may be lost before the job comes further. One that ends its host, for want of memory perhaps, would
/// end it again at every start.
const MAX_LOST_RUNS: u32 = 3;

/// Who works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Stable over restarts. Two processes of one name never live at once: the state folder's lock sees to that.
    pub name: String,
    /// Of this process: what an earlier one of this name held is free.
    pub run: u64,
}

/// Whose a running job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub worker: Worker,
    /// Milliseconds since 1970; later, anybody may take the job.
    pub expires_ms: u64,
    /// When the worker was last heard of.
    pub heartbeat_ms: u64,
}

/// What a client asks of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wish {
    Pause,
    Resume,
    Cancel,
}

/// What a worker shows with each write: the job and the fencing number of its claim.
pub(super) struct Held {
    id: String,
    fence: u64,
}

impl Held {
    pub fn of(claimed: &Claimed) -> Self {
        Self { id: claimed.job.id.clone(), fence: claimed.job.fence }
    }
}

impl Job {
    /// Whether nobody works on it and somebody should.
    pub(super) fn is_claimable(&self, worker: &Worker, now_ms: u64) -> bool {
        match (self.status, &self.lease) {
            (JobStatus::Queued, _) => true,
            (JobStatus::Running, None) => true,
            (JobStatus::Running, Some(lease)) => {
                let earlier_life = lease.worker.name == worker.name && lease.worker.run != worker.run;
                earlier_life || lease.expires_ms <= now_ms
            }
            _ => false,
        }
    }

    /// Takes it; `false` when it is not to be had.
    pub(super) fn claim(&mut self, worker: &Worker, now_ms: u64, lease_ms: u64) -> bool {
        if !self.is_claimable(worker, now_ms) {
            return false;
        }
        self.attempts = if self.status == JobStatus::Running { self.attempts + 1 } else { 1 };
        self.status = JobStatus::Running;
        self.fence += 1;
        self.started_at.get_or_insert(now_ms / 1000);
        let expires_ms = now_ms.saturating_add(lease_ms);
        self.lease = Some(Lease { worker: worker.clone(), expires_ms, heartbeat_ms: now_ms });
        true
    }

    /// Ends a job that is to be had because its worker is gone, where too many were lost to it already.
    pub(super) fn give_up(&mut self, worker: &Worker, now_ms: u64) -> Option<Vec<NewEvent>> {
        let lost = self.status == JobStatus::Running && self.is_claimable(worker, now_ms);
        if !lost || self.attempts < MAX_LOST_RUNS {
            return None;
        }
        let message = format!(
            "{MAX_LOST_RUNS} runs in a row were lost with their host before they came further; the job may need more memory than \
             there is"
        );
        let end = match self.wish {
            Some(Wish::Cancel) => JobEnd::Cancelled,
            _ => JobEnd::Failed(JobError { code: "host_lost".into(), message }),
        };
        Some(self.settle(&end, now_ms / 1000))
    }

    /// Whether it is still the worker's who took it under this number, whatever the clock says: until somebody else has
    /// claimed it, a late worker may go on.
    pub(super) fn hold(&self, held: &Held) -> Result<(), RegistryError> {
        if self.status == JobStatus::Running && self.fence == held.fence {
            return Ok(());
        }
        Err(RegistryError::LeaseLost { job: held.id.clone() })
    }

    pub(super) fn renew(&mut self, now_ms: u64, lease_ms: u64) {
        if let Some(lease) = &mut self.lease {
            lease.expires_ms = now_ms.saturating_add(lease_ms);
            lease.heartbeat_ms = now_ms;
        }
    }

    /// Puts a report into the record and answers with the events of what is new in it. What a run repeats after a crash
    /// is not new.
    pub(super) fn take(&mut self, report: &Report, now: u64) -> Vec<NewEvent> {
        let mut events = Vec::new();
        self.progress.milliseconds += report.milliseconds;
        if !report.scorers.is_empty() {
            self.scorers.clone_from(&report.scorers);
        }
        for step in report.steps.iter().filter(|s| s.loss.is_finite()) {
            if step.step <= self.progress.step {
                continue;
            }
            let progress = &mut self.progress;
            progress.step = step.step;
            progress.steps = step.steps;
            progress.tokens = progress.tokens.max(step.tokens);
            progress.loss = Some(step.loss);
            progress.eval_loss = step.eval_loss.or(progress.eval_loss);
            progress.tokens_per_second = Some(step.tokens_per_second);
            events.push(NewEvent::metrics(step));
            events.extend(NewEvent::samples_of(step));
        }
        for saved in &report.checkpoints {
            let known = self.checkpoints.iter_mut().find(|c| c.saved.step == saved.step);
            match known {
                Some(known) => known.saved = saved.clone(),
                None => {
                    let loss = self.progress.loss;
                    self.checkpoints.push(Checkpoint { saved: saved.clone(), created_at: now, loss });
                    events.push(NewEvent::checkpoint(saved));
                }
            }
        }
        if !events.is_empty() {
            self.attempts = 0;
        }
        let over = self.checkpoints.len().saturating_sub(MAX_CHECKPOINTS);
        self.checkpoints.drain(..over);
        events.extend(report.notes.iter().map(|text| NewEvent::note(text)));
        events
    }

    /// Lets go of it.
    pub(super) fn settle(&mut self, end: &JobEnd, now: u64) -> Vec<NewEvent> {
        self.lease = None;
        let said = match end {
            JobEnd::Succeeded(outcome) => {
                self.outcome = outcome.clone();
                (JobStatus::Succeeded, "the job has succeeded".to_string())
            }
            JobEnd::Failed(error) => {
                self.error = Some(error.clone());
                (JobStatus::Failed, format!("the job has failed: {}", error.message))
            }
            JobEnd::Paused => (JobStatus::Paused, "the job is paused".into()),
            JobEnd::Cancelled => (JobStatus::Cancelled, "the job is cancelled".into()),
            // Asked to pause while it was being let go: nobody would hear of it later.
            JobEnd::Released if self.wish == Some(Wish::Pause) => (JobStatus::Paused, "the job is paused".into()),
            JobEnd::Released if self.wish == Some(Wish::Cancel) => {
                (JobStatus::Cancelled, "the job is cancelled".into())
            }
            JobEnd::Released => (JobStatus::Queued, "the job waits for a worker".into()),
        };
        self.wish = None;
        self.status = said.0;
        if self.status.is_terminal() {
            self.finished_at = Some(now);
        }
        vec![NewEvent::status(self, &said.1)]
    }

    /// Does what a client asks, or notes it for the worker; `None` when nothing changes.
    pub(super) fn ask(&mut self, wish: Wish, now: u64) -> Result<Option<Vec<NewEvent>>, RegistryError> {
        use JobStatus::{Cancelled, Paused, Queued, Running};
        let said = match (wish, self.status) {
            (Wish::Pause, Queued) => {
                self.status = Paused;
                "the job is paused"
            }
            (Wish::Resume, Paused) => {
                self.status = Queued;
                "the job is queued again"
            }
            (Wish::Cancel, Queued | Paused) => {
                self.status = Cancelled;
                self.finished_at = Some(now);
                "the job is cancelled"
            }
            // An earlier wish to cancel stands.
            (Wish::Pause | Wish::Resume, Running) if self.wish == Some(Wish::Cancel) => {
                return Err(RegistryError::Conflict("the job is being cancelled".into()));
            }
            (Wish::Resume, Running) => {
                if self.wish.take().is_none() {
                    return Ok(None);
                }
                "the job goes on"
            }
            (Wish::Pause | Wish::Cancel, Running) => {
                if self.wish.replace(wish) == Some(wish) {
                    return Ok(None);
                }
                if wish == Wish::Pause { "the job is asked to pause" } else { "the job is asked to end" }
            }
            (Wish::Pause, Paused) | (Wish::Resume, Queued) | (Wish::Cancel, Cancelled) => return Ok(None),
            (_, status) => {
                return Err(RegistryError::Conflict(format!("the job has ended: it is {}", status.as_str())));
            }
        };
        Ok(Some(vec![NewEvent::status(self, said)]))
    }
}
