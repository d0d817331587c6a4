//! What a job says, in the terms of the parts.

use crate::job::{self, Job, Method, MuonIteration, Named};
use crate::network::{Adapter, AdapterKind, Device, NetworkOptions, Output, Precision, Trained};
use crate::optimizer::{Muon, MuonScale, OptimizerSettings, Orthogonalisation, Schedule, Shape};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Steps in the decay of `wsd` where a job does not say: one in so many.
const DECAY_SHARE: u64 = 5;

/// The same of the warm-up of `continue`.
const WARMUP_SHARE: u64 = 20;

/// The schedule of a run of so many steps.
pub fn schedule(job: &Job, steps: u64) -> Schedule {
    let shape = match job.optim.schedule {
        job::Schedule::Constant => Shape::Constant,
        job::Schedule::Linear => Shape::Linear,
        job::Schedule::Cosine => Shape::Cosine,
        job::Schedule::Wsd => Shape::Wsd { decay: job.optim.decay_steps.unwrap_or(steps / DECAY_SHARE) },
    };
    let usual = if job.method == Method::Continue { steps / WARMUP_SHARE } else { 0 };
    Schedule { shape, warmup: job.optim.warmup_steps.unwrap_or(usual), steps, floor: job.optim.floor }
}

pub fn optimizer(job: &Job) -> OptimizerSettings {
    let optim = &job.optim;
    let muon = optim.muon.as_ref().map(|muon| Muon {
        momentum: muon.momentum,
        orthogonalisation: match muon.iteration {
            MuonIteration::NewtonSchulz => Orthogonalisation::NewtonSchulz,
            MuonIteration::PolarExpress => Orthogonalisation::PolarExpress,
        },
        scale: match muon.scale {
            job::MuonScale::Shape => MuonScale::Aspect,
            job::MuonScale::AdamW => MuonScale::Adamw,
        },
        rate: muon.learning_rate,
        weight_decay: muon.weight_decay,
    });
    OptimizerSettings {
        rate: optim.learning_rate,
        betas: (optim.betas[0], optim.betas[1]),
        eps: optim.eps,
        weight_decay: optim.weight_decay,
        muon,
    }
}

/// How the network of a job is made; `threads` 0: one for each core.
pub fn network(job: &Job, output: Output, threads: usize) -> NetworkOptions {
    let train = job.model.adapter.as_ref().map_or(Trained::All, |adapter| {
        Trained::Adapter(Adapter {
            kind: match adapter.kind {
                job::AdapterKind::Lora => AdapterKind::Lora,
                job::AdapterKind::Dora => AdapterKind::Dora,
                job::AdapterKind::Qlora => AdapterKind::Qlora,
            },
            rank: adapter.rank,
            alpha: adapter.alpha as f32,
            rank_stabilised: adapter.rank_stabilised,
            dropout: adapter.dropout as f32,
            targets: adapter.targets.clone(),
        })
    });
    let precision = match job.optim.precision {
        job::Precision::F32 => Precision::F32,
        job::Precision::Bf16 => Precision::Bf16,
    };
    let checkpointing = job.optim.checkpointing;
    NetworkOptions { train, output, device: device(job), precision, checkpointing, threads, seed: job.seed }
}

pub fn device(job: &Job) -> Device {
    match job.optim.device {
        job::Device::Cpu => Device::Cpu,
        job::Device::Cuda(index) => Device::Cuda(index),
    }
}

/// Sha256 in hex of what a job says about the numbers of its run: without names, whose contents have digests of their
/// own, without what only says where results go or when they are looked at, and without what is as it always is, so that a
/// later version's new settings do not end an older one's runs.
pub fn digest(job: &Job) -> String {
    let mut settings = job.to_json();
    let usual = usual(job.method);
    for (section, values) in settings.as_object_mut().into_iter().flatten() {
        if let (Value::Object(values), Some(usual)) = (values, usual.get(section)) {
            values.retain(|key, value| usual.get(key) != Some(value));
        }
    }
    for (section, name) in [
        ("data", "train"),
        ("data", "eval"),
        ("model", "base"),
        ("model", "tokenizer"),
        ("eval", "every"),
        ("eval", "show"),
    ] {
        if let Some(section) = settings.get_mut(section).and_then(Value::as_object_mut) {
            section.remove(name);
        }
    }
    if let Some(sections) = settings.as_object_mut() {
        sections.remove("output");
        sections.remove("checkpoint");
    }
    format!("{:x}", Sha256::digest(settings.to_string()))
}

/// A job of the method that says nothing but what it has to.
fn usual(method: Method) -> Value {
    let mut least = json!({"method": method.name(), "model": {"base": "base"}, "data": {"train": "train"}});
    if method == Method::Grpo {
        least["grpo"] = json!({"rewards": ["reward"]});
    }
    Job::from_json(&least).map(|job| job.to_json()).unwrap_or_default()
}
