//! One served sentence embedder.

use crate::batcher::{Batcher, Rows, TextNetwork};
use crate::settings::Settings;
use crate::text::ModelText;
use std::sync::Arc;
use stockade_core::id::TenantId;
use stockade_core::infer::{InferError, ModelInfo, TokenizeOptions};
use tokio::sync::oneshot;

/// What an embedder is made of.
pub struct EmbedderParts {
    /// Its rows are L2-normalised vectors.
    pub network: Box<dyn TextNetwork>,
    pub text: Arc<dyn ModelText>,
    /// [`ModelInfo::context_tokens`] is the longest text, control tokens included; longer ones are cut.
    pub info: ModelInfo,
}

pub(crate) struct Embedder {
    info: ModelInfo,
    text: Arc<dyn ModelText>,
    batcher: Batcher,
}

impl Embedder {
    pub fn start(parts: EmbedderParts, settings: &Settings) -> Result<Self, InferError> {
        let EmbedderParts { network, text, info } = parts;
        let batcher = Batcher::start(network, &info.id, info.context_tokens, "embedding", settings)?;
        Ok(Self { info, text, batcher })
    }

    pub fn info(&self) -> &ModelInfo {
        &self.info
    }
    pub fn text(&self) -> &dyn ModelText {
        &*self.text
    }

    /// Token ids of a text, cut to the longest the network takes; a closing control token stays at the end.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, InferError> {
        let mut tokens = self.text.encode(text, TokenizeOptions { add_special: true, parse_special: false })?;
        let limit = self.info.context_tokens as usize;
        if tokens.len() > limit
            && let Some(last) = tokens.last().copied()
        {
            tokens.truncate(limit.saturating_sub(1));
            tokens.push(last);
        }
        Ok(tokens)
    }

    pub fn embed(&self, tenant: &TenantId, texts: Vec<Vec<u32>>) -> Result<oneshot::Receiver<Rows>, InferError> {
        self.batcher.submit(tenant, texts)
    }
}
