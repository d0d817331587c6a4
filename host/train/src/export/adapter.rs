//! An adapter folder as PEFT writes it.

use super::model::write_json;
use super::{TensorSet, write_safetensors};
use crate::job::{AdapterKind, AdapterSpec};
use serde_json::json;
use std::path::{Path, PathBuf};
use stockade_core::train::TrainError;
use stockade_kernels::WeightType;
use stockade_model::adapter::CONFIG_FILE;

/// Writes `adapter_config.json` and `adapter_model.safetensors`, in f32, into `folder`. `tensors` have PEFT's names;
/// `base` is what a loader looks for: a path, or a name it knows.
///
/// # Errors
/// As [`super::write_model`].
pub fn write_adapter(
    folder: &Path,
    base: &str,
    adapter: &AdapterSpec,
    tensors: &dyn TensorSet,
) -> Result<PathBuf, TrainError> {
    std::fs::create_dir_all(folder).map_err(|e| TrainError::Io { stage: "writing the adapter", source: e.into() })?;
    // A score head is trained whole, beside the low-rank matrices.
    let score = tensors.tensors().iter().any(|(name, _)| name.contains("score."));
    let settings = json!({
        "peft_type": "LORA",
        "task_type": if score { "SEQ_CLS" } else { "CAUSAL_LM" },
        "base_model_name_or_path": base,
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "lora_dropout": adapter.dropout,
        "target_modules": adapter.targets,
        "modules_to_save": score.then_some(["score"]),
        "use_rslora": adapter.rank_stabilised,
        "use_dora": adapter.kind == AdapterKind::Dora,
        "bias": "none",
        "fan_in_fan_out": false,
        "init_lora_weights": true,
        "inference_mode": true,
    });
    write_json(&folder.join(CONFIG_FILE), &settings)?;
    write_safetensors(folder, "adapter_model", tensors, WeightType::F32, |_| true)?;
    Ok(folder.to_owned())
}
