//! The Llama family forwards and backwards.
//!
//! A network owns its parameters; a pass runs packed documents through it and keeps what backward needs. Losses see
//! log-probabilities of labels, or scores, or states, and give back their derivatives, which backward turns into
//! gradients that it adds to. Nothing here knows of losses, optimizers or files of its own.
//!
//! [`pass`] is the seam to what computes: this crate's own kernels on slices (`host`, and all that it uses), or candle's
//! tensors on a device (`device`).
//!
//! Invariant: results do not depend on the number of threads. Work is cut by shapes alone, and sums over tokens have
//! a fixed order.

mod attention;
mod buffer;
mod device;
mod dropout;
mod gradients;
mod head;
mod host;
mod layer;
mod layout;
mod linear;
mod load;
mod memory;
mod nf4;
mod norm;
mod options;
mod packed;
mod parallel;
mod pass;
mod product;
mod rope;
mod simd;
mod swiglu;

use std::ops::Range;
use std::sync::Arc;

use stockade_core::train::TrainError;
use stockade_kernels::Pool;
use stockade_model::ModelConfig;

use buffer::Buffers;
use device::DeviceNetwork;
use layout::Layout;
use linear::AdapterOf;
use nf4::Nf4;
use product::Products;
use rope::Rope;

pub use gradients::Gradients;
pub use head::LogProbs;
pub use options::{Adapter, AdapterKind, Device, Mode, NetworkOptions, Output, Precision, Trained};
pub use packed::Packed;
pub use pass::Pass;

/// What a parameter is, which decides decay, optimizer and export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Hidden matrices `[out, in]`: decay, Muon.
    Matrix,
    /// Embedding and language-model head `[V, C]`: decay, AdamW.
    Embedding,
    /// Gains of norms `[n]`: no decay.
    Norm,
    /// `[n]`: no decay.
    Bias,
    /// LoRA's A `[r, in]` and B `[out, r]`.
    Adapter,
    /// DoRA's magnitudes `[out]`: no decay.
    Magnitude,
    /// Rows of a classifier, reward or embedding head `[labels, C]`.
    Head,
}

/// A tensor that is trained, by its Hugging Face (or PEFT) name, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    pub name: String,
    pub shape: Vec<usize>,
    pub kind: Kind,
}

/// A network of the Llama family: Llama, Mistral (windows), Qwen2 (biases), Qwen3 (norms of heads).
#[derive(Debug)]
pub struct Network {
    config: ModelConfig,
    parameters: Vec<Parameter>,
    /// Values of all parameters in f32, one after the other.
    masters: Vec<f32>,
    ranges: Arc<[Range<usize>]>,
    /// Values of the base where it is not trained.
    frozen: Vec<f32>,
    layout: Layout,
    /// Where each tensor of the layout is.
    places: Vec<Place>,
    adapters: Vec<AdapterOf>,
    /// Of all adapters.
    rank: usize,
    scale: f32,
    dropout: f32,
    /// The head `[labels, C]`, a parameter.
    score: Option<usize>,
    checkpointing: bool,
    rope: Rope,
    products: Products,
    pool: Arc<Pool>,
    buffers: Buffers,
    /// The same network on a device, which computes then.
    device: Option<DeviceNetwork>,
}

/// Where a tensor of the base is.
#[derive(Debug)]
enum Place {
    /// Parameter of this index.
    Master(usize),
    /// Range of the frozen values.
    Frozen(Range<usize>),
    Nf4(Nf4),
}

impl Network {
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What is trained, in an order that depends on configuration and options alone. A tied embedding is there once.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Of parameter `i`.
    pub fn values(&self, i: usize) -> &[f32] {
        &self.masters[self.ranges[i].clone()]
    }

    /// Of parameter `i`. After a change call [`Self::updated`].
    pub fn values_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.masters[self.ranges[i].clone()]
    }

    /// Makes what is derived from parameters anew, after they have changed.
    ///
    /// # Errors
    /// A device that fails.
    pub fn updated(&mut self) -> Result<(), TrainError> {
        match self.device.take() {
            Some(mut device) => {
                device.update(self)?;
                self.device = Some(device);
            }
            None => self.update_norms(),
        }
        Ok(())
    }

    /// Gradients of 0.
    pub fn gradients(&self) -> Gradients {
        Gradients::new(self.masters.len(), Arc::clone(&self.ranges), Arc::clone(&self.pool))
    }

    /// Names and shapes of the base's tensors, trained or not: what an exported model is made of. A score head is a
    /// parameter and not among them.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = (&str, &[usize])> {
        self.layout.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice()))
    }

    /// A tensor of the base by its Hugging Face name, as this network computes with it; adapters are not merged.
    ///
    /// # Errors
    /// There is no such tensor.
    pub fn tensor(&self, name: &str) -> Result<Vec<f32>, TrainError> {
        let index = self.layout.tensors.iter().position(|tensor| tensor.name == name).ok_or_else(|| {
            let reason = format!("it has no tensor {name}");
            TrainError::Model { name: self.config.architecture.model_type().into(), reason }
        })?;
        Ok(match &self.places[index] {
            &Place::Master(i) => self.values(i).to_vec(),
            Place::Frozen(range) => self.frozen[range.clone()].to_vec(),
            Place::Nf4(quantized) => {
                let mut values = vec![0.0; self.layout.tensors[index].len().unwrap_or(0)];
                quantized.dequantize(&self.pool, &mut values);
                values
            }
        })
    }

    /// The pool that computes: for optimizers, which may use it between passes.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Name of what multiplies, for logs and benchmarks.
    pub fn kernel(&self) -> &str {
        self.device.as_ref().map_or(self.products.kernel_name(), DeviceNetwork::name)
    }

    /// Parameter that holds a tensor of the base.
    fn master(&self, tensor: usize) -> Option<usize> {
        match self.places[tensor] {
            Place::Master(i) => Some(i),
            _ => None,
        }
    }

    /// Values of a tensor of the base that is never quantized: anything but the layers' matrices.
    fn base(&self, tensor: usize) -> &[f32] {
        match &self.places[tensor] {
            &Place::Master(i) => self.values(i),
            Place::Frozen(range) => &self.frozen[range.clone()],
            Place::Nf4(_) => unreachable!("only matrices of layers are quantized"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
