//! What a run leaves: models and adapters that others load.

use super::start::Start;
use crate::checkpoint::failed;
use crate::export::{AdapterTensors, GgufType, Origin, merge_as, to_gguf, write_adapter, write_model, write_sentences};
use crate::job::{AdapterSpec, Dtype, Job, Named};
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

    /// A head is a part of the whole: an adapter beside one is written in its base, checkpoints too.
    fn has_own_head(&self) -> bool {
        self.config.head != Head::CausalLm
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
        match &self.job.model.adapter {
            Some(adapter) if self.job.output.merge => self.write_merged(network, adapter, folder)?,
            _ => self.write(network, folder)?,
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
        match &self.job.model.adapter {
            Some(adapter) if self.has_own_head() => self.write_merged(network, adapter, folder),
            Some(adapter) => self.write_adapter(network, adapter, folder),
            None => {
                self.write_sentences(folder)?;
                write_model(folder, self.origin(), &self.config, network, dtype).map(drop)
            }
        }
    }

    /// The PEFT folder stays inside.
    fn write_merged(&self, network: &Network, adapter: &AdapterSpec, folder: &Path) -> Result<(), TrainError> {
        let beside = folder.join(ADAPTER);
        self.write_adapter(network, adapter, &beside)?;
        self.write_sentences(folder)?;
        merge_as(self.origin(), &beside, &self.config, folder, self.dtype()).map(drop)
    }

    fn write_adapter(&self, network: &Network, adapter: &AdapterSpec, folder: &Path) -> Result<(), TrainError> {
        let base = &self.start.path;
        let name = base.canonicalize().unwrap_or_else(|_| base.clone());
        write_adapter(folder, &name.to_string_lossy(), adapter, &AdapterTensors(network)).map(drop)
    }

    /// Of an embedder, how its texts become vectors.
    fn write_sentences(&self, folder: &Path) -> Result<(), TrainError> {
        match &self.job.embed {
            Some(embed) => write_sentences(folder, embed.pooling, self.config.hidden_size, self.job.data.max_tokens),
            None => Ok(()),
        }
    }

    fn origin(&self) -> Origin<'_> {
        Origin { base: &self.start.path, tokenizer: &self.start.tokenizer }
    }
}
