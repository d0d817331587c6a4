//! Recall and speed of the graph against comparing with every vector.
//!
//! `cargo run --release -p stockade-vectors --example bench_vectors [N..]` (default 10000 and 100000; 384 dimensions)
//!
//! Queries are drawn like the vectors and are none of them. Speed: one thread, one query after another. The same beside
//! libraries: `host/vectors/compare`.

mod data;

use data::{D, Draw, member, topics};
use serde_json::{Map, Value, json};
use std::collections::HashSet;
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
    p50: Duration,
    p99: Duration,
}

async fn ask(index: &Arc<dyn VectorIndex>, queries: &[Vec<f32>], exact: bool, filter: Option<Value>) -> Measured {
    let mut answers = Vec::new();
    let mut times = Vec::new();
    for vector in queries {
        let query = Query { vector: vector.clone(), limit: K, filter: filter.clone(), exact };
        let began = Instant::now();
        let found = index.search(query).await.expect("the query is right");
        times.push(began.elapsed());
        answers.push(found.into_iter().map(|n| n.id).collect());
    }
    let sum: Duration = times.iter().sum();
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    Measured { answers, per_second: queries.len() as f64 / sum.as_secs_f64(), p50: at(0.5), p99: at(0.99) }
}

fn recall(found: &[Vec<String>], exact: &[Vec<String>]) -> f64 {
    let hits = found.iter().zip(exact).map(|(f, e)| {
        let e: HashSet<_> = e.iter().collect();
        f.iter().filter(|id| e.contains(id)).count()
    });
    hits.sum::<usize>() as f64 / exact.iter().map(Vec::len).sum::<usize>() as f64
}

async fn bench(n: usize) {
    let mut draw = Draw(n as u64);
    let topics = topics(&mut draw);
    let store = Arc::new(MemoryStore::new());
    let registry = Registry::new(store.clone(), store);
    registry.ensure_default_tenant().await.expect("a store in memory does not fail");
    let indexes = Indexes::new(registry.store().clone(), Settings::default());
    let settings = IndexSettings { dimensions: D as u32, metric: Metric::Cosine };
    let index = indexes.open(&TenantId::default_tenant(), "bench", settings).await.expect("the name is free");

    let began = Instant::now();
    for page in 0..n.div_ceil(MAX_ENTRIES) {
        let ids = page * MAX_ENTRIES..((page + 1) * MAX_ENTRIES).min(n);
        let entry = |id: usize| {
            let attributes =
                Map::from_iter([("half".to_string(), json!(id.is_multiple_of(2))), ("cent".into(), json!(id % 100))]);
            Entry { id: id.to_string(), vector: member(&mut draw, &topics), attributes }
        };
        index.upsert(ids.map(entry).collect()).await.expect("the entries are right");
    }
    let written = began.elapsed();
    let queries: Vec<Vec<f32>> = (0..QUERIES).map(|_| member(&mut draw, &topics)).collect();
    // Until the graph has them all, part of a search is exact: built once its pace no longer changes.
    let mut before = 0.0;
    let graph = loop {
        let now = ask(&index, &queries, false, None).await;
        if now.per_second < before * 1.05 && before > 0.0 && began.elapsed() > 2 * written {
            break now;
        }
        before = now.per_second;
        tokio::time::sleep(Duration::from_secs(2)).await;
    };
    let built = began.elapsed();
    let exact = ask(&index, &queries, true, None).await;
    println!(
        "{n} vectors of {D}: written in {:.1} s, in the graph after {:.1} s",
        written.as_secs_f64(),
        built.as_secs_f64()
    );
    let line = |name: &str, m: &Measured, recall: f64| {
        println!(
            "  {name:24} recall@{K} {recall:.3}  {:7.0} queries/s  p50 {:?}  p99 {:?}",
            m.per_second, m.p50, m.p99
        );
    };
    line("exact", &exact, 1.0);
    line("graph", &graph, recall(&graph.answers, &exact.answers));
    for (name, filter) in [("half pass the filter", json!({"half": true})), ("1 % pass the filter", json!({"cent": 7}))]
    {
        let want = ask(&index, &queries, true, Some(filter.clone())).await;
        let got = ask(&index, &queries, false, Some(filter)).await;
        line(name, &got, recall(&got.answers, &want.answers));
    }
}

#[tokio::main]
async fn main() {
    let sizes: Vec<usize> = std::env::args().skip(1).filter_map(|n| n.parse().ok()).collect();
    for n in if sizes.is_empty() { vec![10_000, 100_000] } else { sizes } {
        bench(n).await;
    }
}
