//! The tensors of a network: names, shapes, order, and which of them share an input.

use stockade_core::train::TrainError;
use stockade_model::config::{Architecture, ModelConfig};

use super::{Kind, Output};

/// A tensor of the base.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) kind: Kind,
}

/// All tensors in order, and where each part of the network finds its own.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) tensors: Vec<Tensor>,
    pub(super) embedding: usize,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: usize,
    /// The language head's matrix, the embedding if tied.
    pub(super) head: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Layer {
    pub(super) attention_norm: usize,
    pub(super) qkv: Matrices,
    /// Gains over each head of q and of k, before rope.
    pub(super) head_norms: Option<[usize; 2]>,
    pub(super) o: Matrices,
    pub(super) mlp_norm: usize,
    pub(super) gate_up: Matrices,
    pub(super) down: Matrices,
}

/// Matrices with the same input. Their tensors follow one another, so that they are one matrix in memory.
#[derive(Debug)]
pub(super) struct Matrices {
    pub(super) parts: Vec<Part>,
    /// Outputs of all parts.
    pub(super) rows: usize,
    /// Inputs.
    pub(super) cols: usize,
}

#[derive(Debug)]
pub(super) struct Part {
    /// `q_proj`, ...
    pub(super) name: &'static str,
    pub(super) tensor: usize,
    pub(super) bias: Option<usize>,
    /// First of the common rows.
    pub(super) first: usize,
    pub(super) rows: usize,
    /// Where its adapter stands in the network's list.
    pub(super) adapter: Option<usize>,
}

impl Layout {
    /// `has_bias` tells of a tensor's name whether it is there although the configuration does not say so.
    pub(super) fn new(
        config: &ModelConfig,
        output: Output,
        has_bias: &dyn Fn(&str) -> bool,
    ) -> Result<Self, TrainError> {
        check(config)?;
        let (v, c, f) = (config.vocab_size, config.hidden_size, config.intermediate_size);
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let mut tensors = Vec::new();
        let mut add = |name: String, shape: Vec<usize>, kind| {
            tensors.push(Tensor { name, shape, kind });
            tensors.len() - 1
        };
        let embedding = add("model.embed_tokens.weight".into(), vec![v, c], Kind::Embedding);
        let layers = (0..config.layers)
            .map(|i| {
                let prefix = format!("model.layers.{i}");
                let norm = |add: &mut dyn FnMut(String, Vec<usize>, Kind) -> usize, name: &str, width: usize| {
                    add(format!("{prefix}.{name}.weight"), vec![width], Kind::Norm)
                };
                let matrices = |add: &mut dyn FnMut(String, Vec<usize>, Kind) -> usize,
                                block: &str,
                                parts: &[(&'static str, usize)],
                                cols: usize,
                                biased: bool| {
                    let mut all = Matrices { parts: Vec::new(), rows: 0, cols };
                    for &(name, rows) in parts {
                        let tensor = add(format!("{prefix}.{block}.{name}.weight"), vec![rows, cols], Kind::Matrix);
                        all.parts.push(Part { name, tensor, bias: None, first: all.rows, rows, adapter: None });
                        all.rows += rows;
                    }
                    for part in &mut all.parts {
                        let bias = format!("{prefix}.{block}.{}.bias", part.name);
                        if biased || has_bias(&bias) {
                            part.bias = Some(add(bias, vec![part.rows], Kind::Bias));
                        }
                    }
                    all
                };
                let heads = [("q_proj", q), ("k_proj", kv), ("v_proj", kv)];
                Layer {
                    attention_norm: norm(&mut add, "input_layernorm", c),
                    qkv: matrices(&mut add, "self_attn", &heads, c, config.qkv_bias),
                    head_norms: config.qk_norm.then(|| {
                        ["q_norm", "k_norm"].map(|name| norm(&mut add, &format!("self_attn.{name}"), config.head_dim))
                    }),
                    o: matrices(&mut add, "self_attn", &[("o_proj", c)], q, config.output_bias),
                    mlp_norm: norm(&mut add, "post_attention_layernorm", c),
                    gate_up: matrices(&mut add, "mlp", &[("gate_proj", f), ("up_proj", f)], c, config.mlp_bias),
                    down: matrices(&mut add, "mlp", &[("down_proj", c)], f, config.mlp_bias),
                }
            })
            .collect();
        let norm = add("model.norm.weight".into(), vec![c], Kind::Norm);
        let head = (output == Output::Language).then(|| match config.tied_embeddings {
            true => embedding,
            false => add("lm_head.weight".into(), vec![v, c], Kind::Embedding),
        });
        Ok(Self { tensors, embedding, layers, norm, head })
    }

    /// All groups of matrices.
    pub(super) fn matrices_mut(&mut self) -> impl Iterator<Item = (usize, &mut Matrices)> {
        let layers = self.layers.iter_mut().enumerate();
        layers.flat_map(|(i, layer)| {
            [&mut layer.qkv, &mut layer.o, &mut layer.gate_up, &mut layer.down].map(|matrices| (i, matrices))
        })
    }
}

impl Tensor {
    /// Values of the tensor; `None` where their number overflows.
    pub(super) fn len(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
    }
}

/// Refuses what this network does not compute.
fn check(config: &ModelConfig) -> Result<(), TrainError> {
    let refuse = |reason: String| Err(TrainError::Model { name: config.architecture.model_type().into(), reason });
    if !matches!(
        config.architecture,
        Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 | Architecture::Qwen3
    ) {
        return refuse("only decoders of the Llama family are trained".into());
    }
    if config.rope.is_none() {
        return refuse("a decoder without rotary positions".into());
    }
    if config.head_dim == 0 || !config.head_dim.is_multiple_of(2) {
        return refuse(format!("a head width of {} cannot be rotated", config.head_dim));
    }
    if config.kv_heads == 0 || !config.heads.is_multiple_of(config.kv_heads) {
        return refuse(format!("{} heads do not divide into {} key-value heads", config.heads, config.kv_heads));
    }
    if config.windows.len() != config.layers || config.windows.contains(&Some(0)) {
        return refuse(format!("sliding windows {:?} of {} layers", config.windows, config.layers));
    }
    Ok(())
}
