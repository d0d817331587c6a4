//! Tokens per second of whole training steps: forward, backward, clipping, AdamW.
//!
//! `cargo run --release -p stockade-train --example bench_step -- [--models 1.0M,5.5M,14.6M] [--lora PATH]
//! [--threads 1,2] [--precision f32,bf16] [--device cpu,tensors,cuda] [--steps 12] [--checkpointing]`
//!
//! A step is 8 rows of 256 random tokens. `--lora` names a checkpoint (smollm2) and times LoRA steps of rank 8 on all
//! its matrices. Printed are the step's wall time, the best and the median, and the processor time of one thread,
//! which other processes on the machine do not change. `bench_step.py` beside this file is the same in PyTorch.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use stockade_model::config::{Architecture, Head, Rope, RopeScaling};
use stockade_model::{Checkpoint, ModelConfig};
use stockade_train::network::{
    Adapter, AdapterKind, Device, Kind, Mode, Network, NetworkOptions, Packed, Precision, Trained,
};
use stockade_train::optimizer::{Optimizer, OptimizerSettings, clip_scale};

const ROWS: usize = 8;
const TOKENS: usize = 256;

struct Arguments {
    models: Vec<String>,
    lora: Option<PathBuf>,
    threads: Vec<usize>,
    precisions: Vec<Precision>,
    devices: Vec<Device>,
    steps: usize,
    checkpointing: bool,
}

fn main() {
    let arguments = arguments();
    let devices = arguments.devices.iter().flat_map(|device| arguments.precisions.iter().map(move |p| (*device, *p)));
    for (device, precision) in devices {
        for &threads in &arguments.threads {
            let options = NetworkOptions {
                device,
                precision,
                threads,
                checkpointing: arguments.checkpointing,
                seed: 1,
                ..NetworkOptions::default()
            };
            for (name, config) in shapes().into_iter().filter(|(name, _)| arguments.models.iter().any(|m| m == name)) {
                run(name, Network::fresh(&config, &options).expect("a network"), &options, arguments.steps);
            }
            if let Some(path) = &arguments.lora {
                run("LoRA", lora(path, &options), &options, arguments.steps);
            }
        }
    }
}

/// Times steps and prints a line.
fn run(name: &str, mut network: Network, options: &NetworkOptions, steps: usize) {
    let vocab = network.config().vocab_size as u32;
    let settings = OptimizerSettings { rate: 1e-3, betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.1, muon: None };
    let mut optimizer = Optimizer::new(network.parameters(), settings);
    let mut gradients = network.gradients();
    let mut times: Vec<[Duration; 5]> = Vec::new();
    let mut loss = 0.0;
    for step in 0..steps + 2 {
        let packed = batch(step as u64, vocab);
        let start = (Instant::now(), processor_time());
        gradients.zero();
        let mut pass = network.forward(&packed, Mode::Train { seed: 1, step: step as u64, row: 0 }, true).unwrap();
        let forward = start.0.elapsed();
        let log_probs = network.log_probs(&mut pass).unwrap().log_probs;
        let n = log_probs.len() as f32;
        loss = -log_probs.iter().map(|&x| f64::from(x)).sum::<f64>() / f64::from(n);
        let head = start.0.elapsed();
        network.backward(pass, &vec![-1.0 / n; log_probs.len()], None, &mut gradients).unwrap();
        let backward = start.0.elapsed();
        let (scale, pool) = (clip_scale(gradients.norm(), 1.0), Arc::clone(network.pool()));
        optimizer.begin(1.0);
        for i in 0..network.parameters().len() {
            optimizer.update(i, network.values_mut(i), gradients.get(i), scale, &pool);
        }
        network.updated().unwrap();
        times.push([start.0.elapsed(), processor_time() - start.1, forward, head - forward, backward - head]);
    }
    // The first two meet cold memory.
    times.drain(..2);
    let median = |part: usize| {
        let mut all: Vec<_> = times.iter().map(|t| t[part]).collect();
        all.sort();
        all[all.len() / 2]
    };
    let best = times.iter().map(|t| t[0]).min().expect("at least one step");
    let least = times.iter().map(|t| t[1]).min().expect("at least one step");
    let tokens = (ROWS * TOKENS) as f64;
    println!(
        "{name:6} {:?} ({}) {} thread(s): {:6.0} tokens/s at best, {:6.0} median; processor {:6.0} tokens/s a core; \
         {:5.1} GF a step, {:4.0} GF/s at best; forward {:.0?}, head {:.0?}, backward {:.0?}, rest {:.0?}; \
         peak {} MiB; loss {loss:.4}",
        options.precision,
        network.kernel(),
        options.threads,
        tokens / best.as_secs_f64(),
        tokens / median(0).as_secs_f64(),
        tokens / least.as_secs_f64(),
        work(&network) / 1e9,
        work(&network) / 1e9 / best.as_secs_f64(),
        median(2),
        median(3),
        median(4),
        median(0).saturating_sub(median(2) + median(3) + median(4)),
        peak_mib(),
    );
}

/// Llamas with a tied embedding.
fn shapes() -> [(&'static str, ModelConfig); 3] {
    let shape = |vocab_size, hidden_size, layers, heads, kv_heads, intermediate_size| ModelConfig {
        architecture: Architecture::Llama,
        head: Head::CausalLm,
        layers,
        hidden_size,
        intermediate_size,
        heads,
        kv_heads,
        head_dim: hidden_size / heads,
        vocab_size,
        context_tokens: TOKENS,
        norm_eps: 1e-5,
        rope: Some(Rope { theta: 1e4, scaling: RopeScaling::None }),
        windows: vec![None; layers],
        tied_embeddings: true,
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        qk_norm: false,
        bos_id: None,
        eos_ids: Vec::new(),
        pad_id: None,
        dtype: None,
        encoder: None,
    };
    [
        ("1.0M", shape(2048, 128, 4, 4, 2, 352)),
        ("5.5M", shape(4096, 256, 6, 8, 4, 704)),
        ("14.6M", shape(4096, 384, 8, 6, 3, 1024)),
    ]
}

fn lora(path: &Path, options: &NetworkOptions) -> Network {
    let checkpoint = Checkpoint::open(path).expect("a checkpoint");
    let targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"].map(String::from);
    let adapter = Adapter {
        kind: AdapterKind::Lora,
        rank: 8,
        alpha: 16.0,
        rank_stabilised: false,
        dropout: 0.0,
        targets: targets.into(),
    };
    let options = NetworkOptions { train: Trained::Adapter(adapter), ..options.clone() };
    Network::open(&checkpoint, &checkpoint.config().expect("a configuration"), &options).expect("a network")
}

/// Operations of a step: 6 for each weight of a matrix that is trained, 4 where only its input has a gradient, and
/// causal attention.
fn work(network: &Network) -> f64 {
    let config = network.config();
    let trained = network.parameters().iter().any(|p| p.kind == Kind::Matrix);
    let matrices: usize = network.tensors().filter(|(_, shape)| shape.len() == 2).map(|(_, s)| s[0] * s[1]).sum();
    let adapters: usize =
        network.parameters().iter().filter(|p| p.kind == Kind::Adapter).map(|p| p.shape[0] * p.shape[1]).sum();
    let attention = 6 * config.layers * TOKENS * config.heads * config.head_dim;
    let per_token = (if trained { 6 } else { 4 }) * matrices + 6 * adapters + attention;
    (ROWS * TOKENS * per_token) as f64
}

/// Random tokens, the same in every run.
fn batch(step: u64, vocab: u32) -> Packed {
    let mut packed = Packed::default();
    let mut state = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for row in 0..ROWS {
        for _ in 0..TOKENS {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            packed.tokens.push((state >> 33) as u32 % vocab);
        }
        packed.ends.push(packed.tokens.len());
        packed.targets.extend(row * TOKENS + 1..(row + 1) * TOKENS);
    }
    packed
}

/// Processor time of this process, all threads.
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is ours and of the right type.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Largest resident memory of this process so far.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn arguments() -> Arguments {
    let mut arguments = Arguments {
        models: ["1.0M", "5.5M", "14.6M"].map(String::from).into(),
        lora: None,
        threads: vec![1, 2],
        precisions: vec![Precision::F32],
        devices: vec![Device::Cpu],
        steps: 12,
        checkpointing: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--checkpointing" {
            arguments.checkpointing = true;
            continue;
        }
        let value = words.next().unwrap_or_else(|| panic!("{word} wants a value"));
        let list = || value.split(',').map(String::from).collect::<Vec<_>>();
        match word.as_str() {
            "--models" => arguments.models = list(),
            "--lora" => arguments.lora = Some(value.into()),
            "--threads" => arguments.threads = list().iter().map(|n| n.parse().expect("a number")).collect(),
            "--steps" => arguments.steps = value.parse().expect("a number"),
            "--device" => {
                let named = |name: &String| match name.as_str() {
                    "cpu" => Device::Cpu,
                    "tensors" => Device::Tensors,
                    "cuda" => Device::Cuda(0),
                    _ => panic!("device {name}"),
                };
                arguments.devices = list().iter().map(named).collect();
            }
            "--precision" => {
                let named = |name: &String| match name.as_str() {
                    "f32" => Precision::F32,
                    "bf16" => Precision::Bf16,
                    _ => panic!("precision {name}"),
                };
                arguments.precisions = list().iter().map(named).collect();
            }
            _ => panic!("unknown argument {word}"),
        }
    }
    arguments
}
