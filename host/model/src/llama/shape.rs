//! The sizes of a network of the Llama family, taken from the configuration once and checked against the kernels.

use crate::ModelError;
use crate::checkpoint::Checkpoint;
use crate::config::{Architecture, ModelConfig};

/// Lengths in tokens, widths in channels.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    /// `V`
    pub(super) vocab: usize,
    /// `C`
    pub(super) hidden: usize,
    /// `F`
    pub(super) ffn: usize,
    /// `H`, a multiple of `kv_heads`.
    pub(super) heads: usize,
    /// `Hk`
    pub(super) kv_heads: usize,
    /// `D`, even.
    pub(super) head_dim: usize,
    pub(super) context_tokens: usize,
    pub(super) eps: f32,
    /// `D / 2` radians per token.
    pub(super) frequencies: Vec<f32>,
    /// For each layer: row i sees keys `i - window < j <= i`; `None`: all up to itself.
    pub(super) windows: Vec<Option<u32>>,
    /// The embedding serves as head.
    pub(super) tied: bool,
    /// Norms of the heads of q and k before rope.
    pub(super) qk_norm: bool,
    pub(super) qkv_bias: bool,
    pub(super) output_bias: bool,
    pub(super) mlp_bias: bool,
}

impl Shape {
    pub(super) fn new(checkpoint: &Checkpoint, config: &ModelConfig) -> Result<Self, ModelError> {
        let unsupported = |what, found: String| Err(ModelError::unsupported(checkpoint.path(), what, found));
        let decoder = match config.architecture {
            Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 | Architecture::Qwen3 => {
                config.rope.as_ref()
            }
            Architecture::Bert | Architecture::DebertaV2 => None,
        };
        let Some(rope) = decoder else {
            return unsupported("as a decoder, architecture", format!("{:?}", config.architecture));
        };
        if config.head_dim == 0 || !config.head_dim.is_multiple_of(8) || config.head_dim > 256 {
            return unsupported("a head width that is no multiple of 8 up to 256,", config.head_dim.to_string());
        }
        if config.windows.len() != config.layers || config.windows.contains(&Some(0)) {
            return unsupported("sliding windows", format!("{:?} of {} layers", config.windows, config.layers));
        }
        Ok(Self {
            vocab: config.vocab_size,
            hidden: config.hidden_size,
            ffn: config.intermediate_size,
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            context_tokens: config.context_tokens,
            eps: config.norm_eps,
            frequencies: rope.inverse_frequencies(config.head_dim),
            windows: config.windows.clone(),
            tied: config.tied_embeddings,
            qk_norm: config.qk_norm,
            qkv_bias: config.qkv_bias,
            output_bias: config.output_bias,
            mlp_bias: config.mlp_bias,
        })
    }

    pub(crate) fn layers(&self) -> usize {
        self.windows.len()
    }

    /// Whether the configuration says that this product of a layer has a bias.
    pub(super) fn has_bias(&self, part: Part) -> bool {
        match part {
            Part::Query | Part::Key | Part::Value => self.qkv_bias,
            Part::Output => self.output_bias,
            Part::Gate | Part::Up | Part::Down => self.mlp_bias,
        }
    }

    /// Outputs and inputs of a product.
    pub(crate) fn dims(&self, part: Part) -> (usize, usize) {
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        match part {
            Part::Query => (q, self.hidden),
            Part::Key | Part::Value => (kv, self.hidden),
            Part::Output => (self.hidden, q),
            Part::Gate | Part::Up => (self.ffn, self.hidden),
            Part::Down => (self.hidden, self.ffn),
        }
    }
}

/// A product of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Query,
    Key,
    Value,
    Output,
    Gate,
    Up,
    Down,
}

impl Part {
    pub(crate) const ALL: [Self; 7] =
        [Self::Query, Self::Key, Self::Value, Self::Output, Self::Gate, Self::Up, Self::Down];

    /// Its name inside of a layer.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Query => "self_attn.q_proj",
            Self::Key => "self_attn.k_proj",
            Self::Value => "self_attn.v_proj",
            Self::Output => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        }
    }
}
