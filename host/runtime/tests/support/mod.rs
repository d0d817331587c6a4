//! A runtime over an in-memory store and scripted models, and the test guests to run in it.
#![allow(dead_code, reason = "each test program uses its own part of this")]

use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use stockade_core::chat::{Message, Role as Speaker, ToolChoice};
use stockade_core::event::{End, Event, FinishReason, TextDelta, TokenLogprob, Usage};
use stockade_core::http::{Http, HttpError, HttpRequest, HttpResponse};
use stockade_core::id::{ComponentName, ModelId, RequestId, Version};
use stockade_core::infer::*;
use stockade_core::limits::{LimitKind, Limits};
use stockade_core::plugin::*;
use stockade_core::registry::{MemoryStore, Registry};
use stockade_core::{BoxFuture, ComponentRef, Digest, TenantId};
use stockade_runtime::{CompilerCommand, Runtime, Seams, Settings};
use stockade_vectors::Indexes;

/// A runtime and what stands around it.
pub struct Bench {
    pub runtime: Runtime,
    pub registry: Registry,
    pub models: Arc<Scripted>,
    pub network: Arc<Network>,
    /// Kept while artifacts of this bench alone live in it.
    folder: Option<tempfile::TempDir>,
}

/// Answers every request that comes as far as the network, and keeps it.
#[derive(Default)]
pub struct Network(pub Mutex<Vec<HttpRequest>>);

impl Http for Network {
    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        self.0.lock().unwrap().push(request);
        Box::pin(async { Ok(HttpResponse { status: 200, headers: Vec::new(), body: Bytes::from_static(b"hi") }) })
    }
}

pub fn settings() -> Settings {
    // One folder for all tests: each guest compiles once.
    let artifacts = Path::new(env!("CARGO_TARGET_TMPDIR")).join("artifacts");
    Settings { instances: 40, ..Settings::new(artifacts, 2) }
}

/// A bench whose artifacts nobody shares.
pub fn alone(change: impl FnOnce(&mut Settings)) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings();
    settings.artifacts = folder.path().join("artifacts");
    change(&mut settings);
    let mut bench = bench_with(settings);
    bench.folder = Some(folder);
    bench
}

pub fn bench() -> Bench {
    bench_with(settings())
}

pub fn bench_with(settings: Settings) -> Bench {
    let store = MemoryStore::new();
    let registry = Registry::new(Arc::new(store.clone()), Arc::new(store));
    let models = Arc::new(Scripted::default());
    bench_over(settings, registry, models)
}

pub fn bench_over(settings: Settings, registry: Registry, models: Arc<Scripted>) -> Bench {
    let vectors = Arc::new(Indexes::new(registry.store().clone(), stockade_vectors::Settings::default()));
    let network = Arc::new(Network::default());
    let seams =
        Seams { inference: models.clone(), registry: registry.clone(), vectors, http: network.clone(), jobs: None };
    let compiler = CompilerCommand { program: env!("CARGO_BIN_EXE_stockade-compile").into(), args: Vec::new() };
    Bench { runtime: Runtime::new(settings, seams, compiler).unwrap(), registry, models, network, folder: None }
}

impl Bench {
    /// The folder of a bench that is alone.
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().unwrap().path()
    }

    /// Uploads `bytes` as the host would.
    pub async fn upload(&self, bytes: impl Into<Bytes>) -> Result<Admitted, AdmitError> {
        let bytes = bytes.into();
        let admitted = self.runtime.admit(&tenant(), bytes.clone()).await?;
        self.registry.blobs().put(bytes).await.unwrap();
        Ok(admitted)
    }

    /// Uploads a built test guest and pins it without any grant.
    pub async fn pin(&self, role: &str, guest: &str) -> Pinned {
        let admitted = self.upload(guest_bytes(guest)).await.unwrap();
        pinned(role, guest, admitted.digest)
    }

    /// Uploads a component in text form and pins it as a tool.
    pub async fn pin_text(&self, text: &str) -> Pinned {
        let bytes = wat::parse_str(text).unwrap();
        let admitted = self.upload(bytes).await.unwrap();
        pinned("tool/hostile", "hostile", admitted.digest)
    }
}

pub fn tenant() -> TenantId {
    TenantId::default_tenant()
}

pub fn pinned(role: &str, name: &str, digest: Digest) -> Pinned {
    let (name, version) = (ComponentName::new(name).unwrap(), Version::new("1").unwrap());
    let component = ComponentRef { name, version, digest };
    Pinned::new(role.parse().unwrap(), component, json!({}), Grants::default())
}

pub fn with_limits(mut pinned: Pinned, limits: Limits) -> Pinned {
    let mut grants = (*pinned.grants).clone();
    grants.limits = Some(limits);
    pinned.grants = Arc::new(grants);
    pinned
}

pub fn granted(mut pinned: Pinned, grants: Grants) -> Pinned {
    pinned.grants = Arc::new(grants);
    pinned
}

pub fn configured(mut pinned: Pinned, config: Value) -> Pinned {
    pinned.config = config;
    pinned
}

pub fn call(target: &Pinned) -> Call {
    call_among(target, &[])
}

/// A call with `others` bound as well.
pub fn call_among(target: &Pinned, others: &[Pinned]) -> Call {
    let mut entries: BTreeMap<Role, Vec<Arc<Pinned>>> = BTreeMap::new();
    for pinned in others.iter().chain([target]) {
        let list = entries.entry(pinned.role.clone()).or_default();
        list.push(Arc::new(pinned.clone()));
    }
    Call {
        tenant: tenant(),
        request: RequestId("test".into()),
        target: Arc::new(target.clone()),
        pins: Arc::new(Pins { entries, banks: None }),
        trace: Arc::default(),
        depth: 0,
    }
}

pub fn hello() -> Vec<Message> {
    vec![Message::text(Speaker::User, "hello")]
}

pub fn turn(model: &str) -> Turn {
    Turn {
        model: model.into(),
        messages: hello(),
        tools: Vec::new(),
        tool_choice: ToolChoice::Auto,
        sampling: Sampling::default(),
        constraint: None,
        metadata: BTreeMap::new(),
        template_args: serde_json::Map::new(),
        resume: None,
    }
}

/// Which limit ended a call.
pub fn limit<T: std::fmt::Debug>(ended: Result<T, CallError>) -> LimitKind {
    match ended {
        Err(CallError::Failed { limit, .. }) => limit,
        other => panic!("not ended by a limit: {other:?}"),
    }
}

/// The reasons of a refused upload.
pub fn reasons(admitted: Result<Admitted, AdmitError>) -> Vec<Reason> {
    match admitted {
        Err(AdmitError::Invalid { reasons }) => reasons,
        other => panic!("not refused as invalid: {other:?}"),
    }
}

/// A built guest of `tests/guests` or `components`; builds them all when it is missing.
pub fn guest_bytes(name: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path: PathBuf = root.join(format!("target/components/{name}.wasm"));
    if !path.exists() {
        let built = std::process::Command::new(env!("CARGO"))
            .current_dir(&root)
            .args(["run", "--release", "-p", "xtask", "--", "components"])
            .status()
            .unwrap();
        assert!(built.success(), "cargo xtask components");
    }
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Models that answer from a script.
#[derive(Default)]
pub struct Scripted {
    /// Events of the next generations, in order; without one, the words of [`WORDS`].
    pub replies: Mutex<Vec<Vec<Result<Event, InferError>>>>,
    /// Requests as they came.
    pub asked: Mutex<Vec<GenerateRequest>>,
    /// Log-likelihoods that were asked for.
    pub scored: Mutex<Vec<ScoreRequest>>,
    /// The continuation that is certain; any other is impossible.
    pub likely: Mutex<String>,
    /// Generations never send an event.
    pub hangs: std::sync::atomic::AtomicBool,
    /// Senders of hanging generations, to see when they are dropped.
    pub open: Mutex<Vec<tokio::sync::mpsc::Sender<Result<Event, InferError>>>>,
}

pub const WORDS: [&str; 3] = ["Hello", " there", "."];
pub const MODEL: &str = "scripted";
/// What [`Scripted`] adds to the tokens of a text in which control tokens are read.
pub const CONTROL: u32 = 1000;

pub fn text(text: &str) -> Event {
    Event::Text(TextDelta { text: text.into(), logprobs: Vec::new() })
}

pub fn end() -> Event {
    Event::End(End {
        reason: FinishReason::Stop,
        usage: Usage { prompt_tokens: 5, cached_tokens: 0, completion_tokens: 3 },
        refusal: None,
        interruption: None,
    })
}

impl Inference for Scripted {
    fn models(&self) -> Vec<ModelInfo> {
        vec![ModelInfo {
            id: ModelId::new(MODEL).unwrap(),
            kind: ModelKind::Generator,
            digest: Digest([7; 32]),
            base: None,
            context_tokens: 2048,
            parameters: 1,
            embedding_dimensions: None,
            architecture: "script".into(),
            quantization: "none".into(),
            created: 0,
        }]
    }

    fn generate(&self, request: GenerateRequest) -> Result<EventStream, InferError> {
        if request.model.as_str() != MODEL {
            return Err(InferError::UnknownModel(request.model.to_string()));
        }
        self.asked.lock().unwrap().push(request);
        if self.hangs.load(std::sync::atomic::Ordering::Relaxed) {
            let (sender, events) = tokio::sync::mpsc::channel(1);
            self.open.lock().unwrap().push(sender);
            return Ok(events);
        }
        let mut replies = self.replies.lock().unwrap();
        let reply = if replies.is_empty() {
            WORDS.map(text).into_iter().chain([end()]).map(Ok).collect()
        } else {
            replies.remove(0)
        };
        let (sender, events) = tokio::sync::mpsc::channel(reply.len().max(1));
        for event in reply {
            sender.try_send(event).unwrap();
        }
        Ok(events)
    }

    fn embed(&self, _: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, InferError>> {
        Box::pin(async { Ok(Embeddings { vectors: vec![vec![1.0, 0.0]], prompt_tokens: 1 }) })
    }

    fn classify(&self, _: ClassifyRequest) -> BoxFuture<'_, Result<Vec<Vec<(String, f32)>>, InferError>> {
        Box::pin(async { Ok(vec![vec![("a".into(), 0.25), ("b".into(), 0.75)]]) })
    }

    fn log_likelihood(&self, request: ScoreRequest) -> BoxFuture<'_, Result<Vec<TokenLogprob>, InferError>> {
        let certain = request.continuation == EmbedInput::Text(self.likely.lock().unwrap().clone());
        let logprob = if certain { 0.0 } else { f32::NEG_INFINITY };
        self.scored.lock().unwrap().push(request);
        Box::pin(async move { Ok(vec![TokenLogprob { id: 0, bytes: Vec::new(), logprob, top: Vec::new() }]) })
    }

    /// A token a byte, 1000 more where control tokens are read.
    fn tokenize(&self, _: &ModelId, text: &str, options: TokenizeOptions) -> Result<Vec<u32>, InferError> {
        let offset = if options.parse_special { CONTROL } else { 0 };
        Ok(text.bytes().map(|byte| u32::from(byte) + offset).collect())
    }

    fn detokenize(&self, _: &ModelId, tokens: &[u32]) -> Result<String, InferError> {
        Ok(tokens.iter().filter_map(|t| char::from_u32(*t)).collect())
    }

    fn render(&self, _: &ModelId, _: &ChatPrompt) -> Result<Rendered, InferError> {
        Err(InferError::Cancelled)
    }

    fn load(&self) -> Load {
        Load::default()
    }
}
