//! The packed weights of a Llama-family network and how they get into memory.
//!
//! Each matrix is packed by the kernels while its rows are read, in parallel, so that a weight is in memory once;
//! what is in flight is one run of rows for each worker. Every name and shape is checked before the first byte
//! is read.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use stockade_kernels::{KernelError, PackedMatrix, Pool};

use super::shape::{Part, Shape};
use crate::ModelError;
use crate::checkpoint::{Checkpoint, Tensor};
use crate::config::Head;

pub(crate) struct Weights {
    /// `[V, C]`
    pub(super) embedding: PackedMatrix,
    pub(crate) layers: Vec<Layer>,
    /// `[C]`
    pub(super) norm: Vec<f32>,
    pub(super) head: OutputHead,
}

pub(crate) struct Layer {
    pub(super) attention_norm: Vec<f32>,
    pub(super) q: Linear,
    pub(super) k: Linear,
    pub(super) v: Linear,
    /// `[D]`, of each head before rope.
    pub(super) q_norm: Option<Vec<f32>>,
    pub(super) k_norm: Option<Vec<f32>>,
    pub(super) o: Linear,
    pub(super) mlp_norm: Vec<f32>,
    pub(super) gate: Linear,
    pub(super) up: Linear,
    pub(super) down: Linear,
}

pub(crate) struct Linear {
    pub(crate) weight: PackedMatrix,
    pub(super) bias: Option<Vec<f32>>,
}

impl Layer {
    pub(crate) fn linear(&self, part: Part) -> &Linear {
        match part {
            Part::Query => &self.q,
            Part::Key => &self.k,
            Part::Value => &self.v,
            Part::Output => &self.o,
            Part::Gate => &self.gate,
            Part::Up => &self.up,
            Part::Down => &self.down,
        }
    }
}

/// What turns states into outputs.
#[derive(Debug)]
pub(crate) enum OutputHead {
    /// `[V, C]`, or `[labels, C]` of a classifier.
    Own(PackedMatrix),
    /// The embedding `[V, C]` serves.
    Embedding,
    /// Nothing: states after the final norm are the output.
    States,
}

/// Called with the bytes read so far and in all, from any worker thread.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// Tensors of the network: what it is made of, checked against the checkpoint.
pub(super) struct Plan<'a> {
    checkpoint: &'a Checkpoint,
    shape: &'a Shape,
    /// Tensor of the head; `None`: see `headless`.
    head: Option<&'static str>,
    /// States are the output, else the embedding serves as head.
    headless: bool,
    /// Numbers of a row of outputs.
    pub(super) outputs: usize,
    /// Bytes of the packed weights.
    pub(super) packed_bytes: usize,
    /// Bytes to read.
    file_bytes: u64,
}

impl<'a> Plan<'a> {
    /// Checks every tensor's name and shape and sums their sizes; reads no weights.
    pub(super) fn new(checkpoint: &'a Checkpoint, shape: &'a Shape, head: &Head) -> Result<Self, ModelError> {
        let headless = *head == Head::Embedding;
        let (head, outputs) = match head {
            // Some files carry a head although the configuration ties it; the embedding is then the same.
            Head::CausalLm => ((!shape.tied).then_some("lm_head.weight"), shape.vocab),
            Head::Classifier { labels } => (Some("score.weight"), labels.len()),
            Head::Embedding => (None, shape.hidden),
        };
        let mut plan = Self { checkpoint, shape, head, headless, outputs, packed_bytes: 0, file_bytes: 0 };
        let mut names = BTreeSet::new();
        for (name, dims) in plan.tensors() {
            let tensor = checkpoint.tensor_of(&name, &dims)?;
            let bytes = match dims[..] {
                [rows, cols] => PackedMatrix::packed_bytes(tensor.ty, rows, cols),
                _ => dims.iter().product::<usize>().checked_mul(4),
            };
            let sum = bytes.and_then(|bytes| plan.packed_bytes.checked_add(bytes));
            plan.packed_bytes = sum.ok_or_else(|| plan.refuse(tensor, "its size overflows"))?;
            plan.file_bytes += tensor.size_bytes() as u64;
            names.insert(name);
        }
        // A tensor that the network would not use is a model this code does not know.
        let foreign = checkpoint.tensors().find(|t| {
            t.name.starts_with("model.layers.") && !names.contains(&t.name) && !t.name.ends_with(".inv_freq")
        });
        match foreign {
            Some(tensor) => Err(plan.refuse(tensor, "the architecture has no such part")),
            None => Ok(plan),
        }
    }

    /// Reads and packs everything.
    pub(super) fn load(&self, pool: &Pool, progress: Progress<'_>) -> Result<Weights, ModelError> {
        let loader = Loader { plan: self, pool, progress, done: AtomicU64::new(0) };
        let Shape { vocab, hidden, .. } = *self.shape;
        progress(0, self.file_bytes);
        Ok(Weights {
            embedding: loader.matrix("model.embed_tokens.weight", vocab, hidden)?,
            layers: (0..self.shape.layers()).map(|i| loader.layer(i)).collect::<Result<_, _>>()?,
            norm: loader.vector("model.norm.weight", hidden)?,
            head: match self.head {
                Some(name) => OutputHead::Own(loader.matrix(name, self.outputs, hidden)?),
                None if self.headless => OutputHead::States,
                None => OutputHead::Embedding,
            },
        })
    }

    /// Every tensor the network reads, with its shape.
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let Shape { vocab, hidden, .. } = *self.shape;
        let mut all = vec![
            ("model.embed_tokens.weight".to_owned(), vec![vocab, hidden]),
            ("model.norm.weight".to_owned(), vec![hidden]),
        ];
        all.extend(self.head.map(|name| (name.to_owned(), vec![self.outputs, hidden])));
        for i in 0..self.shape.layers() {
            for norm in ["input_layernorm", "post_attention_layernorm"] {
                all.push((layer_tensor(i, norm, "weight"), vec![hidden]));
            }
            if self.shape.qk_norm {
                for norm in ["self_attn.q_norm", "self_attn.k_norm"] {
                    all.push((layer_tensor(i, norm, "weight"), vec![self.shape.head_dim]));
                }
            }
            for part in Part::ALL {
                let (rows, cols) = self.shape.dims(part);
                all.push((layer_tensor(i, part.name(), "weight"), vec![rows, cols]));
                let bias = layer_tensor(i, part.name(), "bias");
                if self.shape.has_bias(part) || self.checkpoint.find(&bias).is_some() {
                    all.push((bias, vec![rows]));
                }
            }
        }
        all
    }

    fn refuse(&self, tensor: &Tensor, reason: &str) -> ModelError {
        ModelError::tensor(self.checkpoint.path(), &tensor.name, reason)
    }
}

fn layer_tensor(layer: usize, part: &str, kind: &str) -> String {
    format!("model.layers.{layer}.{part}.{kind}")
}

struct Loader<'a> {
    plan: &'a Plan<'a>,
    pool: &'a Pool,
    progress: Progress<'a>,
    done: AtomicU64,
}

impl Loader<'_> {
    fn layer(&self, i: usize) -> Result<Layer, ModelError> {
        let Shape { hidden, head_dim, qk_norm, .. } = *self.plan.shape;
        let norm = |part| self.vector(&layer_tensor(i, part, "weight"), hidden);
        let head_norm = |part| qk_norm.then(|| self.vector(&layer_tensor(i, part, "weight"), head_dim)).transpose();
        let [q, k, v, o, gate, up, down] = Part::ALL.map(|part| self.linear(i, part));
        Ok(Layer {
            attention_norm: norm("input_layernorm")?,
            q: q?,
            k: k?,
            v: v?,
            q_norm: head_norm("self_attn.q_norm")?,
            k_norm: head_norm("self_attn.k_norm")?,
            o: o?,
            mlp_norm: norm("post_attention_layernorm")?,
            gate: gate?,
            up: up?,
            down: down?,
        })
    }

    fn linear(&self, layer: usize, part: Part) -> Result<Linear, ModelError> {
        let (rows, cols) = self.plan.shape.dims(part);
        let bias = layer_tensor(layer, part.name(), "bias");
        let has_bias = self.plan.checkpoint.find(&bias).is_some();
        Ok(Linear {
            weight: self.matrix(&layer_tensor(layer, part.name(), "weight"), rows, cols)?,
            bias: has_bias.then(|| self.vector(&bias, rows)).transpose()?,
        })
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, ModelError> {
        let tensor = self.plan.checkpoint.tensor_of(name, &[len])?;
        let values = self.plan.checkpoint.read_f32(tensor)?;
        self.count(tensor.size_bytes());
        Ok(values)
    }

    fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<PackedMatrix, ModelError> {
        let tensor = self.plan.checkpoint.tensor_of(name, &[rows, cols])?;
        let runs = Runs { checkpoint: self.plan.checkpoint, tensor, open: Mutex::default(), count: &|n| self.count(n) };
        PackedMatrix::pack_rows(self.pool, tensor.ty, rows, cols, &|row, out| runs.read(row, out)).map_err(|error| {
            match error {
                KernelError::Source { row, source } => match source.downcast::<ModelError>() {
                    Ok(error) => *error,
                    Err(source) => {
                        ModelError::Kernel { what: name.to_owned(), source: KernelError::Source { row, source } }
                    }
                },
                source => ModelError::Kernel { what: name.to_owned(), source },
            }
        })
    }

    fn count(&self, bytes: usize) {
        let done = self.done.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        (self.progress)(done, self.plan.file_bytes);
    }
}

/// Hands out single rows of a tensor and reads them in runs: a system call for each row would cost more than the
/// packing, and rows that GGUF interleaves are read by whole heads.
struct Runs<'a> {
    checkpoint: &'a Checkpoint,
    tensor: &'a Tensor,
    /// Runs that are being handed out, about one for each worker.
    open: Mutex<Vec<Run>>,
    count: &'a (dyn Fn(usize) + Sync),
}

struct Run {
    first: usize,
    bytes: Vec<u8>,
}

/// Rows of a run; what one task of the packing asks for one after the other.
const RUN_ROWS: usize = 128;

impl Runs<'_> {
    fn read(&self, row: usize, out: &mut [u8]) -> Result<(), Box<dyn Error + Send + Sync>> {
        let first = row - row % RUN_ROWS;
        let open = || self.open.lock().unwrap_or_else(|e| e.into_inner());
        let known = {
            let mut open = open();
            open.iter().position(|run| run.first == first).map(|i| open.swap_remove(i))
        };
        let run = match known {
            Some(run) => run,
            None => {
                let end = self.tensor.rows.min(first + RUN_ROWS);
                let mut bytes = vec![0; (end - first) * self.tensor.row_bytes];
                self.checkpoint.read_rows(self.tensor, first..end, &mut bytes)?;
                (self.count)(bytes.len());
                Run { first, bytes }
            }
        };
        let from = (row - first) * self.tensor.row_bytes;
        out.copy_from_slice(&run.bytes[from..from + self.tensor.row_bytes]);
        if from + self.tensor.row_bytes < run.bytes.len() {
            open().push(run);
        }
        Ok(())
    }
}
