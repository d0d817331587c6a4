//! `config.json`, `generation_config.json` and the sentence-transformers files, in transformers' spellings.

use super::{
    Architecture, Encoder, Head, MAX_LABELS, MAX_LAYERS, ModelConfig, Pooling, Rope, RopeScaling, SentenceSettings,
    deberta,
};
use crate::ModelError;
use crate::checkpoint::{exists, read_small};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::Path;
use stockade_kernels::WeightType;

#[derive(Deserialize)]
struct RawConfig {
    model_type: Option<String>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: Option<usize>,
    max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f32>,
    layer_norm_eps: Option<f32>,
    hidden_act: Option<String>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    rope_parameters: Option<RawRope>,
    partial_rotary_factor: Option<f64>,
    sliding_window: Option<u32>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    bos_token_id: Option<u32>,
    eos_token_id: Option<OneOrMany>,
    pad_token_id: Option<i64>,
    torch_dtype: Option<String>,
    dtype: Option<String>,
    type_vocab_size: Option<usize>,
    position_embedding_type: Option<String>,
    id2label: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct RawRope {
    rope_type: Option<String>,
    /// The older name of `rope_type`.
    #[serde(rename = "type")]
    old_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    partial_rotary_factor: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

#[derive(Deserialize)]
struct RawGeneration {
    eos_token_id: Option<OneOrMany>,
}

#[derive(Deserialize)]
struct RawSentenceBert {
    max_seq_length: Option<usize>,
}

#[derive(Deserialize)]
struct RawPooling {
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_lasttoken: bool,
}

#[derive(Deserialize)]
struct RawModule {
    #[serde(rename = "type")]
    kind: String,
}

pub(super) fn from_folder(folder: &Path) -> Result<ModelConfig, ModelError> {
    let file = folder.join("config.json");
    let raw: RawConfig = parse(&file)?;
    let mut config = convert(&file, raw)?;
    let generation = folder.join("generation_config.json");
    if exists(&generation) {
        let raw: RawGeneration = parse(&generation)?;
        config.eos_ids.extend(raw.eos_token_id.map(OneOrMany::into_vec).unwrap_or_default());
    }
    config.eos_ids.sort_unstable();
    config.eos_ids.dedup();
    if let Some(encoder) = &mut config.encoder {
        let settings = SentenceSettings::from_folder(folder, config.context_tokens)?;
        (encoder.max_tokens, encoder.pooling) = (settings.max_tokens, settings.pooling);
        encoder.normalize = settings.normalize;
    }
    config.checked(&file)
}

pub(super) fn parse<T: DeserializeOwned>(file: &Path) -> Result<T, ModelError> {
    serde_json::from_slice(&read_small(file)?).map_err(|e| ModelError::damaged(file, e.to_string()))
}

fn convert(file: &Path, raw: RawConfig) -> Result<ModelConfig, ModelError> {
    let need = |what: &str, value: Option<usize>| {
        value.ok_or_else(|| ModelError::damaged(file, format!("`{what}` is missing")))
    };
    let model_type = raw.model_type.as_deref().unwrap_or_default();
    let architecture = match model_type {
        "llama" => Architecture::Llama,
        "mistral" => Architecture::Mistral,
        "qwen2" => Architecture::Qwen2,
        "qwen3" => Architecture::Qwen3,
        "bert" => Architecture::Bert,
        "deberta-v2" => Architecture::DebertaV2,
        other => return Err(ModelError::unsupported(file, "model_type", other)),
    };
    let encoder = matches!(architecture, Architecture::Bert | Architecture::DebertaV2);
    let layers = need("num_hidden_layers", raw.num_hidden_layers)?;
    let hidden_size = need("hidden_size", raw.hidden_size)?;
    let heads = need("num_attention_heads", raw.num_attention_heads)?;
    let context_tokens = need("max_position_embeddings", raw.max_position_embeddings)?;
    let activation = raw.hidden_act.as_deref().unwrap_or(if encoder { "gelu" } else { "silu" });
    if activation != if encoder { "gelu" } else { "silu" } {
        return Err(ModelError::unsupported(file, "hidden_act", activation));
    }
    if architecture == Architecture::Bert
        && raw.position_embedding_type.as_deref().is_some_and(|kind| kind != "absolute")
    {
        return Err(ModelError::unsupported(
            file,
            "position_embedding_type",
            raw.position_embedding_type.unwrap_or_default(),
        ));
    }
    let windows = windows(file, architecture, layers, &raw)?;
    let rope = if encoder { None } else { Some(rope(file, &raw)?) };
    let norm_eps = match architecture {
        Architecture::Bert => raw.layer_norm_eps.unwrap_or(1e-12),
        Architecture::DebertaV2 => raw.layer_norm_eps.unwrap_or(1e-7),
        _ => raw.rms_norm_eps.unwrap_or(1e-6),
    };
    let relative = match architecture {
        Architecture::DebertaV2 => Some(deberta::relative_positions(file, hidden_size, context_tokens)?),
        _ => None,
    };
    let head = head(file, raw.architectures.as_deref(), raw.id2label)?;
    let attention_bias = raw.attention_bias.unwrap_or(false);
    Ok(ModelConfig {
        architecture,
        layers,
        hidden_size,
        heads,
        context_tokens,
        norm_eps,
        rope,
        windows,
        intermediate_size: need("intermediate_size", raw.intermediate_size)?,
        kv_heads: raw.num_key_value_heads.unwrap_or(heads),
        head_dim: raw.head_dim.or_else(|| hidden_size.checked_div(heads)).unwrap_or(0),
        vocab_size: need("vocab_size", raw.vocab_size)?,
        tied_embeddings: raw.tie_word_embeddings.unwrap_or(encoder),
        qkv_bias: encoder || architecture == Architecture::Qwen2 || attention_bias,
        output_bias: encoder || attention_bias,
        mlp_bias: encoder || raw.mlp_bias.unwrap_or(false),
        qk_norm: architecture == Architecture::Qwen3,
        bos_id: raw.bos_token_id,
        eos_ids: raw.eos_token_id.map(OneOrMany::into_vec).unwrap_or_default(),
        pad_id: raw.pad_token_id.and_then(|id| u32::try_from(id).ok()), // -1 stands for none in old files
        dtype: raw.dtype.as_deref().or(raw.torch_dtype.as_deref()).and_then(dtype),
        encoder: encoder.then(|| Encoder {
            token_types: raw.type_vocab_size.unwrap_or(2),
            max_tokens: context_tokens,
            pooling: Pooling::Mean,
            normalize: false,
            relative,
        }),
        head,
    })
}

fn dtype(name: &str) -> Option<WeightType> {
    match name.strip_prefix("torch.").unwrap_or(name) {
        "float32" => Some(WeightType::F32),
        "float16" => Some(WeightType::F16),
        "bfloat16" => Some(WeightType::BF16),
        _ => None,
    }
}

fn head(
    file: &Path,
    architectures: Option<&[String]>,
    labels: Option<BTreeMap<String, String>>,
) -> Result<Head, ModelError> {
    let class = architectures.and_then(|names| names.first()).map_or("", String::as_str);
    if class.ends_with("ForSequenceClassification") {
        let labels = labels.unwrap_or_else(|| (0..2).map(|i| (i.to_string(), format!("LABEL_{i}"))).collect());
        let n = labels.len();
        // Keys are numbers written as text: "10" comes before "2" in the map.
        let labels: Option<Vec<String>> = (0..n.min(MAX_LABELS)).map(|i| labels.get(&i.to_string()).cloned()).collect();
        return match labels {
            Some(labels) if n <= MAX_LABELS && n > 0 => Ok(Head::Classifier { labels }),
            _ => Err(ModelError::damaged(file, format!("id2label does not number its {n} labels from 0"))),
        };
    }
    Ok(if class.ends_with("ForCausalLM") { Head::CausalLm } else { Head::Embedding })
}

fn rope(file: &Path, raw: &RawConfig) -> Result<Rope, ModelError> {
    // transformers 5 puts theta inside `rope_parameters`; reading only the top level would silently take 10,000.
    let settings = raw.rope_parameters.as_ref().or(raw.rope_scaling.as_ref());
    let theta = settings.and_then(|s| s.rope_theta).or(raw.rope_theta).unwrap_or(10_000.0);
    let partial = settings.and_then(|s| s.partial_rotary_factor).or(raw.partial_rotary_factor).unwrap_or(1.0);
    if partial != 1.0 {
        return Err(ModelError::unsupported(file, "partial_rotary_factor", partial.to_string()));
    }
    let Some(settings) = settings else {
        return Ok(Rope { theta, scaling: RopeScaling::None });
    };
    let need = |what: &str, value: Option<f64>| {
        value.ok_or_else(|| ModelError::damaged(file, format!("rope setting `{what}` is missing")))
    };
    let kind = settings.rope_type.as_deref().or(settings.old_type.as_deref()).unwrap_or("default");
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: need("factor", settings.factor)? },
        "llama3" => RopeScaling::Llama3 {
            factor: need("factor", settings.factor)?,
            low_freq_factor: need("low_freq_factor", settings.low_freq_factor)?,
            high_freq_factor: need("high_freq_factor", settings.high_freq_factor)?,
            original_context: need("original_max_position_embeddings", settings.original_max_position_embeddings)?,
        },
        other => return Err(ModelError::unsupported(file, "rope type", other)),
    };
    Ok(Rope { theta, scaling })
}

fn windows(
    file: &Path,
    architecture: Architecture,
    layers: usize,
    raw: &RawConfig,
) -> Result<Vec<Option<u32>>, ModelError> {
    if layers > MAX_LAYERS {
        return Err(ModelError::damaged(file, format!("layers of {layers} is not in 1..={MAX_LAYERS}")));
    }
    let window = raw.sliding_window.filter(|&w| w > 0);
    let window = match architecture {
        Architecture::Mistral => window,
        Architecture::Qwen2 | Architecture::Qwen3 if raw.use_sliding_window.unwrap_or(false) => window,
        _ => None,
    };
    if let (Some(types), Some(_)) = (&raw.layer_types, window) {
        if types.len() != layers {
            return Err(ModelError::damaged(file, format!("{} layer_types for {layers} layers", types.len())));
        }
        return types
            .iter()
            .map(|kind| match kind.as_str() {
                "full_attention" => Ok(None),
                "sliding_attention" => Ok(window),
                other => Err(ModelError::unsupported(file, "layer type", other)),
            })
            .collect();
    }
    // Qwen keeps full attention in the first `max_window_layers`.
    let full = match architecture {
        Architecture::Mistral => 0,
        _ => raw.max_window_layers.unwrap_or(28),
    };
    Ok((0..layers).map(|layer| window.filter(|_| layer >= full)).collect())
}

impl SentenceSettings {
    /// Those of `folder`; what it does not say is `context`, the mean, and no scaling.
    ///
    /// # Errors
    /// A file that cannot be read, or a pooling that is not known.
    pub fn from_folder(folder: &Path, context: usize) -> Result<Self, ModelError> {
        let mut settings = Self { max_tokens: context, pooling: Pooling::Mean, normalize: false };
        let file = folder.join("sentence_bert_config.json");
        if exists(&file) {
            let raw: RawSentenceBert = parse(&file)?;
            settings.max_tokens = raw.max_seq_length.unwrap_or(context).clamp(1, context.max(1));
        }
        let file = folder.join("1_Pooling/config.json");
        if exists(&file) {
            let raw: RawPooling = parse(&file)?;
            let modes = (raw.pooling_mode_mean_tokens, raw.pooling_mode_cls_token, raw.pooling_mode_lasttoken);
            settings.pooling = match modes {
                (true, false, false) => Pooling::Mean,
                (false, true, false) => Pooling::First,
                (false, false, true) => Pooling::Last,
                _ => {
                    return Err(ModelError::unsupported(
                        &file,
                        "pooling",
                        "a mode other than mean, first or last token",
                    ));
                }
            };
        }
        let file = folder.join("modules.json");
        if exists(&file) {
            let modules: Vec<RawModule> = parse(&file)?;
            settings.normalize = modules.iter().any(|module| module.kind.ends_with(".Normalize"));
        }
        Ok(settings)
    }
}
