//! The loop on recorded runs, on one batch, and cut short.

mod examiner;
mod host;
mod methods;
mod resume;
mod rollouts;
mod traces;

use super::run::{Export, Run};
use super::settings;
use crate::checkpoint::Identity;
use crate::data::{Example, IGNORE, Sequence, Source, StepData};
use crate::job::Job;
use crate::methods::Objective;
use crate::network::{Device, Network, NetworkOptions};
use crate::optimizer::Optimizer;
use crate::reference::reference_file;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Mutex;
use stockade_core::train::{Command, Observer, Saved, StepMetrics, TrainError};
use stockade_model::Checkpoint;

/// Steps that are written out.
pub(super) struct Steps(pub Vec<StepData>);

impl Source for Steps {
    fn steps(&self) -> u64 {
        self.0.len() as u64
    }

    fn step(&self, step: u64) -> Result<StepData, TrainError> {
        Ok(self.0[step as usize].clone())
    }

    fn digest(&self) -> &str {
        "steps"
    }
}

/// Keeps what it hears, and commands `command` after step `at`.
#[derive(Default)]
pub(crate) struct Listener {
    pub steps: Mutex<Vec<StepMetrics>>,
    pub saved: Mutex<Vec<Saved>>,
    pub notes: Mutex<Vec<String>>,
    pub interrupt: Option<(u64, Command)>,
}

impl Observer for Listener {
    fn step(&self, metrics: &StepMetrics) {
        self.steps.lock().unwrap().push(metrics.clone());
    }

    fn checkpoint(&self, saved: &Saved) {
        self.saved.lock().unwrap().push(saved.clone());
    }

    fn note(&self, text: &str) {
        self.notes.lock().unwrap().push(text.to_owned());
    }

    fn command(&self) -> Command {
        let done = self.steps.lock().unwrap().last().map_or(0, |metrics| metrics.step);
        self.interrupt.filter(|(at, _)| *at == done).map_or(Command::Continue, |(_, command)| command)
    }
}

/// A job of a method, with what `more` says over it; sections are merged.
pub(super) fn job(method: &str, more: Value) -> Job {
    let mut job = json!({
        "method": method,
        "model": { "base": "llama-micro" },
        "data": { "train": "steps" },
        "optim": { "steps": 10, "learning_rate": 1e-3, "schedule": "constant", "clip_norm": 1.0 },
    });
    if method == "grpo" {
        job["grpo"] = json!({ "rewards": ["exact"], "group": 4 });
    }
    for (section, values) in more.as_object().unwrap() {
        for (key, value) in values.as_object().unwrap() {
            job[section][key] = value.clone();
        }
    }
    Job::from_json(&job).unwrap()
}

pub(super) fn open(fixture: &str, job: &Job, objective: &Objective) -> Option<Network> {
    open_on(Device::Cpu, fixture, job, objective)
}

pub(super) fn open_on(device: Device, fixture: &str, job: &Job, objective: &Objective) -> Option<Network> {
    let checkpoint = Checkpoint::open(&reference_file(&format!("fixtures/{fixture}"))?).unwrap();
    let options = NetworkOptions { device, ..settings::network(job, objective.output(), 2) };
    Some(Network::open(&checkpoint, &checkpoint.config().unwrap(), &options).unwrap())
}

/// Writes no result: for runs that are looked at themselves.
pub(super) const NOWHERE: &Export<'static> = &|_, folder| {
    std::fs::create_dir_all(folder).unwrap();
    Ok(())
};

pub(super) fn run<'a>(
    job: &'a Job,
    objective: Objective,
    network: Network,
    train: &'a dyn Source,
    folder: &'a Path,
    observer: &'a dyn Observer,
) -> Run<'a> {
    Run {
        optimizer: Optimizer::new(network.parameters(), settings::optimizer(job)),
        schedule: settings::schedule(job, train.steps()),
        identity: Identity { job: "job".into(), base: "base".into(), data: train.digest().into(), evaluation: None },
        evaluation: None,
        roller: None,
        examiner: None,
        export: NOWHERE,
        finish: NOWHERE,
        job,
        network,
        objective,
        train,
        folder,
        observer,
    }
}

/// A document with labels on all but its first `unlabelled` tokens.
pub(super) fn sequence(tokens: &[u32], unlabelled: usize) -> Sequence {
    let labels = tokens.iter().enumerate().map(|(t, &token)| if t < unlabelled.max(1) { IGNORE } else { token as i32 });
    Sequence { tokens: tokens.to_vec(), labels: labels.collect() }
}

/// Rows of one example each, `rows` of them a micro-batch.
pub(super) fn step_of(examples: Vec<Example>, rows: usize) -> StepData {
    let rows_of_one: Vec<Vec<Example>> = examples.into_iter().map(|example| vec![example]).collect();
    StepData { micro_batches: rows_of_one.chunks(rows).map(<[_]>::to_vec).collect(), epoch: 0 }
}

/// Of all trained weights, bit by bit.
pub(super) fn digest(network: &Network) -> String {
    let mut hash = Sha256::new();
    for i in 0..network.parameters().len() {
        network.values(i).iter().for_each(|value| hash.update(value.to_bits().to_le_bytes()));
    }
    format!("{:x}", hash.finalize())
}
