//! Tokens per second of whole Llama-shaped forward passes made of these kernels, on synthetic weights.
//!
//! `cargo run --release -p stockade-kernels --example bench_network -- [--threads 1,2] [--json]`
//!
//! Prefill is one step of 256 tokens, decode 32 steps of one token after it, with the head in both. Comparable
//! with `llama-bench -p 256 -n 32` on the same shape. One thread is measured by processor time.

use std::time::{Duration, Instant};

use stockade_kernels::{
    AttentionSegment, KvCache, KvShape, KvType, MatmulPrecision, PAGE_TOKENS, PackedMatrix, Pool, WeightType,
    add_assign, attention, isa_name, matmul, rms_norm, rope, silu_mul,
};

const PROMPT: usize = 256;
const DECODE: usize = 32;

struct Shape {
    name: &'static str,
    layers: usize,
    hidden: usize,
    heads: usize,
    kv_heads: usize,
    ffn: usize,
    vocabulary: usize,
    /// Types of most weights, of v and down (every second layer has those of the rest), and of the head.
    types: [WeightType; 3],
}

const HEAD_DIM: usize = 64;

fn llama_1b(name: &'static str, types: [WeightType; 3]) -> Shape {
    Shape { name, layers: 16, hidden: 2048, heads: 32, kv_heads: 8, ffn: 8192, vocabulary: 128_256, types }
}

struct Layer {
    q: PackedMatrix,
    k: PackedMatrix,
    v: PackedMatrix,
    o: PackedMatrix,
    gate: PackedMatrix,
    up: PackedMatrix,
    down: PackedMatrix,
}

struct Network {
    shape: Shape,
    layers: Vec<Layer>,
    head: PackedMatrix,
    norm: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
    cache: KvCache,
    pages: Vec<u32>,
}

impl Network {
    fn new(pool: &Pool, shape: Shape) -> Self {
        let [most, some, last] = shape.types;
        let matrix = |ty: WeightType, rows: usize, cols: usize| {
            let bytes = ty.row_bytes(cols).expect("whole blocks");
            PackedMatrix::pack_rows(pool, ty, rows, cols, &|row, out| {
                debug_assert_eq!(out.len(), bytes);
                for (i, byte) in out.iter_mut().enumerate() {
                    *byte = (row.wrapping_mul(31).wrapping_add(i * 7) % 41) as u8;
                }
                Ok(())
            })
            .expect("a sane shape")
        };
        let (hidden, kv) = (shape.hidden, shape.kv_heads * HEAD_DIM);
        let layers = (0..shape.layers)
            .map(|layer| {
                let some = if layer % 2 == 0 { some } else { most };
                Layer {
                    q: matrix(most, hidden, hidden),
                    k: matrix(most, kv, hidden),
                    v: matrix(some, kv, hidden),
                    o: matrix(most, hidden, hidden),
                    gate: matrix(most, shape.ffn, hidden),
                    up: matrix(most, shape.ffn, hidden),
                    down: matrix(some, hidden, shape.ffn),
                }
            })
            .collect();
        let kv_shape = KvShape {
            layers: shape.layers,
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            head_dim: HEAD_DIM,
            kv_type: KvType::F16,
        };
        let pages = (PROMPT + DECODE).div_ceil(PAGE_TOKENS);
        let angles = |f: fn(f32) -> f32| (0..(PROMPT + DECODE) * HEAD_DIM / 2).map(|i| f(i as f32 * 0.01)).collect();
        Self {
            layers,
            head: matrix(last, shape.vocabulary, hidden),
            norm: vec![0.01; hidden],
            cos: angles(f32::cos),
            sin: angles(f32::sin),
            cache: KvCache::new(kv_shape, pages).expect("a sane shape"),
            pages: (0..pages as u32).collect(),
            shape,
        }
    }

    fn bytes(&self) -> usize {
        let layer = |l: &Layer| [&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down].map(PackedMatrix::size_bytes);
        self.layers.iter().flat_map(layer).sum::<usize>() + self.head.size_bytes()
    }

    /// One step of `n` tokens from position `start`; logits of the last.
    fn step(&mut self, pool: &Pool, start: usize, n: usize, logits: &mut [f32]) {
        let Shape { hidden, kv_heads, ffn, .. } = self.shape;
        let kv = kv_heads * HEAD_DIM;
        let int8 = MatmulPrecision::Int8;
        let positions: Vec<u32> = (start..start + n).map(|p| p as u32).collect();
        let mut x: Vec<f32> = (0..n * hidden).map(|i| (i % 101) as f32 * 0.01 - 0.5).collect();
        let mut normed = vec![0.0; n * hidden];
        let (mut q, mut k, mut v) = (vec![0.0; n * hidden], vec![0.0; n * kv], vec![0.0; n * kv]);
        let (mut gate, mut up) = (vec![0.0; n * ffn], vec![0.0; n * ffn]);
        let mut out = vec![0.0; n * hidden];
        for (i, layer) in self.layers.iter().enumerate() {
            rms_norm(pool, &x, &self.norm, 1e-5, &mut normed);
            matmul(pool, int8, &normed, &mut [(&layer.q, &mut q), (&layer.k, &mut k), (&layer.v, &mut v)]);
            rope(pool, &mut q, &positions, HEAD_DIM / 2, &self.cos, &self.sin);
            rope(pool, &mut k, &positions, HEAD_DIM / 2, &self.cos, &self.sin);
            for t in 0..n {
                let (page, slot) = (self.pages[(start + t) / PAGE_TOKENS], (start + t) % PAGE_TOKENS);
                self.cache.write(i, page, slot, &k[t * kv..][..kv], &v[t * kv..][..kv]);
            }
            let segment =
                AttentionSegment { first_row: 0, rows: n, start_position: start, pages: &self.pages, window: None };
            attention(pool, &self.cache, i, &q, &[segment], &mut normed);
            matmul(pool, int8, &normed, &mut [(&layer.o, &mut out)]);
            add_assign(&mut x, &out);
            rms_norm(pool, &x, &self.norm, 1e-5, &mut normed);
            matmul(pool, int8, &normed, &mut [(&layer.gate, &mut gate), (&layer.up, &mut up)]);
            silu_mul(pool, &mut gate, &up);
            matmul(pool, int8, &gate, &mut [(&layer.down, &mut out)]);
            add_assign(&mut x, &out);
        }
        let last = &x[(n - 1) * hidden..];
        rms_norm(pool, last, &self.norm, 1e-5, &mut normed[..hidden]);
        matmul(pool, int8, &normed[..hidden], &mut [(&self.head, logits)]);
    }
}

fn main() {
    use WeightType::{Q4_0, Q4_1, Q4_K, Q6_K, Q8_0};
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |flag: &str| arguments.iter().position(|a| a == flag).and_then(|i| arguments.get(i + 1));
    let json = arguments.iter().any(|a| a == "--json");
    let threads: Vec<usize> =
        option("--threads").map_or("1,2", String::as_str).split(',').filter_map(|n| n.parse().ok()).collect();
    let smollm2 = Shape {
        name: "smollm2 Q4_1",
        layers: 30,
        hidden: 576,
        heads: 9,
        kv_heads: 3,
        ffn: 1536,
        vocabulary: 49_152,
        types: [Q4_1, Q4_1, Q8_0],
    };
    let shapes = [
        smollm2,
        llama_1b("1B Q4_0", [Q4_0, Q4_0, Q6_K]),
        llama_1b("1B Q4_K_M", [Q4_K, Q6_K, Q6_K]),
        llama_1b("1B Q8_0", [Q8_0, Q8_0, Q8_0]),
    ];
    let only = option("--only");
    if !json {
        println!("{} kernels; tokens per second", isa_name());
    }
    for shape in shapes.into_iter().filter(|shape| only.is_none_or(|only| shape.name.contains(only.as_str()))) {
        let mut network = Network::new(&Pool::new(2), shape);
        for &threads in &threads {
            let pool = Pool::new(threads);
            let mut logits = vec![0.0; network.shape.vocabulary];
            let prefill = best(threads, || network.step(&pool, 0, PROMPT, &mut logits));
            let decode = best(threads, || {
                for i in 0..DECODE {
                    network.step(&pool, PROMPT + i, 1, &mut logits);
                }
            });
            let (prefill, decode) = (PROMPT as f64 / prefill.as_secs_f64(), DECODE as f64 / decode.as_secs_f64());
            let (name, rate) = (network.shape.name, decode * network.bytes() as f64 / 1e9);
            if json {
                println!(
                    "{{\"network\":\"{name}\",\"threads\":{threads},\"prefill\":{prefill:.2},\"decode\":{decode:.2},\"decode_gb_s\":{rate:.2}}}"
                );
            } else {
                println!(
                    "{name:<14} {threads} thread(s): prefill {prefill:>7.1}, decode {decode:>6.2} ({rate:.1} GB/s)"
                );
            }
        }
    }
}

/// The shortest of three rounds after a first one.
fn best(workers: usize, mut f: impl FnMut()) -> Duration {
    let wall = Instant::now();
    let now = || {
        if workers == 1 { thread_time() } else { wall.elapsed() }
    };
    f();
    let rounds = (0..3).map(|_| {
        let start = now();
        f();
        now() - start
    });
    rounds.min().unwrap_or_default()
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local of the right type.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
