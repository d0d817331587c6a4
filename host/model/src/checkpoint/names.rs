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
    let part = match part {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    Some(format!("model.layers.{layer}.{part}.{kind}"))
}

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
