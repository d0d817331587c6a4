//! A configuration in Hugging Face's spelling, for models that came from elsewhere.

use super::{Architecture, Head, ModelConfig, RopeScaling};
use serde_json::{Map, Value, json};
use stockade_kernels::WeightType;

/// Contexts before scaling that Llama 3's setting is tried with, in tokens, as powers of two.
const ORIGINAL_CONTEXTS: std::ops::RangeInclusive<u32> = 5..=20;

impl ModelConfig {
    /// `config.json` of a decoder whose weights are stored as `dtype`.
    ///
    /// # Errors
    /// What the format cannot say: an encoder, or frequencies that no setting of it gives. The text tells which.
    pub fn to_hugging_face(&self, dtype: WeightType) -> Result<Value, String> {
        let class = match self.architecture {
            Architecture::Llama => "Llama",
            Architecture::Mistral => "Mistral",
            Architecture::Qwen2 => "Qwen2",
            Architecture::Qwen3 => "Qwen3",
            Architecture::Bert | Architecture::DebertaV2 => return Err("only decoders are written".into()),
        };
        let mut fields = Map::new();
        let mut set = |key: &str, value: Value| fields.insert(key.into(), value);
        match &self.head {
            Head::CausalLm => set("architectures", json!([format!("{class}ForCausalLM")])),
            Head::Embedding => set("architectures", json!([format!("{class}Model")])),
            Head::Classifier { labels } => {
                let ids = labels.iter().enumerate().map(|(i, label)| (i.to_string(), json!(label)));
                set("id2label", Value::Object(ids.collect()));
                set(
                    "label2id",
                    labels.iter().zip(0..).map(|(l, i)| (l.clone(), json!(i))).collect::<Map<_, _>>().into(),
                );
                set("architectures", json!([format!("{class}ForSequenceClassification")]))
            }
        };
        set("model_type", self.architecture.model_type().into());
        set("hidden_act", "silu".into());
        set("hidden_size", self.hidden_size.into());
        set("intermediate_size", self.intermediate_size.into());
        set("num_hidden_layers", self.layers.into());
        set("num_attention_heads", self.heads.into());
        set("num_key_value_heads", self.kv_heads.into());
        set("head_dim", self.head_dim.into());
        set("vocab_size", self.vocab_size.into());
        set("max_position_embeddings", self.context_tokens.into());
        // By its shortest decimal, not by the double that the float widens to.
        set("rms_norm_eps", self.norm_eps.to_string().parse::<f64>().unwrap_or(1e-6).into());
        set("tie_word_embeddings", self.tied_embeddings.into());
        match self.architecture {
            Architecture::Llama => {
                if self.output_bias != self.qkv_bias {
                    return Err("attention with biases in some projections only".into());
                }
                set("attention_bias", self.qkv_bias.into());
                set("mlp_bias", self.mlp_bias.into());
            }
            Architecture::Qwen3 => {
                set("attention_bias", self.qkv_bias.into());
            }
            _ => {}
        }
        if let Some(window) = self.windows.iter().flatten().next() {
            set("sliding_window", json!(window));
            if self.architecture != Architecture::Mistral {
                let kind = |w: &Option<u32>| if w.is_some() { "sliding_attention" } else { "full_attention" };
                set("use_sliding_window", true.into());
                set("layer_types", self.windows.iter().map(kind).collect());
            }
        }
        if let Some(rope) = &self.rope {
            set("rope_theta", json!(rope.theta));
            set("rope_scaling", self.rope_scaling(&rope.scaling)?);
        }
        for (key, id) in [("bos_token_id", self.bos_id), ("pad_token_id", self.pad_id)] {
            if let Some(id) = id {
                set(key, id.into());
            }
        }
        match self.eos_ids[..] {
            [] => None,
            [id] => set("eos_token_id", id.into()),
            _ => set("eos_token_id", json!(self.eos_ids)),
        };
        let dtype = match dtype {
            WeightType::F16 => "float16",
            WeightType::BF16 => "bfloat16",
            _ => "float32",
        };
        set("torch_dtype", dtype.into());
        set("use_cache", true.into());
        Ok(Value::Object(fields))
    }

    fn rope_scaling(&self, scaling: &RopeScaling) -> Result<Value, String> {
        Ok(match scaling {
            RopeScaling::None => Value::Null,
            RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": *original_context as u64,
            }),
            RopeScaling::Divisors(divisors) => {
                // GGUF keeps the result. The longest waves are divided by the factor; of the rest only the context
                // differs from model to model.
                let factor = f64::from(divisors.iter().copied().fold(1.0, f32::max));
                let settings = ORIGINAL_CONTEXTS.map(|power| RopeScaling::Llama3 {
                    factor,
                    low_freq_factor: 1.0,
                    high_freq_factor: 4.0,
                    original_context: 2f64.powi(power as i32),
                });
                let same = |scaling: &RopeScaling| {
                    let found = self.rope_divisors(scaling);
                    found.iter().zip(divisors).all(|(a, b)| (a - b).abs() <= 1e-4 * b.abs())
                };
                match settings.into_iter().find(same) {
                    Some(scaling) => self.rope_scaling(&scaling)?,
                    None => return Err("frequencies of `rope_freqs.weight` that no setting of Llama 3's gives".into()),
                }
            }
        })
    }

    /// What the frequencies without scaling are divided by, `head_dim / 2` numbers: GGUF's `rope_freqs.weight`.
    pub fn rope_divisors(&self, scaling: &RopeScaling) -> Vec<f32> {
        let theta = self.rope.as_ref().map_or(10_000.0, |rope| rope.theta);
        let with =
            |scaling: &RopeScaling| super::Rope { theta, scaling: scaling.clone() }.inverse_frequencies(self.head_dim);
        with(&RopeScaling::None).iter().zip(with(scaling)).map(|(plain, scaled)| plain / scaled).collect()
    }
}
