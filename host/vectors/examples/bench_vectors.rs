//! Recall and speed of the graph against comparing with every vector.
//!
//! `cargo run --release -p stockade-vectors --example bench_vectors [N..] [--vectors FILE]` (default 10000 and 100000; 384
//! dimensions). FILE holds embeddings of texts, f32 rows one after the other, as `embed_texts.py` beside this file writes it.
//!
//! Queries are drawn like the vectors and are none of them. Speed: one thread, one query after another. At the end half of the
//! vectors are replaced by others, and recall is taken anew.

mod data;

use data::{D, Supply};
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stockade_core::TenantId;
use stockade_core::registry::{MemoryStore, Registry};
use stockade_core::vectors::*;
use stockade_vectors::{Indexes, Settings};

const QUERIES: usize = 200;
const K: usize = 10;

struct Measured {
    answers: Vec<Vec<String>>,
    per_second: f64,
    /// Of the whole process.
    processor: Duration,
    p50: Duration,
    p99: Duration,
}

async fn ask(index: &Arc<dyn VectorIndex>, queries: &[Vec<f32>], exact: bool, filter: Option<Value>) -> Measured {
    let mut answers = Vec::new();
    let mut times = Vec::new();
    let before = processor();
    for vector in queries {
        let query = Query { vector: vector.clone(), limit: K, filter: filter.clone(), exact };
        let began = Instant::now();
        let found = index.search(query).await.expect("the query is right");
        times.push(began.elapsed());
        answers.push(found.into_iter().map(|n| n.id).collect());
    }
    let processor = processor().saturating_sub(before) / queries.len() as u32;
    let sum: Duration = times.iter().sum();
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    Measured { answers, per_second: queries.len() as f64 / sum.as_secs_f64(), processor, p50: at(0.5), p99: at(0.99) }
}

fn recall(found: &[Vec<String>], exact: &[Vec<String>]) -> f64 {
    let hits = found.iter().zip(exact).map(|(f, e)| {
        let e: HashSet<_> = e.iter().collect();
        f.iter().filter(|id| e.contains(id)).count()
    });
    hits.sum::<usize>() as f64 / exact.iter().map(Vec::len).sum::<usize>() as f64
}

async fn bench(n: usize, mut supply: Supply) {
    let store = Arc::new(MemoryStore::new());
    let registry = Registry::new(store.clone(), store);
    registry.ensure_default_tenant().await.expect("a store in memory does not fail");
    let indexes = Indexes::new(registry.store().clone(), Settings::default());
    let settings = IndexSettings { dimensions: D as u32, metric: Metric::Cosine };
    let index = indexes.open(&TenantId::default_tenant(), "bench", settings).await.expect("the name is free");

    let began = Instant::now();
    let ids: Vec<usize> = (0..n).collect();
    // The queries first: where vectors come from texts, none of them is written.
    let queries: Vec<Vec<f32>> = (0..QUERIES).map(|_| supply.vector()).collect();
    write(&index, &ids, || supply.vector()).await;
    let written = began.elapsed();
    let built = built(&index, began).await;
    println!(
        "{n} vectors of {D}: written in {:.1} s, in the graph after {:.1} s",
        written.as_secs_f64(),
        built.as_secs_f64()
    );
    let exact = ask(&index, &queries, true, None).await;
    line("exact", &exact, 1.0);
    beside_exact("graph", &index, &queries, None).await;
    beside_exact("half pass the filter", &index, &queries, Some(json!({"half": true}))).await;
    beside_exact("1 % pass the filter", &index, &queries, Some(json!({"cent": 7}))).await;

    let began = Instant::now();
    let odd: Vec<usize> = (0..n).filter(|id| id % 2 == 1).collect();
    write(&index, &odd, || supply.vector()).await;
    beside_exact("just replaced half", &index, &queries, None).await;
    println!("  built anew after {:.1} s", self::built(&index, began).await.as_secs_f64());
    beside_exact("once built", &index, &queries, None).await;
}

async fn write(index: &Arc<dyn VectorIndex>, ids: &[usize], mut draw: impl FnMut() -> Vec<f32>) {
    for page in ids.chunks(MAX_ENTRIES) {
        let entry = |id: &usize| {
            let attributes =
                Map::from_iter([("half".to_string(), json!(id.is_multiple_of(2))), ("cent".into(), json!(id % 100))]);
            Entry { id: id.to_string(), vector: draw(), attributes }
        };
        index.upsert(page.iter().map(entry).collect()).await.expect("the entries are right");
    }
}

/// How long after `began` nothing is left to do: the process rests.
async fn built(index: &Arc<dyn VectorIndex>, began: Instant) -> Duration {
    index.size().await.expect("the index is there");
    let (mut before, mut rested) = (processor(), None);
    loop {
        let at = began.elapsed();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = processor();
        rested = if now.saturating_sub(before) < Duration::from_millis(5) { rested.or(Some((at, 0))) } else { None };
        before = now;
        match &mut rested {
            Some((at, 5)) => return *at,
            Some((_, times)) => *times += 1,
            None => {}
        }
    }
}

/// Processor time of all threads of this process.
fn processor() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let told = tasks.filter_map(|t| std::fs::read_to_string(t.path().join("schedstat")).ok());
    told.filter_map(|t| t.split(' ').next()?.parse().ok().map(Duration::from_nanos)).sum()
}

async fn beside_exact(name: &str, index: &Arc<dyn VectorIndex>, queries: &[Vec<f32>], filter: Option<Value>) {
    let got = ask(index, queries, false, filter.clone()).await;
    let want = ask(index, queries, true, filter).await;
    line(name, &got, recall(&got.answers, &want.answers));
}

fn line(name: &str, m: &Measured, recall: f64) {
    println!(
        "  {name:24} recall@{K} {recall:.3}  {:5} us of processor a query  {:6.0} queries/s  p50 {:?}  p99 {:?}",
        m.processor.as_micros(),
        m.per_second,
        m.p50,
        m.p99
    );
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let file = arguments.iter().position(|a| a == "--vectors").map(|i| PathBuf::from(&arguments[i + 1]));
    let sizes: Vec<usize> = arguments.iter().filter_map(|n| n.parse().ok()).collect();
    for n in if sizes.is_empty() { vec![10_000, 100_000] } else { sizes } {
        let supply = file.as_deref().map_or_else(|| Supply::drawn(n as u64), Supply::read);
        bench(n, supply).await;
    }
}
