//! Adapters merged into their base: `W + s B A`, and for DoRA each row scaled to its magnitude.

use super::{Origin, TensorSet, failed, refused, write_model};
use crate::job::Dtype;
use std::path::{Path, PathBuf};
use stockade_core::train::TrainError;
use stockade_model::adapter::AdapterConfig;
use stockade_model::config::Head;
use stockade_model::{Checkpoint, ModelConfig};

/// What PEFT puts before the base's own names.
const PREFIX: &str = "base_model.model.";

/// What PEFT calls a score head.
const HEAD: &str = "base_model.model.score.weight";

/// Writes the model that `base` with the PEFT folder `adapter` is to `out`.
///
/// # Errors
/// [`TrainError::Model`] for an adapter that does not fit its base.
pub fn merge(base: &Path, adapter: &Path, out: &Path, dtype: Option<Dtype>) -> Result<PathBuf, TrainError> {
    let config = Checkpoint::open(base).and_then(|base| base.config()).map_err(failed("reading the base", base))?;
    merge_as(Origin::of(base), adapter, &config, out, dtype)
}

/// The same, where the merged model is one of `config`: with another head than its base's.
pub(crate) fn merge_as(
    origin: Origin<'_>,
    adapter: &Path,
    config: &ModelConfig,
    out: &Path,
    dtype: Option<Dtype>,
) -> Result<PathBuf, TrainError> {
    let merged = Merged::open(origin.base, adapter)?;
    if merged.config.has_head != matches!(config.head, Head::Classifier { .. }) {
        return Err(refused(adapter, "it has a head whose labels nothing names, or lacks one".to_owned()));
    }
    write_model(out, origin, config, &merged, dtype)
}

/// The tensors of a base with an adapter in them.
struct Merged {
    base: Checkpoint,
    adapter: Checkpoint,
    config: AdapterConfig,
}

impl Merged {
    fn open(base: &Path, adapter: &Path) -> Result<Self, TrainError> {
        let merged = Self {
            base: Checkpoint::open(base).map_err(failed("reading the base", base))?,
            adapter: Checkpoint::open(adapter).map_err(failed("reading the adapter", adapter))?,
            config: AdapterConfig::from_folder(adapter).map_err(failed("reading the adapter", adapter))?,
        };
        for tensor in merged.adapter.tensors().filter(|tensor| tensor.name != HEAD) {
            let module = tensor.name.strip_prefix(PREFIX).and_then(|name| {
                [".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"]
                    .iter()
                    .find_map(|end| name.strip_suffix(end))
            });
            if module.is_none_or(|module| merged.base.find(&format!("{module}.weight")).is_none()) {
                return Err(refused(adapter, format!("tensor `{}` changes nothing that the base has", tensor.name)));
            }
        }
        Ok(merged)
    }

    /// A tensor of the adapter for `module`, of `shape`.
    fn part(&self, module: &str, kind: &str, shape: &[usize]) -> Result<Vec<f32>, TrainError> {
        let name = format!("{PREFIX}{module}.{kind}");
        self.adapter
            .tensor_of(&name, shape)
            .and_then(|tensor| self.adapter.read_f32(tensor))
            .map_err(failed("reading the adapter", self.adapter.path()))
    }
}

impl TensorSet for Merged {
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let head = self.adapter.find(HEAD).map(|head| ("score.weight".to_owned(), head.shape.clone()));
        TensorSet::tensors(&self.base).into_iter().chain(head).collect()
    }

    fn read(&self, name: &str) -> Result<Vec<f32>, TrainError> {
        if name == "score.weight" {
            return TensorSet::read(&self.adapter, HEAD);
        }
        let mut weight = TensorSet::read(&self.base, name)?;
        let module = name.strip_suffix(".weight").unwrap_or(name);
        let Some(down) = self.adapter.find(&format!("{PREFIX}{module}.lora_A.weight")) else {
            return Ok(weight);
        };
        let failed = failed("reading the adapter", self.adapter.path());
        let (rank, inputs) = (down.rows, down.cols);
        let outputs = weight.len() / inputs.max(1);
        if self.base.find(name).is_none_or(|tensor| tensor.cols != inputs) {
            return Err(refused(self.adapter.path(), format!("`{module}` has not the {inputs} inputs of its adapter")));
        }
        let a = self.part(module, "lora_A.weight", &[rank, inputs])?;
        let b = self.part(module, "lora_B.weight", &[outputs, rank])?;
        let scale = self.config.scale_of(module).map_err(failed)?;
        for (row, b) in weight.chunks_exact_mut(inputs).zip(b.chunks_exact(rank)) {
            for (b, a) in b.iter().zip(a.chunks_exact(inputs)) {
                row.iter_mut().zip(a).for_each(|(w, a)| *w += scale * b * a);
            }
        }
        if self.config.decomposed {
            let magnitudes = self.part(module, "lora_magnitude_vector", &[outputs])?;
            for (row, magnitude) in weight.chunks_exact_mut(inputs).zip(magnitudes) {
                let norm = row.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt() as f32;
                row.iter_mut().for_each(|w| *w *= magnitude / norm);
            }
        }
        Ok(weight)
    }
}
