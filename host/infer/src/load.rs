//! Serving a model from a path: opens it, sees what it is, fits it into memory, loads it.
//!
//! Invariant: all models together stay within one memory limit; what does not fit is refused with the sum before its
//! weights are read.

use crate::classifier::ClassifierParts;
use crate::decoder_embedder::DecoderEmbedder;
use crate::embedder::EmbedderParts;
use crate::generator::GeneratorParts;
use crate::memory::{DoesNotFit, plan};
use crate::model_text::LoadedText;
use crate::service::Engine;
use crate::vocabulary::Vocabulary;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use stockade_core::Fault;
use stockade_core::id::{Digest, ModelId};
use stockade_core::infer::{InferError, ModelInfo, ModelKind};
use stockade_kernels::{KvType, MatmulPrecision};
use stockade_model::adapter::{self, AdapterConfig, AdapterPlan};
use stockade_model::config::{Head, SentenceSettings};
use stockade_model::{Checkpoint, ModelConfig, ModelError, Tokenizer, bert, deberta, llama};

/// Fewest tokens of keys and values that make serving worth while.
const LEAST_KV_TOKENS: usize = 1024;
/// Default tokens of keys and values: enough for a few conversations at once.
const KV_TOKENS: usize = 16_384;
/// Longest text of a decoder that embeds, in tokens, where its folder does not say.
const EMBEDDED_TOKENS: usize = 8192;
/// Control tokens that end a turn in the families served, whatever the configuration lists.
const END_OF_TURN: [&str; 7] =
    ["<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>", "<|end|>", "</s>"];

/// How a model is loaded.
#[derive(Debug, Clone, Default)]
pub struct ModelOptions {
    /// Storage of keys and values.
    pub kv_type: KvType,
    /// Arithmetic of products with quantized weights.
    pub precision: MatmulPrecision,
    /// Tokens of keys and values over all sequences; `None`: 16,384, or twice the context where that is less.
    pub kv_tokens: Option<usize>,
    /// The served model that an adapter changes, by its id or the path it was loaded from; `None`: what the adapter names.
    /// The options above are the base's then.
    pub base: Option<String>,
}

/// Why a model is not served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("{}: {sum}", path.display())]
    Memory { path: PathBuf, sum: DoesNotFit },
    /// An adapter's base is not served (or is an adapter itself, or of another kind).
    #[error("{}: its base `{base}` is not a language model that is served", path.display())]
    NoBase { path: PathBuf, base: String },
    #[error(transparent)]
    Start(#[from] InferError),
}

impl LoadError {
    pub fn fault(&self) -> Fault {
        match self {
            Self::Model(error) => error.fault(),
            Self::Memory { .. } | Self::NoBase { .. } => Fault::Caller,
            Self::Start(error) => error.fault(),
        }
    }
}

impl Engine {
    /// Loads a model folder or file, or a PEFT folder whose base is served, and serves it as `id` from now on. Blocks for
    /// seconds: call it from a thread that may wait. `progress` gets the bytes of weights read so far and in all, from any
    /// thread.
    pub fn load_model(
        &self,
        id: ModelId,
        path: &Path,
        options: &ModelOptions,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<ModelInfo, LoadError> {
        if adapter::is_adapter(path) {
            return self.load_adapter(id, path, options, progress);
        }
        let checkpoint = Checkpoint::open(path)?;
        let config = checkpoint.config()?;
        let text = Arc::new(LoadedText::open(&checkpoint)?);
        let info = describe(id, &checkpoint, &config)?;
        if config.encoder.is_some() {
            return self.load_encoder(path, &checkpoint, &config, text, info);
        }
        if config.head == Head::Embedding {
            return self.load_decoder_embedder(path, &checkpoint, &config, text, info, progress);
        }
        let spec = llama::spec(&checkpoint, &config, options.kv_type)?;
        let want = options.kv_tokens.unwrap_or_else(|| KV_TOKENS.min(spec.context_tokens.saturating_mul(2)));
        let memory = plan(&spec, self.settings(), want, LEAST_KV_TOKENS, self.memory_left())
            .map_err(|sum| LoadError::Memory { path: path.to_owned(), sum })?;
        let sum = DoesNotFit { total: memory.bytes, ..DoesNotFit::default() };
        let load = llama::LoadOptions { kv_type: options.kv_type, precision: options.precision, budget: None };
        self.reserved(&info.id, path, sum, || {
            let decoder = llama::load(&checkpoint, &config, self.pool(), &load, progress)?;
            let tokenizer = text.tokenizer();
            let parts = GeneratorParts {
                vocabulary: vocabulary(tokenizer, &config),
                base: Some(decoder.base()),
                source: path.canonicalize().ok(),
                decoder: Box::new(decoder),
                text: text.clone(),
                info: info.clone(),
                pages: memory.pages,
                labels: match &config.head {
                    Head::Classifier { labels } => labels.clone(),
                    Head::CausalLm | Head::Embedding => Vec::new(),
                },
                kv_type: kv_name(options.kv_type),
            };
            Ok(self.add_generator(parts)?)
        })
    }

    /// A decoder whose states are its output.
    fn load_decoder_embedder(
        &self,
        path: &Path,
        checkpoint: &Checkpoint,
        config: &ModelConfig,
        text: Arc<LoadedText>,
        mut info: ModelInfo,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<ModelInfo, LoadError> {
        let options = llama::LoadOptions::default();
        let spec = llama::spec(checkpoint, config, options.kv_type)?;
        let settings = SentenceSettings::from_folder(path, spec.context_tokens.min(EMBEDDED_TOKENS))?;
        let memory = plan(&spec, self.settings(), settings.max_tokens, settings.max_tokens, self.memory_left())
            .map_err(|sum| LoadError::Memory { path: path.to_owned(), sum })?;
        let sum = DoesNotFit { total: memory.bytes, ..DoesNotFit::default() };
        self.reserved(&info.id.clone(), path, sum, || {
            let decoder = llama::load(checkpoint, config, self.pool(), &options, progress)?;
            let network = DecoderEmbedder::new(Box::new(decoder), settings)?;
            info.context_tokens = settings.max_tokens as u32;
            info.embedding_dimensions = Some(network.dimensions() as u32);
            Ok(self.add_embedder(EmbedderParts { network: Box::new(network), text, info })?)
        })
    }

    /// Adds an adapter to a served base: a few matrices, the base's tokenizer and template, its engine thread and pages.
    fn load_adapter(
        &self,
        id: ModelId,
        path: &Path,
        options: &ModelOptions,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<ModelInfo, LoadError> {
        let named = options.base.clone().or(AdapterConfig::from_folder(path)?.base).unwrap_or_default();
        let served = self.base_of(&named, path);
        let base = served.as_ref().and_then(|served| served.generator().ok()).filter(|base| !base.is_adapter());
        let no_base = || LoadError::NoBase { path: path.to_owned(), base: named.clone() };
        let (base, weights) = base.and_then(|base| Some((base, base.base()?))).ok_or_else(no_base)?;
        if base.info().id == id {
            return Err(no_base()); // it would take its base's place
        }
        let plan = AdapterPlan::new(path, weights)?;
        let rows = self.settings().max_step_tokens.max(self.settings().max_running) as u64;
        let weights = plan.weight_bytes() as u64;
        let rows = rows.saturating_mul(plan.row_bytes() as u64);
        let total = weights.saturating_add(rows);
        self.reserved(&id, path, DoesNotFit { total, weights, rows, ..DoesNotFit::default() }, || {
            let adapter = plan.load(progress)?;
            let info = ModelInfo {
                id: id.clone(),
                digest: Digest(
                    Sha256::new().chain_update(base.info().digest.0).chain_update(adapter.digest().0).finalize().into(),
                ),
                base: Some(base.info().id.clone()),
                parameters: base.info().parameters + adapter.parameters(),
                created: now(),
                ..base.info().clone()
            };
            let adapted = base.adapted(info.clone(), Arc::new(adapter));
            if self.add_adapter(base, adapted) { Ok(info) } else { Err(no_base()) }
        })
    }

    /// Loads with the sum's total reserved, which is given back if that fails; refuses the model at `path` with the whole
    /// sum if there is not so much left.
    fn reserved(
        &self,
        id: &ModelId,
        path: &Path,
        sum: DoesNotFit,
        load: impl FnOnce() -> Result<ModelInfo, LoadError>,
    ) -> Result<ModelInfo, LoadError> {
        let before = self
            .reserve(id, sum.total)
            .map_err(|available| LoadError::Memory { path: path.to_owned(), sum: DoesNotFit { available, ..sum } })?;
        let served = load();
        if served.is_err() {
            self.restore(id, before);
        }
        served
    }

    fn load_encoder(
        &self,
        path: &Path,
        checkpoint: &Checkpoint,
        config: &ModelConfig,
        text: Arc<LoadedText>,
        mut info: ModelInfo,
    ) -> Result<ModelInfo, LoadError> {
        let bytes = info.parameters.saturating_mul(4); // computed in f32, whatever the file holds
        let workers = self.pool().workers();
        let sum = DoesNotFit { total: bytes, weights: bytes, ..DoesNotFit::default() };
        self.reserved(&info.id.clone(), path, sum, || {
            if let Head::Classifier { labels } = &config.head {
                let network = deberta::load(checkpoint, config, workers)?;
                info.context_tokens = network.max_tokens() as u32;
                let parts = ClassifierParts { network: Box::new(network), text, info, labels: labels.clone() };
                return Ok(self.add_classifier(parts)?);
            }
            let network = bert::load(checkpoint, config, workers)?;
            info.context_tokens = network.max_tokens() as u32;
            info.embedding_dimensions = Some(network.dimensions() as u32);
            Ok(self.add_embedder(EmbedderParts { network: Box::new(network), text, info })?)
        })
    }
}

fn kv_name(kv_type: KvType) -> &'static str {
    match kv_type {
        KvType::F16 => "f16",
        KvType::F32 => "f32",
    }
}

fn vocabulary(tokenizer: &Tokenizer, config: &ModelConfig) -> Vocabulary {
    let mut ends = config.eos_ids.clone();
    ends.extend(tokenizer.special().eos);
    ends.extend(END_OF_TURN.iter().filter_map(|text| tokenizer.added_id(text)));
    ends.sort_unstable();
    ends.dedup();
    let tokens = (0..tokenizer.vocab_size() as u32).map(|id| (tokenizer.token_bytes(id), tokenizer.is_control(id)));
    Vocabulary::new(tokens, ends)
}

fn describe(id: ModelId, checkpoint: &Checkpoint, config: &ModelConfig) -> Result<ModelInfo, ModelError> {
    let mut bytes: HashMap<String, usize> = HashMap::new();
    let mut parameters = 0u64;
    for tensor in checkpoint.tensors() {
        *bytes.entry(format!("{:?}", tensor.ty)).or_default() += tensor.size_bytes();
        parameters += tensor.rows as u64 * tensor.cols as u64;
    }
    let largest = bytes.into_iter().max_by_key(|(_, bytes)| *bytes);
    Ok(ModelInfo {
        id,
        kind: match &config.head {
            Head::Classifier { .. } => ModelKind::Classifier,
            Head::Embedding => ModelKind::Embedder,
            Head::CausalLm => ModelKind::Generator,
        },
        digest: checkpoint.digest()?,
        base: None,
        context_tokens: u32::try_from(config.context_tokens).unwrap_or(u32::MAX),
        parameters,
        embedding_dimensions: None,
        architecture: config.architecture.model_type().into(),
        quantization: largest.map_or_else(String::new, |(ty, _)| ty),
        created: now(),
    })
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs())
}
