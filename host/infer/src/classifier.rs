//! One served text classifier that is an encoder. Classifiers made of decoders run in the engine, as [`crate::generator`].

use crate::batcher::{Batcher, Rows, TextNetwork};
use crate::settings::Settings;
use crate::text::ModelText;
use std::sync::Arc;
use stockade_core::id::TenantId;
use stockade_core::infer::{ClassScores, InferError, ModelInfo, TokenizeOptions};
use tokio::sync::oneshot;

/// What a classifier is made of.
pub struct ClassifierParts {
    /// Its rows have a score (logit) for each of `labels`.
    pub network: Box<dyn TextNetwork>,
    pub text: Arc<dyn ModelText>,
    /// [`ModelInfo::context_tokens`] is the longest text, control tokens included. Longer ones are refused: what is cut
    /// off would go unjudged.
    pub info: ModelInfo,
    pub labels: Vec<String>,
}

pub(crate) struct Classifier {
    info: ModelInfo,
    text: Arc<dyn ModelText>,
    labels: Vec<String>,
    batcher: Batcher,
}

impl Classifier {
    pub fn start(parts: ClassifierParts, settings: &Settings) -> Result<Self, InferError> {
        let ClassifierParts { network, text, info, labels } = parts;
        let batcher = Batcher::start(network, &info.id, info.context_tokens, "classify", settings)?;
        Ok(Self { info, text, labels, batcher })
    }

    pub fn info(&self) -> &ModelInfo {
        &self.info
    }
    pub fn text(&self) -> &dyn ModelText {
        &*self.text
    }

    /// Queues texts; a row of scores for each comes back.
    pub fn scores(&self, tenant: &TenantId, texts: &[String]) -> Result<oneshot::Receiver<Rows>, InferError> {
        let options = TokenizeOptions { add_special: true, parse_special: false };
        let tokens = texts.iter().map(|text| self.text.encode(text, options)).collect::<Result<_, _>>()?;
        self.batcher.submit(tenant, tokens)
    }

    pub fn probabilities(&self, scores: &[f32]) -> ClassScores {
        probabilities(&self.labels, scores)
    }
}

/// A classifier's scores as probabilities: softmax over labels, the logistic function of a lone one.
pub(crate) fn probabilities(labels: &[String], scores: &[f32]) -> ClassScores {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let masses = || scores.iter().map(|score| (score - max).exp());
    let total: f32 = masses().sum();
    let probabilities: Vec<f32> = match scores {
        [score] => vec![1.0 / (1.0 + (-score).exp())],
        _ => masses().map(|mass| mass / total).collect(),
    };
    labels.iter().cloned().zip(probabilities).collect()
}
