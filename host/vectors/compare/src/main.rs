//! Our index beside two HNSW libraries, in one run over the same vectors: recall, queries a second, time to build.
//!
//! `cargo run --release --manifest-path host/vectors/compare/Cargo.toml [N..]` (default 10000 and 100000; 384 dimensions)
//!
//! All three with 16 links (32 on the lowest level), 100 candidates when building and 96 when searching, float vectors of
//! length 1, one thread, rounds in turn. `hnsw_rs` has its SIMD distances, `usearch` (C++) those that its build finds. Processor
//! time is that of the whole process while a side is asked: ours answers on a thread of its own, as in the host.

#[path = "../../examples/data/mod.rs"]
mod data;

use data::{D, Draw, member, topics};
use hnsw_rs::prelude::{DistDot, Hnsw};
use serde_json::Map;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stockade_core::TenantId;
use stockade_core::registry::{MemoryStore, Registry};
use stockade_core::vectors::*;
use stockade_vectors::{Indexes, Settings};

const QUERIES: usize = 200;
const K: usize = 10;
const LINKS: usize = 16;
const BUILD: usize = 100;
const SEARCH: usize = 96;
const ROUNDS: usize = 5;

#[tokio::main]
async fn main() {
    let sizes: Vec<usize> = std::env::args().skip(1).filter_map(|n| n.parse().ok()).collect();
    for n in if sizes.is_empty() { vec![10_000, 100_000] } else { sizes } {
        compare(n).await;
    }
}

async fn compare(n: usize) {
    let mut draw = Draw(n as u64);
    let topics = topics(&mut draw);
    let mut unit = || {
        let vector = member(&mut draw, &topics);
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        vector.into_iter().map(|x| x / length).collect::<Vec<f32>>()
    };
    let vectors: Vec<Vec<f32>> = (0..n).map(|_| unit()).collect();
    let queries: Vec<Vec<f32>> = (0..QUERIES).map(|_| unit()).collect();
    let nearest = |query: &Vec<f32>| exact(&vectors, query);
    let want: Vec<HashSet<usize>> = queries.iter().map(nearest).collect();

    let (ours, ours_built) = ours(&vectors).await;
    let began = Instant::now();
    let theirs = Hnsw::<f32, DistDot>::new(LINKS, n, 16, BUILD, DistDot {});
    vectors.iter().enumerate().for_each(|(id, vector)| theirs.insert((vector, id)));
    let theirs_built = began.elapsed();
    let began = Instant::now();
    let options = usearch::IndexOptions {
        dimensions: D,
        metric: usearch::MetricKind::IP,
        quantization: usearch::ScalarKind::F32,
        connectivity: LINKS,
        expansion_add: BUILD,
        expansion_search: SEARCH,
        multi: false,
    };
    let third = usearch::Index::new(&options).expect("an index");
    third.reserve_capacity_and_threads(n, 1).expect("memory");
    for (id, vector) in vectors.iter().enumerate() {
        third.add(id as u64, vector).expect("it is added");
    }
    let third_built = began.elapsed();

    let (mut a, mut b, mut c) = (Side::default(), Side::default(), Side::default());
    for _ in 0..ROUNDS {
        let began = processor();
        for (query, want) in queries.iter().zip(&want) {
            let asked = Query { vector: query.clone(), limit: K, filter: None, exact: false };
            let began = Instant::now();
            let found = ours.search(asked).await.expect("an answer");
            a.took(began.elapsed(), found.iter().filter_map(|f| f.id.parse().ok()), want);
        }
        a.processor += processor() - began;
        let began = processor();
        for (query, want) in queries.iter().zip(&want) {
            let began = Instant::now();
            let found = theirs.search(query, K, SEARCH);
            b.took(began.elapsed(), found.iter().map(|f| f.d_id), want);
        }
        b.processor += processor() - began;
        let began = processor();
        for (query, want) in queries.iter().zip(&want) {
            let began = Instant::now();
            let found = third.search(query, K).expect("an answer");
            c.took(began.elapsed(), found.keys.iter().map(|&id| id as usize), want);
        }
        c.processor += processor() - began;
    }
    println!("{n} vectors of {D}, {} queries a side, in turn", ROUNDS * QUERIES);
    for (name, side, built) in [("ours", a, ours_built), ("hnsw_rs", b, theirs_built), ("usearch", c, third_built)] {
        side.print(name, built);
    }
}

/// The index as the host uses it, once its graph has all vectors; how long that took.
async fn ours(vectors: &[Vec<f32>]) -> (Arc<dyn VectorIndex>, Duration) {
    let store = Arc::new(MemoryStore::new());
    let registry = Registry::new(store.clone(), store);
    registry.ensure_default_tenant().await.expect("a store in memory does not fail");
    // Kept for the whole run: its thread builds the graph.
    let indexes = Box::leak(Box::new(Indexes::new(registry.store().clone(), Settings::default())));
    let settings = IndexSettings { dimensions: D as u32, metric: Metric::Cosine };
    let index = indexes.open(&TenantId::default_tenant(), "compare", settings).await.expect("the name is free");
    let began = Instant::now();
    for (page, chunk) in vectors.chunks(MAX_ENTRIES).enumerate() {
        let entry = |(i, vector): (usize, &Vec<f32>)| Entry {
            id: (page * MAX_ENTRIES + i).to_string(),
            vector: vector.clone(),
            attributes: Map::new(),
        };
        index.upsert(chunk.iter().enumerate().map(entry).collect()).await.expect("the entries are right");
    }
    // The first search loads it and the builder begins; it is done when nothing is left to do.
    let query = Query { vector: vectors[0].clone(), limit: K, filter: None, exact: false };
    index.search(query).await.expect("an answer");
    let (mut before, mut idle) = (processor(), 0);
    while idle < 3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = processor();
        idle = if now - before < Duration::from_millis(5) { idle + 1 } else { 0 };
        before = now;
    }
    (index, began.elapsed())
}

/// Of all threads of this process.
fn processor() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let told = tasks.filter_map(|t| std::fs::read_to_string(t.path().join("schedstat")).ok());
    told.filter_map(|t| t.split(' ').next()?.parse().ok().map(Duration::from_nanos)).sum()
}

fn exact(vectors: &[Vec<f32>], query: &[f32]) -> HashSet<usize> {
    let dot = |v: &Vec<f32>| v.iter().zip(query).map(|(a, b)| a * b).sum::<f32>();
    let mut scored: Vec<(f32, usize)> = vectors.iter().map(dot).zip(0..).collect();
    scored.select_nth_unstable_by(K, |a, b| b.0.total_cmp(&a.0));
    scored[..K].iter().map(|s| s.1).collect()
}

#[derive(Default)]
struct Side {
    times: Vec<Duration>,
    hits: usize,
    processor: Duration,
}

impl Side {
    fn took(&mut self, time: Duration, found: impl Iterator<Item = usize>, want: &HashSet<usize>) {
        self.times.push(time);
        self.hits += found.filter(|id| want.contains(id)).count();
    }

    fn print(mut self, name: &str, built: Duration) {
        self.times.sort();
        let at = |share: f64| self.times[((self.times.len() - 1) as f64 * share) as usize];
        let sum: Duration = self.times.iter().sum();
        println!(
            "  {name:8} recall@{K} {:.3}  {:4.0} us of processor a query  {:6.0} queries/s  p50 {:?}  p99 {:?}  built in {:.1} s",
            self.hits as f64 / (self.times.len() * K) as f64,
            self.processor.as_secs_f64() * 1e6 / self.times.len() as f64,
            self.times.len() as f64 / sum.as_secs_f64(),
            at(0.5),
            at(0.99),
            built.as_secs_f64()
        );
    }
}
