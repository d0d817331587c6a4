//! Adapters beside their base in one engine: the batch, the prefix cache, coming and going, memory.

mod tiny;

use std::path::{Path, PathBuf};
use stockade_core::event::FinishReason;
use stockade_core::id::ModelId;
use stockade_core::infer::*;
use stockade_infer::{Engine, LoadError, MatmulPrecision, ModelOptions, Settings};
use tiny::{Reply, collect, eventually, tenant};

fn fixture(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures").join(name);
    assert!(path.exists(), "fixture {} is missing", path.display());
    path
}

fn id(name: &str) -> ModelId {
    ModelId::new(name).unwrap()
}

fn load(
    engine: &Engine,
    name: &str,
    path: &Path,
    base: Option<&str>,
    kv_tokens: usize,
) -> Result<ModelInfo, LoadError> {
    let options = ModelOptions {
        kv_tokens: Some(kv_tokens),
        precision: MatmulPrecision::F32,
        base: base.map(String::from),
        ..ModelOptions::default()
    };
    engine.load_model(id(name), path, &options, &|_, _| {})
}

/// A base and its two recorded adapters.
fn engine(base: &Path, settings: Settings, kv_tokens: usize) -> Engine {
    let engine = Engine::new(settings);
    load(&engine, "base", base, None, kv_tokens).unwrap();
    for name in ["a", "b"] {
        load(&engine, name, &fixture(&format!("llama32-tiny-lora-{name}")), Some("base"), kv_tokens).unwrap();
    }
    engine
}

fn request(model: &str, tokens: Vec<u32>, max_tokens: u32) -> GenerateRequest {
    let sampling = Sampling {
        max_tokens: Some(max_tokens),
        temperature: 0.0,
        seed: Some(1),
        logprobs: Some(2),
        ignore_eos: true,
        ..Sampling::default()
    };
    GenerateRequest {
        model: id(model),
        tenant: tenant("t"),
        prompt: Prompt::Tokens(tokens),
        sampling,
        constraint: None,
    }
}

fn tokens(n: u32) -> Vec<u32> {
    (0..n).map(|i| 100 + i * 31 % 800).collect()
}

fn generate(engine: &Engine, request: GenerateRequest) -> Reply {
    collect(engine.generate(request).unwrap())
}

fn workload() -> Vec<GenerateRequest> {
    let requests = (0..12u32).map(|i| {
        let model = ["base", "a", "b"][i as usize % 3];
        let mut request = request(model, tokens(20 + (i / 3) * 30), 20 + i);
        if i % 2 == 1 {
            (request.sampling.temperature, request.sampling.seed) = (0.9, Some(u64::from(i)));
        }
        request
    });
    requests.collect()
}

#[test]
fn a_batch_of_base_and_adapters_equals_each_alone_bit_for_bit() {
    for base in ["llama32-tiny", "llama32-tiny-gguf/llama32-tiny-Q4_K_M.gguf"].map(fixture) {
        let single: Vec<_> = workload()
            .into_iter()
            .map(|request| generate(&engine(&base, Settings::default(), 1024), request).result())
            .collect();
        let small = Settings { max_step_tokens: 8, max_running: 6, watermark_permille: 0, ..Settings::default() };
        for (name, settings, kv_tokens) in
            [("batched", Settings::default(), 4096), ("chunks of 8, preempted", small, 320)]
        {
            let engine = engine(&base, settings, kv_tokens);
            for round in ["cold", "warm"] {
                let streams: Vec<_> = workload().into_iter().map(|r| engine.generate(r).unwrap()).collect();
                let readers: Vec<_> = streams.into_iter().map(|s| std::thread::spawn(move || collect(s))).collect();
                for (i, (reader, want)) in readers.into_iter().zip(&single).enumerate() {
                    assert!(reader.join().unwrap().result() == *want, "{name}, {round}, request {i}");
                }
            }
            eventually("pages free", || engine.load().kv_pages_used == 0);
        }
    }
}

#[test]
fn replies_are_the_recorded_ones_and_no_prefix_is_shared_between_base_and_adapters() {
    let engine = engine(&fixture("llama32-tiny"), Settings::default(), 2048);
    for name in ["a", "b"] {
        let file = fixture(&format!("llama32-tiny-lora-{name}")).join("expected.json");
        let case: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let ids =
            |key: &str| case[key].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect::<Vec<_>>();
        let reply = generate(&engine, request(name, ids("input_ids"), 16));
        let chosen: Vec<u32> = reply.logprobs.iter().map(|l| l.id).collect();
        assert_eq!(chosen, ids("greedy_16"), "{name}");
    }
    for round in [0, 64] {
        for model in ["base", "a", "b"] {
            assert_eq!(generate(&engine, request(model, tokens(70), 4)).usage.cached_tokens, round, "{model}");
        }
    }
}

#[test]
fn models_tell_of_their_base_and_the_first_can_be_chosen() {
    let engine = engine(&fixture("llama32-tiny"), Settings::default(), 1024);
    let models = engine.models();
    assert_eq!(models.iter().map(|m| m.id.as_str()).collect::<Vec<_>>(), ["base", "a", "b"]);
    assert_eq!(models.iter().map(|m| m.base.clone()).collect::<Vec<_>>(), [None, Some(id("base")), Some(id("base"))]);
    assert!(models[0].digest != models[1].digest && models[1].digest != models[2].digest);
    assert!(models[1].parameters > models[0].parameters);
    assert!(engine.prefer(&id("b")) && !engine.prefer(&id("c")));
    assert_eq!(engine.models().iter().map(|m| m.id.to_string()).collect::<Vec<_>>(), ["b", "base", "a"]);
    // The fixtures name their base by a path, relative to themselves.
    load(&engine, "c", &fixture("llama32-tiny-lora-a"), None, 1024).unwrap();
    let chosen = |model: &str| generate(&engine, request(model, tokens(20), 8)).result();
    assert_eq!(chosen("c"), chosen("a"));
}

#[test]
fn adapters_come_and_go_while_others_run_and_go_with_their_base() {
    let engine = engine(&fixture("llama32-tiny"), Settings { stream_events: 2000, ..Settings::default() }, 4096);
    let alone = generate(&engine, request("base", tokens(20), 300));
    let streams = ["a", "b", "base"].map(|model| engine.generate(request(model, tokens(20), 900)).unwrap());
    let [mut a, b, base] = streams;
    a.blocking_recv().unwrap().unwrap();
    assert!(engine.remove(&id("a")));
    // A new adapter of the name while the others go on.
    load(&engine, "a", &fixture("llama32-tiny-lora-b"), Some("base"), 0).unwrap();
    assert_eq!(collect(a).reason, Some(FinishReason::Cancelled));
    let chosen = |model: &str| generate(&engine, request(model, tokens(20), 8)).result();
    assert_eq!(chosen("a"), chosen("b"));
    // A replaced one ends like a removed one.
    let mut replaced = engine.generate(request("b", tokens(30), 900)).unwrap();
    replaced.blocking_recv().unwrap().unwrap();
    load(&engine, "b", &fixture("llama32-tiny-lora-a"), Some("base"), 0).unwrap();
    assert_eq!(collect(replaced).reason, Some(FinishReason::Cancelled));
    assert_eq!(collect(b).reason, Some(FinishReason::Cancelled));
    let base = collect(base);
    assert_eq!(base.reason, Some(FinishReason::Length));
    assert_eq!(base.logprobs[..300], alone.logprobs[..]);
    eventually("pages free", || engine.load().kv_pages_used == 0);
    assert!(engine.remove(&id("base")));
    assert!(engine.models().is_empty());
    assert!(matches!(engine.generate(request("a", tokens(4), 4)), Err(InferError::UnknownModel(_))));
}

#[test]
fn an_adapter_without_its_base_or_without_room_is_refused() {
    let lora = fixture("llama32-tiny-lora-a");
    let (base, other) = (fixture("llama32-tiny"), fixture("llama-micro"));
    let empty = Engine::new(Settings::default());
    let refused = |engine: &Engine, name: &str, base: Option<&str>| {
        let error = load(engine, name, &lora, base, 1024).unwrap_err();
        assert_eq!(error.fault(), stockade_core::Fault::Caller);
        error.to_string()
    };
    assert!(refused(&empty, "x", None).contains("`../llama32-tiny` is not"));
    let engine = Engine::new(Settings::default());
    load(&engine, "micro", &other, None, 1024).unwrap();
    load(&engine, "base", &base, None, 1024).unwrap();
    load(&engine, "a", &lora, Some("base"), 1024).unwrap();
    assert!(refused(&engine, "x", Some("a")).contains("`a` is not"), "an adapter of an adapter");
    assert!(refused(&engine, "base", None).contains("is not"), "an adapter in its base's place");
    assert!(
        refused(&engine, "x", Some("micro")).contains("adapter_model.safetensors: tensor"),
        "shapes of another base"
    );
    assert_eq!(engine.models().len(), 3);

    // Room for the base and one adapter.
    let room = |bytes: u64| Settings { memory_bytes: Some(bytes), max_step_tokens: 64, ..Settings::default() };
    let fits = |bytes: u64| {
        let engine = Engine::new(room(bytes));
        load(&engine, "base", &base, None, 1024).ok().map(|_| engine)
    };
    let (mut low, mut high) = (0, 1 << 30);
    while high - low > 1 {
        let middle = (low + high) / 2;
        *(if fits(middle).is_some() { &mut high } else { &mut low }) = middle;
    }
    let engine = fits(high + (3 << 19)).unwrap();
    load(&engine, "a", &lora, Some("base"), 1024).unwrap();
    assert!(refused(&engine, "x", Some("base")).contains("bytes of memory"));
    assert!(engine.remove(&id("a")));
    load(&engine, "x", &lora, Some("base"), 1024).unwrap();
    assert!(engine.remove(&id("base")));
    load(&engine, "base", &base, None, 1024).unwrap();
    load(&engine, "x", &lora, None, 1024).unwrap();
}
