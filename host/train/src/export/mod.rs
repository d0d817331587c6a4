//! Results in the forms that others load: Hugging Face folders, PEFT adapters, merged weights, GGUF files.
//!
//! [`write_model`] and [`write_adapter`] take tensors from anywhere ([`TensorSet`]): a [`Network`], a checkpoint, a
//! checkpoint with an adapter [`merge`]d into it. [`to_gguf`] converts what lies in a folder.
//!
//! Invariant: the weights' file is the last that appears in a folder, and whole: what has one can be loaded.

mod adapter;
mod gguf;
mod merge;
mod model;
mod sentences;
mod tensors;
#[cfg(test)]
mod tests;

pub use adapter::write_adapter;
pub use gguf::{GgufType, to_gguf};
pub use merge::merge;
pub(crate) use merge::merge_as;
pub use model::{Origin, write_model};
pub(crate) use sentences::write_sentences;
pub use tensors::{AdapterTensors, TensorSet};

use std::path::Path;
use stockade_core::Fault;
use stockade_core::train::TrainError;
use stockade_kernels::WeightType;
use stockade_model::ModelError;
use stockade_model::checkpoint::write::NewTensor;

/// A file that is refused is its owner's to change, one that cannot be read or written is the host's.
fn failed(stage: &'static str, name: &Path) -> impl Fn(ModelError) -> TrainError {
    move |error| match error.fault() {
        Fault::Host => TrainError::Io { stage, source: error.into() },
        _ => TrainError::Model { name: name.display().to_string(), reason: error.to_string() },
    }
}

fn refused(name: &Path, reason: impl Into<String>) -> TrainError {
    TrainError::Model { name: name.display().to_string(), reason: reason.into() }
}

/// Writes the tensors of `set` that `wanted` names as `folder/STEM.safetensors`.
fn write_safetensors(
    folder: &Path,
    stem: &str,
    set: &dyn TensorSet,
    ty: WeightType,
    wanted: impl Fn(&str) -> bool,
) -> Result<(), TrainError> {
    /// Larger models are cut into shards of this size, as hubs and loaders like them.
    const SHARD_BYTES: usize = 4 << 30;
    let tensors = set.tensors().into_iter().filter(|(name, _)| wanted(name));
    let tensors: Vec<NewTensor> = tensors.map(|(name, shape)| NewTensor { name, ty, shape }).collect();
    let mut read_error = None;
    let written = stockade_model::checkpoint::write::write_safetensors(folder, stem, &tensors, SHARD_BYTES, &mut |i| {
        let encoded = set.read(&tensors[i].name).and_then(|values| encode(ty, &values, &tensors[i].name));
        encoded.map_err(|error| {
            let message = error.to_string();
            read_error = Some(error);
            ModelError::Input(message)
        })
    });
    match (written, read_error) {
        (_, Some(error)) => Err(error),
        (Err(error), None) => Err(failed("writing the weights", folder)(error)),
        (Ok(_), None) => Ok(()),
    }
}

/// # Errors
/// [`TrainError::Diverged`] for weights that no file should keep.
fn encode(ty: WeightType, values: &[f32], name: &str) -> Result<Vec<u8>, TrainError> {
    let limit = if ty == WeightType::F16 { 65504.0 } else { f32::MAX };
    if let Some(value) = values.iter().find(|value| value.is_nan() || value.abs() > limit) {
        return Err(refused(Path::new(name), format!("the weight {value} does not fit {ty}")));
    }
    let mut bytes = Vec::new();
    stockade_kernels::quantize(ty, values, &mut bytes).map_err(|e| refused(Path::new(name), e.to_string()))?;
    Ok(bytes)
}
