//! A model folder in the Hugging Face layout.

use super::{TensorSet, failed, refused, write_safetensors};
use crate::job::Dtype;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use stockade_core::train::TrainError;
use stockade_kernels::WeightType;
use stockade_model::checkpoint::write::write_beside;
use stockade_model::config::Head;
use stockade_model::template::ChatTemplate;
use stockade_model::{Checkpoint, ModelConfig, ModelError, Tokenizer};

/// What belongs to a model besides configuration and weights, copied as it is.
const COMPANIONS: [&str; 10] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
];

/// The type that weights of a base of `config` are written in: its own, or F16 where that is quantized.
pub(super) fn weight_type(dtype: Option<Dtype>, config: &ModelConfig) -> WeightType {
    match dtype {
        Some(Dtype::F32) => WeightType::F32,
        Some(Dtype::F16) => WeightType::F16,
        Some(Dtype::Bf16) => WeightType::BF16,
        None => config.dtype.map_or(WeightType::F32, |ty| if ty.is_float() { ty } else { WeightType::F16 }),
    }
}

/// What a written model has in common with others: folders or `.gguf` files.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// Whose configuration it has besides what its own says; from scratch a folder of tokenizer files.
    pub base: &'a Path,
    /// Whose tokenizer and chat template.
    pub tokenizer: &'a Path,
}

impl<'a> Origin<'a> {
    /// All of one model.
    pub fn of(base: &'a Path) -> Self {
        Self { base, tokenizer: base }
    }
}

/// Writes `tensors` as a model of `config` into `folder`: configuration, tokenizer and chat template of its `origin`,
/// weights in `dtype` or the base's.
///
/// # Errors
/// [`TrainError::Model`] for what the layout cannot say, or weights that are not finite; [`TrainError::Io`] for a disk
/// that does not take it.
pub fn write_model(
    folder: &Path,
    origin: Origin<'_>,
    config: &ModelConfig,
    tensors: &dyn TensorSet,
    dtype: Option<Dtype>,
) -> Result<PathBuf, TrainError> {
    let Origin { base, tokenizer } = origin;
    let ty = weight_type(dtype, config);
    std::fs::create_dir_all(folder).map_err(|e| TrainError::Io { stage: "writing the model", source: e.into() })?;
    let settings = config.to_hugging_face(ty).map_err(|reason| refused(base, reason))?;
    write_json(&folder.join("config.json"), &like_the_base(settings, base, config))?;
    write_companions(folder, tokenizer, config)?;
    let has_language_head = config.head == Head::CausalLm && !config.tied_embeddings;
    write_safetensors(folder, "model", tensors, ty, |name| has_language_head || name != "lm_head.weight")?;
    Ok(folder.to_owned())
}

/// Our settings win; what the base's own file says besides stays, where it describes the same network.
fn like_the_base(settings: Value, base: &Path, config: &ModelConfig) -> Value {
    let same = ModelConfig::from_folder(base).is_ok_and(|theirs| {
        ModelConfig { head: Head::CausalLm, dtype: None, ..theirs }
            == ModelConfig { head: Head::CausalLm, dtype: None, ..config.clone() }
    });
    let theirs = std::fs::read(base.join("config.json")).ok().filter(|_| same);
    let Some(Value::Object(mut merged)) = theirs.and_then(|bytes| serde_json::from_slice(&bytes).ok()) else {
        return settings;
    };
    // Spellings of the newer transformers, said once.
    for key in ["dtype", "torch_dtype", "rope_parameters", "quantization_config", "_name_or_path"] {
        merged.remove(key);
    }
    if let Value::Object(settings) = settings {
        merged.extend(settings);
    }
    Value::Object(merged)
}

fn write_companions(folder: &Path, base: &Path, config: &ModelConfig) -> Result<(), TrainError> {
    for name in COMPANIONS {
        let from = base.join(name);
        if from.is_file() {
            let bytes =
                std::fs::read(&from).map_err(|e| TrainError::Io { stage: "reading the base", source: e.into() })?;
            write_bytes(&folder.join(name), &bytes)?;
        }
    }
    if !base.join("tokenizer.json").is_file() {
        let checkpoint = Checkpoint::open(base).map_err(failed("reading the base", base))?;
        let tokenizer = Tokenizer::open(&checkpoint).map_err(failed("reading the base", base))?;
        let template = ChatTemplate::open(&checkpoint, &tokenizer).map_err(failed("reading the base", base))?;
        let template = template.as_ref().map(ChatTemplate::default_source);
        let files = tokenizer.hugging_face_files(template.as_deref()).map_err(|e| refused(base, e.to_string()))?;
        for (name, value) in files {
            write_json(&folder.join(name), &value)?;
        }
    }
    if !base.join("generation_config.json").is_file() && !config.eos_ids.is_empty() {
        let settings =
            json!({"bos_token_id": config.bos_id, "eos_token_id": config.eos_ids, "pad_token_id": config.pad_id});
        write_json(&folder.join("generation_config.json"), &settings)?;
    }
    Ok(())
}

pub(super) fn write_json(path: &Path, value: &Value) -> Result<(), TrainError> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|e| TrainError::Io { stage: "writing the model", source: e.into() })?;
    text.push(b'\n');
    write_bytes(path, &text)
}

fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    write_beside(path, |file| {
        file.write_all(bytes).map_err(|source| ModelError::Read { file: path.to_owned(), source })
    })
    .map_err(failed("writing the model", path))
}
