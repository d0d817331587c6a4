//! How a network comes to its values: from a checkpoint, or drawn.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use stockade_core::train::TrainError;
use stockade_kernels::Pool;
use stockade_model::config::ModelConfig;
use stockade_model::{Checkpoint, ModelError};

use super::buffer::Buffers;
use super::device::DeviceNetwork;
use super::layout::{Layout, Tensor};
use super::linear::AdapterOf;
use super::nf4::Nf4;
use super::product::Products;
use super::rope::Rope;
use super::{Adapter, AdapterKind, Kind, Network, NetworkOptions, Output, Parameter, Place, Trained};
use crate::random::{Purpose, normal, uniform};

/// Standard deviation of fresh weights (GPT-2's, Llama's).
const DEVIATION: f64 = 0.02;
/// Largest rank of an adapter.
const MAX_RANK: usize = 1024;
/// Most labels of a head.
const MAX_LABELS: usize = stockade_model::config::MAX_LABELS;

/// Where values come from.
enum Origin<'a> {
    Checkpoint(&'a Checkpoint),
    Fresh,
}

impl Network {
    /// A checkpoint's network: safetensors in f32, f16 or bf16, or GGUF, dequantized. A head that the checkpoint does
    /// not have is drawn.
    ///
    /// # Errors
    /// An architecture, a tensor or options that this network does not know, a file that cannot be read, or no memory.
    pub fn open(checkpoint: &Checkpoint, config: &ModelConfig, options: &NetworkOptions) -> Result<Self, TrainError> {
        Self::build(Origin::Checkpoint(checkpoint), config, options)
    }

    /// A network from scratch: weights normal with deviation 0.02, those that write to the residual stream with
    /// 0.02 / sqrt(2 L), gains 1, biases 0.
    ///
    /// # Errors
    /// As [`Self::open`]. An adapter needs a base.
    pub fn fresh(config: &ModelConfig, options: &NetworkOptions) -> Result<Self, TrainError> {
        if options.train != Trained::All {
            return Err(TrainError::spec("base", "a network from scratch is trained whole"));
        }
        Self::build(Origin::Fresh, config, options)
    }

    fn build(origin: Origin<'_>, config: &ModelConfig, options: &NetworkOptions) -> Result<Self, TrainError> {
        check(options)?;
        let has_bias = |name: &str| match &origin {
            Origin::Checkpoint(checkpoint) => checkpoint.find(name).is_some(),
            Origin::Fresh => false,
        };
        let mut layout = Layout::new(config, options.output, &has_bias)?;
        if let Origin::Checkpoint(checkpoint) = &origin {
            check_tensors(checkpoint, &layout)?;
        }
        let workers = if options.threads == 0 { Pool::default_workers() } else { options.threads };
        let mut parts = Parts { whole: options.train == Trained::All, ..Parts::default() };
        let quantize = matches!(&options.train, Trained::Adapter(adapter) if adapter.kind == AdapterKind::Qlora);
        parts.reserve(&layout, options, quantize)?;
        for (i, tensor) in layout.tensors.iter().enumerate() {
            let values = match &origin {
                Origin::Checkpoint(checkpoint) => read(checkpoint, &tensor.name, &tensor.shape)?,
                Origin::Fresh => draw(options.seed, i as u64, tensor, config.layers),
            };
            parts.place(tensor, values, quantize && tensor.kind == Kind::Matrix);
        }
        let mut adapters = Vec::new();
        if let Trained::Adapter(adapter) = &options.train {
            adapters = parts.adapt(&mut layout, adapter, options.seed);
        }
        let score = match options.output {
            Output::Scores(labels) => {
                let name = if options.train == Trained::All { "score.weight" } else { "base_model.model.score.weight" };
                let shape = vec![labels, config.hidden_size];
                let values = match &origin {
                    Origin::Checkpoint(checkpoint) if checkpoint.find("score.weight").is_some() => {
                        read(checkpoint, "score.weight", &shape)?
                    }
                    _ => fresh_values(options.seed, u64::MAX, labels * config.hidden_size, DEVIATION),
                };
                Some(parts.master(name.into(), shape, Kind::Head, values))
            }
            Output::Language | Output::States => None,
        };
        let (rank, scale, dropout) = match &options.train {
            Trained::Adapter(adapter) => (adapter.rank, adapter.scale(), adapter.dropout),
            Trained::All | Trained::Head => (0, 0.0, 0.0),
        };
        let frequencies = config.rope.as_ref().map_or_else(Vec::new, |rope| rope.inverse_frequencies(config.head_dim));
        let (pool, buffers) = (Arc::new(Pool::new(workers)), Buffers::default());
        let mut network = Self {
            config: config.clone(),
            parameters: parts.parameters,
            masters: parts.masters,
            ranges: parts.ranges.into(),
            frozen: parts.frozen,
            places: parts.places,
            layout,
            adapters,
            rank,
            scale,
            dropout,
            score,
            checkpointing: options.checkpointing,
            rope: Rope::new(frequencies),
            products: Products::new(Arc::clone(&pool), buffers.clone(), options.precision),
            pool,
            buffers,
            device: None,
        };
        network.updated()?;
        network.start_magnitudes();
        network.device = DeviceNetwork::open(&network, options.device, options.precision)?;
        Ok(network)
    }

    /// DoRA's magnitudes start as the norms of the base's rows, so that the network starts as its base.
    fn start_magnitudes(&mut self) {
        for adapter in &self.adapters {
            if let Some(magnitude) = adapter.magnitude {
                self.masters[self.ranges[magnitude].clone()].copy_from_slice(&adapter.norms);
            }
        }
    }
}

/// A network's values while they are gathered.
#[derive(Default)]
struct Parts {
    /// The base is trained.
    whole: bool,
    parameters: Vec<Parameter>,
    masters: Vec<f32>,
    ranges: Vec<Range<usize>>,
    frozen: Vec<f32>,
    places: Vec<Place>,
}

impl Parts {
    /// Takes the memory for the base, or says how much there would have to be.
    fn reserve(&mut self, layout: &Layout, options: &NetworkOptions, quantize: bool) -> Result<(), TrainError> {
        let dense = layout.tensors.iter().filter(|tensor| !(quantize && tensor.kind == Kind::Matrix));
        let len = dense.map(Tensor::len).try_fold(0usize, |sum, len| sum.checked_add(len?));
        let to = if options.train == Trained::All { &mut self.masters } else { &mut self.frozen };
        let reserved = len.is_some_and(|len| to.try_reserve_exact(len).is_ok());
        let needed = len.and_then(|len| (len as u64).checked_mul(4)).unwrap_or(u64::MAX);
        if reserved { Ok(()) } else { Err(TrainError::Memory { needed, limit: isize::MAX as u64 }) }
    }

    fn place(&mut self, tensor: &Tensor, values: Vec<f32>, quantize: bool) {
        let place = if self.whole {
            Place::Master(self.master(tensor.name.clone(), tensor.shape.clone(), tensor.kind, values))
        } else if quantize {
            Place::Nf4(Nf4::quantize(&values))
        } else {
            let start = self.frozen.len();
            self.frozen.extend(values);
            Place::Frozen(start..self.frozen.len())
        };
        self.places.push(place);
    }

    fn master(&mut self, name: String, shape: Vec<usize>, kind: Kind, values: Vec<f32>) -> usize {
        let start = self.masters.len();
        self.masters.extend(values);
        self.ranges.push(start..self.masters.len());
        self.parameters.push(Parameter { name, shape, kind });
        self.parameters.len() - 1
    }

    /// Adds the adapters' parameters: A uniform in +-1/sqrt(in) (Kaiming with a = sqrt 5), B 0.
    fn adapt(&mut self, layout: &mut Layout, adapter: &Adapter, seed: u64) -> Vec<AdapterOf> {
        let names: Vec<String> = layout.tensors.iter().map(|tensor| tensor.name.clone()).collect();
        let mut adapters = Vec::new();
        for (_, matrices) in layout.matrices_mut() {
            let cols = matrices.cols;
            for part in &mut matrices.parts {
                if !adapter.targets.iter().any(|target| target == part.name) {
                    continue;
                }
                let module = names[part.tensor].trim_end_matches(".weight");
                let prefix = format!("base_model.model.{module}");
                let bound = 1.0 / (cols as f64).sqrt();
                let at = self.parameters.len() as u64;
                let a = (0..(adapter.rank * cols) as u64)
                    .map(|i| ((2.0 * uniform(seed, Purpose::Initialisation, at, i) - 1.0) * bound) as f32);
                let a = self.master(
                    format!("{prefix}.lora_A.weight"),
                    vec![adapter.rank, cols],
                    Kind::Adapter,
                    a.collect(),
                );
                let b = vec![0.0; part.rows * adapter.rank];
                let b = self.master(format!("{prefix}.lora_B.weight"), vec![part.rows, adapter.rank], Kind::Adapter, b);
                let magnitude = (adapter.kind == AdapterKind::Dora).then(|| {
                    let name = format!("{prefix}.lora_magnitude_vector");
                    self.master(name, vec![part.rows], Kind::Magnitude, vec![1.0; part.rows])
                });
                part.adapter = Some(adapters.len());
                adapters.push(AdapterOf { a, b, magnitude, norms: Vec::new() });
            }
        }
        adapters
    }
}

/// Refuses options that make no network.
fn check(options: &NetworkOptions) -> Result<(), TrainError> {
    if let Output::Scores(labels) = options.output
        && !(1..=MAX_LABELS).contains(&labels)
    {
        return Err(TrainError::spec("labels", format!("{labels} is not in 1..={MAX_LABELS}")));
    }
    match (&options.train, options.output) {
        (Trained::Head, Output::Language | Output::States) => {
            Err(TrainError::spec("train", "there is no head that could be trained alone"))
        }
        (Trained::Adapter(adapter), _) => check_adapter(adapter),
        _ => Ok(()),
    }
}

fn check_adapter(adapter: &Adapter) -> Result<(), TrainError> {
    const KNOWN: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
    if !(1..=MAX_RANK).contains(&adapter.rank) {
        return Err(TrainError::spec("adapter.rank", format!("{} is not in 1..={MAX_RANK}", adapter.rank)));
    }
    if !(adapter.alpha.is_finite() && adapter.alpha > 0.0) {
        return Err(TrainError::spec("adapter.alpha", format!("{} is not above 0", adapter.alpha)));
    }
    if !(0.0..1.0).contains(&adapter.dropout) {
        return Err(TrainError::spec("adapter.dropout", format!("{} is not in 0..1", adapter.dropout)));
    }
    if adapter.targets.is_empty() {
        return Err(TrainError::spec("adapter.targets", "at least one is needed"));
    }
    match adapter.targets.iter().find(|target| !KNOWN.contains(&target.as_str())) {
        Some(target) => {
            let reason = format!("`{target}` is none of {}; embeddings and heads take no adapter", KNOWN.join(", "));
            Err(TrainError::spec("adapter.targets", reason))
        }
        None => Ok(()),
    }
}

/// Refuses a checkpoint with parts that the layout does not have: it would be computed wrongly.
fn check_tensors(checkpoint: &Checkpoint, layout: &Layout) -> Result<(), TrainError> {
    let known: BTreeSet<&str> = layout.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    let foreign = checkpoint.tensors().find(|tensor| {
        let name = tensor.name.as_str();
        name.starts_with("model.layers.") && !known.contains(name) && !name.ends_with(".inv_freq")
    });
    match foreign {
        Some(tensor) => Err(refused(checkpoint, format!("tensor {}: the architecture has no such part", tensor.name))),
        None => Ok(()),
    }
}

fn read(checkpoint: &Checkpoint, name: &str, shape: &[usize]) -> Result<Vec<f32>, TrainError> {
    let read = || checkpoint.read_f32(checkpoint.tensor_of(name, shape)?);
    read().map_err(|error: ModelError| refused(checkpoint, reasons(&error)))
}

fn refused(checkpoint: &Checkpoint, reason: String) -> TrainError {
    TrainError::Model { name: checkpoint.path().display().to_string(), reason }
}

/// An error with its causes.
fn reasons(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// A fresh tensor.
fn draw(seed: u64, index: u64, tensor: &Tensor, layers: usize) -> Vec<f32> {
    let len = tensor.len().unwrap_or(0); // checked when memory was reserved
    let to_residual = [".o_proj.", ".down_proj."].iter().any(|part| tensor.name.contains(part));
    let deviation = if to_residual { DEVIATION / (2.0 * layers as f64).sqrt() } else { DEVIATION };
    match tensor.kind {
        Kind::Norm => vec![1.0; len],
        Kind::Bias => vec![0.0; len],
        _ => fresh_values(seed, index, len, deviation),
    }
}

fn fresh_values(seed: u64, index: u64, len: usize, deviation: f64) -> Vec<f32> {
    (0..len as u64).map(|i| (deviation * normal(seed, Purpose::Initialisation, index, i)) as f32).collect()
}
