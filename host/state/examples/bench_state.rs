//! Commits per second and latency of the store beside raw `write` + `fdatasync` of the same bytes on the same disk.
//!
//! `cargo run --release -p stockade-state --example bench_state [-- FOLDER SECONDS]`; the folder (default: a temporary
//! one in the current folder) decides which disk is measured.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use stockade_core::store::{Batch, Store};
use stockade_state::{Config, State};

const VALUE_BYTES: usize = 200;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let base = args.next().map_or_else(|| PathBuf::from("."), PathBuf::from);
    let seconds = args.next().map_or(Ok(3.0), |s| s.parse())?;
    let time = Duration::from_secs_f64(seconds);
    let folder = base.join(format!("bench-state-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let result = measure(&folder, time);
    std::fs::remove_dir_all(&folder)?;
    result
}

fn measure(folder: &Path, time: Duration) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    println!("| what | commits/s | p50 | p99 | max |\n|---|---|---|---|---|");
    for committers in [1usize, 8, 64] {
        raw(folder, committers, time)?;
        let state = Arc::new(State::open(&folder.join("state"), Config::default())?);
        let started = Instant::now();
        let mut latencies = runtime.block_on(async {
            let mut tasks = Vec::new();
            for c in 0..committers {
                let state = state.clone();
                tasks.push(tokio::spawn(async move {
                    let mut latencies = Vec::new();
                    for i in 0u64.. {
                        if started.elapsed() > time {
                            break;
                        }
                        let key = format!("tenant/{c:04}/{:08}", i % 10_000);
                        let batch = Batch::new().put(key, vec![i as u8; VALUE_BYTES]);
                        let asked = Instant::now();
                        state.commit(batch).await?;
                        latencies.push(asked.elapsed());
                    }
                    Ok::<_, stockade_core::store::StoreError>(latencies)
                }));
            }
            let mut all = Vec::new();
            for task in tasks {
                all.extend(task.await??);
            }
            Ok::<_, Box<dyn std::error::Error>>(all)
        })?;
        report(&format!("store, {committers} committers"), &mut latencies, started.elapsed(), 1);
    }

    let opened = Instant::now();
    let state = State::open(&folder.join("state"), Config::default())?;
    println!("\nopen with {} rows, {:?}: {:.0?}", state.status().rows, state.status().index, opened.elapsed());
    let n = 100_000u64;
    let started = Instant::now();
    for i in 0..n {
        let found = state.get(format!("tenant/0000/{:08}", i % 1000).as_bytes())?;
        std::hint::black_box(found);
    }
    println!("get: {:.2} µs", started.elapsed().as_secs_f64() * 1e6 / n as f64);
    let started = Instant::now();
    let rows = state.scan(b"tenant/", None, 10_000)?.len();
    println!("scan: {:.2} µs a row", started.elapsed().as_secs_f64() * 1e6 / rows.max(1) as f64);
    let started = Instant::now();
    let done = runtime.block_on(state.compact())?;
    println!("compact: {:.0?} for {} rows, {} bytes", started.elapsed(), done.rows, done.snapshot_bytes);
    drop(state);
    std::fs::remove_dir_all(folder.join("state/index"))?;
    let opened = Instant::now();
    let state = State::open(&folder.join("state"), Config::default())?;
    println!("open without index, {} rows: {:.0?}", state.status().rows, opened.elapsed());
    Ok(())
}

/// What the disk gives: groups of `batches` records of the store's size, appended and fdatasynced.
fn raw(folder: &Path, batches: usize, time: Duration) -> Result<(), Box<dyn std::error::Error>> {
    // Record header, count; per batch a count, lengths, key and value.
    let bytes = vec![0x5a; 20 + batches * (4 + 6 + 20 + VALUE_BYTES)];
    let mut file = std::fs::File::create(folder.join("raw"))?;
    let mut latencies = Vec::new();
    let started = Instant::now();
    while started.elapsed() < time {
        let asked = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        latencies.push(asked.elapsed());
    }
    report(&format!("raw, groups of {batches}"), &mut latencies, started.elapsed(), batches);
    Ok(())
}

fn report(name: &str, latencies: &mut [Duration], time: Duration, batches: usize) {
    latencies.sort();
    let at = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize];
    println!(
        "| {name} | {:.0} | {:.2?} | {:.2?} | {:.2?} |",
        (latencies.len() * batches) as f64 / time.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}
