//! Rates of the product kernels beside the memory read rate of the machine, in one run.
//!
//! `cargo run --release -p stockade-kernels --example bench_kernels -- [--json] [--threads 1,2] [--quick]`
//!
//! Decode is one row, where GB/s of packed weights against the read rate counts; prefill is many rows, where
//! GOP/s counts (one multiply and one add are two operations). The matrices of a case together exceed the
//! caches and are walked in turn, as the layers of a network are. Each figure is the best of its rounds:
//! the machine may be shared.

use std::hint::black_box;
use std::time::{Duration, Instant};

use stockade_kernels::{
    AttentionSegment, KvCache, KvShape, KvType, MatmulPrecision, PAGE_TOKENS, PackedMatrix, Pool, WeightType,
    attention, isa_name, matmul,
};

/// Inner and outer width of the measured products: the feed-forward shape of a 1B model.
const COLS: usize = 2048;
const ROWS: usize = 8192;
/// Bytes of weights a case walks, well above the last-level cache.
const WORKING_SET: usize = 96 << 20;
const PREFILL_ROWS: [usize; 3] = [8, 64, 256];

struct Line {
    threads: usize,
    name: String,
    decode_gb: f64,
    decode_gop: f64,
    prefill_gop: Vec<f64>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|a| a == flag);
    let option = |flag: &str| arguments.iter().position(|a| a == flag).and_then(|i| arguments.get(i + 1));
    let threads: Vec<usize> = option("--threads").map_or_else(
        || (1..=Pool::default_workers()).filter(|n| n.is_power_of_two()).collect(),
        |list| list.split(',').filter_map(|n| n.parse().ok()).collect(),
    );
    let only = option("--type");
    let rounds = if has("--quick") { 2 } else { 5 };

    let mut lines = Vec::new();
    let mut reads = Vec::new();
    for &threads in &threads {
        let pool = Pool::new(threads);
        reads.push((threads, read_rate(&pool, rounds)));
        for ty in WeightType::ALL.into_iter().filter(|ty| only.is_none_or(|only| only == ty.name())) {
            let precisions: &[_] = match ty {
                WeightType::Q4_0 | WeightType::Q8_0 => &[MatmulPrecision::Int8, MatmulPrecision::F32],
                _ => &[MatmulPrecision::Int8],
            };
            for &precision in precisions {
                lines.push(measure(&pool, ty, precision, rounds));
            }
        }
    }
    let attention: Vec<_> = threads.iter().map(|&n| (n, attention_rate(&Pool::new(n), rounds))).collect();
    if has("--json") { print_json(&lines, &reads, &attention) } else { print_table(&lines, &reads, &attention) }
}

fn measure(pool: &Pool, ty: WeightType, precision: MatmulPrecision, rounds: usize) -> Line {
    let file = vec![0x2au8; ROWS * ty.row_bytes(COLS).expect("whole blocks")];
    let one = PackedMatrix::pack(pool, ty, ROWS, COLS, &file).expect("a sane shape");
    let copies = WORKING_SET.div_ceil(one.size_bytes());
    let mut matrices = vec![one];
    for _ in 1..copies {
        matrices.push(PackedMatrix::pack(pool, ty, ROWS, COLS, &file).expect("a sane shape"));
    }
    let bytes: usize = matrices.iter().map(PackedMatrix::size_bytes).sum();
    let run = |n: usize, matrices: &[PackedMatrix]| {
        let x: Vec<f32> = (0..n * COLS).map(|i| (i % 61) as f32 * 0.1 - 3.0).collect();
        let mut out = vec![0.0; n * ROWS];
        best(pool.workers(), rounds, || {
            for matrix in matrices {
                matmul(pool, precision, black_box(&x), &mut [(matrix, &mut out)]);
            }
        })
        .as_secs_f64()
    };
    let operations = |n: usize, matrices: usize| (2 * n * ROWS * COLS * matrices) as f64;
    let decode = run(1, &matrices);
    let suffix = if precision == MatmulPrecision::F32 { " f32" } else { "" };
    Line {
        threads: pool.workers(),
        name: format!("{ty}{suffix}"),
        decode_gb: bytes as f64 / decode / 1e9,
        decode_gop: operations(1, matrices.len()) / decode / 1e9,
        prefill_gop: PREFILL_ROWS.iter().map(|&n| operations(n, 1) / run(n, &matrices[..1]) / 1e9).collect(),
    }
}

/// Bytes a second of reading a large array on huge pages with all workers, in GB/s.
fn read_rate(pool: &Pool, rounds: usize) -> f64 {
    const PARTS: usize = 64;
    const HUGE_PAGE: usize = 2 << 20;
    let mut data: Vec<u64> = Vec::with_capacity(((256 << 20) + HUGE_PAGE) / 8);
    #[cfg(target_os = "linux")]
    // SAFETY: advice about memory the vector owns; its pages are not touched yet.
    unsafe {
        let start = data.as_ptr().cast::<u8>();
        let start = start.wrapping_add(start.align_offset(HUGE_PAGE));
        libc::madvise(start.cast_mut().cast(), 256 << 20, libc::MADV_HUGEPAGE);
    }
    data.resize((256 << 20) / 8, 1);
    let part = data.len() / PARTS;
    let time = best(pool.workers(), rounds * 2, || {
        pool.run(PARTS, &|i| {
            let mut lanes = [0u64; 8];
            for chunk in data[i * part..][..part].as_chunks::<8>().0 {
                prefetch(chunk);
                for (lane, value) in lanes.iter_mut().zip(chunk) {
                    *lane ^= value;
                }
            }
            black_box(lanes);
        });
    });
    (data.len() * 8) as f64 / time.as_secs_f64() / 1e9
}

/// Fetches memory 2 KiB on, as the kernels do; the hardware alone does not reach the full rate everywhere.
fn prefetch(at: &[u64; 8]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.as_ptr().wrapping_add(256).cast());
    }
}

/// Microseconds of one layer's attention of a 1B model: (decode at 4096 tokens, prefill of 256 at 0).
fn attention_rate(pool: &Pool, rounds: usize) -> (f64, f64) {
    let shape = KvShape { layers: 1, heads: 32, kv_heads: 8, head_dim: 64, kv_type: KvType::F16 };
    let pages: Vec<u32> = (0..128).collect();
    let mut cache = KvCache::new(shape, pages.len()).expect("a sane shape");
    let row: Vec<f32> = (0..512).map(|i| (i % 17) as f32 * 0.1).collect();
    for token in 0..pages.len() * PAGE_TOKENS {
        cache.write(0, (token / PAGE_TOKENS) as u32, token % PAGE_TOKENS, &row, &row);
    }
    let q = vec![0.01; 256 * 2048];
    let mut out = vec![0.0; 256 * 2048];
    let mut time = |rows: usize, start_position: usize| {
        let segment = AttentionSegment { first_row: 0, rows, start_position, pages: &pages, window: None };
        let (q, out) = (&q[..rows * 2048], &mut out[..rows * 2048]);
        best(pool.workers(), rounds, || attention(pool, &cache, 0, black_box(q), &[segment], out)).as_secs_f64() * 1e6
    };
    (time(1, 4095), time(256, 0))
}

/// The shortest of some rounds after a first one: processor time with one worker, so that a shared machine
/// does little harm, else wall time.
fn best(workers: usize, rounds: usize, mut f: impl FnMut()) -> Duration {
    let wall = Instant::now();
    let now = || {
        if workers == 1 { thread_time() } else { wall.elapsed() }
    };
    f();
    (0..rounds)
        .map(|_| {
            let start = now();
            f();
            now() - start
        })
        .min()
        .unwrap_or_default()
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local of the right type.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn print_table(lines: &[Line], reads: &[(usize, f64)], attention: &[(usize, (f64, f64))]) {
    println!("{} kernels, [{ROWS}, {COLS}] matrices", isa_name());
    for (threads, rate) in reads {
        println!("\n{threads} thread(s): memory read {rate:.1} GB/s");
        println!(
            "{:<10} {:>12} {:>8} {:>14}   prefill GOP/s at {PREFILL_ROWS:?} rows",
            "type", "decode GB/s", "of read", "decode GOP/s"
        );
        for line in lines.iter().filter(|line| line.threads == *threads) {
            let share = 100.0 * line.decode_gb / rate;
            let prefill: Vec<String> = line.prefill_gop.iter().map(|g| format!("{g:>7.1}")).collect();
            println!(
                "{:<10} {:>12.1} {share:>7.0}% {:>14.1}   {}",
                line.name,
                line.decode_gb,
                line.decode_gop,
                prefill.join(" ")
            );
        }
        for (_, (decode, prefill)) in attention.iter().filter(|(n, _)| n == threads) {
            println!("attention of one 1B layer: {decode:.0} us decode at 4096 tokens, {prefill:.0} us prefill of 256");
        }
    }
}

fn print_json(lines: &[Line], reads: &[(usize, f64)], attention: &[(usize, (f64, f64))]) {
    let products: Vec<String> = lines
        .iter()
        .map(|l| {
            let prefill: Vec<String> =
                PREFILL_ROWS.iter().zip(&l.prefill_gop).map(|(n, gop)| format!("\"{n}\":{gop:.2}")).collect();
            format!(
                "{{\"threads\":{},\"type\":\"{}\",\"decode_gb_s\":{:.2},\"decode_gop_s\":{:.2},\"prefill_gop_s\":{{{}}}}}",
                l.threads,
                l.name,
                l.decode_gb,
                l.decode_gop,
                prefill.join(",")
            )
        })
        .collect();
    let reads: Vec<String> = reads.iter().map(|(n, rate)| format!("\"{n}\":{rate:.2}")).collect();
    let attention: Vec<String> = attention
        .iter()
        .map(|(n, (d, p))| format!("{{\"threads\":{n},\"decode_4096_us\":{d:.1},\"prefill_256_us\":{p:.1}}}"))
        .collect();
    println!(
        "{{\"isa\":\"{}\",\"rows\":{ROWS},\"cols\":{COLS},\"read_gb_s\":{{{}}},\"products\":[{}],\"attention\":[{}]}}",
        isa_name(),
        reads.join(","),
        products.join(","),
        attention.join(",")
    );
}
