//! One layer of the encoder.

use candle_core::Tensor;

use super::attention::{Attention, Distances};
use crate::ModelError;
use crate::config::ModelConfig;
use crate::encoder::{LayerNorm, Linear, Loader, loading};

pub(super) struct Layer {
    heads: usize,
    query: Linear,
    key: Linear,
    value: Linear,
    /// `[H, R, D]`: the distance embeddings through `key` and `query`. The same in every call, so computed once.
    distance_keys: Tensor,
    distance_queries: Tensor,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
}

impl Layer {
    /// `distances` `[R, C]`: the distance embeddings after their norm.
    pub(super) fn load(
        loader: &Loader<'_>,
        config: &ModelConfig,
        i: usize,
        distances: &Tensor,
    ) -> Result<Self, ModelError> {
        let (c, f) = (config.hidden_size, config.intermediate_size);
        let linear =
            |part: &str, outputs, inputs| Linear::load(loader, &format!("encoder.layer.{i}.{part}"), outputs, inputs);
        let norm = |part: &str| LayerNorm::load(loader, config, &format!("encoder.layer.{i}.{part}"));
        let (query, key) = (linear("attention.self.query_proj", c, c)?, linear("attention.self.key_proj", c, c)?);
        let heads = |linear: &Linear| -> candle_core::Result<Tensor> {
            let projected = linear.forward(distances)?;
            let (r, _) = projected.dims2()?;
            projected.reshape((r, config.heads, config.head_dim))?.transpose(0, 1)?.contiguous() // [H, R, D]
        };
        Ok(Self {
            heads: config.heads,
            distance_keys: heads(&key).map_err(loading)?,
            distance_queries: heads(&query).map_err(loading)?,
            query,
            key,
            value: linear("attention.self.value_proj", c, c)?,
            attention_output: linear("attention.output.dense", c, c)?,
            attention_norm: norm("attention.output.LayerNorm")?,
            intermediate: linear("intermediate.dense", f, c)?,
            output: linear("output.dense", c, f)?,
            output_norm: norm("output.LayerNorm")?,
        })
    }

    /// `x` `[B, T, C]`; `lengths`: the tokens of each text that are no padding.
    pub(super) fn forward(&self, x: &Tensor, distances: &Distances, lengths: &[usize]) -> candle_core::Result<Tensor> {
        let (b, t, c) = x.dims3()?;
        let heads = |linear: &Linear| -> candle_core::Result<Tensor> {
            linear.forward(x)?.reshape((b, t, self.heads, c / self.heads))?.transpose(1, 2)?.contiguous() // [B, H, T, D]
        };
        let attention = Attention {
            query: heads(&self.query)?,
            key: heads(&self.key)?,
            value: heads(&self.value)?,
            distance_keys: &self.distance_keys,
            distance_queries: &self.distance_queries,
            distances,
            lengths,
        };
        let attended = attention.attend()?.transpose(1, 2)?.reshape((b, t, c))?; // [B, H, T, D] -> [B, T, C]
        let x = self.attention_norm.forward(&(x + self.attention_output.forward(&attended)?)?)?;
        let inner = self.intermediate.forward(&x)?.gelu_erf()?;
        self.output_norm.forward(&(&x + self.output.forward(&inner)?)?)
    }
}
