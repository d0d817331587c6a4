//! Linear layers and layer norm on candle's CPU tensors, in f32.

use std::cell::Cell;

use candle_core::{D, Device, Tensor};

use crate::ModelError;
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;

/// Reads tensors as f32, under one prefix.
pub(crate) struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    prefix: &'a str,
    bytes: Cell<usize>,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(checkpoint: &'a Checkpoint, prefix: &'a str) -> Self {
        Self { checkpoint, prefix, bytes: Cell::new(0) }
    }

    /// Bytes of all tensors read so far.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        let tensor = self.checkpoint.tensor_of(&format!("{}{name}", self.prefix), shape)?;
        let values = self.checkpoint.read_f32(tensor)?;
        self.bytes.set(self.bytes.get() + 4 * values.len());
        Tensor::from_vec(values, shape, &Device::Cpu).map_err(loading)
    }
}

pub(crate) fn loading(source: candle_core::Error) -> ModelError {
    ModelError::Tensors { stage: "loading", source }
}

pub(crate) struct Linear {
    /// `[inputs, outputs]`
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    pub(crate) fn load(loader: &Loader<'_>, name: &str, outputs: usize, inputs: usize) -> Result<Self, ModelError> {
        let weight = loader.tensor(&format!("{name}.weight"), &[outputs, inputs])?;
        Ok(Self { weight: weight.t().map_err(loading)?, bias: loader.tensor(&format!("{name}.bias"), &[outputs])? })
    }

    /// `[.., inputs]` to `[.., outputs]`.
    pub(crate) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let mut shape = x.dims().to_vec();
        let inputs = shape.pop().unwrap_or(0);
        let rows: usize = shape.iter().product();
        let product = x.reshape((rows, inputs))?.matmul(&self.weight)?; // one product, not one for each text
        shape.push(self.bias.elem_count());
        product.broadcast_add(&self.bias)?.reshape(shape)
    }
}

pub(crate) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    pub(crate) fn load(loader: &Loader<'_>, config: &ModelConfig, name: &str) -> Result<Self, ModelError> {
        Ok(Self {
            weight: loader.tensor(&format!("{name}.weight"), &[config.hidden_size])?,
            bias: loader.tensor(&format!("{name}.bias"), &[config.hidden_size])?,
            eps: f64::from(config.norm_eps),
        })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let scaled = centred.broadcast_div(&(variance + self.eps)?.sqrt()?)?;
        scaled.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)
    }
}
