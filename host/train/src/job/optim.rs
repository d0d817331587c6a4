//! `[optim]`, `[checkpoint]`, `[eval]` and `[output]`: how far, how fast, and what is kept.

use super::Method;
use super::read::{Section, named};
use serde::Serialize;
use stockade_core::train::TrainError;

/// Most optimizer steps of a run.
pub const MAX_STEPS: u64 = 100_000_000;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OptimSpec {
    /// Optimizer steps; one of `steps` and `epochs` is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Passes over the data, not always whole ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
    /// Most optimizer steps, where the epochs would make more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Rows a micro-batch.
    pub batch: usize,
    /// Tokens a micro-batch instead of rows: rows are taken while they fit, at least one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_tokens: Option<usize>,
    /// Micro-batches a step.
    pub accumulate: usize,
    /// At the schedule's height.
    pub learning_rate: f64,
    pub schedule: Schedule,
    /// Absent: 0, but a twentieth of the run for `continue`, whose moments start at 0 under weights that are good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    /// Share of `learning_rate` that the schedule ends at.
    pub floor: f64,
    /// Length of the decay of `wsd`; absent: a fifth of all steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay_steps: Option<u64>,
    pub kind: OptimizerKind,
    pub betas: [f64; 2],
    pub eps: f64,
    /// Not on norms, biases and magnitudes.
    pub weight_decay: f64,
    /// Largest gradient norm; 0: off.
    pub clip_norm: f64,
    pub device: Device,
    pub precision: Precision,
    /// Layers keep their inputs only and are computed again in backward.
    pub checkpointing: bool,
    /// Steps in a row whose gradient is not finite before the run ends.
    pub max_skipped: u64,
    /// Weight of the squared log-sum-exp beside the cross entropy; 0: off.
    pub z_loss: f64,
    /// Of the matrices where `kind` is `muon`; the rest is AdamW's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub muon: Option<MuonSpec>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MuonSpec {
    pub learning_rate: f64,
    pub momentum: f64,
    pub weight_decay: f64,
    pub scale: MuonScale,
    pub iteration: MuonIteration,
}

named! {
    pub enum Schedule {
        Constant = "constant",
        Linear = "linear",
        Cosine = "cosine",
        /// Warm up, stay, decay.
        Wsd = "wsd",
    }
}

named! {
    pub enum OptimizerKind {
        AdamW = "adamw",
        Muon = "muon",
    }
}

named! {
    /// What an orthogonalised update is multiplied by.
    pub enum MuonScale {
        /// sqrt(max(1, rows / cols))
        Shape = "shape",
        /// 0.2 sqrt(max(rows, cols)): the size of AdamW's updates, whose rates it then takes.
        AdamW = "adamw",
    }
}

named! {
    pub enum MuonIteration {
        NewtonSchulz = "newton-schulz",
        PolarExpress = "polar-express",
    }
}

named! {
    pub enum Precision {
        F32 = "f32",
        /// Of products; sums, norms, optimizer and masters stay f32.
        Bf16 = "bf16",
    }
}

/// Where passes are computed: `cpu`, `cuda` (the first device) or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    Cpu,
    Cuda(usize),
}

impl Device {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            _ => {
                let digits = text.strip_prefix("cuda:").filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
                digits.parse().ok().filter(|index| *index < 64).map(Self::Cuda)
            }
        }
    }
}

impl Serialize for Device {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Cpu => serializer.serialize_str("cpu"),
            Self::Cuda(0) => serializer.serialize_str("cuda"),
            Self::Cuda(index) => serializer.collect_str(&format_args!("cuda:{index}")),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckpointSpec {
    /// Steps between checkpoints.
    pub every: u64,
    /// Newest checkpoints that stay, the best one apart.
    pub keep: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OutputSpec {
    /// Registered under this name where a server runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<String>,
    /// Absent: the base's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<Dtype>,
    /// Files beside the safetensors folder.
    pub formats: Vec<OutputFormat>,
    /// An adapter is merged into its base; always where the method has a head of its own.
    pub merge: bool,
}

named! {
    pub enum Dtype {
        F32 = "f32",
        F16 = "f16",
        Bf16 = "bf16",
    }
}

named! {
    pub enum OutputFormat {
        Safetensors = "safetensors",
        GgufF32 = "gguf:f32",
        GgufF16 = "gguf:f16",
        GgufQ8 = "gguf:q8_0",
        GgufQ4 = "gguf:q4_0",
        GgufQ4K = "gguf:q4_k_m",
    }
}

pub(super) fn read(mut optim: Section<'_>, method: Method, adapter: bool) -> Result<OptimSpec, TrainError> {
    let steps = optim.integer("steps", 1..=MAX_STEPS)?;
    let epochs = optim.number("epochs", 1e-6..=1e6)?;
    if steps.is_some() && epochs.is_some() {
        return Err(optim.refuse("epochs", "stands beside `steps`; one of the two"));
    }
    let max_steps = optim.integer("max_steps", 1..=MAX_STEPS)?;
    if steps.is_some() && max_steps.is_some() {
        return Err(optim.refuse("max_steps", "bounds epochs; `steps` is a number already"));
    }
    let batch = optim.size("batch", 1..=65_536)?;
    let batch_tokens = optim.size("batch_tokens", 1..=1 << 26)?;
    if batch.is_some() && batch_tokens.is_some() {
        return Err(optim.refuse("batch_tokens", "stands beside `batch`; one of the two"));
    }
    let warmup_steps = optim.integer("warmup_steps", 0..=MAX_STEPS)?;
    if let (Some(warmup), Some(steps)) = (warmup_steps, steps.or(max_steps))
        && warmup > steps
    {
        return Err(optim.refuse("warmup_steps", format!("{warmup} exceeds the steps of the run")));
    }
    if let (Some(1), Some(why)) = (batch, method.needs_others()) {
        return Err(optim.refuse("batch", why));
    }
    let learning_rate = optim.number("learning_rate", 0.0..=10.0)?.unwrap_or(method.learning_rate(adapter));
    let kind = optim.choice("kind")?.unwrap_or(OptimizerKind::AdamW);
    let weight_decay = optim.number("weight_decay", 0.0..=10.0)?.unwrap_or(0.0);
    let muon = muon(optim.section("muon")?, weight_decay)?;
    let spec = OptimSpec {
        steps,
        epochs: epochs.or(if steps.is_none() { Some(1.0) } else { None }),
        max_steps,
        batch: batch.unwrap_or(8),
        batch_tokens,
        accumulate: optim.size("accumulate", 1..=65_536)?.unwrap_or(1),
        learning_rate,
        schedule: optim.choice("schedule")?.unwrap_or(Schedule::Cosine),
        warmup_steps,
        floor: optim.number("floor", 0.0..=1.0)?.unwrap_or(0.0),
        decay_steps: optim.integer("decay_steps", 1..=MAX_STEPS)?,
        betas: betas(&mut optim)?,
        eps: optim.number("eps", 1e-30..=1.0)?.unwrap_or(1e-8),
        clip_norm: optim.number("clip_norm", 0.0..=1e9)?.unwrap_or(1.0),
        device: device(&mut optim)?,
        precision: optim.choice("precision")?.unwrap_or(Precision::F32),
        checkpointing: optim.flag("checkpointing", false)?,
        max_skipped: optim.integer("max_skipped", 0..=1_000_000)?.unwrap_or(10),
        z_loss: optim.number("z_loss", 0.0..=1.0)?.unwrap_or(0.0),
        muon: (kind == OptimizerKind::Muon).then_some(muon),
        kind,
        weight_decay,
    };
    optim.finish()?;
    Ok(spec)
}

fn muon(mut muon: Section<'_>, weight_decay: f64) -> Result<MuonSpec, TrainError> {
    let spec = MuonSpec {
        learning_rate: muon.number("learning_rate", 0.0..=10.0)?.unwrap_or(0.02),
        momentum: muon.number("momentum", 0.0..=0.9999)?.unwrap_or(0.95),
        weight_decay: muon.number("weight_decay", 0.0..=10.0)?.unwrap_or(weight_decay),
        scale: muon.choice("scale")?.unwrap_or(MuonScale::Shape),
        iteration: muon.choice("iteration")?.unwrap_or(MuonIteration::NewtonSchulz),
    };
    muon.finish()?;
    Ok(spec)
}

fn device(optim: &mut Section<'_>) -> Result<Device, TrainError> {
    let Some(text) = optim.text("device")? else { return Ok(Device::Cpu) };
    Device::parse(&text).ok_or_else(|| {
        let shown: String = text.chars().take(64).collect();
        optim.refuse("device", format!("`{shown}` is none of cpu, cuda, cuda:N"))
    })
}

fn betas(optim: &mut Section<'_>) -> Result<[f64; 2], TrainError> {
    let Some(value) = optim.take("betas") else {
        return Ok([0.9, 0.999]);
    };
    let pair = value.as_array().filter(|pair| pair.len() == 2).and_then(|p| Some([p[0].as_f64()?, p[1].as_f64()?]));
    match pair {
        Some(pair) if pair.iter().all(|beta| (0.0..1.0).contains(beta)) => Ok(pair),
        _ => Err(optim.refuse("betas", "expected two numbers of at least 0 and below 1")),
    }
}

pub(super) fn read_checkpoint(mut checkpoint: Section<'_>) -> Result<CheckpointSpec, TrainError> {
    let spec = CheckpointSpec {
        every: checkpoint.integer("every", 1..=MAX_STEPS)?.unwrap_or(100),
        keep: checkpoint.size("keep", 1..=1000)?.unwrap_or(2),
    };
    checkpoint.finish()?;
    Ok(spec)
}

pub(super) fn read_output(mut output: Section<'_>, method: Method, adapter: bool) -> Result<OutputSpec, TrainError> {
    use super::read::Named;
    let name = output.text("name")?;
    if let Some(name) = &name {
        stockade_core::ModelId::new(name).map_err(|e| output.refuse("name", e.to_string()))?;
    }
    let mut formats = Vec::new();
    for wanted in output.texts("formats")?.unwrap_or_else(|| vec![OutputFormat::Safetensors.name().into()]) {
        match OutputFormat::ALL.iter().find(|format| format.name() == wanted) {
            Some(&format) if !formats.contains(&format) => formats.push(format),
            Some(_) => {}
            None => {
                let names: Vec<&str> = OutputFormat::ALL.iter().map(|format| format.name()).collect();
                let shown: String = wanted.chars().take(64).collect();
                return Err(output.refuse("formats", format!("`{shown}` is none of {}", names.join(", "))));
            }
        }
    }
    let headed = adapter && method.has_own_head();
    let merge = output.flag("merge", headed)?;
    if merge && !adapter {
        return Err(output.refuse("merge", "there is no adapter to merge"));
    }
    if headed && !merge {
        return Err(
            output.refuse("merge", format!("what `{method}` gives is served whole; the PEFT folder stays inside it"))
        );
    }
    if adapter && !merge && formats.iter().any(|format| *format != OutputFormat::Safetensors) {
        return Err(output.refuse("formats", "GGUF holds whole models; an adapter needs `merge = true`"));
    }
    let spec = OutputSpec { name, dir: output.text("dir")?, dtype: output.choice("dtype")?, formats, merge };
    output.finish()?;
    Ok(spec)
}
