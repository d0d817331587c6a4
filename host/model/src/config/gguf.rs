//! The configuration in GGUF metadata, and what the tensors themselves say.

use super::{Architecture, Head, MAX_LAYERS, ModelConfig, Rope, RopeScaling};
use crate::ModelError;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::gguf::Metadata;

/// Keys of the token ids that end a generation.
const EOS_KEYS: [&str; 3] =
    ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

pub(super) fn read(checkpoint: &Checkpoint, metadata: &Metadata) -> Result<ModelConfig, ModelError> {
    let file = checkpoint.path();
    let name = metadata.str("general.architecture").unwrap_or_default();
    let architecture = match name {
        // Mistral is converted as `llama`; the two differ in nothing that the file says otherwise.
        "llama" => Architecture::Llama,
        "qwen2" => Architecture::Qwen2,
        "qwen3" => Architecture::Qwen3,
        other => return Err(ModelError::unsupported(file, "architecture", other)),
    };
    let key = |suffix: &str| format!("{name}.{suffix}");
    let optional = |suffix: &str| metadata.u64(&key(suffix)).map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    let need = |suffix: &str| {
        optional(suffix).ok_or_else(|| ModelError::damaged(file, format!("`{}` is missing or no integer", key(suffix))))
    };
    if optional("expert_count").is_some_and(|n| n > 0) {
        return Err(ModelError::unsupported(file, "architecture", format!("{name} with experts")));
    }
    let layers = need("block_count")?;
    if layers > MAX_LAYERS {
        return Err(ModelError::damaged(file, format!("layers of {layers} is not in 1..={MAX_LAYERS}")));
    }
    let hidden_size = need("embedding_length")?;
    let heads = need("attention.head_count")?;
    let head_dim = match optional("attention.key_length") {
        Some(n) => n,
        None => hidden_size.checked_div(heads).unwrap_or(0),
    };
    if optional("attention.value_length").is_some_and(|n| n != head_dim) {
        return Err(ModelError::unsupported(file, "attention", "values of another width than keys"));
    }
    if let Some(n) = optional("rope.dimension_count").filter(|&n| n != head_dim) {
        return Err(ModelError::unsupported(file, "rope.dimension_count", n.to_string()));
    }
    let embedding = checkpoint.tensor("model.embed_tokens.weight")?;
    let window = optional("attention.sliding_window").filter(|&w| w > 0).map(|w| u32::try_from(w).unwrap_or(u32::MAX));
    let has = |name: &str| checkpoint.find(name).is_some();
    let id = |key: &str| metadata.u64(key).and_then(|n| u32::try_from(n).ok());
    let mut eos_ids: Vec<u32> = EOS_KEYS.iter().filter_map(|key| id(key)).collect();
    eos_ids.extend(end_of_turn_ids(metadata));
    eos_ids.sort_unstable();
    eos_ids.dedup();
    let norm_eps = metadata.f64(&key("attention.layer_norm_rms_epsilon"));
    let norm_eps = norm_eps.ok_or_else(|| {
        ModelError::damaged(file, format!("`{}` is missing", key("attention.layer_norm_rms_epsilon")))
    })?;
    ModelConfig {
        architecture,
        head: Head::CausalLm,
        layers,
        hidden_size,
        heads,
        head_dim,
        intermediate_size: need("feed_forward_length")?,
        kv_heads: optional("attention.head_count_kv").unwrap_or(heads),
        vocab_size: embedding.rows,
        context_tokens: need("context_length")?,
        norm_eps: norm_eps as f32,
        rope: Some(rope(checkpoint, metadata, name, head_dim)?),
        windows: vec![window; layers],
        tied_embeddings: !has("lm_head.weight"),
        qkv_bias: has("model.layers.0.self_attn.q_proj.bias"),
        output_bias: has("model.layers.0.self_attn.o_proj.bias"),
        mlp_bias: has("model.layers.0.mlp.down_proj.bias"),
        qk_norm: has("model.layers.0.self_attn.q_norm.weight"),
        bos_id: id("tokenizer.ggml.bos_token_id"),
        eos_ids,
        pad_id: id("tokenizer.ggml.padding_token_id"),
        dtype: Some(embedding.ty),
        encoder: None,
    }
    .checked(file)
}

/// Converters record one end token; chat models end turns with others, which are known by their text.
fn end_of_turn_ids(metadata: &Metadata) -> Vec<u32> {
    const TEXTS: [&str; 6] = ["<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end_of_text|>", "<|endoftext|>", "<|end|>"];
    const CONTROL: f64 = 3.0;
    let (Some(tokens), Some(types)) =
        (metadata.strings("tokenizer.ggml.tokens"), metadata.numbers("tokenizer.ggml.token_type"))
    else {
        return Vec::new();
    };
    tokens
        .iter()
        .zip(types.iter())
        .zip(0u32..)
        .filter(|((text, ty), _)| *ty == CONTROL && TEXTS.contains(text))
        .map(|(_, id)| id)
        .collect()
}

fn rope(checkpoint: &Checkpoint, metadata: &Metadata, name: &str, head_dim: usize) -> Result<Rope, ModelError> {
    let file = checkpoint.path();
    let key = |suffix: &str| format!("{name}.rope.{suffix}");
    let theta = metadata.f64(&key("freq_base")).unwrap_or(10_000.0);
    if checkpoint.find("rope_freqs.weight").is_some() {
        let tensor = checkpoint.tensor_of("rope_freqs.weight", &[head_dim / 2])?;
        return Ok(Rope { theta, scaling: RopeScaling::Divisors(checkpoint.read_f32(tensor)?) });
    }
    let factor = metadata.f64(&key("scaling.factor")).or(metadata.f64(&key("scale_linear")));
    let scaling = match metadata.str(&key("scaling.type")) {
        None | Some("none") if factor.is_none_or(|f| f == 1.0 || f == 0.0) => RopeScaling::None,
        Some("none") => RopeScaling::None,
        None | Some("linear") => RopeScaling::Linear { factor: factor.unwrap_or(1.0) },
        Some(other) => return Err(ModelError::unsupported(file, "rope type", other)),
    };
    Ok(Rope { theta, scaling })
}
