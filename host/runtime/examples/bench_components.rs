//! The shipped components beside the same logic native, in turn: what the sandbox costs each of them.
//!
//! ```text
//! cargo run --release -p stockade-runtime --example bench_components [-- NAME..]
//! ```
//!
//! Native: the crates' own tests named `latency`, which call the same code over the guest SDK's in-memory host. Sandboxed: a
//! fresh instance a call through the seam, with limits, trace and the way to the guest threads. Models answer at once on both
//! sides and state is in memory, so that logic alone is compared. Microseconds; processor time is the component's own. Both
//! sides are built for size, as components are; the native one without link-time optimisation, which would take minutes.

use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Instant;
use stockade_core::chat::{Message, Role as Speaker, ToolChoice};
use stockade_core::event::{End, Event, FinishReason, TextDelta, TokenLogprob, Usage};
use stockade_core::id::{ComponentName, Digest, ModelId, RequestId, Version};
use stockade_core::infer::*;
use stockade_core::plugin::*;
use stockade_core::registry::{MemoryStore, Registry};
use stockade_core::{BoxFuture, ComponentRef, TenantId};
use stockade_runtime::{CompilerCommand, Runtime, Seams, Settings};

const ROUNDS: usize = 5;
const CALLS: usize = 400;
const TEXT: &str =
    "Please send the report of March to the team in Berlin, and tell Ann that the meeting on Friday is moved to ten.";
const CODE: &str = "Here it is:\n\n```python\nfor n in range(10):\n    print(n * n)\n```\n";

/// One call of a component, as its crate's test makes it.
enum Case {
    Check(&'static str),
    Turn,
    Tool(Value),
    /// Functions that are called once before, and the one that is timed.
    Invoke(Vec<(&'static str, Vec<Value>)>, &'static str, Vec<Value>),
}

/// What the crate's test is called, the component, its configuration, the call.
fn cases() -> Vec<(&'static str, &'static str, Value, Case)> {
    let check = |name, config| (name, name, config, Case::Check(TEXT));
    let turn = |name, config| (name, name, config, Case::Turn);
    let firewall = json!({"use_case": "none", "policy": {"user": ["hidden-ascii"]}});
    let route = json!({"default": "all", "by": ["rules"],
        "routes": [{"name": "all", "keywords": ["hi"], "tools": []}]});
    let sum = json!({"expression": "sqrt(2) * (3 + 4)^2 / 7 - sin(0.5)"});
    let prompt = json!({"format": "dotprompt", "template": {"text":
        "You help {{who}}.{{#each topics}} You know {{this}}.{{/each}}"}, "variables": [], "partials": [],
        "strict": false, "model-config": "{}", "description": "", "tags": [], "metadata": "{}"});
    let put = vec![json!("help"), prompt, json!({"author": "ann", "message": "why"})];
    let render = vec![json!("help"), json!("latest"), json!(r#"{"who": "Ann", "topics": ["tea", "trains", "Rust"]}"#)];
    let note = |n: usize| {
        let text = format!("Note {n} about tea of kind {}.", n % 7);
        json!({"id": n.to_string(), "text": text, "metadata": "{}"})
    };
    let notes = vec![json!("notes"), (0..200).map(note).collect()];
    let bank = vec![json!("notes"), json!("keyword"), json!("{}")];
    let query = vec![json!("notes"), json!({"text": "tea of kind 3", "limit": 10})];
    vec![
        check("regex-shield", json!({})),
        check("pii", json!({})),
        ("code-shield", "code-shield", json!({}), Case::Check(CODE)),
        check("firewall", firewall),
        check("injection-guard", json!({})),
        check("moderation", json!({})),
        check("prompt-guard", json!({})),
        check("llama-guard", json!({})),
        turn("chat", json!({})),
        turn("tool-loop", json!({})),
        turn("react", json!({})),
        turn("router", route),
        ("calculator", "calculator", json!({}), Case::Tool(sum)),
        ("prompt-store render", "prompt-store", json!({}), Case::Invoke(vec![("put", put)], "render", render)),
        (
            "memory keyword search",
            "memory",
            json!({}),
            Case::Invoke(vec![("create", bank), ("insert", notes)], "search", query),
        ),
    ]
}

/// Microseconds.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    p50: f64,
    p99: f64,
    processor: f64,
}

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|a| a == "compile") {
        return stockade_runtime::compile::child_main(args.drain(1..));
    }
    let tokio = tokio::runtime::Runtime::new().expect("a runtime for the caller's side");
    let folder = tempfile::tempdir().expect("a folder for artifacts");
    let (runtime, registry) = tokio.block_on(start(folder.path()));
    let mut cases = cases();
    cases.retain(|(_, component, ..)| args.is_empty() || args.iter().any(|a| a == component));
    let programs = native_programs(cases.iter().map(|c| c.1));
    let mut pinned = Vec::new();
    for (_, component, config, case) in &cases {
        pinned.push(tokio.block_on(prepare(&runtime, &registry, component, config.clone(), case)));
    }
    let mut native: HashMap<String, Vec<Cost>> = HashMap::new();
    let mut boxed: HashMap<String, Vec<Cost>> = HashMap::new();
    for _ in 0..ROUNDS {
        for ((name, component, _, case), target) in cases.iter().zip(&pinned) {
            for (named, cost) in natively(&programs[*component]) {
                native.entry(named).or_default().push(cost);
            }
            let cost = tokio.block_on(sandboxed(&runtime, target, case));
            boxed.entry((*name).into()).or_default().push(cost);
        }
    }
    println!("{CALLS} calls a side in each of {ROUNDS} rounds; medians of the rounds, us");
    println!("| component | native p50 / p99 | processor | sandboxed p50 / p99 | processor | the sandbox adds |");
    println!("|---|---|---|---|---|---|");
    for (name, ..) in &cases {
        let (n, s) = (middle(native.get(*name)), middle(boxed.get(*name)));
        let adds = s.processor - n.processor;
        println!(
            "| `{name}` | {:.1} / {:.1} | {:.1} | {:.0} / {:.0} | {:.0} | {adds:.0} |",
            n.p50, n.p99, n.processor, s.p50, s.p99, s.processor
        );
    }
    ExitCode::SUCCESS
}

fn middle(costs: Option<&Vec<Cost>>) -> Cost {
    let of = |field: fn(&Cost) -> f64| {
        let mut values: Vec<f64> = costs.into_iter().flatten().map(field).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    Cost { p50: of(|c| c.p50), p99: of(|c| c.p99), processor: of(|c| c.processor) }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The test programs of the components' crates, built.
fn native_programs<'a>(components: impl Iterator<Item = &'a str>) -> HashMap<&'a str, PathBuf> {
    let components: Vec<&str> = components.collect();
    let packages = components.iter().flat_map(|name| ["-p", name]);
    let built = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .current_dir(root())
        .args(["test", "--release", "--no-run", "--message-format", "json", "--lib"])
        .args(["--manifest-path", "components/Cargo.toml", "--target-dir", "target/guests"])
        .args(packages)
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .stderr(std::process::Stdio::inherit())
        .output()
        .expect("cargo runs");
    assert!(built.status.success(), "the components' tests do not build");
    let mut programs = HashMap::new();
    for line in String::from_utf8_lossy(&built.stdout).lines() {
        let told: Value = serde_json::from_str(line).unwrap_or_default();
        let name = told["target"]["name"].as_str().unwrap_or_default().replace('_', "-");
        if let (Some(name), Some(path)) = (components.iter().find(|c| **c == name), told["executable"].as_str()) {
            programs.insert(*name, PathBuf::from(path));
        }
    }
    programs
}

/// Runs a crate's `latency` tests; what each has printed.
fn natively(program: &Path) -> Vec<(String, Cost)> {
    let ran = Command::new(program)
        .args(["latency", "--nocapture", "--test-threads", "1"])
        .env("STOCKADE_LATENCY_CALLS", CALLS.to_string())
        .output()
        .expect("the test program runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
    let told = String::from_utf8_lossy(&ran.stdout).into_owned();
    let lines = told.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(&line[line.find("{\"latency\"")?..]).ok()?;
        let number = |field: &str| line[field].as_f64();
        let cost = Cost { p50: number("p50_us")?, p99: number("p99_us")?, processor: number("cpu_us")? };
        Some((line["latency"].as_str()?.to_string(), cost))
    });
    lines.collect()
}

async fn start(folder: &Path) -> (Runtime, Registry) {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let store = MemoryStore::new();
    let registry = Registry::new(Arc::new(store.clone()), Arc::new(store));
    registry.ensure_default_tenant().await.expect("a tenant");
    let vectors = Arc::new(stockade_vectors::Indexes::new(registry.store().clone(), Default::default()));
    let http = Arc::new(stockade_core::http::NoNetwork);
    let seams = Seams { inference: Arc::new(AtOnce), registry: registry.clone(), vectors, http, jobs: None };
    let program = std::env::current_exe().expect("this program's path");
    let compiler = CompilerCommand { program, args: vec!["compile".into()] };
    let runtime = Runtime::new(Settings::new(folder.join("artifacts"), cores), seams, compiler);
    (runtime.expect("the runtime starts"), registry)
}

/// Uploads a component, grants it all, and makes the calls that come before.
async fn prepare(runtime: &Runtime, registry: &Registry, component: &str, config: Value, case: &Case) -> Pinned {
    let path = root().join(format!("target/components/{component}.wasm"));
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let tenant = TenantId::default_tenant();
    let admitted = runtime.admit(&tenant, bytes.clone().into()).await;
    let admitted = admitted.unwrap_or_else(|e| panic!("{component}: {e:?}"));
    registry.blobs().put(bytes.into()).await.expect("a blob");
    let role = match case {
        Case::Check(_) => "shield.input",
        Case::Turn => "orchestrator",
        Case::Tool(_) => "tool/bench",
        Case::Invoke(..) if component == "memory" => "memory",
        Case::Invoke(..) => "prompt-store",
    };
    let all = || vec!["*".to_string()];
    let grants = Grants { models: all(), buckets: all(), components: all(), ..Grants::default() };
    let (name, version) = (ComponentName::new(component).expect("a name"), Version::new("1").expect("a version"));
    let uploaded = ComponentRef { name, version, digest: admitted.digest };
    let target = Pinned::new(role.parse().expect("a role"), uploaded, config, grants);
    if let Case::Invoke(before, ..) = case {
        for (function, args) in before {
            let done = runtime.invoke(call(&target), (*function).into(), args.clone()).await;
            let done = done.unwrap_or_else(|e| panic!("{component} {function}: {e:?}"));
            assert!(done.result["err"].is_null(), "{component} {function}: {}", done.result);
        }
    }
    target
}

fn call(target: &Pinned) -> Call {
    Call {
        tenant: TenantId::default_tenant(),
        request: RequestId("bench".into()),
        target: Arc::new(target.clone()),
        pins: Arc::default(),
        trace: Arc::default(),
        depth: 0,
    }
}

async fn sandboxed(runtime: &Runtime, target: &Pinned, case: &Case) -> Cost {
    let (mut wall, mut processor) = (Vec::new(), 0.0);
    for _ in 0..CALLS {
        let call = call(target);
        let began = Instant::now();
        once(runtime, call.clone(), case).await;
        wall.push(began.elapsed().as_secs_f64() * 1e6);
        // The trace's line is written when the instance is dropped, just after the answer.
        processor += loop {
            match call.trace.snapshot().pop() {
                Some(line) => break line.usage.cpu_us as f64,
                None => tokio::task::yield_now().await,
            }
        };
    }
    wall.sort_by(f64::total_cmp);
    let at = |share: f64| wall[((CALLS - 1) as f64 * share) as usize];
    Cost { p50: at(0.5), p99: at(0.99), processor: processor / CALLS as f64 }
}

async fn once(runtime: &Runtime, call: Call, case: &Case) {
    match case {
        Case::Check(text) => {
            let messages = vec![Message::text(Speaker::User, *text)];
            let verdict = runtime.check(call, Direction::Input, messages).await;
            assert_eq!(verdict.expect("a verdict"), Verdict::Pass);
        }
        Case::Turn => {
            let mut events = runtime.run_turn(call, turn());
            let mut last = None;
            while let Some(event) = events.recv().await {
                last = Some(event.expect("an event"));
            }
            assert!(matches!(last, Some(Event::End(_))), "{last:?}");
        }
        Case::Tool(arguments) => {
            let output = runtime.call_tool(call, None, arguments.clone()).await.expect("an output");
            assert!(!output.is_error, "{output:?}");
        }
        Case::Invoke(_, function, args) => {
            let done = runtime.invoke(call, (*function).into(), args.clone()).await.expect("an answer");
            assert!(done.result["err"].is_null(), "{function}: {}", done.result);
        }
    }
}

fn turn() -> Turn {
    Turn {
        model: "m".into(),
        messages: vec![Message::text(Speaker::User, "Hi")],
        tools: Vec::new(),
        tool_choice: ToolChoice::Auto,
        sampling: Sampling::default(),
        constraint: None,
        metadata: Default::default(),
        template_args: Default::default(),
        resume: None,
    }
}

/// Models that answer at once, whatever they are asked.
struct AtOnce;

impl Inference for AtOnce {
    fn models(&self) -> Vec<ModelInfo> {
        let model = |id: &str, kind, dimensions| ModelInfo {
            id: ModelId::new(id).expect("a name"),
            kind,
            digest: Digest([0; 32]),
            base: None,
            context_tokens: 8192,
            parameters: 1,
            embedding_dimensions: dimensions,
            architecture: "none".into(),
            quantization: "F32".into(),
            created: 1,
        };
        vec![
            model("m", ModelKind::Generator, None),
            model("minilm", ModelKind::Embedder, Some(384)),
            model("prompt-guard", ModelKind::Classifier, None),
            model("llama-guard", ModelKind::Generator, None),
        ]
    }
    fn generate(&self, _: GenerateRequest) -> Result<EventStream, InferError> {
        let (tx, rx) = tokio::sync::mpsc::channel(4);
        let usage = Usage { prompt_tokens: 1, cached_tokens: 0, completion_tokens: 1 };
        let end = End { reason: FinishReason::Stop, usage, refusal: None, interruption: None };
        let text = TextDelta { text: "Hello.".into(), logprobs: Vec::new() };
        // The channel has room for both.
        let _ = tx.try_send(Ok(Event::Text(text)));
        let _ = tx.try_send(Ok(Event::End(end)));
        Ok(rx)
    }
    fn embed(&self, r: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, InferError>> {
        let vectors = r.inputs.iter().map(|_| vec![0.05; 384]).collect();
        Box::pin(async move { Ok(Embeddings { vectors, prompt_tokens: 1 }) })
    }
    fn classify(&self, r: ClassifyRequest) -> BoxFuture<'_, Result<Vec<Vec<(String, f32)>>, InferError>> {
        let scores = || vec![("BENIGN".to_string(), 0.98), ("MALICIOUS".to_string(), 0.02)];
        let all = r.inputs.iter().map(|_| scores()).collect();
        Box::pin(async move { Ok(all) })
    }
    fn log_likelihood(&self, r: ScoreRequest) -> BoxFuture<'_, Result<Vec<TokenLogprob>, InferError>> {
        let is_safe = matches!(&r.continuation, EmbedInput::Text(text) if text == "safe");
        let logprob = if is_safe { 0.9f32.ln() } else { 0.1f32.ln() };
        Box::pin(async move { Ok(vec![TokenLogprob { id: 0, bytes: Vec::new(), logprob, top: Vec::new() }]) })
    }
    fn tokenize(&self, _: &ModelId, text: &str, _: TokenizeOptions) -> Result<Vec<u32>, InferError> {
        Ok(text.bytes().map(u32::from).collect())
    }
    fn detokenize(&self, _: &ModelId, tokens: &[u32]) -> Result<String, InferError> {
        Ok(tokens.iter().filter_map(|&t| char::from_u32(t)).collect())
    }
    fn render(&self, m: &ModelId, _: &ChatPrompt) -> Result<Rendered, InferError> {
        Err(InferError::UnknownModel(m.to_string()))
    }
    fn load(&self) -> Load {
        Load::default()
    }
}
