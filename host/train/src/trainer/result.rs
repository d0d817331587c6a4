//! What a run leaves: models and adapters that others load.

use super::start::Start;
use crate::checkpoint::failed;
use crate::export::{AdapterTensors, GgufType, merge, to_gguf, write_adapter, write_model};
use crate::job::{Dtype, Job, Named};
use crate::network::{Network, Output};
use std::fs;
use std::path::{Path, PathBuf};
use stockade_core::train::TrainError;
use stockade_model::ModelConfig;
use stockade_model::config::Head;

/// Label of a reward model's only score.
const REWARD: &str = "reward";
/// Folder of an adapter that is merged.
const ADAPTER: &str = "adapter";

pub(super) struct Results<'a> {
    job: &'a Job,
    start: &'a Start,
    /// Of the base with the head that is trained.
    config: ModelConfig,
}

impl<'a> Results<'a> {
    pub fn new(job: &'a Job, start: &'a Start, output: Output, labels: &[String]) -> Self {
        let head = match output {
            Output::Language => Head::CausalLm,
            Output::States => Head::Embedding,
            Output::Scores(1) if labels.is_empty() => Head::Classifier { labels: vec![REWARD.to_owned()] },
            Output::Scores(_) => Head::Classifier { labels: labels.to_vec() },
        };
        Self { job, start, config: ModelConfig { head, ..start.config.clone() } }
    }

    /// The base that a result needs beside it.
    pub fn base(&self) -> Option<PathBuf> {
        let beside = self.job.model.adapter.is_some() && !self.job.output.merge;
        beside.then(|| self.start.path.clone())
    }

    /// What can be served: an adapter where one is trained, else a model.
    pub fn write(&self, network: &Network, folder: &Path) -> Result<(), TrainError> {
        self.write_as(network, folder, self.dtype())
    }

    /// The same without rounding, to sample from.
    pub fn write_policy(&self, network: &Network, folder: &Path) -> Result<(), TrainError> {
        self.write_as(network, folder, Some(Dtype::F32))
    }

    /// The result in every form that the job asks for.
    pub fn finish(&self, network: &Network, folder: &Path) -> Result<(), TrainError> {
        let output = &self.job.output;
        if output.merge {
            let adapter = folder.join(ADAPTER);
            self.write(network, &adapter)?;
            merge(&self.start.path, &adapter, folder, self.dtype())?;
        } else {
            self.write(network, folder)?;
        }
        for ty in output.formats.iter().copied().filter_map(GgufType::of) {
            to_gguf(folder, &folder.join(format!("model-{}.gguf", ty.name())), ty)?;
        }
        Ok(())
    }

    /// From scratch there is no type to keep but that of the masters.
    fn dtype(&self) -> Option<Dtype> {
        self.job.output.dtype.or(self.start.is_fresh().then_some(Dtype::F32))
    }

    fn write_as(&self, network: &Network, folder: &Path, dtype: Option<Dtype>) -> Result<(), TrainError> {
        fs::create_dir_all(folder).map_err(|e| failed("the result's folder", e))?;
        let base = &self.start.path;
        match &self.job.model.adapter {
            Some(adapter) => {
                let name = base.canonicalize().unwrap_or_else(|_| base.clone());
                write_adapter(folder, &name.to_string_lossy(), adapter, &AdapterTensors(network))?;
            }
            None => {
                write_model(folder, base, &self.config, network, dtype)?;
            }
        }
        Ok(())
    }
}
