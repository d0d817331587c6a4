//! The shipped components beside the same logic native, in turn: what the sandbox costs each of them.
//!
//! ```text
//! cargo run --release -p stockade-runtime --example bench_components [-- NAME..]
//! ```
//!
//! Native: the crates' own tests named `latency`, which call the same code over the guest SDK's in-memory host. Sandboxed: a
//! fresh instance a call through the seam, with limits, trace and the way to the guest threads. Models and the network answer
//! at once on both sides and state is in memory, so that logic alone is compared. Microseconds; processor time is the
//! component's own. Both sides are built for size, as components are; the native one without link-time optimisation, which
//! would take minutes.
//!
//! `rag` and `knowledge-search` ask a memory, which is a component in the sandbox: the tests' `knows_lines`, whose processor
//! time is not theirs while their wall time has it. The interpreters' peers are the machine's `python3`, which is forked for
//! every call once it has loaded the library, and QuickJS in the component's version, which is the same engine for all calls.

mod cases;
mod native;
mod seams;

use cases::{Case, Row};
use serde_json::json;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use stockade_core::chat::{Message, Role as Speaker, ToolChoice};
use stockade_core::event::Event;
use stockade_core::id::{ComponentName, RequestId, Version};
use stockade_core::infer::Sampling;
use stockade_core::plugin::*;
use stockade_core::registry::{MemoryStore, Registry};
use stockade_core::{ComponentRef, TenantId};
use stockade_runtime::{CompilerCommand, Runtime, Seams, Settings};

const ROUNDS: usize = 5;
const CALLS: usize = 400;
/// The memory of components that search one, and what all of its banks hold.
const MEMORY: &str = "knows_lines";
const NOTES: [&str; 5] = [
    "The kettle is in the kitchen.",
    "A kettle boils at noon.",
    "Ann has the kettle.",
    "kettle: three litres",
    "No kettle on Friday.",
];

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
    let mut rows = cases::rows();
    rows.retain(|row| args.is_empty() || args.iter().any(|a| a == row.component));
    let peers = native::peers(rows.iter().map(|row| row.component));
    let mut calls = Vec::new();
    for row in &rows {
        calls.push(tokio.block_on(prepare(&runtime, &registry, row)));
    }
    let mut native: HashMap<String, Vec<Cost>> = HashMap::new();
    let mut boxed: HashMap<String, Vec<Cost>> = HashMap::new();
    for _ in 0..ROUNDS {
        for (row, call) in rows.iter().zip(&calls) {
            for (named, cost) in native::measure(&peers[row.component]) {
                native.entry(named).or_default().push(cost);
            }
            let cost = tokio.block_on(sandboxed(&runtime, call, &row.case));
            boxed.entry(row.name.into()).or_default().push(cost);
        }
    }
    println!("{CALLS} calls a side in each of {ROUNDS} rounds; medians of the rounds, us");
    println!("| component | native p50 / p99 | processor | sandboxed p50 / p99 | processor | the sandbox adds |");
    println!("|---|---|---|---|---|---|");
    for Row { name, .. } in &rows {
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

async fn start(folder: &Path) -> (Runtime, Registry) {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let store = MemoryStore::new();
    let registry = Registry::new(Arc::new(store.clone()), Arc::new(store));
    registry.ensure_default_tenant().await.expect("a tenant");
    let vectors = Arc::new(stockade_vectors::Indexes::new(registry.store().clone(), Default::default()));
    let (inference, http) = (Arc::new(seams::AtOnce), Arc::new(seams::Network));
    let seams = Seams { inference, registry: registry.clone(), vectors, http, jobs: None };
    let program = std::env::current_exe().expect("this program's path");
    let compiler = CompilerCommand { program, args: vec!["compile".into()] };
    let runtime = Runtime::new(Settings::new(folder.join("artifacts"), cores), seams, compiler);
    (runtime.expect("the runtime starts"), registry)
}

/// Uploads a row's component, grants it all, and makes the calls that come before.
async fn prepare(runtime: &Runtime, registry: &Registry, row: &Row) -> Call {
    let role = match &row.case {
        Case::Check(_) => "shield.input",
        Case::Turn(_) => "orchestrator",
        Case::Tool(..) => "tool/bench",
        Case::Invoke(invoke) => invoke.role,
    };
    let all = || vec!["*".to_string()];
    let grants = Grants { models: all(), buckets: all(), components: all(), http: all(), ..Grants::default() };
    let uploaded = upload(runtime, registry, row.component).await;
    let target = Pinned::new(role.parse().expect("a role"), uploaded, row.config.clone(), grants);
    let lines = json!({"lines": NOTES});
    let memory = Pinned::new(Role::Memory, upload(runtime, registry, MEMORY).await, lines, Grants::default());
    let pins = Pins { entries: [(Role::Memory, vec![Arc::new(memory)])].into(), banks: None };
    let call = Call {
        tenant: TenantId::default_tenant(),
        request: RequestId("bench".into()),
        target: Arc::new(target),
        pins: Arc::new(pins),
        trace: Arc::default(),
        depth: 0,
    };
    if let Case::Invoke(invoke) = &row.case {
        for (function, args) in &invoke.before {
            let done = runtime.invoke(fresh(&call), (*function).into(), args.clone()).await;
            let done = done.unwrap_or_else(|e| panic!("{} {function}: {e:?}", row.component));
            assert!(done.result["err"].is_null(), "{} {function}: {}", row.component, done.result);
        }
    }
    call
}

async fn upload(runtime: &Runtime, registry: &Registry, component: &str) -> ComponentRef {
    let path = root().join(format!("target/components/{component}.wasm"));
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let admitted = runtime.admit(&TenantId::default_tenant(), bytes.clone().into()).await;
    let admitted = admitted.unwrap_or_else(|e| panic!("{component}: {e:?}"));
    registry.blobs().put(bytes.into()).await.expect("a blob");
    let name = ComponentName::new(&component.replace('_', "-")).expect("a name");
    ComponentRef { name, version: Version::new("1").expect("a version"), digest: admitted.digest }
}

/// The same call with a trace of its own.
fn fresh(call: &Call) -> Call {
    Call { trace: Arc::default(), ..call.clone() }
}

async fn sandboxed(runtime: &Runtime, row: &Call, case: &Case) -> Cost {
    let (mut wall, mut processor) = (Vec::new(), 0.0);
    for _ in 0..CALLS {
        let call = fresh(row);
        let began = Instant::now();
        once(runtime, call.clone(), case).await;
        wall.push(began.elapsed().as_secs_f64() * 1e6);
        // The trace's line is written when the instance is dropped, just after the answer.
        processor += loop {
            match call.trace.snapshot().iter().find(|line| line.role == call.target.role) {
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
        Case::Turn(text) => {
            let mut events = runtime.run_turn(call, turn(text));
            let mut last = None;
            while let Some(event) = events.recv().await {
                last = Some(event.expect("an event"));
            }
            assert!(matches!(last, Some(Event::End(_))), "{last:?}");
        }
        Case::Tool(name, arguments) => {
            let output = runtime.call_tool(call, name.map(String::from), arguments.clone()).await.expect("an output");
            assert!(!output.is_error, "{output:?}");
        }
        Case::Invoke(invoke) => {
            let done = runtime.invoke(call, invoke.function.into(), invoke.args.clone()).await.expect("an answer");
            assert!(done.result["err"].is_null(), "{}: {}", invoke.function, done.result);
        }
    }
}

fn turn(text: &str) -> Turn {
    Turn {
        model: "m".into(),
        messages: vec![Message::text(Speaker::User, text)],
        tools: Vec::new(),
        tool_choice: ToolChoice::Auto,
        sampling: Sampling::default(),
        constraint: None,
        metadata: Default::default(),
        template_args: Default::default(),
        resume: None,
    }
}
