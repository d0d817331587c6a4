//! Where exported tensors come from.

use super::{failed, refused};
use crate::network::Network;
use std::path::Path;
use stockade_core::train::TrainError;
use stockade_model::Checkpoint;

/// Tensors by their Hugging Face (or PEFT) names, read one at a time.
pub trait TensorSet {
    /// Names and shapes, slowest dimension first.
    fn tensors(&self) -> Vec<(String, Vec<usize>)>;
    /// Row-major.
    fn read(&self, name: &str) -> Result<Vec<f32>, TrainError>;
}

/// The whole model: base and score head, adapters left aside.
impl TensorSet for Network {
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let base = Network::tensors(self).map(|(name, shape)| (name.to_owned(), shape.to_vec()));
        base.chain(heads(self).map(|(_, name, shape)| (name, shape))).collect()
    }

    fn read(&self, name: &str) -> Result<Vec<f32>, TrainError> {
        match heads(self).find(|(_, head, _)| head == name) {
            Some((i, ..)) => Ok(self.values(i).to_vec()),
            None => self.tensor(name),
        }
    }
}

fn heads(network: &Network) -> impl Iterator<Item = (usize, String, Vec<usize>)> {
    let parameters = network.parameters().iter().enumerate();
    parameters
        .filter(|(_, parameter)| parameter.kind == crate::network::Kind::Head)
        .map(|(i, parameter)| (i, parameter.name.clone(), parameter.shape.clone()))
}

/// What an adapter's file holds: all that was trained.
pub struct AdapterTensors<'a>(pub &'a Network);

impl TensorSet for AdapterTensors<'_> {
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        self.0.parameters().iter().map(|parameter| (parameter.name.clone(), parameter.shape.clone())).collect()
    }

    fn read(&self, name: &str) -> Result<Vec<f32>, TrainError> {
        let found = self.0.parameters().iter().position(|parameter| parameter.name == name);
        let index = found.ok_or_else(|| refused(Path::new(name), "there is no such parameter"))?;
        Ok(self.0.values(index).to_vec())
    }
}

/// A model on disk, dequantized.
impl TensorSet for Checkpoint {
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        // GGUF's frequencies are a setting, not a weight.
        let weights = Checkpoint::tensors(self).filter(|tensor| tensor.name != "rope_freqs.weight");
        weights.map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect()
    }

    fn read(&self, name: &str) -> Result<Vec<f32>, TrainError> {
        self.tensor(name).and_then(|tensor| self.read_f32(tensor)).map_err(failed("reading the weights", self.path()))
    }
}
