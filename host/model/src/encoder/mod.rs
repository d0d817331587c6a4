//! What the encoders (BERT, DeBERTa) share: reading their tensors, linear layers, layer norm, and batches of texts
//! that are alike in length.

mod batch;
mod layers;

pub(crate) use batch::{Threads, by_length, check_texts};
pub(crate) use layers::{LayerNorm, Linear, Loader, loading};

use crate::config::ModelConfig;

/// The names that encoders' files put before their tensors: the same network is saved with and without a head.
pub(crate) fn prefix_of(checkpoint: &crate::Checkpoint, prefix: &'static str) -> &'static str {
    let prefixed = checkpoint.find(&format!("{prefix}embeddings.word_embeddings.weight")).is_some();
    if prefixed { prefix } else { "" }
}

/// Heads times their width, where that is not the model's width.
pub(crate) fn uneven_heads(config: &ModelConfig) -> Option<String> {
    let even = config.hidden_size == config.heads * config.head_dim;
    (!even).then(|| format!("{} heads of {} for {} channels", config.heads, config.head_dim, config.hidden_size))
}
