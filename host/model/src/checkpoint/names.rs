//! What GGUF calls the tensors of a decoder, and which of them it stores with interleaved heads.

use super::gguf::Metadata;

/// The Hugging Face name of a GGUF tensor; `None` for names that have none (`rope_freqs.weight` keeps its own).
pub(super) fn hugging_face_name(name: &str) -> Option<String> {
    match name {
        "token_embd.weight" => return Some("model.embed_tokens.weight".into()),
        "output_norm.weight" => return Some("model.norm.weight".into()),
        "output.weight" => return Some("lm_head.weight".into()),
        _ => {}
    }
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    if layer.is_empty() || !layer.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (part, kind) = part.rsplit_once('.')?;
    if kind != "weight" && kind != "bias" {
        return None;
    }
    let (part, _) = LAYER_PARTS.iter().find(|(_, gguf)| *gguf == part)?;
    Some(format!("model.layers.{layer}.{part}.{kind}"))
}

/// What GGUF calls a tensor of this Hugging Face name; `None` for those it has no name for.
pub fn gguf_name(name: &str) -> Option<String> {
    match name {
        "model.embed_tokens.weight" => return Some("token_embd.weight".into()),
        "model.norm.weight" => return Some("output_norm.weight".into()),
        "lm_head.weight" => return Some("output.weight".into()),
        _ => {}
    }
    let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (part, kind) = part.rsplit_once('.')?;
    let (_, part) = LAYER_PARTS.iter().find(|(hugging_face, _)| *hugging_face == part)?;
    Some(format!("blk.{layer}.{part}.{kind}"))
}

/// Parts of a layer, Hugging Face's name and GGUF's.
const LAYER_PARTS: [(&str, &str); 11] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// Head counts of a file whose q and k rows are interleaved.
pub(super) struct InterleavedHeads {
    query: usize,
    key: usize,
}

impl InterleavedHeads {
    /// The heads that `name` (GGUF's) interleaves, `None` when its rows are in order.
    pub(super) fn of(&self, name: &str) -> Option<usize> {
        let part = name.strip_prefix("blk.")?.split_once('.')?.1;
        match part {
            "attn_q.weight" | "attn_q.bias" => Some(self.query),
            "attn_k.weight" | "attn_k.bias" => Some(self.key),
            _ => None,
        }
    }
}

/// Architecture `llama` (which Mistral is converted to as well) interleaves; `qwen2`, `qwen3` and others do not.
pub(super) fn interleaved_heads(metadata: &Metadata) -> Option<InterleavedHeads> {
    if metadata.str("general.architecture") != Some("llama") {
        return None;
    }
    let count = |key: &str| metadata.u64(key).and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0);
    let query = count("llama.attention.head_count")?;
    Some(InterleavedHeads { query, key: count("llama.attention.head_count_kv").unwrap_or(query) })
}
