//! The engine under disorder: many sequences, tiny page pools, random cancellation, more threads than cores, adapters and
//! a second model that come and go. Whatever happens around a reply, it has the bits of a lone run.

mod tiny;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use stockade_core::event::{Event, TokenLogprob};
use stockade_core::id::ModelId;
use stockade_core::infer::*;
use stockade_infer::{Engine, ModelOptions, Settings};
use tiny::{Reply, collect, eventually, tenant};

/// How long each test makes disorder.
const TIME: Duration = Duration::from_secs(4);

/// A small generator, so that a seed replays the requests of a run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

type Result = (String, Vec<TokenLogprob>);

fn result(reply: Reply) -> Result {
    let (text, logprobs, _) = reply.result();
    (text, logprobs)
}

/// Asks for random ones of `requests` until the time is up, gives some up in the midst, and compares the others with
/// `want`. Returns how many were compared and given up.
fn disturb(
    engine: &Engine,
    requests: &[GenerateRequest],
    want: &[Result],
    seed: u64,
    until: Instant,
) -> (usize, usize) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (mut compared, mut dropped) = (0, 0);
    while Instant::now() < until {
        let i = random.below(requests.len() as u64) as usize;
        let mut request = requests[i].clone();
        // Few tenants: prefixes are reused, and evicted.
        request.tenant = tenant(&format!("t{}", random.below(3)));
        let mut stream = match engine.generate(request) {
            Ok(stream) => stream,
            Err(InferError::Overloaded { .. }) => continue,
            Err(error) => panic!("{error}"),
        };
        if random.below(3) == 0 {
            for _ in 0..random.below(6) {
                stream.blocking_recv();
            }
            dropped += 1;
            continue;
        }
        if random.below(8) == 0 {
            // A slow reader: its sequence is parked and may lose its pages.
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(result(collect(stream)) == want[i], "request {i} of seed {seed} is not what it is alone");
        compared += 1;
    }
    (compared, dropped)
}

/// [`disturb`] from six threads.
fn disturb_all(engine: &Engine, requests: &[GenerateRequest], want: &[Result]) {
    let until = Instant::now() + TIME;
    let counts: Vec<(usize, usize)> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (1..=6).map(|seed| scope.spawn(move || disturb(engine, requests, want, seed, until))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (compared, dropped) = counts.iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
    eprintln!("{compared} replies compared, {dropped} given up");
    assert!(compared > 30 && dropped > 10, "{compared} compared, {dropped} given up");
    eventually("pages free", || engine.load().kv_pages_used == 0);
}

#[test]
fn a_network_that_hashes_all_it_sees_replies_as_alone() {
    let shared = tiny::prompt(77, 100);
    let requests: Vec<GenerateRequest> = (0..16u64)
        .map(|i| {
            let own = tiny::prompt(i, 1 + (i as usize * 37) % 150);
            let tokens = if i % 2 == 0 { [&shared[..], &own].concat() } else { own };
            let mut request = tiny::request(tokens, 1 + (i as u32 * 23) % 70);
            request.sampling.seed = Some(i);
            request.sampling.temperature = (i % 3) as f32 / 2.0;
            request
        })
        .collect();
    let alone = |request: &GenerateRequest| {
        result(collect(tiny::engine(64, Settings::default()).0.generate(request.clone()).unwrap()))
    };
    let want: Vec<Result> = requests.iter().map(alone).collect();
    for pages in [12, 40] {
        let settings = Settings {
            max_running: 5,
            max_step_tokens: 24,
            watermark_permille: 0,
            stream_events: 3,
            ..Settings::default()
        };
        let (engine, probe) = tiny::engine(pages, settings);
        disturb_all(&engine, &requests, &want);
        probe.steps.lock().unwrap().clear();
    }
}

fn fixture(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures").join(name);
    assert!(path.exists(), "fixture {} is missing", path.display());
    path
}

fn load(engine: &Engine, name: &str, path: &Path, kv_tokens: usize) {
    let options = ModelOptions {
        kv_tokens: Some(kv_tokens),
        base: path.join("adapter_config.json").exists().then(|| "base".into()),
        ..ModelOptions::default()
    };
    engine.load_model(ModelId::new(name).unwrap(), path, &options, &|_, _| {}).unwrap();
}

fn real(settings: Settings, kv_tokens: usize) -> Engine {
    let engine = Engine::new(settings);
    load(&engine, "base", &fixture("llama32-tiny-gguf/llama32-tiny-Q4_K_M.gguf"), kv_tokens);
    load(&engine, "a", &fixture("llama32-tiny-lora-a"), 0);
    load(&engine, "b", &fixture("llama32-tiny-lora-b"), 0);
    engine
}

#[test]
fn a_base_and_its_adapters_reply_as_alone_while_other_models_come_and_go_on_the_same_threads() {
    let requests: Vec<GenerateRequest> = (0..12u32)
        .map(|i| {
            let shared = (0..if i % 4 < 2 { 40 } else { 0 }).map(|j| 100 + j * 7 % 800);
            let tokens = shared.chain((0..2 + i * 9).map(|j| 90 + (i * 31 + j * 13) % 800)).collect();
            let mut request = tiny::request(tokens, 6 + i % 20);
            request.model = ModelId::new(["base", "a", "b"][i as usize % 3]).unwrap();
            request.sampling.seed = Some(u64::from(i));
            request.sampling.temperature = if i % 2 == 0 { 0.0 } else { 0.9 };
            request
        })
        .collect();
    let single = real(Settings { threads: Some(1), ..Settings::default() }, 2048);
    let want: Vec<Result> = requests
        .iter()
        .enumerate()
        .map(|(i, request)| {
            let own = GenerateRequest { tenant: tenant(&format!("alone{i}")), ..request.clone() };
            result(collect(single.generate(own).unwrap()))
        })
        .collect();
    let settings = Settings {
        threads: Some(7),
        max_running: 6,
        max_step_tokens: 20,
        watermark_permille: 0,
        stream_events: 4,
        ..Settings::default()
    };
    let engine = real(settings, 352);
    let (until, rounds) = (Instant::now() + TIME, AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut other = tiny::request((0..30).map(|j| 50 + j * 11).collect(), 8);
            other.model = ModelId::new("other").unwrap();
            let mut first = None;
            while Instant::now() < until {
                // Packs its weights and computes on the threads that the others compute on.
                load(&engine, "other", &fixture("llama-micro/llama-micro-F16.gguf"), 256);
                load(&engine, "late", &fixture("llama32-tiny-lora-b"), 0);
                let reply = result(collect(engine.generate(other.clone()).unwrap()));
                assert!(*first.get_or_insert(reply.clone()) == reply, "the other model's reply changes");
                let mut lost = other.clone();
                lost.model = ModelId::new("late").unwrap();
                lost.sampling.max_tokens = Some(100);
                let mut lost = engine.generate(lost).unwrap();
                assert!(engine.remove(&ModelId::new("late").unwrap()));
                while let Some(event) = lost.blocking_recv() {
                    assert!(matches!(event, Ok(Event::Text(_) | Event::End(_))), "{event:?}");
                }
                assert!(engine.remove(&ModelId::new("other").unwrap()));
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        disturb_all(&engine, &requests, &want);
    });
    assert!(rounds.into_inner() > 3, "models came and went");
}
