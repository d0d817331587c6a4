//! One request inside the engine: its tokens, its pages, and what becomes of its logits.
//!
//! Invariant: `computed` positions are in `pages`; the rest of `tokens` is still to run. A generation whose reader is
//! behind holds the undelivered events in `outbox` and does not run until that is empty.

use crate::constrain::{Grammar, Mask};
use crate::pages::PageKey;
use crate::queue::Ticket;
use crate::reply::Reply;
use crate::sampler::{Allowed, SampleError, Sampler, log_probabilities};
use crate::vocabulary::Vocabulary;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use stockade_core::event::{End, Event, FinishReason, TokenLogprob, Usage};
use stockade_core::id::TenantId;
use stockade_core::infer::InferError;
use stockade_model::Adapter;
use stockade_model::decoder::{LogitRows, PAGE_TOKENS};
use tokio::sync::mpsc::{Sender, error::TrySendError};
use tokio::sync::oneshot;

pub(crate) struct Sequence {
    pub id: u64,
    pub tenant: TenantId,
    /// Prompt, then completion.
    pub tokens: Vec<u32>,
    pub prompt: usize,
    pub computed: usize,
    pub pages: Vec<u32>,
    /// Pages from the start that are known by key.
    pub published: usize,
    keys: Vec<PageKey>,
    root: PageKey,
    pub adapter: Option<Arc<Adapter>>,
    pub work: Work,
    /// Its place in the bounded queue, until it first runs.
    pub ticket: Option<Ticket>,
    /// Prompt tokens found in the cache when it first ran.
    pub cached: Option<usize>,
    pub times: Times,
    pub span: tracing::Span,
}

pub(crate) enum Work {
    Generate(Box<Generation>),
    Score(Score),
    Classify(Classify),
}

pub(crate) struct Generation {
    pub sampler: Sampler,
    pub reply: Reply,
    pub grammar: Constraining,
    pub vocabulary: Arc<Vocabulary>,
    pub max_tokens: usize,
    pub ignore_eos: bool,
    pub logprobs: Option<u8>,
    /// Control tokens whose text the reply parser wants to see.
    pub shown: Vec<u32>,
    pub completion: usize,
    pub events: Sender<Result<Event, InferError>>,
    pub outbox: VecDeque<Result<Event, InferError>>,
}

pub(crate) enum Constraining {
    None,
    /// Still compiling; gives up at the deadline.
    Pending {
        deadline: Instant,
    },
    Ready(Grammar),
    /// Away while its mask is computed.
    Lent,
}

pub(crate) struct Score {
    /// The position whose row predicts the first token of the continuation.
    pub first_row: usize,
    pub results: Vec<TokenLogprob>,
    pub vocabulary: Arc<Vocabulary>,
    pub done: Option<oneshot::Sender<Result<Vec<TokenLogprob>, InferError>>>,
}

/// Wants the last token's row, whose columns are labels.
pub(crate) struct Classify {
    pub done: Option<oneshot::Sender<Result<Vec<f32>, InferError>>>,
}

#[derive(Debug)]
pub(crate) struct Times {
    pub queued: Instant,
    pub admitted: Option<Instant>,
    pub first_token: Option<Instant>,
}

impl Sequence {
    #[allow(clippy::too_many_arguments, reason = "what a sequence begins with")]
    pub fn new(
        id: u64,
        tenant: TenantId,
        tokens: Vec<u32>,
        root: PageKey,
        adapter: Option<Arc<Adapter>>,
        work: Work,
        ticket: Option<Ticket>,
        span: tracing::Span,
    ) -> Self {
        let prompt = tokens.len();
        let times = Times { queued: Instant::now(), admitted: None, first_token: None };
        Self {
            id,
            tenant,
            tokens,
            prompt,
            computed: 0,
            pages: Vec::new(),
            published: 0,
            keys: Vec::new(),
            root,
            adapter,
            work,
            ticket,
            cached: None,
            times,
            span,
        }
    }

    /// Pages for all its tokens.
    pub fn pages_needed(&self) -> usize {
        self.tokens.len().div_ceil(PAGE_TOKENS)
    }

    /// Keys of the full pages that it may take from the cache: never the page of its last token, whose logits are
    /// always computed anew.
    pub fn reusable_keys(&mut self) -> &[PageKey] {
        let positions = match &self.work {
            Work::Generate(_) | Work::Classify(_) => self.tokens.len().saturating_sub(1),
            Work::Score(score) => score.first_row,
        };
        let count = positions / PAGE_TOKENS;
        self.keys_up_to(count);
        &self.keys[..count]
    }

    /// The key of full page `index`.
    pub fn key(&mut self, index: usize) -> PageKey {
        self.keys_up_to(index + 1);
        self.keys[index]
    }

    fn keys_up_to(&mut self, count: usize) {
        while self.keys.len() < count {
            let last = self.keys.last().copied().unwrap_or(self.root);
            let start = self.keys.len() * PAGE_TOKENS;
            self.keys.push(last.next(&self.tokens[start..start + PAGE_TOKENS]));
        }
    }

    /// Positions still to run before the next decision.
    pub fn pending(&self) -> usize {
        match &self.work {
            Work::Generate(_) | Work::Classify(_) => self.tokens.len() - self.computed,
            Work::Score(_) => self.tokens.len() - 1 - self.computed,
        }
    }

    /// One token a step from here on.
    pub fn decodes(&self) -> bool {
        matches!(self.work, Work::Generate(_)) && self.pending() == 1 && self.tokens.len() > self.prompt
    }

    /// What to run with up to `rows` rows, of which up to `score_rows` may be scored: a count above 0 and its logits.
    pub fn chunk(&self, rows: usize, score_rows: usize) -> Option<(usize, LogitRows)> {
        let (count, logits) = match &self.work {
            Work::Generate(_) | Work::Classify(_) if self.pending() <= rows => (self.pending(), LogitRows::Last),
            Work::Generate(_) | Work::Classify(_) => (rows, LogitRows::None),
            Work::Score(score) if self.computed < score.first_row => {
                ((score.first_row - self.computed).min(rows), LogitRows::None)
            }
            Work::Score(_) => (self.pending().min(rows).min(score_rows), LogitRows::All),
        };
        (count > 0).then_some((count, logits))
    }

    /// Ends it before its time.
    pub fn cancel(&mut self) {
        match &self.work {
            Work::Generate(_) => self.finish(FinishReason::Cancelled),
            Work::Score(_) | Work::Classify(_) => self.fail(InferError::Cancelled),
        }
    }

    pub fn has_adapter(&self, adapter: &Arc<Adapter>) -> bool {
        self.adapter.as_ref().is_some_and(|own| Arc::ptr_eq(own, adapter))
    }

    /// Nobody waits for the result any more.
    pub fn is_cancelled(&self) -> bool {
        match &self.work {
            Work::Generate(generation) => generation.events.is_closed(),
            Work::Score(score) => is_gone(&score.done),
            Work::Classify(classify) => is_gone(&classify.done),
        }
    }

    pub fn is_parked(&self) -> bool {
        matches!(&self.work, Work::Generate(generation) if !generation.outbox.is_empty())
    }

    /// Delivers what the reader has room for.
    pub fn flush(&mut self) {
        if let Work::Generate(generation) = &mut self.work {
            generation.flush();
        }
    }

    /// Ends it with an error.
    pub fn fail(&mut self, error: InferError) {
        tracing::debug!(parent: &self.span, %error, "request failed");
        match &mut self.work {
            Work::Generate(generation) => generation.outbox.push_back(Err(error)),
            Work::Score(score) => answer(&mut score.done, Err(error)),
            Work::Classify(classify) => answer(&mut classify.done, Err(error)),
        }
        self.flush();
    }

    /// Ends a generation in order.
    pub fn finish(&mut self, reason: FinishReason) {
        let usage = Usage {
            prompt_tokens: self.prompt as u32,
            cached_tokens: self.cached.unwrap_or(0) as u32,
            completion_tokens: match &self.work {
                Work::Generate(generation) => generation.completion as u32,
                Work::Score(_) | Work::Classify(_) => 0,
            },
        };
        if let Work::Generate(generation) = &mut self.work {
            let mut events = Vec::new();
            let calls = generation.reply.finish(&mut events);
            let reason = if calls && reason == FinishReason::Stop { FinishReason::ToolCalls } else { reason };
            events.push(Event::End(End { reason, usage, refusal: None, interruption: None }));
            generation.outbox.extend(events.into_iter().map(Ok));
        }
        self.record(usage);
        self.flush();
    }

    fn record(&self, usage: Usage) {
        let ms = |from: Instant, to: Instant| to.duration_since(from).as_secs_f64() * 1e3;
        let now = Instant::now();
        let admitted = self.times.admitted.unwrap_or(now);
        let first = self.times.first_token.unwrap_or(now);
        let decode = ms(first, now);
        let rate = f64::from(usage.completion_tokens.saturating_sub(1)) / (decode / 1e3).max(1e-9);
        self.span.record("queue_ms", ms(self.times.queued, admitted));
        self.span.record("prefill_ms", ms(admitted, first));
        self.span.record("decode_ms", decode);
        self.span.record("tokens_per_second", rate);
        tracing::debug!(parent: &self.span, prompt = usage.prompt_tokens, cached = usage.cached_tokens, completion = usage.completion_tokens, "generated");
    }

    /// Takes the logits of `count` computed rows. True when the sequence is done.
    pub fn absorb(
        &mut self,
        count: usize,
        logits: &[f32],
        vocab: usize,
        mask: Option<Mask>,
    ) -> Result<bool, InferError> {
        let start = self.computed;
        self.computed += count;
        match &mut self.work {
            Work::Generate(_) if logits.is_empty() => Ok(false),
            Work::Generate(_) => self.next_token(logits, mask),
            Work::Score(score) => {
                for (row, position) in logits.chunks_exact(vocab).zip(start..) {
                    let token = self.tokens[position + 1];
                    score.results.push(entry(row, token, 1, &score.vocabulary)?);
                }
                let complete = self.computed + 1 == self.tokens.len();
                if complete {
                    answer(&mut score.done, Ok(std::mem::take(&mut score.results)));
                }
                Ok(complete)
            }
            Work::Classify(_) if logits.is_empty() => Ok(false),
            Work::Classify(_) if logits.iter().any(|x| !x.is_finite()) => Err(broken(SampleError::NotANumber)),
            Work::Classify(classify) => {
                answer(&mut classify.done, Ok(logits.to_vec()));
                Ok(true)
            }
        }
    }

    fn next_token(&mut self, logits: &[f32], mask: Option<Mask>) -> Result<bool, InferError> {
        let Work::Generate(generation) = &mut self.work else {
            return Ok(true);
        };
        let position = self.tokens.len();
        let allowed = mask.as_ref().map(|mask| mask as &dyn Allowed);
        let token = generation.sampler.sample(logits, allowed, position).map_err(broken)?;
        self.times.first_token.get_or_insert_with(Instant::now);
        generation.completion += 1;
        let constrained = mask.is_some();
        if generation.vocabulary.is_end(token) && (constrained || !generation.ignore_eos) {
            self.finish(FinishReason::Stop);
            return Ok(true);
        }
        let logprob = match generation.logprobs {
            Some(top) => Some(entry(logits, token, usize::from(top), &generation.vocabulary)?),
            None => None,
        };
        let complete = match &mut generation.grammar {
            Constraining::Ready(grammar) => grammar.accept(token)?,
            _ => false,
        };
        generation.sampler.accept(token);
        self.tokens.push(token);
        let text = if generation.shown.contains(&token) {
            generation.vocabulary.bytes(token)
        } else {
            generation.vocabulary.text(token)
        };
        let mut events = Vec::new();
        let stopped = generation.reply.push(text, logprob, &mut events);
        generation.outbox.extend(events.into_iter().map(Ok));
        if stopped || complete {
            self.finish(FinishReason::Stop);
            return Ok(true);
        }
        if generation.completion >= generation.max_tokens {
            self.finish(FinishReason::Length);
            return Ok(true);
        }
        self.flush();
        Ok(false)
    }
}

impl Generation {
    fn flush(&mut self) {
        while let Some(event) = self.outbox.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.outbox.push_front(event);
                    return;
                }
                Err(TrySendError::Closed(_)) => {
                    self.outbox.clear();
                    return;
                }
            }
        }
    }
}

fn is_gone<T>(done: &Option<oneshot::Sender<T>>) -> bool {
    done.as_ref().is_none_or(oneshot::Sender::is_closed)
}

/// Hands a result to whoever still waits for it.
fn answer<T>(done: &mut Option<oneshot::Sender<T>>, result: T) {
    if let Some(done) = done.take() {
        done.send(result).ok();
    }
}

fn entry(logits: &[f32], token: u32, top: usize, vocabulary: &Vocabulary) -> Result<TokenLogprob, InferError> {
    let (logprob, top) = log_probabilities(logits, token, top).ok_or_else(|| broken(SampleError::NotANumber))?;
    let top = top.into_iter().map(|(id, p)| (id, vocabulary.bytes(id).to_vec(), p)).collect();
    Ok(TokenLogprob { id: token, bytes: vocabulary.bytes(token).to_vec(), logprob, top })
}

fn broken(error: SampleError) -> InferError {
    InferError::Backend { stage: "sampling", source: Box::new(error) }
}
