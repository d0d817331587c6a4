//! The parts of the encoder and how they are read.

use candle_core::{D, Tensor};

use crate::ModelError;
use crate::config::ModelConfig;
use crate::encoder::{LayerNorm, Linear, Loader, loading};

pub(super) struct Embeddings {
    /// `[V, C]`
    words: Tensor,
    /// `[T_max, C]`, token type 0 added: no other type occurs.
    positions: Tensor,
    norm: LayerNorm,
}

impl Embeddings {
    pub(super) fn load(loader: &Loader<'_>, config: &ModelConfig, token_types: usize) -> Result<Self, ModelError> {
        let table = |name: &str, rows| {
            loader.tensor(&format!("embeddings.{name}_embeddings.weight"), &[rows, config.hidden_size])
        };
        let types = table("token_type", token_types)?;
        let positions = table("position", config.context_tokens)?;
        let sum = types.narrow(0, 0, 1).and_then(|first| positions.broadcast_add(&first));
        Ok(Self {
            words: table("word", config.vocab_size)?,
            positions: sum.map_err(loading)?,
            norm: LayerNorm::load(loader, config, "embeddings.LayerNorm")?,
        })
    }

    /// `[B, T]` ids to `[B, T, C]`.
    pub(super) fn forward(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        let (b, t) = ids.dims2()?;
        let words = self.words.index_select(&ids.flatten_all()?, 0)?.reshape((b, t, ()))?;
        self.norm.forward(&words.broadcast_add(&self.positions.narrow(0, 0, t)?)?)
    }
}

pub(super) struct Layer {
    heads: usize,
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
}

impl Layer {
    pub(super) fn load(loader: &Loader<'_>, config: &ModelConfig, i: usize) -> Result<Self, ModelError> {
        let (c, f) = (config.hidden_size, config.intermediate_size);
        let linear =
            |part: &str, outputs, inputs| Linear::load(loader, &format!("encoder.layer.{i}.{part}"), outputs, inputs);
        let norm = |part: &str| LayerNorm::load(loader, config, &format!("encoder.layer.{i}.{part}"));
        Ok(Self {
            heads: config.heads,
            query: linear("attention.self.query", c, c)?,
            key: linear("attention.self.key", c, c)?,
            value: linear("attention.self.value", c, c)?,
            attention_output: linear("attention.output.dense", c, c)?,
            attention_norm: norm("attention.output.LayerNorm")?,
            intermediate: linear("intermediate.dense", f, c)?,
            output: linear("output.dense", c, f)?,
            output_norm: norm("output.LayerNorm")?,
        })
    }

    /// `x` `[B, T, C]`, `mask` `[B, 1, 1, T]` added to the scores.
    pub(super) fn forward(&self, x: &Tensor, mask: &Tensor) -> candle_core::Result<Tensor> {
        let attended = self.attention_output.forward(&self.attend(x, mask)?)?;
        let x = self.attention_norm.forward(&(x + attended)?)?;
        let inner = self.intermediate.forward(&x)?.gelu_erf()?;
        self.output_norm.forward(&(&x + self.output.forward(&inner)?)?)
    }

    fn attend(&self, x: &Tensor, mask: &Tensor) -> candle_core::Result<Tensor> {
        let (b, t, c) = x.dims3()?;
        let d = c / self.heads;
        let heads = |linear: &Linear| -> candle_core::Result<Tensor> {
            linear.forward(x)?.reshape((b, t, self.heads, d))?.transpose(1, 2)?.contiguous() // [B, H, T, D]
        };
        let (q, k, v) = (heads(&self.query)?, heads(&self.key)?, heads(&self.value)?);
        let scores = (q.matmul(&k.t()?.contiguous()?)? * (1.0 / (d as f64).sqrt()))?.broadcast_add(mask)?;
        let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
        weights.matmul(&v)?.transpose(1, 2)?.reshape((b, t, c)) // [B, H, T, D] -> [B, T, C]
    }
}
