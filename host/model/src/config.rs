//! What a network needs to know of a model: architecture, sizes, rope, windows, and the ids that end a text.
//!
//! Read from `config.json` in both of its spellings (transformers 4: `rope_theta`, `rope_scaling`, `torch_dtype`;
//! transformers 5: `rope_parameters`, `dtype`), or from GGUF metadata. Every size is bounded before it is used,
//! and what a network here would compute wrongly (an unknown rope type, another activation, partial rotation) is
//! refused by name rather than ignored.

mod deberta;
mod gguf;
mod json;
mod write;

use crate::ModelError;
use std::path::Path;
use stockade_kernels::WeightType;

/// Most layers of a network.
pub const MAX_LAYERS: usize = 1024;
/// Largest hidden, feed-forward or head width.
pub const MAX_WIDTH: usize = 1 << 20;
/// Most rows of an embedding.
pub const MAX_VOCABULARY: usize = 1 << 24;
/// Longest context in tokens.
pub const MAX_CONTEXT_TOKENS: usize = 1 << 24;
/// Most end-of-sequence ids.
pub const MAX_EOS_IDS: usize = 64;
/// Most labels of a classifier.
pub const MAX_LABELS: usize = 4096;

/// Which network computes a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
    /// An encoder with absolute positions: sentence embedders.
    Bert,
    /// An encoder with relative positions: sequence classifiers.
    DebertaV2,
}

impl Architecture {
    /// Its name in `config.json`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Bert => "bert",
            Self::DebertaV2 => "deberta-v2",
        }
    }
}

/// What the network's output is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head {
    /// Next-token logits.
    CausalLm,
    /// A score per label from the last token, or the first one for encoders.
    Classifier { labels: Vec<String> },
    /// Hidden states only, pooled to an embedding.
    Embedding,
}

/// A model's configuration. Widths are in channels, lengths in tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    pub architecture: Architecture,
    pub head: Head,
    pub layers: usize,
    pub hidden_size: usize,
    /// Feed-forward width.
    pub intermediate_size: usize,
    pub heads: usize,
    /// Divides `heads`.
    pub kv_heads: usize,
    /// Even. Not always `hidden_size / heads`.
    pub head_dim: usize,
    pub vocab_size: usize,
    /// Most positions of a sequence.
    pub context_tokens: usize,
    /// Added to the mean square (RMS norm) or the variance (layer norm).
    pub norm_eps: f32,
    /// `None` for absolute position embeddings.
    pub rope: Option<Rope>,
    /// Per layer: query i sees keys j with i - w < j <= i. `None`: all of them.
    pub windows: Vec<Option<u32>>,
    /// The head shares the embedding's weights.
    pub tied_embeddings: bool,
    /// Biases on q, k, v.
    pub qkv_bias: bool,
    /// A bias on the attention's output projection.
    pub output_bias: bool,
    /// Biases in the feed-forward part.
    pub mlp_bias: bool,
    /// RMS norm over each head of q and k, before rope.
    pub qk_norm: bool,
    pub bos_id: Option<u32>,
    /// Ids that end a generation, `generation_config.json`'s included; sorted, without duplicates.
    pub eos_ids: Vec<u32>,
    pub pad_id: Option<u32>,
    /// The type the configuration names for the weights.
    pub dtype: Option<WeightType>,
    /// Set for encoders.
    pub encoder: Option<Encoder>,
}

/// What encoders have besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoder {
    /// Rows of the token-type embedding.
    pub token_types: usize,
    /// Longer texts are cut here, special tokens counted (`sentence_bert_config.json`, else the context).
    pub max_tokens: usize,
    pub pooling: Pooling,
    /// Embeddings are scaled to length 1.
    pub normalize: bool,
    /// Set where attention sees distances instead of positions.
    pub relative: Option<RelativePositions>,
}

/// Distances between tokens as DeBERTa has them: exact up to half of the buckets, logarithmic from there on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelativePositions {
    /// Buckets to each side, at least 4.
    pub buckets: usize,
    /// Longest distance told apart, in tokens, at least `buckets`.
    pub max_distance: usize,
}

/// What a folder says of the embeddings that are made with its network: sentence-transformers' `modules.json` lists the
/// steps, `1_Pooling` the pooling, another file the length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentenceSettings {
    /// Longer texts are cut here, special tokens counted.
    pub max_tokens: usize,
    pub pooling: Pooling,
    /// Embeddings are scaled to length 1.
    pub normalize: bool,
}

/// How token states become one embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Mean over all tokens, special ones included, padding not.
    Mean,
    /// The first token.
    First,
    /// The last token.
    Last,
}

/// Rotary positions.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    pub theta: f64,
    pub scaling: RopeScaling,
}

/// How the inverse frequencies are changed for long contexts.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    None,
    /// All frequencies divided.
    Linear {
        factor: f64,
    },
    /// Llama 3.1 and later: long wavelengths divided, short ones kept, a ramp between.
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_context: f64,
    },
    /// GGUF's `rope_freqs.weight`, `head_dim / 2` divisors. Wins over everything else.
    Divisors(Vec<f32>),
}

impl Rope {
    /// The `head_dim / 2` angles per position, in the order of pairs (i, i + head_dim/2).
    pub fn inverse_frequencies(&self, head_dim: usize) -> Vec<f32> {
        (0..head_dim / 2)
            .map(|i| {
                // As the reference computes it: powers and quotients in f32.
                let f = 1.0 / (self.theta as f32).powf((2 * i) as f32 / head_dim as f32);
                match &self.scaling {
                    RopeScaling::None => f,
                    RopeScaling::Linear { factor } => f / *factor as f32,
                    RopeScaling::Divisors(divisors) => f / divisors.get(i).copied().unwrap_or(1.0),
                    RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                        let f = f64::from(f);
                        let wavelength = 2.0 * std::f64::consts::PI / f;
                        let scaled = if wavelength < original_context / high_freq_factor {
                            f
                        } else if wavelength > original_context / low_freq_factor {
                            f / factor
                        } else {
                            let smooth = (original_context / wavelength - low_freq_factor)
                                / (high_freq_factor - low_freq_factor);
                            (1.0 - smooth) * f / factor + smooth * f
                        };
                        scaled as f32
                    }
                }
            })
            .collect()
    }
}

impl ModelConfig {
    /// Reads `folder/config.json` and the files beside it that add to it.
    pub fn from_folder(folder: &Path) -> Result<Self, ModelError> {
        json::from_folder(folder)
    }

    pub(crate) fn from_gguf(
        checkpoint: &crate::checkpoint::Checkpoint,
        metadata: &crate::checkpoint::gguf::Metadata,
    ) -> Result<Self, ModelError> {
        gguf::read(checkpoint, metadata)
    }

    /// Bounds and relations that every network relies on.
    fn checked(self, file: &Path) -> Result<Self, ModelError> {
        let refuse = |reason: String| Err(ModelError::damaged(file, reason));
        for (what, value, max) in [
            ("layers", self.layers, MAX_LAYERS),
            ("hidden size", self.hidden_size, MAX_WIDTH),
            ("feed-forward size", self.intermediate_size, MAX_WIDTH),
            ("heads", self.heads, MAX_WIDTH),
            ("key-value heads", self.kv_heads, MAX_WIDTH),
            ("head width", self.head_dim, MAX_WIDTH),
            ("vocabulary", self.vocab_size, MAX_VOCABULARY),
            ("context", self.context_tokens, MAX_CONTEXT_TOKENS),
        ] {
            if value == 0 || value > max {
                return refuse(format!("{what} of {value} is not in 1..={max}"));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return refuse(format!("{} heads do not divide into {} key-value heads", self.heads, self.kv_heads));
        }
        // The product bounds every size that is derived from it.
        if self.heads * self.head_dim > 4 * MAX_WIDTH {
            return refuse(format!("{} heads of {} channels are too wide", self.heads, self.head_dim));
        }
        if self.rope.is_some() && !self.head_dim.is_multiple_of(2) {
            return refuse(format!("head width {} is odd and cannot be rotated", self.head_dim));
        }
        if !(self.norm_eps.is_finite() && self.norm_eps > 0.0 && self.norm_eps < 1.0) {
            return refuse(format!("norm epsilon {} is not between 0 and 1", self.norm_eps));
        }
        if let Some(rope) = &self.rope {
            let positive = |x: f64| x.is_finite() && x > 0.0;
            let good = positive(rope.theta)
                && match &rope.scaling {
                    RopeScaling::None => true,
                    RopeScaling::Linear { factor } => positive(*factor),
                    RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                        [*factor, *low_freq_factor, *high_freq_factor, *original_context].into_iter().all(positive)
                            && high_freq_factor > low_freq_factor
                    }
                    RopeScaling::Divisors(d) => {
                        d.len() == self.head_dim / 2 && d.iter().all(|&x| positive(f64::from(x)))
                    }
                };
            if !good {
                return refuse(format!("rope settings {rope:?} are out of range"));
            }
        }
        if self.eos_ids.len() > MAX_EOS_IDS {
            return refuse(format!("{} end-of-sequence ids exceed {MAX_EOS_IDS}", self.eos_ids.len()));
        }
        if let Some(&id) =
            self.eos_ids.iter().chain(&self.bos_id).chain(&self.pad_id).find(|&&id| id as usize >= self.vocab_size)
        {
            return refuse(format!("token id {id} is outside the vocabulary of {}", self.vocab_size));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
