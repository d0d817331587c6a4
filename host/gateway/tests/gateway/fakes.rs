//! Scripted models and components, and a client that calls the router in process.

#![allow(dead_code, reason = "the example server uses the fakes without the client")]

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use stockade_core::chat::{Message, Role as Speaker, ToolOutput, ToolSpec};
use stockade_core::event::{
    End, Event, FinishReason, Interruption, Step, StepKind, StepStatus, TextDelta, TokenLogprob, Usage,
};
use stockade_core::infer::*;
use stockade_core::jobs::Jobs;
use stockade_core::limits::{CallUsage, LimitKind};
use stockade_core::plugin::*;
use stockade_core::registry::{MemoryStore, Registry, TrainedModel};
use stockade_core::train::{Ending, Outline, Publication, Publisher, Task, TrainError, Trainer};
use stockade_core::{BoxFuture, ComponentRef, Digest, ModelId, TenantId};
use stockade_gateway::{Gateway, GatewayParts, Readiness, Settings};
use tokio::sync::mpsc;
use tower::ServiceExt;

pub const ADMIN: &str = "sk-admin-admin-admin";

/// What a model does is written in the last message: a JSON list of events, or one of the words `hang`, `fail`,
/// `flood`, `cut`; anything else is said back word by word. Tokens are bytes.
#[derive(Default)]
pub struct FakeInference {
    pub requests: Mutex<Vec<GenerateRequest>>,
    pub embeds: Mutex<Vec<EmbedRequest>>,
    /// Generations whose receiver was dropped before their end.
    pub cancelled: Arc<AtomicUsize>,
    /// What every generation and every orchestrator says, whatever it is asked.
    pub scripted: Arc<Mutex<Option<Vec<Event>>>>,
}

pub fn script(events: &[Event]) -> String {
    serde_json::to_string(events).unwrap()
}

pub fn text(text: &str) -> Event {
    Event::Text(TextDelta { text: text.into(), logprobs: vec![] })
}

/// Text whose every character is a token.
pub fn text_with_logprobs(text: &str) -> Event {
    let mut buffer = [0; 4];
    let entry = |c: char| {
        let bytes = c.encode_utf8(&mut buffer).as_bytes().to_vec();
        TokenLogprob {
            id: c as u32,
            top: vec![(c as u32, bytes.clone(), -0.5), (7, b"?".to_vec(), -1.5)],
            bytes,
            logprob: -0.5,
        }
    };
    Event::Text(TextDelta { text: text.into(), logprobs: text.chars().map(entry).collect() })
}

pub fn end(reason: FinishReason) -> Event {
    let usage = Usage { prompt_tokens: 7, cached_tokens: 2, completion_tokens: 3 };
    Event::End(End { reason, usage, refusal: None, interruption: None })
}

/// The end of a turn that asks for leave.
pub fn asks() -> Event {
    let Event::End(end) = end(FinishReason::Interrupted) else { unreachable!() };
    let interruption = Interruption {
        id: None,
        question: "May I pay?".into(),
        request: json!({"tool": "pay", "arguments": {"amount": 3}}),
        state: json!({"secret": 7}),
    };
    Event::End(End { interruption: Some(Box::new(interruption)), ..end })
}

pub fn step(id: &str, kind: StepKind, status: StepStatus, title: &str, detail: Value) -> Event {
    Event::Step(Step { id: id.into(), kind, status, title: title.into(), detail })
}

fn spoken(prompt: &Prompt) -> String {
    match prompt {
        Prompt::Chat(chat) => {
            chat.messages.iter().rfind(|m| m.role == Speaker::User).map(|m| m.joined_text()).unwrap_or_default()
        }
        Prompt::Text(text) => text.clone(),
        Prompt::Tokens(ids) => ids.iter().map(|b| *b as u8 as char).collect(),
    }
}

impl Inference for FakeInference {
    fn models(&self) -> Vec<ModelInfo> {
        let model = |id: &str, kind, dimensions| ModelInfo {
            id: ModelId::new(id).unwrap(),
            kind,
            digest: Digest([7; 32]),
            base: None,
            context_tokens: 1000,
            parameters: 1,
            embedding_dimensions: dimensions,
            architecture: "llama".into(),
            quantization: "F32".into(),
            created: 1,
        };
        vec![
            model("m", ModelKind::Generator, None),
            model("org/big", ModelKind::Generator, None),
            model("e", ModelKind::Embedder, Some(4)),
            model("alice/mine", ModelKind::Generator, None),
        ]
    }

    fn generate(&self, request: GenerateRequest) -> Result<EventStream, InferError> {
        let said = spoken(&request.prompt);
        let n = self.requests.lock().unwrap().len();
        self.requests.lock().unwrap().push(request.clone());
        if said == "full" {
            return Err(InferError::Overloaded { waiting: 9 });
        }
        let (tx, rx) = mpsc::channel(8);
        let cancelled = self.cancelled.clone();
        let scripted = self.scripted.lock().unwrap().clone();
        tokio::spawn(async move {
            let events = match scripted.map_or_else(|| serde_json::from_str::<Vec<Event>>(&said), Ok) {
                Ok(events) => events,
                Err(_) => said.split_inclusive(' ').map(text).collect(),
            };
            match said.as_str() {
                "hang" => {
                    let _ = tx.send(Ok(text("so "))).await;
                    tx.closed().await;
                    cancelled.fetch_add(1, Ordering::SeqCst);
                }
                "flood" => {
                    let piece = "x".repeat(4096);
                    while tx.send(Ok(text(&piece))).await.is_ok() {}
                    cancelled.fetch_add(1, Ordering::SeqCst);
                }
                "fail" => {
                    let failure = InferError::Backend { stage: "decode", source: "secret cause".into() };
                    let _ = tx.send(Err(failure)).await;
                }
                "fail late" => {
                    let _ = tx.send(Ok(text("some"))).await;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    let _ = tx.send(Err(InferError::Cancelled)).await;
                }
                "cut" => {
                    let _ = tx.send(Ok(text("some"))).await;
                }
                "which" => {
                    let _ = tx.send(Ok(text(&format!("choice {n}")))).await;
                    let _ = tx.send(Ok(end(FinishReason::Stop))).await;
                }
                _ => {
                    let ended = events.iter().any(|e| matches!(e, Event::End(_)));
                    for event in events {
                        if tx.send(Ok(event)).await.is_err() {
                            cancelled.fetch_add(1, Ordering::SeqCst);
                            return;
                        }
                    }
                    if !ended {
                        let _ = tx.send(Ok(end(FinishReason::Stop))).await;
                    }
                }
            }
        });
        Ok(rx)
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, InferError>> {
        self.embeds.lock().unwrap().push(request.clone());
        let vectors = request.inputs.iter().map(|_| vec![1.0, 0.0, 0.0, 0.0]);
        let done = Embeddings { vectors: vectors.collect(), prompt_tokens: 5 };
        Box::pin(async { Ok(done) })
    }

    fn classify(&self, request: ClassifyRequest) -> BoxFuture<'_, Result<Vec<Vec<(String, f32)>>, InferError>> {
        Box::pin(async move { Err(InferError::UnknownModel(request.model.to_string())) })
    }

    fn log_likelihood(&self, request: ScoreRequest) -> BoxFuture<'_, Result<Vec<TokenLogprob>, InferError>> {
        let EmbedInput::Tokens(ids) = request.continuation else {
            panic!("the gateway scores token ids");
        };
        let one = |id: u32| TokenLogprob {
            id,
            bytes: vec![id as u8],
            logprob: -0.25,
            top: vec![(id, vec![id as u8], -0.25)],
        };
        Box::pin(async move { Ok(ids.into_iter().map(one).collect()) })
    }

    fn tokenizer_info(&self, model: &ModelId) -> Result<serde_json::Map<String, serde_json::Value>, InferError> {
        let info = serde_json::json!({"bos_token": "^", "model_max_length": 1e30, "chat_template": model.as_str()});
        Ok(info.as_object().unwrap().clone())
    }

    fn tokenize(&self, _: &ModelId, text: &str, options: TokenizeOptions) -> Result<Vec<u32>, InferError> {
        let begin = options.add_special.then_some(u32::from(b'^'));
        Ok(begin.into_iter().chain(text.bytes().map(u32::from)).collect())
    }
    fn detokenize(&self, _: &ModelId, tokens: &[u32]) -> Result<String, InferError> {
        let bytes: Vec<u8> = tokens.iter().map(|t| *t as u8).collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
    fn render(&self, _: &ModelId, prompt: &ChatPrompt) -> Result<Rendered, InferError> {
        let text: String = prompt.messages.iter().map(|m| m.joined_text()).collect();
        Ok(Rendered { tokens: text.bytes().map(u32::from).collect(), text })
    }
    fn load(&self) -> Load {
        Load { sequences_running: 3, ..Load::default() }
    }
}

/// Components by name: `word` (a shield over `config.word`, `config.action` block or mask), `broken` (fails with
/// `config.limit`), `liar` (clears what it was not fed), `meets-a` and `meets-b` (each judges once the other is there to judge),
/// `refused` (a tool that a shield stands against), `says` (an orchestrator of `config.events`, or one that hands
/// the turn's last text to nobody and says it), `hangs`, `asks` (an orchestrator that asks for leave to pay, and says state and
/// answer when it goes on).
#[derive(Default)]
pub struct FakePlugins {
    pub admitted: AtomicUsize,
    /// What orchestrators were asked, with the call.
    pub turns: Mutex<Vec<(Call, Turn)>>,
    /// What streaming shields were told, a conversation a reply.
    pub conversations: Mutex<Vec<Vec<Message>>>,
    meeting: Arc<Meeting>,
    /// As the models'.
    pub scripted: Arc<Mutex<Option<Vec<Event>>>>,
}

/// Where two shields wait for each other.
struct Meeting(tokio::sync::Barrier);

impl Default for Meeting {
    fn default() -> Self {
        Self(tokio::sync::Barrier::new(2))
    }
}

fn record(call: &Call, function: &str, decision: &str) {
    call.trace.record(ComponentCall {
        role: call.target.role.clone(),
        component: call.target.component.name.clone(),
        version: call.target.component.version.clone(),
        digest: call.target.component.digest,
        function: function.into(),
        decision: decision.into(),
        scanned_bytes: None,
        start_us: call.trace.elapsed_us(),
        usage: CallUsage::default(),
        logs: vec![],
    });
}

fn failed(call: &Call, limit: LimitKind) -> CallError {
    record(call, "check", limit.as_str());
    CallError::Failed { component: call.target.component.to_string(), limit, detail: "as scripted".into() }
}

fn violation() -> Violation {
    Violation { category: "word".into(), message: "the shield's own words".into(), score: None, metadata: Value::Null }
}

fn setting(call: &Call, name: &str) -> String {
    let value = call.target.config.get(name);
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

impl Plugins for FakePlugins {
    /// Accepts `ok KIND ...`, with a manifest as JSON at the end.
    fn admit(&self, _: &TenantId, bytes: Bytes) -> BoxFuture<'_, Result<Admitted, AdmitError>> {
        self.admitted.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            let text = String::from_utf8_lossy(&bytes);
            let mut words = text.split(' ');
            let kind = match (words.next(), words.next()) {
                (Some("ok"), Some(kind)) => serde_json::from_value(json!(kind)).ok(),
                (Some("panic"), _) => panic!("as scripted"),
                _ => None,
            };
            let Some(kind) = kind else {
                let reasons =
                    vec![Reason { at: "byte 0".into(), found: "noise".into(), expected: "a component".into() }];
                return Err(AdmitError::Invalid { reasons });
            };
            Ok(Admitted {
                digest: Digest(Sha256::digest(&bytes).into()),
                size_bytes: bytes.len() as u64,
                roles: vec![kind],
                imports: vec![],
                exports: vec![],
                grants_wanted: Grants::default(),
                compile_ms: 1,
                warnings: vec![],
                manifest: text.find('{').and_then(|at| serde_json::from_str(&text[at..]).ok()).unwrap_or_default(),
            })
        })
    }

    fn warm(&self, _: &ComponentRef) -> BoxFuture<'_, Result<(), CallError>> {
        Box::pin(async { Ok(()) })
    }

    fn check(
        &self,
        call: Call,
        direction: Direction,
        mut messages: Vec<Message>,
    ) -> BoxFuture<'_, Result<Verdict, CallError>> {
        assert_eq!(direction, Direction::Input);
        Box::pin(async move {
            if call.target.component.name.as_str() == "broken" {
                return Err(failed(&call, LimitKind::Cpu));
            }
            let word = setting(&call, "word");
            let mut found = false;
            for message in &mut messages {
                for part in &mut message.parts {
                    if let stockade_core::chat::Part::Text { text } = part
                        && text.contains(&word)
                    {
                        found = true;
                        *text = text.replace(&word, "#");
                    }
                }
            }
            let verdict = match (found, setting(&call, "action").as_str()) {
                (false, _) => Verdict::Pass,
                (true, "mask") => Verdict::Edit(messages),
                (true, _) => Verdict::Block(violation()),
            };
            let decision = match verdict {
                Verdict::Pass => "pass",
                Verdict::Edit(_) => "edit",
                Verdict::Block(_) => "block",
            };
            record(&call, "check", decision);
            Ok(verdict)
        })
    }

    fn open_stream(
        &self,
        call: Call,
        conversation: &[Message],
    ) -> BoxFuture<'_, Result<Box<dyn ShieldStream>, CallError>> {
        self.conversations.lock().unwrap().push(conversation.to_vec());
        Box::pin(async move {
            let name = call.target.component.name.as_str().to_owned();
            let shield: Box<dyn ShieldStream> = match name.as_str() {
                "broken" => Box::new(Broken(call)),
                "liar" => Box::new(Liar),
                "meets-a" | "meets-b" => {
                    self.meeting.0.wait().await;
                    Box::new(Meets(self.meeting.clone(), 0))
                }
                _ => Box::new(Word {
                    word: setting(&call, "word"),
                    mask: setting(&call, "action") == "mask",
                    channels: Default::default(),
                }),
            };
            Ok(shield)
        })
    }

    fn run_turn(&self, call: Call, turn: Turn) -> TurnStream {
        let (tx, rx) = mpsc::channel(8);
        record(&call, "run", "ok");
        self.turns.lock().unwrap().push((call.clone(), turn.clone()));
        let scripted = self.scripted.lock().unwrap().as_ref().map(|events| json!(events));
        tokio::spawn(async move {
            let mut events = scripted.or_else(|| call.target.config.get("events").cloned());
            if call.target.component.name.as_str() == "hangs" {
                return tx.closed().await;
            }
            if call.target.component.name.as_str() == "asks" {
                let said = match &turn.resume {
                    None => vec![text("one moment"), asks()],
                    Some(r) => vec![text(&format!("state {} answer {}", r.state, r.answer)), end(FinishReason::Stop)],
                };
                events = Some(json!(said));
            }
            let events: Vec<Event> = match events {
                Some(events) => serde_json::from_value(events).unwrap(),
                None => vec![text(&format!("turn of {}", turn.messages.len())), end(FinishReason::Stop)],
            };
            for event in events {
                let _ = tx.send(Ok(event)).await;
            }
        });
        rx
    }

    /// One tool, named after its binding; a set's names are in its configuration.
    fn tools(&self, call: Call) -> BoxFuture<'_, Result<Vec<ToolSpec>, CallError>> {
        Box::pin(async move {
            if call.target.component.name.as_str() == "broken" {
                return Err(failed(&call, LimitKind::Deadline));
            }
            let Role::Tool(bound) = &call.target.role else { panic!("tools of {}", call.target.role) };
            let parameters = json!({"type": "object", "required": ["a"], "properties": {
                "a": {"type": "integer", "description": "A"}, "b": {"default": 1}}});
            let spec = |name: String| ToolSpec { name, description: "Does".into(), parameters: parameters.clone() };
            Ok(match call.target.config["names"].as_array() {
                None => vec![spec(bound.to_string())],
                Some(names) => {
                    let names = names.iter().filter_map(Value::as_str);
                    names.map(|name| spec(format!("{bound}__{name}"))).collect()
                }
            })
        })
    }

    /// Says what it was called with; a call with `fail` fails in words.
    fn call_tool(
        &self,
        call: Call,
        tool: Option<String>,
        arguments: Value,
    ) -> BoxFuture<'_, Result<ToolOutput, CallError>> {
        Box::pin(async move {
            if call.target.component.name.as_str() == "broken" {
                return Err(failed(&call, LimitKind::Deadline));
            }
            if call.target.component.name.as_str() == "refused" {
                let component = call.target.component.to_string();
                return Err(CallError::Component { component, code: "blocked", message: "No.".into() });
            }
            let is_error = arguments.get("fail").is_some();
            let said = json!({"role": call.target.role, "tool": tool, "arguments": arguments,
                "headers": call.target.config["headers"]});
            Ok(ToolOutput { content: said.to_string(), is_error })
        })
    }

    fn invoke(&self, call: Call, function: String, args: Vec<Value>) -> BoxFuture<'_, Result<Invocation, CallError>> {
        Box::pin(async move {
            let component = call.target.component.to_string();
            match function.as_str() {
                "echo" => Ok(Invocation {
                    result: json!({"args": args, "config": call.target.config}),
                    usage: CallUsage::default(),
                }),
                "render" => Ok(Invocation {
                    result: json!({"version": 2, "content": {"text": args[0]}}),
                    usage: CallUsage::default(),
                }),
                "create" => Ok(Invocation { result: Value::Null, usage: CallUsage::default() }),
                "err" => Err(CallError::Component { component, code: "invalid", message: "no".into() }),
                "trap" => Err(failed(&call, LimitKind::Trap)),
                "denied" => Err(CallError::Denied { component, what: "bucket `x`".into() }),
                _ => Err(CallError::NoFunction { component, function }),
            }
        })
    }
}

struct Broken(Call);
impl ShieldStream for Broken {
    fn feed<'a>(&'a mut self, _: Channel, _: &'a str) -> BoxFuture<'a, Result<Ruling, CallError>> {
        Box::pin(async { Err(failed(&self.0, LimitKind::Memory)) })
    }
    fn finish(&mut self, _: Channel) -> BoxFuture<'_, Result<Ruling, CallError>> {
        Box::pin(async { Err(failed(&self.0, LimitKind::Memory)) })
    }
    fn hold_back(&self) -> u32 {
        0
    }
}

struct Liar;
impl ShieldStream for Liar {
    fn feed<'a>(&'a mut self, _: Channel, _: &'a str) -> BoxFuture<'a, Result<Ruling, CallError>> {
        Box::pin(async { Ok(Ruling { cleared: 1_000_000, ..Ruling::default() }) })
    }
    fn finish(&mut self, _: Channel) -> BoxFuture<'_, Result<Ruling, CallError>> {
        Box::pin(async { Ok(Ruling::default()) })
    }
    fn hold_back(&self) -> u32 {
        0
    }
}

/// Passes all text, once a second one like it has come to the same piece. Counts bytes of the text channel.
struct Meets(Arc<Meeting>, u64);
impl ShieldStream for Meets {
    fn feed<'a>(&'a mut self, _: Channel, text: &'a str) -> BoxFuture<'a, Result<Ruling, CallError>> {
        self.1 += text.len() as u64;
        self.finish(Channel::Text)
    }
    fn finish(&mut self, _: Channel) -> BoxFuture<'_, Result<Ruling, CallError>> {
        Box::pin(async {
            self.0.0.wait().await;
            Ok(Ruling { cleared: self.1, ..Ruling::default() })
        })
    }
    fn hold_back(&self) -> u32 {
        0
    }
}

/// Blocks or masks a word on every channel.
struct Word {
    word: String,
    mask: bool,
    channels: std::collections::BTreeMap<Channel, (String, usize)>,
}

impl Word {
    fn rule(&mut self, channel: Channel, text: &str, end: bool) -> Ruling {
        let (seen, cleared) = self.channels.entry(channel).or_default();
        seen.push_str(text);
        let mut ruling = Ruling::default();
        while let Some(at) = seen[*cleared..].find(&self.word) {
            let at = *cleared + at;
            if !self.mask {
                *cleared = at;
                ruling.cleared = at as u64;
                ruling.violation = Some(violation());
                return ruling;
            }
            *cleared = at + self.word.len();
            ruling.edits.push(Edit { start: at as u64, end: *cleared as u64, replacement: "#".into() });
        }
        let begins = |n: &usize| self.word.get(..*n).is_some_and(|w| seen.ends_with(w));
        let tail = (1..self.word.len()).rev().find(begins).unwrap_or(0);
        *cleared = (*cleared).max(seen.len() - if end { 0 } else { tail });
        ruling.cleared = *cleared as u64;
        ruling
    }
}

impl ShieldStream for Word {
    fn feed<'a>(&'a mut self, channel: Channel, text: &'a str) -> BoxFuture<'a, Result<Ruling, CallError>> {
        let ruling = self.rule(channel, text, false);
        Box::pin(async { Ok(ruling) })
    }
    fn finish(&mut self, channel: Channel) -> BoxFuture<'_, Result<Ruling, CallError>> {
        let ruling = self.rule(channel, "", true);
        Box::pin(async { Ok(ruling) })
    }
    fn hold_back(&self) -> u32 {
        self.word.len() as u32
    }
}

/// Takes any specification with a `method`; trains nothing.
pub struct FakeTrainer;

impl Trainer for FakeTrainer {
    fn check(&self, spec: &Value) -> Result<Outline, TrainError> {
        let text = |value: &Value| value.as_str().map(String::from);
        let method = text(&spec["method"]).ok_or_else(|| TrainError::spec("method", "is missing"))?;
        let data = [&spec["data"]["train"], &spec["data"]["eval"]].into_iter().filter_map(text).collect();
        let texts = |value: &Value| value.as_array().into_iter().flatten().filter_map(text).collect();
        Ok(Outline {
            method,
            base: text(&spec["model"]["base"]),
            data,
            steps: spec["optim"]["steps"].as_u64(),
            output: text(&spec["output"]["name"]),
            rewards: texts(&spec["grpo"]["rewards"]),
            evaluators: texts(&spec["eval"]["evaluators"]),
            effective: spec.clone(),
        })
    }
    fn run(&self, _: Task<'_>) -> Result<Ending, TrainError> {
        Err(TrainError::spec("method", "nothing is trained here"))
    }
}

/// Writes down what it is told to serve.
pub struct FakePublisher {
    pub registry: Registry,
    pub published: Mutex<Vec<Publication>>,
}

impl Publisher for FakePublisher {
    fn publish(&self, p: Publication) -> BoxFuture<'_, Result<ModelId, TrainError>> {
        self.published.lock().unwrap().push(p.clone());
        let model = TrainedModel {
            tenant: p.tenant,
            name: p.name,
            folder: "f".into(),
            base: None,
            job: p.job,
            step: p.step,
            created_at: 0,
        };
        Box::pin(async move { Ok(self.registry.put_trained_model(model).await.unwrap()) })
    }
    fn withdraw<'a>(&'a self, tenant: &'a TenantId, id: &'a ModelId) -> BoxFuture<'a, Result<bool, TrainError>> {
        Box::pin(async move { Ok(self.registry.delete_trained_model(tenant, id).await.unwrap().is_some()) })
    }
}

/// A gateway over fakes, called in process.
pub struct Host {
    pub router: Router,
    pub registry: Registry,
    pub inference: Arc<FakeInference>,
    pub plugins: Arc<FakePlugins>,
    pub publisher: Arc<FakePublisher>,
    pub readiness: Readiness,
}

pub struct Parts {
    pub gateway: Gateway,
    pub registry: Registry,
    pub inference: Arc<FakeInference>,
    pub plugins: Arc<FakePlugins>,
    pub publisher: Arc<FakePublisher>,
    pub readiness: Readiness,
}

pub async fn parts(settings: Settings) -> Parts {
    let store = Arc::new(MemoryStore::new());
    let registry = Registry::new(store.clone(), store);
    registry.ensure_default_tenant().await.unwrap();
    registry.set_operator_key(ADMIN).await.unwrap();
    parts_over(settings, registry)
}

fn parts_over(settings: Settings, registry: Registry) -> Parts {
    let inference = Arc::new(FakeInference::default());
    let plugins = Arc::new(FakePlugins { scripted: inference.scripted.clone(), ..FakePlugins::default() });
    let publisher = Arc::new(FakePublisher { registry: registry.clone(), published: Mutex::default() });
    let readiness = Readiness::starting();
    readiness.set_ready();
    Parts {
        gateway: Gateway::new(GatewayParts {
            registry: registry.clone(),
            inference: inference.clone(),
            plugins: plugins.clone(),
            jobs: Jobs::new(registry.clone(), inference.clone(), Arc::new(FakeTrainer), 16),
            publisher: publisher.clone(),
            settings,
            shipped: Vec::new(),
            readiness: readiness.clone(),
        }),
        registry,
        inference,
        plugins,
        publisher,
        readiness,
    }
}

pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.bytes)))
    }
    pub fn header(&self, name: &str) -> String {
        self.headers.get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default()
    }
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.bytes));
        if self.bytes.is_empty() {
            return Value::Null;
        }
        self.json()
    }
    /// The named events of an event stream, in order, each checked to carry its own name.
    pub fn named_events(&self) -> Vec<(String, Value)> {
        let text = String::from_utf8(self.bytes.to_vec()).unwrap();
        assert!(self.header("content-type").starts_with("text/event-stream"));
        let events = text.split("\n\n").filter(|e| e.starts_with("event: "));
        let one = |event: &str| {
            let (name, data) = event.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
            let data: Value = serde_json::from_str(data).unwrap();
            assert_eq!(data["type"], name);
            (name.to_owned(), data)
        };
        events.map(one).collect()
    }
    /// The `data:` lines of an event stream.
    pub fn events(&self) -> Vec<String> {
        let text = String::from_utf8(self.bytes.to_vec()).unwrap();
        assert!(self.header("content-type").starts_with("text/event-stream"));
        text.split("\n\n").filter_map(|e| e.strip_prefix("data: ")).map(String::from).collect()
    }
}

impl Host {
    pub async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    pub async fn with(settings: Settings) -> Self {
        Self::of(parts(settings).await)
    }

    /// What a restart of the host would be: the same state, nothing under way.
    pub fn restarted(&self) -> Self {
        Self::of(parts_over(Settings::default(), self.registry.clone()))
    }

    fn of(parts: Parts) -> Self {
        let (router, recorder) = parts.gateway.into_router();
        tokio::spawn(recorder);
        Self {
            router,
            registry: parts.registry,
            inference: parts.inference,
            plugins: parts.plugins,
            publisher: parts.publisher,
            readiness: parts.readiness,
        }
    }

    pub async fn send(&self, request: Request<Body>) -> Reply {
        let reply = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = reply.into_parts();
        Reply { status: parts.status.as_u16(), headers: parts.headers, bytes: body.collect().await.unwrap().to_bytes() }
    }

    pub async fn call(&self, key: &str, method: &str, path: &str, body: &Value) -> Reply {
        let body = match body {
            Value::Null => Body::empty(),
            body => Body::from(body.to_string()),
        };
        self.send(request(key, method, path, &[], body)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.call(ADMIN, "POST", path, &body).await
    }
    pub async fn put(&self, path: &str, body: Value) -> Reply {
        self.call(ADMIN, "PUT", path, &body).await
    }
    pub async fn get(&self, path: &str) -> Reply {
        self.call(ADMIN, "GET", path, &Value::Null).await
    }
    pub async fn delete(&self, path: &str) -> Reply {
        self.call(ADMIN, "DELETE", path, &Value::Null).await
    }

    /// Uploads component `name` of `kind` as version 1 and binds `role` to it.
    pub async fn bind(&self, role: &str, name: &str, kind: &str, more: Value) {
        self.upload(ADMIN, name, kind).await;
        let mut entry = json!({"component": name, "version": "1"});
        for (k, v) in more.as_object().into_iter().flatten() {
            entry[k] = v.clone();
        }
        let path = format!("/stockade/v1/bindings/{role}");
        let before = self.get(&path).await;
        let mut entries = match before.status {
            200 => before.json()["entries"].as_array().unwrap().clone(),
            _ => vec![],
        };
        entries.push(entry);
        self.put(&path, json!({"entries": entries})).await.expect(200);
    }

    pub async fn upload(&self, key: &str, name: &str, kind: &str) {
        let path = format!("/stockade/v1/components/{name}/versions/1");
        let body = Body::from(format!("ok {kind} {name}"));
        let reply = self.send(request(key, "PUT", &path, &[], body)).await;
        assert!([200, 201].contains(&reply.status), "{}", reply.status);
    }

    /// A chat whose one message is `said`.
    pub async fn chat(&self, said: &str, more: Value) -> Reply {
        self.post("/v1/chat/completions", chat_body(said, more)).await
    }

    /// A new tenant and a key of it.
    pub async fn tenant(&self, name: &str, scopes: &[&str]) -> String {
        let made = self.post("/stockade/v1/tenants", json!({"name": name})).await;
        assert!([201, 409].contains(&made.status));
        let key = json!({"tenant": name, "name": "test", "scopes": scopes});
        let key = self.post("/stockade/v1/keys", key).await.expect(201);
        key["key"].as_str().unwrap().to_owned()
    }

    /// The trace with this id, once it is written.
    pub async fn trace(&self, id: &str) -> Value {
        for _ in 0..60 {
            let reply = self.get(&format!("/stockade/v1/traces/{id}")).await;
            if reply.status == 200 {
                return reply.json();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no trace {id} within 3 s");
    }
}

pub fn chat_body(said: &str, more: Value) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": said}]});
    for (k, v) in more.as_object().into_iter().flatten() {
        body[k] = v.clone();
    }
    body
}

pub fn request(key: &str, method: &str, path: &str, headers: &[(&str, &str)], body: Body) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {key}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body).unwrap()
}
