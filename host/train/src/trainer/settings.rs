//! What a job says, in the terms of the parts.

use crate::job::{self, Job, MuonIteration};
use crate::network::{Adapter, AdapterKind, Device, NetworkOptions, Output, Precision, Trained};
use crate::optimizer::{Muon, MuonScale, OptimizerSettings, Orthogonalisation, Schedule, Shape};
use sha2::{Digest, Sha256};

/// Steps in the decay of `wsd` where a job does not say: one in so many.
const DECAY_SHARE: u64 = 5;

/// The schedule of a run of so many steps.
pub fn schedule(job: &Job, steps: u64) -> Schedule {
    let shape = match job.optim.schedule {
        job::Schedule::Constant => Shape::Constant,
        job::Schedule::Linear => Shape::Linear,
        job::Schedule::Cosine => Shape::Cosine,
        job::Schedule::Wsd => Shape::Wsd { decay: job.optim.decay_steps.unwrap_or(steps / DECAY_SHARE) },
    };
    Schedule { shape, warmup: job.optim.warmup_steps, steps, floor: job.optim.floor }
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
/// own, and without what only says where results go.
pub fn digest(job: &Job) -> String {
    let mut settings = job.to_json();
    if let Some(sections) = settings.as_object_mut() {
        sections.retain(|section, _| section != "output" && section != "checkpoint");
        for (section, name) in [("data", "train"), ("data", "eval"), ("model", "base"), ("model", "tokenizer")] {
            if let Some(section) = sections.get_mut(section).and_then(serde_json::Value::as_object_mut) {
                section.remove(name);
            }
        }
    }
    format!("{:x}", Sha256::digest(settings.to_string()))
}
