//! What the parity tests share: where fixtures and real models are, recorded tensors, and a driver of decoders.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;
use stockade_kernels::{KvType, MatmulPrecision, Pool};
use stockade_model::adapter::AdapterPlan;
use stockade_model::llama::{self, LlamaDecoder, LoadOptions};
use stockade_model::{Adapter, Checkpoint, Decoder, LogitRows, ModelError, PAGE_TOKENS, Segment};

/// A folder of the recorded fixtures, which lie beside the workspace.
pub fn fixture(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures").join(name);
    assert!(path.exists(), "fixture {} is missing", path.display());
    path
}

pub fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub fn expected(name: &str) -> Value {
    json(&fixture(name).join("expected.json"))
}

/// The real models' folder; fetched by the fixtures' own script if something is missing.
pub fn real_models() -> PathBuf {
    let folder = std::env::var_os("STOCKADE_MODELS").map(PathBuf::from).unwrap_or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache")).join("stockade-models")
    });
    let there = ["SmolLM2-135M-Instruct.Q4_1.gguf", "all-MiniLM-L6-v2/model.safetensors"];
    if !there.iter().all(|file| folder.join(file).exists()) {
        let fetched = Command::new("bash").arg(fixture("real-models.sh")).arg(&folder).status();
        assert!(fetched.is_ok_and(|s| s.success()), "no real models in {} and no way to fetch them", folder.display());
    }
    folder
}

pub fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

pub fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

/// `expected.safetensors` of a fixture: all of it f32. A reader of its own, so that it checks the one under test.
pub fn recorded(name: &str) -> BTreeMap<String, Vec<f32>> {
    let bytes = std::fs::read(fixture(name).join("expected.safetensors")).unwrap();
    let header_end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Map<String, Value> = serde_json::from_slice(&bytes[8..header_end]).unwrap();
    let tensors = header.iter().filter(|(name, _)| *name != "__metadata__");
    let values = |entry: &Value| {
        assert_eq!(entry["dtype"], "F32");
        let [begin, end] = [0, 1].map(|i| header_end + entry["data_offsets"][i].as_u64().unwrap() as usize);
        bytes[begin..end].chunks_exact(4).map(|raw| f32::from_le_bytes(raw.try_into().unwrap())).collect()
    };
    tensors.map(|(name, entry)| (name.clone(), values(entry))).collect()
}

/// An adapter folder, loaded onto a decoder's weights.
pub fn load_adapter(folder: &Path, decoder: &LlamaDecoder) -> Result<Arc<Adapter>, ModelError> {
    Ok(Arc::new(AdapterPlan::new(folder, &decoder.base())?.load(&|_, _| ())?))
}

/// A decoder that keeps keys and values in f32, with quantized products in `precision`.
pub fn load(path: &Path, precision: MatmulPrecision, threads: usize) -> LlamaDecoder {
    let checkpoint = Checkpoint::open(path).unwrap();
    let config = checkpoint.config().unwrap();
    let options = LoadOptions { kv_type: KvType::F32, precision, budget: None };
    let mut decoder = llama::load(&checkpoint, &config, Arc::new(Pool::new(threads)), &options, &|_, _| ()).unwrap();
    decoder.allocate_pages(64).unwrap();
    decoder
}

/// One sequence on consecutive pages.
pub struct Sequence {
    pub tokens: Vec<u32>,
    pub done: usize,
    pub pages: Vec<u32>,
    pub adapter: Option<Arc<Adapter>>,
}

impl Sequence {
    /// On pages from `first_page` on, enough for 16 more tokens than given and at least 8 pages' worth.
    pub fn new(tokens: &[u32], first_page: u32) -> Self {
        let n = ((tokens.len() + 64).div_ceil(PAGE_TOKENS)) as u32;
        // Descending, so that nothing can rely on pages being neighbours.
        Self { tokens: tokens.to_vec(), done: 0, pages: (first_page..first_page + n).rev().collect(), adapter: None }
    }

    pub fn segment(&self, end: usize, logits: LogitRows) -> Segment<'_> {
        let (tokens, adapter) = (&self.tokens[self.done..end], self.adapter.as_deref());
        Segment { tokens, start: self.done, pages: &self.pages, logits, adapter }
    }

    /// Runs up to token `end`.
    pub fn run(&mut self, decoder: &mut dyn Decoder, end: usize, logits: LogitRows) -> Vec<f32> {
        let mut out = Vec::new();
        decoder.step(&[self.segment(end, logits)], &mut out, &|| false).unwrap();
        self.done = end;
        out
    }
}

/// All logits of a prompt run in one step.
pub fn logits(decoder: &mut dyn Decoder, tokens: &[u32]) -> Vec<f32> {
    Sequence::new(tokens, 0).run(decoder, tokens.len(), LogitRows::All)
}

/// Greedy continuation, and the log-probability of each of its tokens.
pub fn greedy(decoder: &mut dyn Decoder, prompt: &[u32], n: usize) -> (Vec<u32>, Vec<f32>) {
    greedy_of(decoder, Sequence::new(prompt, 0), n)
}

/// [`greedy`] of a sequence, its adapter included.
pub fn greedy_of(decoder: &mut dyn Decoder, mut sequence: Sequence, n: usize) -> (Vec<u32>, Vec<f32>) {
    let (mut chosen, mut logprobs) = (Vec::new(), Vec::new());
    for _ in 0..n {
        let end = sequence.tokens.len();
        let row = sequence.run(decoder, end, LogitRows::Last);
        let best = argmax(&row);
        chosen.push(best);
        logprobs.push(log_softmax(&row)[best as usize]);
        sequence.tokens.push(best);
    }
    (chosen, logprobs)
}

pub fn argmax(row: &[f32]) -> u32 {
    (0..row.len()).rev().max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap() as u32
}

pub fn log_softmax(row: &[f32]) -> Vec<f32> {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|x| f64::from(x - largest).exp()).sum();
    row.iter().map(|x| (f64::from(x - largest) - sum.ln()) as f32).collect()
}

/// Largest and mean absolute difference.
pub fn difference(got: &[f32], want: &[f32]) -> (f32, f32) {
    assert_eq!(got.len(), want.len());
    let differences = || got.iter().zip(want).map(|(a, b)| (a - b).abs());
    assert!(differences().all(f32::is_finite), "a value is not finite");
    (differences().fold(0.0, f32::max), differences().sum::<f32>() / got.len() as f32)
}

#[track_caller]
pub fn assert_close(what: &str, got: &[f32], want: &[f32], tolerance: f32) {
    let (largest, mean) = difference(got, want);
    eprintln!("{what}: largest difference {largest:.2e}, mean {mean:.2e}");
    assert!(largest <= tolerance, "{what}: differs by {largest}, allowed are {tolerance}");
}

/// Greedy ids equal up to the first step whose margin is below `margin`, and that is not the first step.
#[track_caller]
pub fn assert_greedy(what: &str, got: &[u32], want: &[u32], margins: &[f32], margin: f32) {
    let sure = margins.iter().position(|&m| m < margin).unwrap_or(margins.len()).min(want.len());
    eprintln!("{what}: {sure} of {} steps compared", want.len());
    assert_eq!(got[..sure], want[..sure], "{what}");
}
