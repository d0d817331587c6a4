//! A job's events: a durable, bounded log under numbers that grow by one, from 1.
//!
//! Steps, evaluations and samples are series, each thinned by itself: when one is full, every second of its events goes,
//! and from then on only half as many are taken in, so that a curve keeps its whole length. Of the other events the
//! oldest go.

use super::{Job, Saved, StepMetrics};
use crate::id::TenantId;
use crate::registry::{Registry, RegistryError, keys, now, parse, to_bytes};
use crate::store::Batch;
use crate::train::ShownSample;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Most events of steps, of evaluations, of their samples, and of other things.
const MAX_STEPS: u64 = 512;
const MAX_EVALUATIONS: u64 = 256;
const MAX_SAMPLES: u64 = 128;
const MAX_OTHERS: u64 = 256;
/// Longest message in bytes.
const MAX_MESSAGE_BYTES: usize = 1_000;
/// Largest data of an event as JSON text, so that a row holds both.
const MAX_DATA_BYTES: usize = 2_500;
/// Bytes of a sample's text that are left however many samples there are.
const LEAST_TEXT_BYTES: usize = 64;
/// Rows read or deleted at once.
const STRIDE: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// The job's status has changed; data: `{status}`.
    Status,
    /// A step; data: a line of `metrics.jsonl`, without samples.
    Metrics,
    /// Answers of the weights; data: `{step, samples: [{prompt, answer, expected?, scores?}]}`, texts cut so that it fits.
    Samples,
    /// A checkpoint is whole; data: `{step, eval_loss?}`.
    Checkpoint,
    /// Something that a person should know.
    Note,
}

/// An event as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobEvent {
    /// From 1.
    pub id: u64,
    /// Seconds since 1970.
    pub created_at: u64,
    #[serde(flatten)]
    pub event: NewEvent,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewEvent {
    pub kind: EventKind,
    pub message: String,
    pub data: Value,
}

/// What a job knows of its events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventCounts {
    /// The number of the next one.
    next: u64,
    steps: Series,
    evaluations: Series,
    #[serde(default)]
    samples: Series,
    others: u64,
}

/// Which series an event belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Steps,
    Evaluations,
    Samples,
}

/// Events of which one in `stride` is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Series {
    seen: u64,
    kept: u64,
    stride: u64,
}

impl Default for Series {
    fn default() -> Self {
        Self { seen: 0, kept: 0, stride: 1 }
    }
}

impl Series {
    /// Counts one more; whether it is kept.
    fn take(&mut self, always: bool) -> bool {
        let keep = always || self.seen.is_multiple_of(self.stride);
        self.seen += 1;
        self.kept += u64::from(keep);
        keep
    }

    /// Lets go of every second event of `stored` where more than `max` are kept.
    fn thin<'a>(&mut self, max: u64, stored: impl Iterator<Item = &'a JobEvent>) -> Vec<u64> {
        if self.kept <= max {
            return Vec::new();
        }
        self.stride = self.stride.saturating_mul(2);
        let gone: Vec<u64> = stored.skip(1).step_by(2).map(|e| e.id).collect();
        self.kept = self.kept.saturating_sub(gone.len() as u64);
        gone
    }
}

impl Default for EventCounts {
    fn default() -> Self {
        Self {
            next: 1,
            steps: Series::default(),
            evaluations: Series::default(),
            samples: Series::default(),
            others: 0,
        }
    }
}

impl EventCounts {
    /// Counts an event; whether it is kept.
    fn take(&mut self, event: &NewEvent) -> bool {
        let last = event.data["step"] == event.data["steps"];
        match event.series() {
            Some(Kept::Steps) => self.steps.take(last),
            Some(Kept::Evaluations) => self.evaluations.take(last),
            Some(Kept::Samples) => self.samples.take(last),
            None => {
                self.others += 1;
                true
            }
        }
    }

    fn is_full(&self) -> bool {
        self.steps.kept > MAX_STEPS
            || self.evaluations.kept > MAX_EVALUATIONS
            || self.samples.kept > MAX_SAMPLES
            || self.others > MAX_OTHERS
    }

    /// The numbers of those that go.
    fn thin(&mut self, stored: &[JobEvent]) -> Vec<u64> {
        let of = |series| stored.iter().filter(move |e: &&JobEvent| e.event.series() == series);
        let mut gone = self.steps.thin(MAX_STEPS, of(Some(Kept::Steps)));
        gone.extend(self.evaluations.thin(MAX_EVALUATIONS, of(Some(Kept::Evaluations))));
        gone.extend(self.samples.thin(MAX_SAMPLES, of(Some(Kept::Samples))));
        let oldest = of(None).take(self.others.saturating_sub(MAX_OTHERS) as usize);
        let before = gone.len();
        gone.extend(oldest.map(|e| e.id));
        self.others -= (gone.len() - before) as u64;
        gone
    }
}

impl NewEvent {
    pub(super) fn status(job: &Job, message: &str) -> Self {
        Self::new(EventKind::Status, message, json!({"status": job.status}))
    }

    pub(super) fn metrics(step: &StepMetrics) -> Self {
        let loss = step.eval_loss.map_or_else(String::new, |l| format!(", eval loss {l:.4}"));
        let message = format!("step {}/{}: loss {:.4}{loss}", step.step, step.steps, step.loss);
        let whole = json!(StepMetrics { samples: Vec::new(), ..step.clone() });
        // The promised fields fit always; what a method adds beyond the bound is in the folder's `metrics.jsonl`.
        let data = match whole.to_string().len() <= MAX_DATA_BYTES {
            true => whole,
            false => json!(StepMetrics { more: serde_json::Map::new(), samples: Vec::new(), ..step.clone() }),
        };
        Self::new(EventKind::Metrics, &message, data)
    }

    /// Samples of one evaluation, of a run of `steps`; the message shows the first. Texts are cut, and scores and the last
    /// samples left out, until they fit.
    fn samples(samples: &[ShownSample], steps: u64) -> Option<Self> {
        let first = samples.first()?;
        let message = format!("step {}: {:?} -> {:?}", first.step, first.prompt, first.answer);
        let mut samples = samples.to_vec();
        let mut longest = MAX_DATA_BYTES;
        loop {
            let data = json!({"step": samples[0].step, "steps": steps, "samples": samples});
            if data.to_string().len() <= MAX_DATA_BYTES {
                return Some(Self::new(EventKind::Samples, &message, data));
            }
            longest /= 2;
            if longest < LEAST_TEXT_BYTES {
                samples.pop();
                samples.iter_mut().for_each(|sample| sample.scores.clear());
            }
            if samples.is_empty() {
                return None;
            }
            samples.iter_mut().for_each(|sample| sample.shorten(longest.max(LEAST_TEXT_BYTES)));
        }
    }

    /// The samples of a step, those of the start apart.
    pub(super) fn samples_of(step: &StepMetrics) -> impl Iterator<Item = Self> {
        step.samples.chunk_by(|a, b| a.step == b.step).filter_map(|samples| Self::samples(samples, step.steps))
    }

    pub(super) fn checkpoint(saved: &Saved) -> Self {
        let data = json!({"step": saved.step, "eval_loss": saved.eval_loss});
        Self::new(EventKind::Checkpoint, &format!("a checkpoint of step {} is saved", saved.step), data)
    }

    pub(super) fn note(text: &str) -> Self {
        Self::new(EventKind::Note, text, Value::Null)
    }

    fn new(kind: EventKind, message: &str, data: Value) -> Self {
        let message = message[..message.floor_char_boundary(MAX_MESSAGE_BYTES)].to_string();
        Self { kind, message, data }
    }

    /// `None` for what is no series.
    fn series(&self) -> Option<Kept> {
        match self.kind {
            EventKind::Metrics if self.data["eval_loss"].is_null() => Some(Kept::Steps),
            EventKind::Metrics => Some(Kept::Evaluations),
            EventKind::Samples => Some(Kept::Samples),
            _ => None,
        }
    }
}

impl Registry {
    /// Oldest first, at most `limit`, after the event with the number `after`.
    pub fn job_events(
        &self,
        tenant: &TenantId,
        id: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<JobEvent>, RegistryError> {
        let prefix = keys::job_events(tenant, id);
        let after = keys::job_event(tenant, id, after);
        let rows = self.store().scan(&prefix, Some(&after), limit)?;
        rows.iter().map(|r| parse("event", &r.value)).collect()
    }

    /// The writes that add `events` to a job's log, and their numbers in its record.
    pub(super) fn event_batch(
        &self,
        tenant: &TenantId,
        job: &mut Job,
        events: &[NewEvent],
    ) -> Result<Batch, RegistryError> {
        let mut batch = Batch::new();
        for event in events {
            if !job.events.take(event) {
                continue;
            }
            let row = JobEvent { id: job.events.next, created_at: now(), event: event.clone() };
            batch = batch.put(keys::job_event(tenant, &job.id, row.id), to_bytes(&row)?);
            job.events.next += 1;
        }
        if job.events.is_full() {
            let mut stored = Vec::new();
            loop {
                let after = stored.last().map_or(0, |e: &JobEvent| e.id);
                let more = self.job_events(tenant, &job.id, after, STRIDE)?;
                if more.is_empty() {
                    break;
                }
                stored.extend(more);
            }
            for gone in job.events.thin(&stored) {
                batch = batch.delete(keys::job_event(tenant, &job.id, gone));
            }
        }
        Ok(batch)
    }

    pub(super) async fn clear_events(&self, tenant: &TenantId, id: &str) -> Result<(), RegistryError> {
        loop {
            let rows = self.store().scan(&keys::job_events(tenant, id), None, STRIDE)?;
            if rows.is_empty() {
                return Ok(());
            }
            let batch = rows.into_iter().fold(Batch::new(), |b, row| b.delete(row.key));
            self.store().commit(batch).await?;
        }
    }
}
