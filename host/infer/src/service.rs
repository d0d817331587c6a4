//! The host's inference: all served models behind `stockade_core`'s seam.

use crate::classifier::{Classifier, ClassifierParts};
use crate::embedder::{Embedder, EmbedderParts};
use crate::generator::{Generator, GeneratorParts};
use crate::memory::machine_limit;
use crate::settings::Settings;
use crate::text::ModelText;
use parking_lot::{Mutex, RwLock};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use stockade_core::error::BoxFuture;
use stockade_core::event::TokenLogprob;
use stockade_core::id::ModelId;
use stockade_core::infer::{
    ChatPrompt, ClassScores, ClassifyRequest, EmbedInput, EmbedRequest, Embeddings, EventStream, GenerateRequest,
    InferError, Inference, Load, ModelInfo, ModelKind, Rendered, ScoreRequest, TokenizeOptions,
};
use stockade_kernels::Pool;

/// Serves models. Shared by reference; models come and go while requests run.
pub struct Engine {
    settings: Settings,
    models: RwLock<Vec<Arc<Served>>>,
    /// The kernels' threads, shared by all models; started with the first.
    pool: OnceLock<Arc<Pool>>,
    memory_limit: u64,
    /// Bytes that each loaded model takes.
    reserved: Mutex<HashMap<ModelId, u64>>,
}

pub(crate) enum Served {
    Generator(Box<Generator>),
    Embedder(Embedder),
    Classifier(Classifier),
}

impl Engine {
    /// An engine without models.
    pub fn new(settings: Settings) -> Self {
        let memory_limit = settings.memory_bytes.unwrap_or_else(machine_limit);
        Self { settings, models: RwLock::default(), pool: OnceLock::new(), memory_limit, reserved: Mutex::default() }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Serves a language model, or a decoder that classifies where [`ModelInfo::kind`] says so, from now on. A model of the same name ends when its last caller lets go of it.
    pub fn add_generator(&self, parts: GeneratorParts) -> Result<ModelInfo, InferError> {
        let generator = Generator::start(parts, self.settings.clone())?;
        let info = generator.info().clone();
        self.add(Served::Generator(Box::new(generator)));
        Ok(info)
    }

    /// Serves an embedder from now on.
    pub fn add_embedder(&self, parts: EmbedderParts) -> Result<ModelInfo, InferError> {
        let embedder = Embedder::start(parts, &self.settings)?;
        let info = embedder.info().clone();
        self.add(Served::Embedder(embedder));
        Ok(info)
    }

    /// Serves an encoder that classifies from now on.
    pub fn add_classifier(&self, parts: ClassifierParts) -> Result<ModelInfo, InferError> {
        let classifier = Classifier::start(parts, &self.settings)?;
        let info = classifier.info().clone();
        self.add(Served::Classifier(classifier));
        Ok(info)
    }

    /// Serves an adapter of `base` from now on. False when that base is served no longer.
    pub(crate) fn add_adapter(&self, base: &Generator, adapted: Generator) -> bool {
        let there = |models: &[Arc<Served>]| models.iter().any(|model| model.is_base(base));
        self.add_if(Served::Generator(Box::new(adapted)), there)
    }

    /// Serves a model no longer, and no longer what adapts it. Their running requests end as cancelled.
    pub fn remove(&self, id: &ModelId) -> bool {
        let mut models = self.models.write();
        let at = models.iter().position(|model| model.info().id == *id);
        let removed = at.map(|at| models.remove(at));
        let adapters = removed.as_ref().map(|removed| take_adapters(&mut models, removed));
        drop(models);
        self.restore(id, None);
        adapters.iter().flatten().for_each(|adapter| self.restore(&adapter.info().id, None));
        removed.is_some()
    }

    /// Makes a served model the first of its kind, which is the default. False when it is not served.
    pub fn prefer(&self, id: &ModelId) -> bool {
        let mut models = self.models.write();
        let at = models.iter().position(|model| model.info().id == *id);
        at.inspect(|&at| models[..=at].rotate_right(1)).is_some()
    }

    /// The folder or file that a served language model was loaded from; `None` for other models, and for adapters.
    pub fn source(&self, id: &ModelId) -> Option<PathBuf> {
        let model = self.find(id).ok()?;
        let generator = model.generator().ok().filter(|generator| !generator.is_adapter())?;
        generator.source().map(Path::to_owned)
    }

    /// The served language model that an adapter in `folder` calls `name`: its id, or the path it was loaded from, which
    /// may be relative to the folder.
    pub(crate) fn base_of(&self, name: &str, folder: &Path) -> Option<Arc<Served>> {
        let paths: Vec<PathBuf> =
            [folder.join(name), name.into()].iter().filter_map(|path| path.canonicalize().ok()).collect();
        let is_at = |model: &Served, path: &Path| {
            model.generator().is_ok_and(|model| !model.is_adapter() && model.source() == Some(path))
        };
        let models = self.models.read();
        let named = models.iter().find(|model| model.info().id.as_str() == name);
        let found = named.or_else(|| models.iter().find(|model| paths.iter().any(|path| is_at(model, path))));
        found.cloned()
    }

    pub(crate) fn pool(&self) -> Arc<Pool> {
        let workers = || self.settings.threads.unwrap_or_else(Pool::default_workers);
        Arc::clone(self.pool.get_or_init(|| Arc::new(Pool::new(workers()))))
    }

    /// Bytes that another model may take.
    pub(crate) fn memory_left(&self) -> u64 {
        self.memory_limit.saturating_sub(self.reserved.lock().values().sum())
    }

    /// Takes `bytes` for a model and returns what a model of that name had; else tells what is left.
    pub(crate) fn reserve(&self, id: &ModelId, bytes: u64) -> Result<Option<u64>, u64> {
        let mut reserved = self.reserved.lock();
        let left = self.memory_limit.saturating_sub(reserved.values().sum());
        if bytes > left {
            return Err(left);
        }
        Ok(reserved.insert(id.clone(), bytes))
    }

    /// Undoes [`Self::reserve`], given what it returned.
    pub(crate) fn restore(&self, id: &ModelId, before: Option<u64>) {
        let mut reserved = self.reserved.lock();
        match before {
            Some(bytes) => reserved.insert(id.clone(), bytes),
            None => reserved.remove(id),
        };
    }

    fn add(&self, served: Served) {
        self.add_if(served, |_| true);
    }

    /// Adds a model if what is served now allows it. One of the same name goes, and with it its adapters.
    fn add_if(&self, served: Served, allowed: impl FnOnce(&[Arc<Served>]) -> bool) -> bool {
        let mut models = self.models.write();
        if !allowed(&models) {
            return false;
        }
        let at = models.iter().position(|model| model.info().id == served.info().id);
        let served = Arc::new(served);
        let mut adapters = Vec::new();
        let replaced = match at {
            Some(at) => {
                let replaced = std::mem::replace(&mut models[at], served);
                adapters = take_adapters(&mut models, &replaced);
                Some(replaced)
            }
            None => {
                models.push(served);
                None
            }
        };
        drop(models);
        adapters.iter().for_each(|adapter| self.restore(&adapter.info().id, None));
        drop((replaced, adapters));
        true
    }

    fn find(&self, id: &ModelId) -> Result<Arc<Served>, InferError> {
        let models = self.models.read();
        let found = models.iter().find(|model| model.info().id == *id);
        found.cloned().ok_or_else(|| InferError::UnknownModel(id.to_string()))
    }
}

/// Takes the adapters of a model that is no longer among the served ones.
fn take_adapters(models: &mut Vec<Arc<Served>>, base: &Served) -> Vec<Arc<Served>> {
    match base {
        Served::Generator(base) if !base.is_adapter() => models.extract_if(.., |model| model.is_of(base)).collect(),
        _ => Vec::new(),
    }
}

impl Served {
    /// Whether this is an adapter of `base`, or `base` itself.
    fn is_of(&self, base: &Generator) -> bool {
        matches!(self, Self::Generator(model) if model.shares_engine(base))
    }

    fn is_base(&self, base: &Generator) -> bool {
        self.is_of(base) && matches!(self, Self::Generator(model) if !model.is_adapter())
    }

    fn info(&self) -> &ModelInfo {
        match self {
            Self::Generator(generator) => generator.info(),
            Self::Embedder(embedder) => embedder.info(),
            Self::Classifier(classifier) => classifier.info(),
        }
    }

    fn text(&self) -> &dyn ModelText {
        match self {
            Self::Generator(generator) => generator.text(),
            Self::Embedder(embedder) => embedder.text(),
            Self::Classifier(classifier) => classifier.text(),
        }
    }

    pub(crate) fn generator(&self) -> Result<&Generator, InferError> {
        self.of_kind(ModelKind::Generator)
    }

    /// The engine thread of a language model or a classifier.
    fn of_kind(&self, kind: ModelKind) -> Result<&Generator, InferError> {
        match self {
            Self::Generator(generator) if generator.info().kind == kind => Ok(generator),
            _ => Err(self.wrong_kind(kind)),
        }
    }

    fn embedder(&self) -> Result<&Embedder, InferError> {
        match self {
            Self::Embedder(embedder) => Ok(embedder),
            Self::Generator(_) | Self::Classifier(_) => Err(self.wrong_kind(ModelKind::Embedder)),
        }
    }

    fn wrong_kind(&self, needs: ModelKind) -> InferError {
        InferError::WrongKind { model: self.info().id.clone(), is: self.info().kind, needs }
    }
}

impl Inference for Engine {
    fn models(&self) -> Vec<ModelInfo> {
        let mut models: Vec<ModelInfo> = self.models.read().iter().map(|model| model.info().clone()).collect();
        models.sort_by_key(|info| info.kind != ModelKind::Generator);
        models
    }

    fn generate(&self, request: GenerateRequest) -> Result<EventStream, InferError> {
        self.find(&request.model)?.generator()?.generate(request)
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, InferError>> {
        Box::pin(async move {
            let served = self.find(&request.model)?;
            let embedder = served.embedder()?;
            let full = embedder.info().embedding_dimensions.unwrap_or(u32::MAX);
            if request.dimensions.is_some_and(|n| n == 0 || n > full) {
                return Err(invalid("dimensions", format!("not in 1 to {full}")));
            }
            if request.inputs.len() > self.settings.max_embed_inputs {
                return Err(invalid("input", format!("more than {} inputs", self.settings.max_embed_inputs)));
            }
            let mut texts = Vec::with_capacity(request.inputs.len());
            for input in request.inputs {
                texts.push(match input {
                    EmbedInput::Text(text) if text.len() > self.settings.max_text_bytes => {
                        return Err(invalid("input", format!("{} bytes in one input", text.len())));
                    }
                    EmbedInput::Text(text) => embedder.encode(&text)?,
                    EmbedInput::Tokens(tokens) => tokens,
                });
            }
            let prompt_tokens = texts.iter().map(|text| text.len() as u32).fold(0, u32::saturating_add);
            let result = embedder.embed(&request.tenant, texts)?;
            let mut vectors = result.await.unwrap_or(Err(InferError::Cancelled))?;
            if let Some(n) = request.dimensions {
                vectors.iter_mut().for_each(|vector| shorten(vector, n as usize));
            }
            Ok(Embeddings { vectors, prompt_tokens })
        })
    }

    fn classify(&self, request: ClassifyRequest) -> BoxFuture<'_, Result<Vec<ClassScores>, InferError>> {
        Box::pin(async move {
            let served = self.find(&request.model)?;
            let bytes = self.settings.max_text_bytes;
            if let Some(long) = request.inputs.iter().find(|input| input.len() > bytes) {
                return Err(invalid("input", format!("{} bytes in one input, more than {bytes}", long.len())));
            }
            match &*served {
                Served::Classifier(classifier) => classify_texts(classifier, &request, &self.settings).await,
                _ => classify_in_engine(served.of_kind(ModelKind::Classifier)?, &request, &self.settings).await,
            }
        })
    }

    fn log_likelihood(&self, request: ScoreRequest) -> BoxFuture<'_, Result<Vec<TokenLogprob>, InferError>> {
        Box::pin(async move {
            let served = self.find(&request.model)?;
            let result = served.generator()?.log_likelihood(request)?;
            result.await.unwrap_or(Err(InferError::Cancelled))
        })
    }

    fn tokenize(&self, model: &ModelId, text: &str, options: TokenizeOptions) -> Result<Vec<u32>, InferError> {
        if text.len() > self.settings.max_text_bytes {
            return Err(invalid("prompt", format!("{} bytes, more than {}", text.len(), self.settings.max_text_bytes)));
        }
        self.find(model)?.text().encode(text, options)
    }

    fn detokenize(&self, model: &ModelId, tokens: &[u32]) -> Result<String, InferError> {
        self.find(model)?.text().decode(tokens)
    }

    fn tokenizer_info(&self, model: &ModelId) -> Result<Map<String, Value>, InferError> {
        Ok(self.find(model)?.text().tokenizer_config())
    }

    fn render(&self, model: &ModelId, prompt: &ChatPrompt) -> Result<Rendered, InferError> {
        self.find(model)?.generator()?.render(prompt)
    }

    fn load(&self) -> Load {
        let models = self.models.read();
        models
            .iter()
            .filter_map(|model| match &**model {
                // Adapters run on their base's thread.
                Served::Generator(generator) => Some(generator).filter(|generator| !generator.is_adapter()),
                Served::Embedder(_) | Served::Classifier(_) => None,
            })
            .fold(Load::default(), |sum, generator| {
                let load = generator.load();
                Load {
                    sequences_running: sum.sequences_running + load.sequences_running,
                    sequences_waiting: sum.sequences_waiting + load.sequences_waiting,
                    kv_pages_used: sum.kv_pages_used + load.kv_pages_used,
                    kv_pages_total: sum.kv_pages_total + load.kv_pages_total,
                }
            })
    }
}

/// All inputs as one request to an encoder.
async fn classify_texts(
    classifier: &Classifier,
    request: &ClassifyRequest,
    settings: &Settings,
) -> Result<Vec<ClassScores>, InferError> {
    if request.inputs.len() > settings.max_embed_inputs {
        return Err(invalid("input", format!("more than {} inputs", settings.max_embed_inputs)));
    }
    let result = classifier.scores(&request.tenant, &request.inputs)?;
    let rows = result.await.unwrap_or(Err(InferError::Cancelled))?;
    Ok(rows.iter().map(|scores| classifier.probabilities(scores)).collect())
}

/// A sequence of the engine for each input.
async fn classify_in_engine(
    classifier: &Generator,
    request: &ClassifyRequest,
    settings: &Settings,
) -> Result<Vec<ClassScores>, InferError> {
    let most = settings.max_waiting_per_tenant;
    if request.inputs.len() > most {
        return Err(invalid("input", format!("more than {most} inputs")));
    }
    let mut results = Vec::with_capacity(request.inputs.len());
    for input in &request.inputs {
        results.push(classifier.scores(&request.tenant, input)?);
    }
    let mut classes = Vec::with_capacity(results.len());
    for result in results {
        let scores = result.await.unwrap_or(Err(InferError::Cancelled))?;
        classes.push(classifier.probabilities(&scores));
    }
    Ok(classes)
}

/// Keeps the leading dimensions and makes the length 1 again.
fn shorten(vector: &mut Vec<f32>, dimensions: usize) {
    vector.truncate(dimensions);
    let norm = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt() as f32;
    if norm > 0.0 {
        vector.iter_mut().for_each(|x| *x /= norm);
    }
}

fn invalid(field: &'static str, reason: String) -> InferError {
    InferError::Invalid { field, reason }
}
