//! Recorded values, and networks made of recorded checkpoints.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use stockade_model::Checkpoint;

use super::super::*;

/// A file or folder that lies beside the workspace.
pub fn shared(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(name);
    assert!(path.exists(), "{} is missing", path.display());
    path
}

pub fn fixture(name: &str) -> PathBuf {
    shared("fixtures").join(name)
}

pub fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Tensors of a safetensors file, all f32.
pub fn recorded(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let bytes = std::fs::read(path).unwrap();
    let header_end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Map<String, Value> = serde_json::from_slice(&bytes[8..header_end]).unwrap();
    let values = |entry: &Value| {
        assert_eq!(entry["dtype"], "F32");
        let [begin, end] = [0, 1].map(|i| header_end + entry["data_offsets"][i].as_u64().unwrap() as usize);
        bytes[begin..end].chunks_exact(4).map(|raw| f32::from_le_bytes(raw.try_into().unwrap())).collect()
    };
    header
        .iter()
        .filter(|(name, _)| *name != "__metadata__")
        .map(|(name, entry)| (name.clone(), values(entry)))
        .collect()
}

/// The device that is held against the host's kernels: a GPU in a program that was built for one.
pub fn device() -> Device {
    if candle_core::utils::cuda_is_available() { Device::Cuda(0) } else { Device::Tensors }
}

pub fn options() -> NetworkOptions {
    NetworkOptions { threads: 2, seed: 7, ..NetworkOptions::default() }
}

pub fn open(name: &str, options: &NetworkOptions) -> Network {
    let checkpoint = Checkpoint::open(&fixture(name)).unwrap();
    Network::open(&checkpoint, &checkpoint.config().unwrap(), options).unwrap()
}

pub fn adapter(kind: AdapterKind) -> Adapter {
    let targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
    Adapter {
        kind,
        rank: 8,
        alpha: 16.0,
        rank_stabilised: false,
        dropout: 0.0,
        targets: targets.map(String::from).into(),
    }
}

pub const TRAIN: Mode = Mode::Train { seed: 1, step: 0, row: 0 };

/// Each row a document, every token after its first a target.
pub fn packed(rows: &[Vec<u32>]) -> Packed {
    let mut packed = Packed::default();
    for row in rows {
        let start = packed.tokens.len();
        packed.tokens.extend(row);
        packed.ends.push(packed.tokens.len());
        packed.targets.extend(start + 1..packed.tokens.len());
    }
    packed
}

/// Rows of ids with labels beside them (-100: none), cut into documents by `document_ids` and by `attention_mask` if
/// there are such.
pub fn labelled(data: &Value) -> Packed {
    let mut packed = Packed::default();
    for (r, row) in data["input_ids"].as_array().unwrap().iter().enumerate() {
        let (tokens, labels) = (ids(row), &data["labels"][r]);
        let length = match data["attention_mask"].get(r) {
            Some(mask) => ids(mask).iter().filter(|&&m| m == 1).count(),
            None => tokens.len(),
        };
        let document = |t: usize| data["document_ids"].get(r).map_or(0, |ids| ids[t].as_i64().unwrap());
        for t in 0..length {
            if labels[t].as_i64().unwrap() != -100 && t > 0 && document(t) == document(t - 1) {
                packed.targets.push(packed.tokens.len());
            }
            packed.tokens.push(tokens[t]);
            if t + 1 == length || document(t + 1) != document(t) {
                packed.ends.push(packed.tokens.len());
            }
        }
    }
    packed
}

/// Mean loss over the targets, and its gradients.
pub fn step(network: &Network, packed: &Packed, mode: Mode) -> (f64, Gradients) {
    packed.check(network.config()).unwrap();
    let mut gradients = network.gradients();
    let mut pass = network.forward(packed, mode, true).unwrap();
    let log_probs = network.log_probs(&mut pass).unwrap().log_probs;
    let n = log_probs.len() as f64;
    let loss = -log_probs.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    network.backward(pass, &vec![-1.0 / n as f32; log_probs.len()], None, &mut gradients).unwrap();
    (loss, gradients)
}

#[track_caller]
pub fn assert_close(what: &str, got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len(), "{what}");
    let largest = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(got.iter().all(|x| x.is_finite()), "{what}: not finite");
    assert!(largest <= tolerance, "{what}: differs by {largest}, allowed are {tolerance}");
}

#[track_caller]
pub fn assert_relative(what: &str, got: f64, want: f64, tolerance: f64) {
    let error = (got - want).abs() / want.abs();
    assert!(error <= tolerance, "{what}: {got} where {want} is recorded, {error:.1e} off");
}
