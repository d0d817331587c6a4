//! What a run starts from: a model that is there, or a configuration.

use crate::checkpoint::failed;
use crate::job::Job;
use crate::network::{Network, NetworkOptions};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use stockade_core::train::{Resolver, TrainError};
use stockade_model::{Checkpoint, ModelConfig, ModelError, Tokenizer};

/// Files that belong to a tokenizer, copied beside the configuration of a model from scratch.
const TOKENIZER_FILES: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
];

pub(super) struct Start {
    /// The base's folder or file; from scratch a folder with configuration and tokenizer, without weights.
    pub path: PathBuf,
    /// Where the tokenizer and the template are.
    pub tokenizer: PathBuf,
    pub config: ModelConfig,
    /// Sha256 in hex, of the weights or of the configuration.
    pub digest: String,
    /// `None` from scratch.
    checkpoint: Option<Checkpoint>,
}

impl Start {
    pub fn find(job: &Job, resolver: &dyn Resolver, folder: &Path) -> Result<Self, TrainError> {
        let tokenizer = match crate::tokenizer::of_job(job, resolver, folder)? {
            Some(trained) => Some(trained),
            None => job.model.tokenizer.as_deref().map(|name| resolver.model(name)).transpose()?,
        };
        let start = match (&job.model.base, &job.model.config, tokenizer) {
            (Some(name), _, tokenizer) => {
                let path = resolver.model(name)?;
                let refuse = |error: ModelError| TrainError::Model { name: name.clone(), reason: error.to_string() };
                let checkpoint = Checkpoint::open(&path).map_err(refuse)?;
                let config = checkpoint.config().map_err(refuse)?;
                let digest = checkpoint.digest().map_err(refuse)?;
                let tokenizer = tokenizer.unwrap_or_else(|| path.clone());
                Self { tokenizer, config, digest: digest.to_string(), checkpoint: Some(checkpoint), path }
            }
            (None, Some(config), Some(tokenizer)) => from_scratch(config, &tokenizer, folder)?,
            _ => return Err(TrainError::spec("model.base", "is missing; or give [model.config] and a tokenizer")),
        };
        if job.data.max_tokens > start.config.context_tokens {
            let reason =
                format!("{} exceeds the model's context of {}", job.data.max_tokens, start.config.context_tokens);
            return Err(TrainError::spec("data.max_tokens", reason));
        }
        Ok(start)
    }

    pub fn network(&self, options: &NetworkOptions) -> Result<Network, TrainError> {
        match &self.checkpoint {
            Some(checkpoint) => Network::open(checkpoint, &self.config, options),
            None => Network::fresh(&self.config, options),
        }
    }

    pub fn is_fresh(&self) -> bool {
        self.checkpoint.is_none()
    }
}

/// Lays configuration and tokenizer into a folder of the job. A vocabulary that is not named is the tokenizer's.
fn from_scratch(config: &Value, tokenizer: &Path, folder: &Path) -> Result<Start, TrainError> {
    let refuse = |error: ModelError| TrainError::spec("model.config", error.to_string());
    let at = |error| failed("the model's configuration", error);
    let path = folder.join("start");
    fs::create_dir_all(&path).map_err(at)?;
    for name in TOKENIZER_FILES {
        let file = tokenizer.join(name);
        if file.is_file() {
            fs::copy(&file, path.join(name)).map_err(at)?;
        }
    }
    let mut config = config.clone();
    if let Value::Object(fields) = &mut config
        && !fields.contains_key("vocab_size")
    {
        let tokens = Tokenizer::from_folder(&path).map_err(refuse)?.vocab_size();
        fields.insert("vocab_size".into(), tokens.into());
    }
    let text = serde_json::to_vec_pretty(&config).map_err(|error| at(error.into()))?;
    fs::write(path.join("config.json"), &text).map_err(at)?;
    let config = ModelConfig::from_folder(&path).map_err(refuse)?;
    let digest = format!("{:x}", Sha256::digest(&text));
    Ok(Start { tokenizer: path.clone(), path, config, digest, checkpoint: None })
}
