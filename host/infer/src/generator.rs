//! One served language model, from the outside: checks a request, turns it into a sequence, posts it to the engine
//! thread.
//!
//! A base and its adapters are a generator each before one engine thread, so that their sequences share its batches.
//! Invariant: what can be refused is refused here, before the queue; what is posted can run to its end with the pages
//! there are.

use crate::chat::{self, PreparedChat};
use crate::classifier::probabilities;
use crate::constrain::{Grammars, Prepared};
use crate::engine::{Message, Worker};
use crate::pages::PageKey;
use crate::queue::Queue;
use crate::reply::Reply;
use crate::sampler::Sampler;
use crate::sequence::{Classify, Constraining, Generation, Score, Sequence, Work};
use crate::settings::Settings;
use crate::text::ModelText;
use crate::tool_calls::{CallFormat, MARKERS, ReplyFormat};
use crate::vocabulary::Vocabulary;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;
use stockade_core::event::TokenLogprob;
use stockade_core::id::{Digest, TenantId};
use stockade_core::infer::{
    ClassScores, Constraint, EmbedInput, EventStream, GenerateRequest, InferError, Load, ModelInfo, Prompt, Rendered,
    Sampling, ScoreRequest, TokenizeOptions,
};
use stockade_model::Adapter;
use stockade_model::decoder::{Decoder, PAGE_TOKENS};
use stockade_model::llama::Base;
use tokio::sync::oneshot;

const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 256;
const MAX_LOGPROBS: u8 = 20;
const MAX_BIASES: usize = 4096;

/// What a language model is made of.
pub struct GeneratorParts {
    /// Its pages are not allocated yet.
    pub decoder: Box<dyn Decoder>,
    pub text: Arc<dyn ModelText>,
    pub vocabulary: Vocabulary,
    /// [`ModelInfo::context_tokens`] is cut to what the pages hold.
    pub info: ModelInfo,
    /// KV pages.
    pub pages: usize,
    /// What the columns of a classifier's rows mean; empty for language models.
    pub labels: Vec<String>,
    /// Names the storage type of keys and values: other types never share a prefix.
    pub kv_type: &'static str,
    /// What adapters are loaded onto. `None`: it takes none.
    pub base: Option<Base>,
    /// Where the weights came from, without links.
    pub source: Option<PathBuf>,
}

pub(crate) struct Generator {
    info: ModelInfo,
    adapter: Option<Arc<Adapter>>,
    engine: Arc<Thread>,
}

/// What a base and its adapters share: the engine thread and all that stands before it. Ends with its last generator.
struct Thread {
    /// Of the base's weights.
    digest: Digest,
    base: Option<Base>,
    source: Option<PathBuf>,
    settings: Settings,
    text: Arc<dyn ModelText>,
    vocabulary: Arc<Vocabulary>,
    /// Control tokens that mark calls and reasoning.
    markers: Vec<u32>,
    /// Columns of a row of logits.
    vocab: usize,
    labels: Vec<String>,
    kv_type: &'static str,
    /// Salts the prefix keys of every tenant.
    secret: [u8; 32],
    queue: Arc<Queue>,
    gauges: Arc<Mutex<Load>>,
    next_id: AtomicU64,
    grammars: Grammars,
    /// Absent only while dropping.
    mailbox: Option<mpsc::Sender<Message>>,
    thread: Option<JoinHandle<()>>,
}

/// A generation's beginning.
struct Start {
    tokens: Vec<u32>,
    /// How to read the reply of a chat.
    format: Option<ReplyFormat>,
    constraint: Option<Constraint>,
}

impl Generator {
    pub fn start(parts: GeneratorParts, settings: Settings) -> Result<Self, InferError> {
        let GeneratorParts { mut decoder, text, vocabulary, mut info, pages, labels, kv_type, base, source } = parts;
        decoder
            .allocate_pages(pages)
            .map_err(|e| InferError::Backend { stage: "allocating pages", source: Box::new(e) })?;
        let vocab = decoder.spec().vocab;
        let held = u32::try_from(pages.saturating_mul(PAGE_TOKENS)).unwrap_or(u32::MAX);
        info.context_tokens = info.context_tokens.min(held);
        let gauges = Arc::new(Mutex::new(Load { kv_pages_total: pages as u32, ..Load::default() }));
        let (mailbox, mail) = mpsc::channel();
        let worker = Worker::new(decoder, pages, mail, settings.clone(), Arc::clone(&gauges));
        let grammars = Grammars::new(&vocabulary, settings.grammar.clone())?;
        let thread = std::thread::Builder::new()
            .name(format!("engine-{}", info.id).chars().take(15).collect())
            .spawn(move || worker.run())
            .map_err(|e| InferError::Backend { stage: "starting threads", source: Box::new(e) })?;
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(no_randomness)?;
        let engine = Thread {
            digest: info.digest,
            base,
            source,
            markers: MARKERS.iter().filter_map(|m| vocabulary.special_token(m.as_bytes())).collect(),
            queue: Queue::new(settings.max_waiting, settings.max_waiting_per_tenant),
            settings,
            text,
            vocabulary: Arc::new(vocabulary),
            vocab,
            labels,
            kv_type,
            secret,
            gauges,
            next_id: AtomicU64::new(0),
            grammars,
            mailbox: Some(mailbox),
            thread: Some(thread),
        };
        Ok(Self { info, adapter: None, engine: Arc::new(engine) })
    }

    /// The same model with an adapter, whose rows share the batches of all others.
    pub fn adapted(&self, info: ModelInfo, adapter: Arc<Adapter>) -> Self {
        Self { info, adapter: Some(adapter), engine: Arc::clone(&self.engine) }
    }

    /// Whether both stand before one engine thread.
    pub fn shares_engine(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.engine, &other.engine)
    }

    pub fn is_adapter(&self) -> bool {
        self.adapter.is_some()
    }
    pub fn base(&self) -> Option<&Base> {
        self.engine.base.as_ref()
    }
    pub fn source(&self) -> Option<&Path> {
        self.engine.source.as_deref()
    }
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }
    pub fn text(&self) -> &dyn ModelText {
        &*self.engine.text
    }
    pub fn load(&self) -> Load {
        *self.engine.gauges.lock()
    }

    pub fn generate(&self, request: GenerateRequest) -> Result<EventStream, InferError> {
        check(&request.sampling)?;
        let Start { tokens, format, constraint } = self.prepare(&request)?;
        let room = self.room(&tokens, request.sampling.max_tokens)?;
        let grammar = constraint.map(|c| self.engine.grammars.prepare(&request.tenant, &c)).transpose()?;
        let ticket = self.engine.queue.enter(&request.tenant)?;
        let nonce = getrandom::u64().map_err(no_randomness)?;
        let (events, stream) = tokio::sync::mpsc::channel(self.engine.settings.stream_events.max(1));
        let sampling = request.sampling;
        let (grammar, job) = match grammar {
            None => (Constraining::None, None),
            Some(Prepared::Ready(grammar)) => (Constraining::Ready(grammar), None),
            Some(Prepared::Job(job)) => {
                let deadline = Instant::now() + self.engine.settings.grammar.compile_deadline;
                (Constraining::Pending { deadline }, Some(job))
            }
        };
        let shown = if format.is_some() { self.engine.markers.clone() } else { Vec::new() };
        let work = Work::Generate(Box::new(Generation {
            reply: Reply::new(&sampling.stop, format, nonce),
            grammar,
            vocabulary: Arc::clone(&self.engine.vocabulary),
            max_tokens: room,
            ignore_eos: sampling.ignore_eos,
            logprobs: sampling.logprobs,
            shown,
            completion: 0,
            events,
            outbox: VecDeque::new(),
            sampler: Sampler::new(sampling, nonce, &tokens),
        }));
        let id = self.submit(request.tenant, tokens, work, ticket, "generate")?;
        if let (Some(job), Some(mailbox)) = (job, self.engine.mailbox.clone()) {
            let done = move |grammar| {
                // The engine may be gone by now; then nobody waits.
                mailbox.send(Message::Compiled { id, grammar }).ok();
            };
            self.engine.grammars.start(job, Box::new(done));
        }
        Ok(stream)
    }

    pub fn log_likelihood(
        &self,
        request: ScoreRequest,
    ) -> Result<oneshot::Receiver<Result<Vec<TokenLogprob>, InferError>>, InferError> {
        let mut tokens = match &request.context {
            Prompt::Chat(prompt) => self.chat(prompt)?.rendered.tokens,
            Prompt::Text(text) => self.encode(text, TokenizeOptions { add_special: true, parse_special: false })?,
            Prompt::Tokens(tokens) => tokens.clone(),
        };
        if tokens.is_empty() {
            return Err(invalid("context", "at least one token must stand before the continuation"));
        }
        let first_row = tokens.len() - 1;
        match &request.continuation {
            EmbedInput::Text(text) => tokens.extend(self.encode(text, TokenizeOptions::default())?),
            EmbedInput::Tokens(more) => tokens.extend(more),
        }
        self.check_tokens(&tokens)?;
        let limit = self.info.context_tokens;
        if tokens.len() > limit as usize {
            let (prompt, requested) = (first_row as u32 + 1, (tokens.len() - first_row - 1) as u32);
            return Err(InferError::ContextOverflow { prompt, requested, limit });
        }
        let (done, result) = oneshot::channel();
        if tokens.len() == first_row + 1 {
            done.send(Ok(Vec::new())).ok();
            return Ok(result);
        }
        let ticket = self.engine.queue.enter(&request.tenant)?;
        let vocabulary = Arc::clone(&self.engine.vocabulary);
        let work = Work::Score(Score { first_row, results: Vec::new(), vocabulary, done: Some(done) });
        self.submit(request.tenant, tokens, work, ticket, "log_likelihood")?;
        Ok(result)
    }

    /// Posts a text to a classifier; its row of scores comes back.
    pub fn scores(
        &self,
        tenant: &TenantId,
        text: &str,
    ) -> Result<oneshot::Receiver<Result<Vec<f32>, InferError>>, InferError> {
        let options = TokenizeOptions { add_special: true, parse_special: false };
        let tokens = self.encode(text, options)?;
        let limit = self.info.context_tokens;
        if tokens.is_empty() {
            return Err(invalid("input", "an input is empty"));
        }
        if tokens.len() > limit as usize {
            let prompt = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
            return Err(InferError::ContextOverflow { prompt, requested: 0, limit });
        }
        let ticket = self.engine.queue.enter(tenant)?;
        let (done, result) = oneshot::channel();
        let work = Work::Classify(Classify { done: Some(done) });
        self.submit(tenant.clone(), tokens, work, ticket, "classify")?;
        Ok(result)
    }

    pub fn probabilities(&self, scores: &[f32]) -> ClassScores {
        probabilities(&self.engine.labels, scores)
    }

    pub fn render(&self, prompt: &stockade_core::infer::ChatPrompt) -> Result<Rendered, InferError> {
        Ok(self.chat(prompt)?.rendered)
    }

    pub fn encode(&self, text: &str, options: TokenizeOptions) -> Result<Vec<u32>, InferError> {
        if text.len() > self.engine.settings.max_text_bytes {
            let reason = format!("{} bytes, more than {}", text.len(), self.engine.settings.max_text_bytes);
            return Err(InferError::Invalid { field: "prompt", reason });
        }
        self.engine.text.encode(text, options)
    }

    /// Token ids must have a row in the embedding.
    pub fn check_tokens(&self, tokens: &[u32]) -> Result<(), InferError> {
        match tokens.iter().find(|&&token| token as usize >= self.engine.vocab) {
            Some(token) => Err(InferError::Invalid {
                field: "prompt",
                reason: format!("token {token} is not below the vocabulary of {}", self.engine.vocab),
            }),
            None => Ok(()),
        }
    }

    fn chat(&self, prompt: &stockade_core::infer::ChatPrompt) -> Result<PreparedChat, InferError> {
        let bytes: usize = prompt.messages.iter().map(|m| m.joined_text().len()).sum();
        if bytes > self.engine.settings.max_text_bytes {
            let reason = format!("{bytes} bytes of text, more than {}", self.engine.settings.max_text_bytes);
            return Err(InferError::Invalid { field: "messages", reason });
        }
        chat::prepare(&*self.engine.text, prompt)
    }

    fn prepare(&self, request: &GenerateRequest) -> Result<Start, InferError> {
        let own = request.constraint.clone();
        let plain = |tokens, constraint| Start { tokens, format: None, constraint };
        Ok(match &request.prompt {
            Prompt::Tokens(tokens) => plain(tokens.clone(), own),
            Prompt::Text(text) => {
                let options = TokenizeOptions { add_special: true, parse_special: false };
                plain(self.encode(text, options)?, own)
            }
            Prompt::Chat(prompt) => {
                let PreparedChat { rendered, mut format, constraint } = self.chat(prompt)?;
                if own.is_some() && constraint.is_some() {
                    return Err(invalid("tool_choice", "an enforced tool call and a constraint exclude each other"));
                }
                if own.is_some() && format.calls == Some(CallFormat::Llama) {
                    // A constrained object and a call in this form cannot be told apart.
                    format.calls = None;
                }
                Start { tokens: rendered.tokens, format: Some(format), constraint: constraint.or(own) }
            }
        })
    }

    /// Completion tokens that may follow.
    fn room(&self, prompt: &[u32], requested: Option<u32>) -> Result<usize, InferError> {
        if prompt.is_empty() {
            return Err(invalid("prompt", "at least one token is needed"));
        }
        self.check_tokens(prompt)?;
        let limit = self.info.context_tokens as usize;
        let left = limit.saturating_sub(prompt.len());
        let wanted = requested.map_or(left, |n| n as usize);
        if wanted == 0 && requested == Some(0) {
            return Err(invalid("max_tokens", "at least 1"));
        }
        if wanted > left || left == 0 {
            return Err(InferError::ContextOverflow {
                prompt: u32::try_from(prompt.len()).unwrap_or(u32::MAX),
                requested: requested.unwrap_or(1),
                limit: self.info.context_tokens,
            });
        }
        Ok(wanted)
    }

    fn submit(
        &self,
        tenant: TenantId,
        tokens: Vec<u32>,
        work: Work,
        ticket: crate::queue::Ticket,
        kind: &'static str,
    ) -> Result<u64, InferError> {
        let id = self.engine.next_id.fetch_add(1, Ordering::Relaxed);
        let root = PageKey::root(
            &self.engine.secret,
            &tenant,
            &self.engine.digest,
            self.adapter.as_ref().map(|adapter| adapter.digest()).as_ref(),
            self.engine.kv_type,
        );
        let empty = tracing::field::Empty;
        let span = tracing::info_span!(
            "infer", kind, model = %self.info.id, %tenant, prompt_tokens = tokens.len(),
            queue_ms = empty, prefill_ms = empty, decode_ms = empty, tokens_per_second = empty,
        );
        let sequence = Sequence::new(id, tenant, tokens, root, self.adapter.clone(), work, Some(ticket), span);
        let gone = || InferError::Backend { stage: "queueing", source: "the engine thread has ended".into() };
        let mailbox = self.engine.mailbox.as_ref().ok_or_else(gone)?;
        mailbox.send(Message::Submit(Box::new(sequence))).map_err(|_| gone())?;
        Ok(id)
    }
}

impl Drop for Generator {
    /// An adapter's requests end with it; a base's end with the engine thread.
    fn drop(&mut self) {
        if let (Some(adapter), Some(mailbox)) = (self.adapter.take(), &self.engine.mailbox) {
            mailbox.send(Message::Retire(adapter)).ok();
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.mailbox = None;
        // Compiling threads hold mailboxes as well.
        self.grammars.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(weights = %self.digest, "the engine thread had panicked");
        }
    }
}

/// Refuses parameters that are out of range, in the words of [`Sampling`].
fn check(s: &Sampling) -> Result<(), InferError> {
    let range = |field: &'static str, value: f32, low: f32, high: f32| {
        if value.is_finite() && (low..=high).contains(&value) {
            Ok(())
        } else {
            Err(InferError::Invalid { field, reason: format!("{value} is not in {low} to {high}") })
        }
    };
    range("temperature", s.temperature, 0.0, 2.0)?;
    range("top_p", s.top_p, 0.0, 1.0)?;
    range("min_p", s.min_p, 0.0, 1.0)?;
    range("repetition_penalty", s.repetition_penalty, 0.01, 10.0)?;
    range("frequency_penalty", s.frequency_penalty, -2.0, 2.0)?;
    range("presence_penalty", s.presence_penalty, -2.0, 2.0)?;
    for (_, bias) in &s.logit_bias {
        range("logit_bias", *bias, -100.0, 100.0)?;
    }
    if s.logit_bias.len() > MAX_BIASES {
        return Err(InferError::Invalid { field: "logit_bias", reason: format!("more than {MAX_BIASES} tokens") });
    }
    if s.stop.len() > MAX_STOPS || s.stop.iter().any(|stop| stop.len() > MAX_STOP_BYTES) {
        let reason = format!("more than {MAX_STOPS} or one longer than {MAX_STOP_BYTES} bytes");
        return Err(InferError::Invalid { field: "stop", reason });
    }
    if s.logprobs.is_some_and(|n| n > MAX_LOGPROBS) {
        return Err(InferError::Invalid { field: "logprobs", reason: format!("more than {MAX_LOGPROBS}") });
    }
    Ok(())
}

fn invalid(field: &'static str, reason: &str) -> InferError {
    InferError::Invalid { field, reason: reason.into() }
}

fn no_randomness(error: getrandom::Error) -> InferError {
    InferError::Backend { stage: "randomness", source: Box::new(error) }
}
