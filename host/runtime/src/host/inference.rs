//! `inference`: the models that a component is granted.

use super::{Answer, Entered, denied, enter};
use crate::bindings::inference::{
    self, ChatRequest, CompleteRequest, Host, HostGeneration, HostGenerationWithStore, HostWithStore, LabelScore,
    ModelInfo, PromptPart, TokenScore,
};
use crate::bindings::types::{self, Completion, Error};
use crate::convert;
use crate::guest::Guest;
use serde_json::Value;
use std::sync::Arc;
use stockade_core::event::{End, Event, Usage};
use stockade_core::id::ModelId;
use stockade_core::infer::{
    ChatPrompt, ClassifyRequest, EmbedInput, EmbedRequest, EventStream, GenerateRequest, InferError, Prompt,
    ScoreRequest, TokenizeOptions,
};
use stockade_core::plugin::Grants;
use stockade_core::registry::TrainedModel;
use tokio::sync::Mutex;
use wasmtime::component::{Accessor, HasSelf, Resource};

/// Most texts of an embed or classify call.
const MAX_TEXTS: usize = 256;
/// Most tokens of a call that asks for each one's text.
const MAX_TOKEN_TEXTS: usize = 65_536;
/// Most events of one answer of `next`.
const MAX_BATCH: usize = 64;

/// A running generation. Only one call at a time reads it; dropping it cancels.
#[derive(Clone)]
pub struct Generation {
    stream: Arc<Mutex<Source>>,
}

/// The events of a generation, `None` once they have ended.
pub(crate) struct Source(Option<EventStream>);

impl Source {
    /// The next event; `None` after the last.
    pub async fn next(&mut self, me: &Entered) -> Result<Option<Event>, InferError> {
        let Some(stream) = &mut self.0 else {
            return Ok(None);
        };
        match stream.recv().await {
            Some(Ok(event)) => {
                self.note(&event, me);
                Ok(Some(event))
            }
            Some(Err(e)) => {
                self.0 = None;
                Err(e)
            }
            // An engine that goes away without a word has not finished the reply.
            None => {
                self.0 = None;
                Err(InferError::Cancelled)
            }
        }
    }

    /// An event that is ready; `None` when there is none or the next is an error, which waits for the next call.
    fn ready(&mut self, me: &Entered) -> Option<Result<Event, InferError>> {
        let got = self.0.as_mut()?.try_recv().ok()?;
        match &got {
            Ok(event) => self.note(event, me),
            Err(_) => self.0 = None,
        }
        Some(got)
    }

    fn note(&mut self, event: &Event, me: &Entered) {
        if let Event::End(end) = event {
            *me.context.usage.lock() += end.usage;
            self.0 = None;
        }
    }
}

/// Sums events up to a whole reply.
pub(crate) struct Reply(Completion);

impl Reply {
    pub fn new() -> Self {
        Self(Completion {
            text: String::new(),
            reasoning: String::new(),
            tool_calls: Vec::new(),
            reason: types::FinishReason::Stop,
            usage: convert::usage_out(Usage::default()),
        })
    }

    pub fn add(&mut self, event: &Event) {
        match event {
            Event::Text(t) => self.0.text.push_str(&t.text),
            Event::Reasoning { text } => self.0.reasoning.push_str(text),
            Event::ToolCall(d) => {
                let at = d.index as usize;
                // Indices count up from 0; a gap would be the engine's mistake and must not take memory here.
                if at == self.0.tool_calls.len() {
                    self.0.tool_calls.push(types::ToolCall {
                        id: String::new(),
                        name: String::new(),
                        arguments: String::new(),
                    });
                }
                if let Some(call) = self.0.tool_calls.get_mut(at) {
                    if let Some(id) = &d.id {
                        call.id.clone_from(id);
                    }
                    if let Some(name) = &d.name {
                        call.name.clone_from(name);
                    }
                    call.arguments.push_str(&d.arguments);
                }
            }
            Event::Step(_) => {}
            Event::End(End { reason, usage, .. }) => {
                self.0.reason = convert::reason_out(*reason);
                self.0.usage = convert::usage_out(*usage);
            }
        }
    }

    pub fn done(self) -> Completion {
        self.0
    }
}

impl Host for Guest {}
impl HostGeneration for Guest {
    fn drop(&mut self, this: Resource<Generation>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl<T: Send + 'static> HostWithStore<T> for HasSelf<Guest> {
    async fn chat(a: &Accessor<T, Self>, r: ChatRequest) -> Answer<Resource<Generation>> {
        let me = enter(a).await?;
        let request = match chat_request(&me, r) {
            Ok(request) => request,
            Err(e) => return Ok(Err(e)),
        };
        start(a, &me, request)
    }

    async fn complete(a: &Accessor<T, Self>, r: CompleteRequest) -> Answer<Resource<Generation>> {
        let me = enter(a).await?;
        let model = match model(&me, &r.model) {
            Ok(model) => model,
            Err(e) => return Ok(Err(e)),
        };
        let prompt = match prompt(&me, &model, r.prompt) {
            Ok(prompt) => prompt,
            Err(e) => return Ok(Err(note(a, e))),
        };
        match request(&me, model, prompt, r.sampling, r.constraint) {
            Ok(request) => start(a, &me, request),
            Err(e) => Ok(Err(e)),
        }
    }

    async fn embed(a: &Accessor<T, Self>, name: String, texts: Vec<String>) -> Answer<Vec<Vec<f32>>> {
        let me = enter(a).await?;
        let model = match few(&texts).and_then(|()| model(&me, &name)) {
            Ok(model) => model,
            Err(e) => return Ok(Err(e)),
        };
        let request = EmbedRequest {
            model,
            tenant: me.context.call.tenant.clone(),
            inputs: texts.into_iter().map(EmbedInput::Text).collect(),
            dimensions: None,
        };
        let answer = me.host.inference.embed(request).await;
        if let Ok(e) = &answer {
            me.context.usage.lock().prompt_tokens += e.prompt_tokens;
        }
        Ok(answer.map(|e| e.vectors).map_err(|e| note(a, e)))
    }

    async fn classify(a: &Accessor<T, Self>, name: String, texts: Vec<String>) -> Answer<Vec<Vec<LabelScore>>> {
        let me = enter(a).await?;
        let model = match few(&texts).and_then(|()| model(&me, &name)) {
            Ok(model) => model,
            Err(e) => return Ok(Err(e)),
        };
        let request = ClassifyRequest { model, tenant: me.context.call.tenant.clone(), inputs: texts };
        let answer = me.host.inference.classify(request).await;
        let best_first = |mut scores: Vec<(String, f32)>| {
            scores.sort_by(|x, y| y.1.total_cmp(&x.1));
            let scores = scores.into_iter();
            scores.map(|(label, score)| LabelScore { label, score }).collect()
        };
        Ok(answer.map(|rows| rows.into_iter().map(best_first).collect()).map_err(|e| note(a, e)))
    }

    async fn tokenize(a: &Accessor<T, Self>, name: String, text: String) -> Answer<Vec<u32>> {
        let me = enter(a).await?;
        let model = match model(&me, &name) {
            Ok(model) => model,
            Err(e) => return Ok(Err(e)),
        };
        let options = TokenizeOptions::default();
        let answer = me.host.inference.tokenize(&model, &text, options);
        Ok(answer.map_err(|e| note(a, e)))
    }

    async fn detokenize(a: &Accessor<T, Self>, name: String, tokens: Vec<u32>) -> Answer<String> {
        let me = enter(a).await?;
        let model = match model(&me, &name) {
            Ok(model) => model,
            Err(e) => return Ok(Err(e)),
        };
        let answer = me.host.inference.detokenize(&model, &tokens);
        Ok(answer.map_err(|e| note(a, e)))
    }

    async fn token_texts(a: &Accessor<T, Self>, name: String, tokens: Vec<u32>) -> Answer<Vec<String>> {
        let me = enter(a).await?;
        if tokens.len() > MAX_TOKEN_TEXTS {
            return Ok(Err(Error::Invalid(format!("tokens: at most {MAX_TOKEN_TEXTS}"))));
        }
        let model = match model(&me, &name) {
            Ok(model) => model,
            Err(e) => return Ok(Err(e)),
        };
        let text = |token| me.host.inference.detokenize(&model, &[token]);
        let answer: Result<Vec<String>, InferError> = tokens.into_iter().map(text).collect();
        Ok(answer.map_err(|e| note(a, e)))
    }

    async fn log_likelihood(
        a: &Accessor<T, Self>,
        name: String,
        context: inference::Prompt,
        continuation: String,
    ) -> Answer<Vec<TokenScore>> {
        let me = enter(a).await?;
        let model = match model(&me, &name) {
            Ok(model) => model,
            Err(e) => return Ok(Err(e)),
        };
        let context = match prompt(&me, &model, context) {
            Ok(context) => context,
            Err(e) => return Ok(Err(note(a, e))),
        };
        let request = ScoreRequest {
            model,
            tenant: me.context.call.tenant.clone(),
            context,
            continuation: EmbedInput::Text(continuation),
        };
        let answer = me.host.inference.log_likelihood(request).await;
        let score = |t: stockade_core::event::TokenLogprob| TokenScore {
            token: t.id,
            logprob: t.logprob,
            is_greedy: t.top.first().is_some_and(|best| best.0 == t.id),
        };
        Ok(answer.map(|tokens| tokens.into_iter().map(score).collect()).map_err(|e| note(a, e)))
    }

    async fn models(a: &Accessor<T, Self>) -> Answer<Vec<ModelInfo>> {
        let me = enter(a).await?;
        if me.grants().models.is_empty() {
            return Ok(Err(denied("models", "*")));
        }
        let models = me.host.inference.models().into_iter();
        let granted = models.filter(|m| reachable(&me, &m.id));
        Ok(Ok(granted.map(convert::model_out).collect()))
    }
}

impl<T: Send + 'static> HostGenerationWithStore<T> for HasSelf<Guest> {
    async fn next(a: &Accessor<T, Self>, this: Resource<Generation>) -> Answer<Option<Vec<types::Event>>> {
        let me = enter(a).await?;
        let generation = generation(a, &this)?;
        let mut source = generation.stream.lock().await;
        let first = match source.next(&me).await {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(Ok(None)),
            Err(e) => return Ok(Err(note(a, e))),
        };
        let mut events = vec![convert::event_out(first)];
        while events.len() < MAX_BATCH {
            match source.ready(&me) {
                Some(Ok(event)) => events.push(convert::event_out(event)),
                Some(Err(e)) => return Ok(Err(note(a, e))),
                None => break,
            }
        }
        Ok(Ok(Some(events)))
    }

    async fn collect(a: &Accessor<T, Self>, this: Resource<Generation>) -> Answer<Completion> {
        let me = enter(a).await?;
        let generation = generation(a, &this)?;
        let mut source = generation.stream.lock().await;
        let mut reply = Reply::new();
        loop {
            match source.next(&me).await {
                Ok(Some(event)) => reply.add(&event),
                Ok(None) => return Ok(Ok(reply.done())),
                Err(e) => return Ok(Err(note(a, e))),
            }
        }
    }
}

/// The generation behind a handle.
pub(crate) fn generation<T: Send>(
    a: &Accessor<T, HasSelf<Guest>>,
    this: &Resource<Generation>,
) -> wasmtime::Result<Generation> {
    a.with(|mut s| Ok(s.get().table.get(this)?.clone()))
}

impl Generation {
    pub(crate) async fn source(&self) -> tokio::sync::MutexGuard<'_, Source> {
        self.stream.lock().await
    }
}

fn start<T: Send>(
    a: &Accessor<T, HasSelf<Guest>>,
    me: &Entered,
    request: GenerateRequest,
) -> Answer<Resource<Generation>> {
    match me.host.inference.generate(request) {
        Ok(stream) => {
            let generation = Generation { stream: Arc::new(Mutex::new(Source(Some(stream)))) };
            a.with(|mut s| Ok(Ok(s.get().table.push(generation)?)))
        }
        Err(e) => Ok(Err(note(a, e))),
    }
}

/// The guest's form of a model error; the host's own is kept in case the guest passes it on.
pub(crate) fn note<T: Send>(a: &Accessor<T, HasSelf<Guest>>, e: InferError) -> Error {
    if let InferError::Backend { .. } = &e {
        tracing::error!(error = &e as &dyn std::error::Error, "a model failed under a component");
    }
    let seen = convert::infer_error_out(&e);
    a.with(|mut s| s.get().last_infer = Some((seen.clone(), e)));
    seen
}

/// Resolves a name within the grant. Without any grant the answer says so; a name outside of it looks like no model.
fn model(me: &Entered, name: &str) -> Result<ModelId, Error> {
    let granted = &me.grants().models;
    if granted.is_empty() {
        let name = if name.is_empty() { "*" } else { name };
        return Err(denied("models", name));
    }
    let not_found = || Error::NotFound(format!("model `{name}`"));
    let id = if name.is_empty() {
        let first = me.host.inference.models().into_iter().next();
        first.map(|m| m.id).ok_or_else(not_found)?
    } else {
        ModelId::new(name).map_err(|_| not_found())?
    };
    // One that the tenant has trained goes by the tenant's own name for it, too.
    let own = TrainedModel::served_as(&me.context.call.tenant, id.as_str()).ok().filter(|own| owned(me, own));
    let id = own.unwrap_or(id);
    if reachable(me, &id) { Ok(id) } else { Err(not_found()) }
}

/// Whether the component may call the model: granted, and no other tenant's.
fn reachable(me: &Entered, id: &ModelId) -> bool {
    let (granted, tenant) = (&me.grants().models, &me.context.call.tenant);
    let own = id.as_str().strip_prefix(tenant.as_str()).and_then(|rest| rest.strip_prefix('/'));
    let granted =
        Grants::allows(granted, id.as_str()) || own.is_some_and(|own| Grants::allows(granted, own) && owned(me, id));
    granted && me.host.registry.sees_model(tenant, id).unwrap_or(false)
}

fn owned(me: &Entered, id: &ModelId) -> bool {
    me.host.registry.owns_model(&me.context.call.tenant, id).unwrap_or(false)
}

fn few(texts: &[String]) -> Result<(), Error> {
    if texts.len() > MAX_TEXTS {
        return Err(Error::Invalid(format!("texts: at most {MAX_TEXTS}")));
    }
    Ok(())
}

fn chat_request(me: &Entered, r: ChatRequest) -> Result<GenerateRequest, Error> {
    let tools = r.tools.into_iter().map(convert::tool_in);
    let template_args = match r.template_args {
        None => serde_json::Map::new(),
        Some(text) => match convert::json("template-args", &text)? {
            Value::Object(map) => map,
            _ => return Err(Error::Invalid("template-args: not an object".into())),
        },
    };
    let prompt = ChatPrompt {
        messages: convert::messages_in(r.messages),
        tools: tools.collect::<Result<_, _>>()?,
        tool_choice: convert::choice_in(r.tool_choice),
        template_args,
    };
    request(me, model(me, &r.model)?, Prompt::Chat(prompt), r.sampling, r.constraint)
}

/// Parts become tokens here, where the kind of each is known; a lone text is the engine's to encode.
fn prompt(me: &Entered, model: &ModelId, prompt: inference::Prompt) -> Result<Prompt, InferError> {
    let parts = match prompt {
        inference::Prompt::Text(text) => return Ok(Prompt::Text(text)),
        inference::Prompt::Parts(parts) => parts,
    };
    let kind = |part: &PromptPart| matches!(part, PromptPart::Control(_));
    let mut tokens = Vec::new();
    for run in parts.chunk_by(|a, b| kind(a) == kind(b)) {
        let text: String =
            run.iter().map(|(PromptPart::Text(text) | PromptPart::Control(text))| text.as_str()).collect();
        let options = TokenizeOptions { add_special: false, parse_special: kind(&run[0]) };
        tokens.extend(me.host.inference.tokenize(model, &text, options)?);
    }
    Ok(Prompt::Tokens(tokens))
}

fn request(
    me: &Entered,
    model: ModelId,
    prompt: Prompt,
    sampling: types::Sampling,
    constraint: Option<types::Constraint>,
) -> Result<GenerateRequest, Error> {
    let turn = me.turn.as_ref().map(|t| &*t.sampling);
    Ok(GenerateRequest {
        model,
        tenant: me.context.call.tenant.clone(),
        prompt,
        sampling: convert::sampling_in(sampling, turn)?,
        constraint: constraint.map(convert::constraint_in).transpose()?,
    })
}
