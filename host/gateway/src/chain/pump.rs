//! One choice of a reply: drives its source, judges its events, hands them to the dialect.

use super::output::{Judged, OutputShields};
use super::tool_calls::ToolCalls;
use super::{Ask, QUEUE, as_message, refusal_end};
use crate::error::{ApiError, Code};
use crate::interruption;
use crate::run::{Run, Status};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use stockade_core::ModelId;
use stockade_core::chat::Message;
use stockade_core::event::{
    End, Event, FinishReason, Interruption, Step, TextDelta, TokenLogprob, ToolCallDelta, Usage,
};
use stockade_core::infer::{EventStream, Inference, Prompt, TokenizeOptions};
use stockade_core::limits::LimitKind;
use stockade_core::plugin::{CallError, Channel, Pinned, Turn, TurnStream};
use stockade_core::registry::Dialect;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Events of one choice as they may be shown.
pub type Choice = mpsc::Receiver<Result<Event, ApiError>>;

/// Most bytes of text that are judged as one piece when the source is faster than the shields.
const MAX_MERGED_BYTES: usize = 4096;

enum Source {
    Model(EventStream),
    Turn { stream: TurnStream, component: String },
}

impl Source {
    /// The next event; a source that ends without one has failed.
    async fn next(&mut self) -> Result<Event, ApiError> {
        match self {
            Self::Model(stream) => match stream.recv().await {
                Some(event) => Ok(event?),
                None => {
                    tracing::error!("the engine dropped a stream without an end");
                    Err(ApiError::internal())
                }
            },
            Self::Turn { stream, component } => match stream.recv().await {
                Some(event) => Ok(event?),
                None => Err(CallError::Failed {
                    component: component.clone(),
                    limit: LimitKind::Trap,
                    detail: "it ended its events without an end".into(),
                }
                .into()),
            },
        }
    }

    /// An event that is already there.
    fn ready(&mut self) -> Option<Result<Event, ApiError>> {
        match self {
            Self::Model(stream) => stream.try_recv().ok().map(|e| e.map_err(Into::into)),
            Self::Turn { stream, .. } => stream.try_recv().ok().map(|e| e.map_err(Into::into)),
        }
    }
}

/// Starts a choice. Fails for what is known at once; later failures arrive on the stream.
pub async fn start(run: &Arc<Run>, ask: Ask) -> Result<Choice, ApiError> {
    let prompt = ask.prompt.clone();
    let model = ask.model.clone();
    let parallel_calls = ask.parallel_calls;
    let mut asked = None;
    let source = match ask.turn(run) {
        Some((target, turn)) => {
            let component = target.component.to_string();
            let stream = run.app.plugins.run_turn(run.call(&target), turn.clone());
            asked = Some(Asked { target, turn, dialect: ask.dialect });
            Source::Turn { component, stream }
        }
        None => Source::Model(run.app.inference.generate(ask.request(run))?),
    };
    let shields = OutputShields::open(run, &conversation(&prompt)).await.inspect_err(|_| {
        run.ended(Status::Failed);
    })?;
    let (tx, rx) = mpsc::channel(QUEUE);
    let pump = Pump {
        run: run.clone(),
        shields,
        calls: ToolCalls::default(),
        only_call: Only { several: parallel_calls, first: None },
        logprobs: Logprobs::default(),
        spent: Spent { model, prompt, written: String::new() },
        counted: false,
        steps: 0,
        asked,
        tx,
    };
    // The task ends with its source, with its receiver, or at the request's timeout.
    tokio::spawn(pump.drive(source));
    Ok(rx)
}

/// What a reply answers, as shields are told it.
fn conversation(prompt: &Prompt) -> Cow<'_, [Message]> {
    match prompt {
        Prompt::Chat(chat) => Cow::Borrowed(&chat.messages),
        Prompt::Text(text) => Cow::Owned(vec![as_message(text)]),
        Prompt::Tokens(_) => Cow::Borrowed(&[]),
    }
}

struct Pump {
    run: Arc<Run>,
    shields: OutputShields,
    calls: ToolCalls,
    only_call: Only,
    logprobs: Logprobs,
    spent: Spent,
    /// The source has told its tokens, or they have been estimated.
    counted: bool,
    /// Steps so far.
    steps: u32,
    /// What an orchestrator was asked, kept in case it is interrupted.
    asked: Option<Asked>,
    tx: mpsc::Sender<Result<Event, ApiError>>,
}

/// An orchestrator and what it was asked.
struct Asked {
    target: Arc<Pinned>,
    turn: Turn,
    dialect: Dialect,
}

/// Which tool calls of a reply its client takes.
struct Only {
    several: bool,
    first: Option<u32>,
}

impl Only {
    fn lets(&mut self, index: u32) -> bool {
        self.several || *self.first.get_or_insert(index) == index
    }
}

/// What a choice took of its model, kept to count tokens when its source cannot tell them any more.
#[derive(Clone)]
struct Spent {
    model: ModelId,
    prompt: Prompt,
    /// All that the source wrote, on whatever channel.
    written: String,
}

impl Pump {
    async fn drive(mut self, source: Source) {
        let run = self.run.clone();
        let _span = run.span("reply");
        let tx = self.tx.clone();
        let limit = run.time_limit();
        let stop = tokio::select! {
            () = tx.closed() => Stop::Over,
            done = timeout(limit, self.work(source)) => match done {
                Ok(Ok(())) => return,
                Ok(Err(stop)) => stop,
                Err(_) => Stop::Failed(ApiError::new(
                    Code::Overloaded,
                    format!("the request took longer than {} s", limit.as_secs()),
                )),
            },
        };
        // Whoever leaves early has still used what was written until then.
        if !self.counted && !self.spent.written.is_empty() {
            run.took(self.estimate().await);
        }
        if let Stop::Failed(error) = stop {
            run.ended(Status::Failed);
            let _ = timeout(run.app.settings.write_timeout, tx.send(Err(error))).await;
        }
    }

    async fn work(&mut self, mut source: Source) -> Result<(), Stop> {
        let mut next = None;
        loop {
            let mut event = match next.take() {
                Some(event) => event,
                None => source.next().await?,
            };
            if !self.shields.is_empty() {
                next = merge_ready(&mut event, &mut source)?;
            }
            self.spent.note(&event);
            let refusal = match event {
                Event::Text(delta) => self.text(delta).await?,
                Event::Reasoning { text } => self.reasoning(text).await?,
                Event::ToolCall(delta) => self.tool_call(delta).await?,
                Event::Step(step) => self.step(step).await?,
                Event::End(end) => {
                    self.run.took(end.usage);
                    self.counted = true;
                    if end.reason == FinishReason::Cancelled {
                        return Err(ApiError::from(stockade_core::infer::InferError::Cancelled).into());
                    }
                    let refusal = self.finish().await?;
                    let end = match refusal {
                        Some(text) => refusal_end(text, end.usage),
                        None => self.interrupted(end).await?,
                    };
                    self.end(end).await?;
                    return Ok(());
                }
            };
            if let Some(text) = refusal {
                // The model stops before anything else happens.
                drop(source);
                let usage = self.estimate().await;
                self.run.took(usage);
                self.end(refusal_end(text, usage)).await?;
                return Ok(());
            }
        }
    }

    async fn text(&mut self, delta: TextDelta) -> Result<Option<String>, Stop> {
        if self.shields.is_empty() {
            self.send(Event::Text(delta)).await?;
            return Ok(None);
        }
        self.logprobs.push(delta.logprobs);
        let judged = self.shields.feed(Channel::Text, &delta.text).await?;
        self.send_text(judged, false).await
    }

    async fn send_text(&mut self, judged: Judged, last: bool) -> Result<Option<String>, Stop> {
        let last = last && judged.refusal.is_none();
        let logprobs = self.logprobs.take(&judged.pieces, last);
        let text: String = judged.pieces.into_iter().map(|p| p.text).collect();
        if !text.is_empty() || !logprobs.is_empty() {
            self.send(Event::Text(TextDelta { text, logprobs })).await?;
        }
        Ok(judged.refusal)
    }

    async fn reasoning(&mut self, text: String) -> Result<Option<String>, Stop> {
        if self.shields.is_empty() {
            self.send(Event::Reasoning { text }).await?;
            return Ok(None);
        }
        let judged = self.shields.feed(Channel::Reasoning, &text).await?;
        self.send_reasoning(judged).await
    }

    async fn send_reasoning(&mut self, judged: Judged) -> Result<Option<String>, Stop> {
        let text: String = judged.pieces.into_iter().map(|p| p.text).collect();
        if !text.is_empty() {
            self.send(Event::Reasoning { text }).await?;
        }
        Ok(judged.refusal)
    }

    async fn tool_call(&mut self, delta: ToolCallDelta) -> Result<Option<String>, Stop> {
        if !self.only_call.lets(delta.index) {
            return Ok(None);
        }
        if self.shields.is_empty() {
            self.send(Event::ToolCall(delta)).await?;
            return Ok(None);
        }
        let text = self.calls.text(&delta);
        self.feed_tool_call(delta.index, &text).await
    }

    async fn feed_tool_call(&mut self, index: u32, text: &str) -> Result<Option<String>, Stop> {
        if text.is_empty() {
            return Ok(None);
        }
        let judged = self.shields.feed(Channel::ToolCall(index), text).await?;
        self.send_tool_call(index, judged).await
    }

    async fn send_tool_call(&mut self, index: u32, judged: Judged) -> Result<Option<String>, Stop> {
        if let Some(delta) = self.calls.delta(index, judged.pieces) {
            self.send(Event::ToolCall(delta)).await?;
        }
        Ok(judged.refusal)
    }

    async fn step(&mut self, mut step: Step) -> Result<Option<String>, Stop> {
        if let Some(refusal) = self.judge_note(&mut step.title, &mut step.detail).await? {
            return Ok(Some(refusal));
        }
        self.send(Event::Step(step)).await?;
        Ok(None)
    }

    /// A title and its detail are a channel of their own, complete at once. A detail that is no JSON any more after
    /// masking is lost.
    async fn judge_note(&mut self, title: &mut String, detail: &mut Value) -> Result<Option<String>, Stop> {
        if self.shields.is_empty() {
            return Ok(None);
        }
        let channel = Channel::Step(self.steps);
        self.steps += 1;
        let mut judged = self.shields.feed(channel, &format!("{title}\n{detail}")).await?;
        if judged.refusal.is_none() {
            let rest = self.shields.finish(channel).await?;
            judged.pieces.extend(rest.pieces);
            judged.refusal = rest.refusal;
        }
        if judged.refusal.is_none() && judged.pieces.iter().any(|p| p.edited) {
            let text: String = judged.pieces.into_iter().map(|p| p.text).collect();
            let (new_title, new_detail) = text.split_once('\n').unwrap_or((&text, ""));
            *detail = serde_json::from_str(new_detail).unwrap_or_default();
            *title = new_title.into();
        }
        Ok(judged.refusal)
    }

    /// The end of a turn; one that waits for an answer is kept before anybody is told of it.
    async fn interrupted(&mut self, mut end: End) -> Result<End, Stop> {
        let (Some(told), Some(asked)) = (&mut end.interruption, self.asked.take()) else {
            return Ok(end);
        };
        let mut told = std::mem::take(told);
        if let Some(refusal) = self.judge_note(&mut told.question, &mut told.request).await? {
            return Ok(refusal_end(refusal, end.usage));
        }
        let id = interruption::keep(&self.run, &asked.target, asked.turn, asked.dialect, &told).await?;
        end.interruption = Some(Box::new(Interruption { id: Some(id), state: Value::Null, ..*told }));
        Ok(end)
    }

    /// Every channel is complete: the shields rule on all that they have held back.
    async fn finish(&mut self) -> Result<Option<String>, Stop> {
        if self.shields.is_empty() {
            return Ok(None);
        }
        let judged = self.shields.finish(Channel::Reasoning).await?;
        if let Some(refusal) = self.send_reasoning(judged).await? {
            return Ok(Some(refusal));
        }
        let judged = self.shields.finish(Channel::Text).await?;
        if let Some(refusal) = self.send_text(judged, true).await? {
            return Ok(Some(refusal));
        }
        for index in self.calls.indices() {
            let rest = self.calls.rest(index);
            if let Some(refusal) = self.feed_tool_call(index, &rest).await? {
                return Ok(Some(refusal));
            }
            let judged = self.shields.finish(Channel::ToolCall(index)).await?;
            if let Some(refusal) = self.send_tool_call(index, judged).await? {
                return Ok(Some(refusal));
            }
        }
        Ok(None)
    }

    async fn end(&mut self, end: End) -> Result<(), Stop> {
        let status = match end.reason {
            FinishReason::ContentFilter => Status::Blocked,
            _ => Status::Ok,
        };
        self.run.ended(status);
        self.send(Event::End(end)).await
    }

    async fn send(&mut self, event: Event) -> Result<(), Stop> {
        let wait = self.run.app.settings.write_timeout;
        match timeout(wait, self.tx.send(Ok(event))).await {
            Ok(Ok(())) => Ok(()),
            // The client has left or takes nothing: everything below is cancelled by being dropped.
            Ok(Err(_)) | Err(_) => Err(Stop::Over),
        }
    }

    /// Tokens of a reply that was ended before its source told them.
    async fn estimate(&mut self) -> Usage {
        self.counted = true;
        let (spent, inference) = (self.spent.clone(), self.run.app.inference.clone());
        // Tokenizing a long prompt is work, and async code only waits.
        let count = tokio::task::spawn_blocking(move || spent.usage(&*inference));
        count.await.unwrap_or_default()
    }
}

impl Spent {
    fn note(&mut self, event: &Event) {
        match event {
            Event::Text(delta) => self.written.push_str(&delta.text),
            Event::Reasoning { text } => self.written.push_str(text),
            Event::ToolCall(delta) => {
                self.written.push_str(delta.name.as_deref().unwrap_or_default());
                self.written.push_str(&delta.arguments);
            }
            Event::Step(_) | Event::End(_) => {}
        }
    }

    fn usage(&self, inference: &dyn Inference) -> Usage {
        let options = TokenizeOptions::default();
        let count = |text: &str| inference.tokenize(&self.model, text, options).map(|t| t.len());
        let prompt = match &self.prompt {
            Prompt::Chat(chat) => inference.render(&self.model, chat).map(|r| r.tokens.len()),
            Prompt::Text(text) => count(text),
            Prompt::Tokens(tokens) => Ok(tokens.len()),
        };
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Usage {
            prompt_tokens: small(prompt.unwrap_or_default()),
            cached_tokens: 0,
            completion_tokens: small(count(&self.written).unwrap_or_default()),
        }
    }
}

/// Why a choice stops before its end.
enum Stop {
    Over,
    Failed(ApiError),
}

impl From<ApiError> for Stop {
    fn from(e: ApiError) -> Self {
        Self::Failed(e)
    }
}

/// Adds to `event` what the source has ready on the same channel; answers with the first event that does not fit.
fn merge_ready(event: &mut Event, source: &mut Source) -> Result<Option<Event>, ApiError> {
    loop {
        let room = match event {
            Event::Text(delta) => delta.text.len() < MAX_MERGED_BYTES,
            Event::Reasoning { text } => text.len() < MAX_MERGED_BYTES,
            Event::ToolCall(_) | Event::Step(_) | Event::End(_) => false,
        };
        if !room {
            return Ok(None);
        }
        let Some(more) = source.ready().transpose()? else {
            return Ok(None);
        };
        match (&mut *event, more) {
            (Event::Text(delta), Event::Text(more)) => {
                delta.text.push_str(&more.text);
                delta.logprobs.extend(more.logprobs);
            }
            (Event::Reasoning { text }, Event::Reasoning { text: more }) => text.push_str(&more),
            (_, other) => return Ok(Some(other)),
        }
    }
}

/// Log-probability entries that wait for their text.
#[derive(Debug, Default)]
struct Logprobs {
    /// Entries with the bytes of the channel that they stand for.
    waiting: VecDeque<(u64, u64, TokenLogprob)>,
    end: u64,
    /// End of the last replacement that has left: a token that began before it is not shown.
    masked: u64,
}

impl Logprobs {
    fn push(&mut self, entries: Vec<TokenLogprob>) {
        for entry in entries {
            let start = self.end;
            self.end += entry.bytes.len() as u64;
            self.waiting.push_back((start, self.end, entry));
        }
    }

    /// Entries whose token has left whole and unedited; `last`: the rest too, for bytes that never became text.
    fn take(&mut self, pieces: &[super::gate::Piece], last: bool) -> Vec<TokenLogprob> {
        let mut out = Vec::new();
        let Some(cleared) = pieces.last().map(|p| p.end) else {
            if last {
                out.extend(self.waiting.drain(..).map(|w| w.2));
            }
            return out;
        };
        while let Some((start, end, _)) = self.waiting.front() {
            if *end > cleared && !last {
                break;
            }
            let edited = *start < self.masked || pieces.iter().any(|p| p.edited && p.start < *end && *start < p.end);
            if let Some((.., entry)) = self.waiting.pop_front()
                && !edited
            {
                out.push(entry);
            }
        }
        let masked = pieces.iter().rfind(|p| p.edited);
        self.masked = masked.map_or(self.masked, |p| p.end);
        out
    }
}
