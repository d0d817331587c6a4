//! The training seam: how jobs reach the trainer. Called by `gateway` and `app`; implemented by `train`.
//!
//! Invariant: [`Trainer::run`] depends on its task's specification, data and folder alone. Run again on a folder whose
//! run was cut short, it goes on from the newest whole checkpoint and ends with the very bytes that an uninterrupted
//! run leaves.

use crate::chat::Message;
use crate::error::{BoxError, BoxFuture, Fault};
use crate::id::{ModelId, TenantId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Runs training jobs. Blocks for as long as a job takes: called from a thread of the job's own.
pub trait Trainer: Send + Sync + 'static {
    /// Checks a job specification (the job file as JSON) without touching data or weights.
    fn check(&self, spec: &Value) -> Result<Outline, TrainError>;

    /// Runs a job to its end, or until the observer commands otherwise.
    fn run(&self, task: Task<'_>) -> Result<Ending, TrainError>;
}

/// What a specification asks for, as jobs and quotas need to know it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outline {
    pub method: String,
    /// Base model as the job names it; `None` from scratch.
    pub base: Option<String>,
    /// Names of the data the job reads: training first, then evaluation.
    pub data: Vec<String>,
    /// Optimizer steps, where the job bounds them by number rather than by epochs.
    pub steps: Option<u64>,
    /// Name under which the result is served.
    pub output: Option<String>,
    /// Reward components that it calls.
    pub rewards: Vec<String>,
    /// Evaluator components that it calls.
    #[serde(default)]
    pub evaluators: Vec<String>,
    /// The specification with every default filled in.
    pub effective: Value,
}

/// One run of a job.
pub struct Task<'a> {
    pub spec: &'a Value,
    /// The job's own folder: checkpoints, metrics, result.
    pub folder: &'a Path,
    pub resolver: &'a dyn Resolver,
    pub observer: &'a dyn Observer,
    pub rewards: &'a dyn Rewards,
    pub evaluators: &'a dyn Evaluators,
    /// Threads of the trainer; 0: one for each core.
    pub threads: usize,
}

/// Finds what a job names.
pub trait Resolver: Sync {
    /// The folder or file of a model: a path, or the name of a served one.
    fn model(&self, name: &str) -> Result<PathBuf, TrainError>;
    /// The file of a data set: a path, a file's id or a data set's.
    fn data(&self, name: &str) -> Result<PathBuf, TrainError>;
}

/// Hears of a run's progress and steers it. Called between steps, from the run's thread.
pub trait Observer: Sync {
    fn step(&self, metrics: &StepMetrics);
    fn checkpoint(&self, saved: &Saved);
    /// Something that a person should know: skipped steps, cut documents, failed rewards.
    fn note(&self, text: &str);
    /// Asked after each step and each batch of rollouts.
    fn command(&self) -> Command;
}

/// What a run is to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Command {
    #[default]
    Continue,
    /// Save a checkpoint and end with [`Ending::Paused`].
    Pause,
    /// End with [`Ending::Cancelled`]; checkpoints stay.
    Cancel,
}

/// A line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// From 1.
    pub step: u64,
    /// Steps that the run will have made at its end.
    pub steps: u64,
    /// Mean over the step's label tokens (or pairs), before its update.
    pub loss: f64,
    pub lr: f64,
    /// Over all trainable tensors, before clipping.
    pub grad_norm: f64,
    /// Trained on so far, padding not counted.
    pub tokens: u64,
    pub tokens_per_second: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_loss: Option<f64>,
    /// Answers to held-out prompts that are shown with the evaluation of this step, or of the start with step 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<ShownSample>,
    /// The method's own: `margin`, `accuracy`, `reward`, `kl`, `entropy`, ...; and `eval/EVALUATOR/METRIC`, the mean of an
    /// evaluator component's metric.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// What the weights answered to a held-out prompt, for a person: texts are cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShownSample {
    /// Steps that the weights had made; 0: none.
    pub step: u64,
    /// The last message of the prompt, or its raw text.
    pub prompt: String,
    pub answer: String,
    /// The row's own answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// By `EVALUATOR/METRIC`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scores: BTreeMap<String, f64>,
}

impl ShownSample {
    /// Cuts each text to `max_bytes` at a character's edge, marked by an ellipsis of three bytes beyond it.
    pub fn shorten(&mut self, max_bytes: usize) {
        for text in [&mut self.prompt, &mut self.answer].into_iter().chain(&mut self.expected) {
            if text.len() > max_bytes {
                text.truncate(text.floor_char_boundary(max_bytes));
                text.push('…');
            }
        }
    }
}

/// A checkpoint that is whole on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    pub step: u64,
    /// Servable: a model folder or an adapter folder.
    pub path: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_loss: Option<f64>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ending", rename_all = "kebab-case")]
pub enum Ending {
    Finished {
        /// The result: a model folder in the Hugging Face layout, or a PEFT adapter folder.
        path: PathBuf,
        /// Set for adapters: the base they were trained on.
        base: Option<PathBuf>,
        steps: u64,
        tokens: u64,
        /// Of the last step.
        loss: f64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        eval_loss: Option<f64>,
    },
    Paused {
        step: u64,
    },
    Cancelled {
        step: u64,
    },
}

/// Scores completions with reward components. Blocks.
pub trait Rewards: Sync {
    /// A number for each rollout in order; `None` where the component says that it does not apply.
    fn score(&self, component: &str, rollouts: &[Rollout]) -> Result<Vec<Option<f64>>, TrainError>;
}

/// Scores answers to held-out prompts with evaluator components. Blocks.
pub trait Evaluators: Sync {
    /// The metrics that a component reports.
    fn metrics(&self, component: &str) -> Result<Vec<Metric>, TrainError>;
    /// Scores of each sample, in order; a metric that does not apply to a sample is left out.
    fn evaluate(&self, component: &str, samples: &[Sample]) -> Result<Vec<Vec<Score>>, TrainError>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    pub name: String,
    pub higher_is_better: bool,
}

/// An answer that is to be evaluated.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The row of the data set.
    pub input: Value,
    pub messages: Vec<Message>,
    pub output: String,
    /// The row's own answer.
    pub expected: Option<Value>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// One of the component's metrics.
    pub metric: String,
    pub value: f64,
}

/// Serves what training has made, without a restart.
pub trait Publisher: Send + Sync + 'static {
    /// Takes a copy of a model or adapter folder and serves it from now on, also after a restart, in place of an earlier
    /// one of that tenant and name. Done twice, it leaves what it leaves when it is done once.
    fn publish(&self, publication: Publication) -> BoxFuture<'_, Result<ModelId, TrainError>>;

    /// Serves a tenant's trained model no longer and removes its files; `false` when there is none.
    fn withdraw<'a>(&'a self, tenant: &'a TenantId, id: &'a ModelId) -> BoxFuture<'a, Result<bool, TrainError>>;
}

/// A model that a job has made.
#[derive(Debug, Clone, PartialEq)]
pub struct Publication {
    pub tenant: TenantId,
    /// As its tenant will call it.
    pub name: String,
    /// Model or adapter folder; it may go once it is published.
    pub path: PathBuf,
    /// What the job names as its base; an adapter is served over it.
    pub base: Option<String>,
    pub job: String,
    /// Of the checkpoint, where it is not the job's end.
    pub step: Option<u64>,
}

/// One completion that is to be scored.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    pub messages: Vec<Message>,
    pub completion: String,
    /// The row's reference answer.
    pub reference: Option<Value>,
}

/// Why a job was refused or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// `field` is a path in the specification, for example `optim.learning_rate`.
    #[error("{field}: {reason}")]
    Spec { field: String, reason: String },
    /// Row numbers count from 1.
    #[error("{file}, row {row}: {reason}")]
    Row { file: String, row: u64, reason: String },
    #[error("data {name}: {reason}")]
    Data { name: String, reason: String },
    #[error("model {name}: {reason}")]
    Model { name: String, reason: String },
    /// A path or a name that leads nowhere.
    #[error("there is no {what} `{name}`")]
    NotFound { what: &'static str, name: String },
    /// A checkpoint belongs to another run: data, base or specification have changed.
    #[error("cannot resume: {what} was {was} and is {is}")]
    Changed { what: &'static str, was: String, is: String },
    /// A device that is not there, has no memory left, or fails.
    #[error("device {name}: {reason}")]
    Device { name: String, reason: String },
    #[error(
        "the run needs {needed} bytes of memory, {limit} are left; less of `optim.batch` or `data.max_tokens`, or \
         `optim.checkpointing`, needs less"
    )]
    Memory { needed: u64, limit: u64 },
    /// The loss or its gradient was not finite for too many steps in a row.
    #[error("the run diverged at step {step}: {reason}")]
    Diverged { step: u64, reason: String },
    #[error("reward `{component}` failed: {reason}")]
    Reward { component: String, reason: String },
    #[error("evaluator `{component}` failed: {reason}")]
    Evaluator { component: String, reason: String },
    #[error("training failed in {stage}")]
    Io {
        stage: &'static str,
        #[source]
        source: BoxError,
    },
}

impl TrainError {
    pub fn fault(&self) -> Fault {
        match self {
            Self::Io { .. } | Self::Device { .. } => Fault::Host,
            _ => Fault::Caller,
        }
    }

    pub fn spec(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Spec { field: field.into(), reason: reason.into() }
    }
}
