//! What a component call costs, and what spinning neighbours cost their victim.
//!
//! ```text
//! cargo run --release -p stockade-runtime --example bench_runtime [-- SHIELD.wasm...] [--code FILE.jsonl...]
//! ```
//!
//! Every shield that is given, built from any language, is called; without arguments `noop_shield` is. With `--code`,
//! the messages are the `code` fields of the files' lines, each in a fence, one after the other. The figures:
//!
//! - `call`: the seam's `check`: a fresh instance with limits, the way to the guest threads and back, the trace
//! - `raw`: the same component instantiated and dropped by wasmtime alone: no WASI context, no limits, no threads
//! - `victim`: a check every 4 ms, alone and beside guests that spin

use futures::future::join_all;
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stockade_core::chat::{Message, Role as Speaker};
use stockade_core::id::{ComponentName, ModelId, RequestId, Version};
use stockade_core::infer::*;
use stockade_core::limits::Limits;
use stockade_core::plugin::*;
use stockade_core::registry::{MemoryStore, Registry};
use stockade_core::{BoxFuture, ComponentRef, TenantId};
use stockade_runtime::{CompilerCommand, Runtime, Seams, Settings};
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store};

const ROUNDS: usize = 2_000;

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|a| a == "compile") {
        return stockade_runtime::compile::child_main(args.drain(1..));
    }
    let files = args.iter().position(|a| a == "--code").map_or(Vec::new(), |at| args.split_off(at));
    let texts = if files.is_empty() { vec!["hello".into()] } else { files[1..].iter().flat_map(blocks).collect() };
    let built = |name: &str| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/components");
        root.join(format!("{name}.wasm")).display().to_string()
    };
    if args.is_empty() {
        args.push(built("noop_shield"));
    }
    let tokio = tokio::runtime::Runtime::new().expect("a runtime for the caller's side");
    let folder = tempfile::tempdir().expect("a folder for artifacts");
    let runtime = start(folder.path());
    for path in &args {
        tokio.block_on(calls(&runtime, path, &texts));
    }
    if !files.is_empty() {
        return ExitCode::SUCCESS;
    }
    let victim = tokio.block_on(admit(&runtime, &args[0]));
    let spins = tokio.block_on(admit(&runtime, &built("spins")));
    for neighbours in [0, 1, 2, 8] {
        tokio.block_on(beside(&runtime, &victim, &spins, neighbours));
    }
    ExitCode::SUCCESS
}

/// The code of a file's lines, each as a reply would have it.
fn blocks(file: &String) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{file}: {e}"));
    let rows = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a JSON object"));
    let block = |row: serde_json::Value| {
        let field = |name: &str| row[name].as_str().unwrap_or_default().to_string();
        format!("Here it is:\n\n```{}\n{}\n```\n", field("language"), field("code"))
    };
    rows.map(block).collect()
}

fn start(folder: &Path) -> Runtime {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let store = MemoryStore::new();
    let registry = Registry::new(Arc::new(store.clone()), Arc::new(store));
    let vectors = Arc::new(stockade_vectors::Indexes::new(registry.store().clone(), Default::default()));
    let seams = Seams {
        inference: Arc::new(NoModels),
        registry,
        vectors,
        http: Arc::new(stockade_core::http::NoNetwork),
        jobs: None,
    };
    let compiler = CompilerCommand {
        program: std::env::current_exe().expect("this program's path"),
        args: vec!["compile".into()],
    };
    let settings = Settings::new(folder.join("artifacts"), cores);
    Runtime::new(settings, seams, compiler).expect("the runtime starts")
}

async fn admit(runtime: &Runtime, path: &str) -> Call {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let tenant = TenantId::default_tenant();
    let admitted = runtime.admit(&tenant, bytes.into()).await;
    let admitted = admitted.unwrap_or_else(|e| panic!("{path}: {e:?}"));
    let (name, version) = (ComponentName::new("bench").expect("a name"), Version::new("1").expect("a version"));
    let component = ComponentRef { name, version, digest: admitted.digest };
    let target = Pinned::new(Role::ShieldInput, component, json!({}), Grants::default());
    Call {
        tenant,
        request: RequestId("bench".into()),
        target: Arc::new(target),
        pins: Arc::default(),
        trace: Arc::default(),
        depth: 0,
    }
}

/// A call with a trace of its own, as each request has.
fn fresh(call: &Call) -> Call {
    Call { trace: Arc::default(), ..call.clone() }
}

async fn check(runtime: &Runtime, call: &Call, text: &str) -> (Duration, ComponentCall) {
    let call = fresh(call);
    let messages = vec![Message::text(Speaker::User, text)];
    let began = Instant::now();
    let verdict = runtime.check(call.clone(), Direction::Input, messages).await;
    let took = began.elapsed();
    verdict.expect("a verdict");
    // The trace's line is written when the instance is dropped, just after the answer.
    loop {
        if let Some(line) = call.trace.snapshot().pop() {
            return (took, line);
        }
        tokio::task::yield_now().await;
    }
}

async fn calls(runtime: &Runtime, path: &str, texts: &[String]) {
    let call = admit(runtime, path).await;
    let (mut wall, mut cpu) = (Vec::new(), Vec::new());
    for text in texts.iter().cycle().take(ROUNDS) {
        let (took, line) = check(runtime, &call, text).await;
        wall.push(took);
        cpu.push(Duration::from_micros(line.usage.cpu_us));
    }
    let name = Path::new(path).file_stem().unwrap_or_default().to_string_lossy();
    println!("{name:16} call    {}", spread(&mut wall));
    println!("{name:16}   cpu   {}", spread(&mut cpu));
    println!("{name:16} raw     {}", spread(&mut raw(path).await));
}

/// Instantiate and drop, by wasmtime alone with the same pool.
async fn raw(path: &str) -> Vec<Duration> {
    let mut config = Config::new();
    let mut pool = PoolingAllocationConfig::default();
    pool.max_memory_size(512 << 20)
        .table_elements(60_000)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .max_tables_per_module(16);
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(wasmtime::Enabled::Yes).linear_memory_keep_resident(1 << 20);
    }
    config
        .epoch_interruption(true)
        .concurrency_support(true)
        .wasm_component_model_async(true)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    let engine = Engine::new(&config).expect("an engine");
    let component = Component::from_file(&engine, path).expect("a component");
    let mut linker = Linker::new(&engine);
    linker.define_unknown_imports_as_traps(&component).expect("imports that trap");
    let pre = linker.instantiate_pre(&component).expect("it links");
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let mut store = Store::new(&engine, ());
        store.set_epoch_deadline(1_000_000);
        pre.instantiate_async(&mut store).await.expect("it starts");
        drop(store);
        times.push(began.elapsed());
    }
    times
}

async fn beside(runtime: &Runtime, victim: &Call, spins: &Call, neighbours: usize) {
    let mut target = (*spins.target).clone();
    let limits = Limits { cpu_ms: 60_000, deadline_ms: 6_000, ..Limits::default() };
    target.grants = Arc::new(Grants { limits: Some(limits), ..Grants::default() });
    let target = Arc::new(target);
    let hostile = (0..neighbours).map(|_| {
        let (runtime, call) = (runtime.clone(), fresh(spins).target(&target));
        let messages = vec![Message::text(Speaker::User, "hello")];
        tokio::spawn(async move {
            let ended = runtime.check(call, Direction::Input, messages).await;
            ended.expect_err("a spinning guest never answers");
        })
    });
    let hostile: Vec<_> = hostile.collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut times = Vec::new();
    let mut tick = tokio::time::interval(Duration::from_millis(4));
    for _ in 0..1_000 {
        tick.tick().await;
        times.push(check(runtime, victim, "hello").await.0);
    }
    println!("victim beside {neighbours}: {}", spread(&mut times));
    for joined in join_all(hostile).await {
        joined.expect("a hostile guest's task");
    }
}

fn spread(times: &mut [Duration]) -> String {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    format!("min {:7.1}  p50 {:7.1}  p95 {:7.1}  p99 {:7.1} us", at(0.0), at(0.5), at(0.95), at(0.99))
}

/// No shield of the bench asks a model.
struct NoModels;

impl Inference for NoModels {
    fn models(&self) -> Vec<ModelInfo> {
        Vec::new()
    }
    fn generate(&self, r: GenerateRequest) -> Result<EventStream, InferError> {
        Err(InferError::UnknownModel(r.model.to_string()))
    }
    fn embed(&self, r: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, InferError>> {
        Box::pin(async move { Err(InferError::UnknownModel(r.model.to_string())) })
    }
    fn classify(&self, r: ClassifyRequest) -> BoxFuture<'_, Result<Vec<Vec<(String, f32)>>, InferError>> {
        Box::pin(async move { Err(InferError::UnknownModel(r.model.to_string())) })
    }
    fn log_likelihood(
        &self,
        r: ScoreRequest,
    ) -> BoxFuture<'_, Result<Vec<stockade_core::event::TokenLogprob>, InferError>> {
        Box::pin(async move { Err(InferError::UnknownModel(r.model.to_string())) })
    }
    fn tokenize(&self, m: &ModelId, _: &str, _: TokenizeOptions) -> Result<Vec<u32>, InferError> {
        Err(InferError::UnknownModel(m.to_string()))
    }
    fn detokenize(&self, m: &ModelId, _: &[u32]) -> Result<String, InferError> {
        Err(InferError::UnknownModel(m.to_string()))
    }
    fn render(&self, m: &ModelId, _: &ChatPrompt) -> Result<Rendered, InferError> {
        Err(InferError::UnknownModel(m.to_string()))
    }
    fn load(&self) -> Load {
        Load::default()
    }
}
