//! Indexes over a store: settings, limits, tenants, memory.

use serde_json::{Map, Value, json};
use std::sync::Arc;
use stockade_core::TenantId;
use stockade_core::registry::{MemoryStore, Quotas, Registry};
use stockade_core::vectors::*;
use stockade_vectors::{Indexes, Settings};

const PLANE: IndexSettings = IndexSettings { dimensions: 2, metric: Metric::Euclidean };

struct Bench {
    registry: Registry,
    indexes: Indexes,
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

async fn bench(settings: Settings) -> Bench {
    let store = Arc::new(MemoryStore::new());
    let registry = Registry::new(store.clone(), store.clone());
    for name in ["a", "b"] {
        registry.create_tenant(tenant(name), Quotas::default()).await.unwrap();
    }
    Bench { indexes: Indexes::new(store, settings), registry }
}

fn entry(id: &str, x: f32, attributes: Value) -> Entry {
    let Value::Object(attributes) = attributes else { panic!("not an object") };
    Entry { id: id.into(), vector: vec![x, 0.0], attributes }
}

fn query(x: f32, limit: usize) -> Query {
    Query { vector: vec![x, 0.0], limit, filter: None, exact: false }
}

async fn found(index: &Arc<dyn VectorIndex>, query: Query) -> Vec<String> {
    index.search(query).await.unwrap().into_iter().map(|n| n.id).collect()
}

#[tokio::test]
async fn entries_come_back_closest_first_and_survive_the_memory() {
    let bench = bench(Settings::default()).await;
    let index = bench.indexes.open(&tenant("a"), "i", PLANE).await.unwrap();
    let big = json!({"text": "x".repeat(MAX_ATTRIBUTES_BYTES - 20)});
    index.upsert(vec![entry("one", 1.0, big), entry("two", 2.0, json!({})), entry("9", 9.0, json!({}))]).await.unwrap();
    assert_eq!(found(&index, query(2.2, 2)).await, ["two", "one"]);
    index.upsert(vec![entry("one", 5.0, json!({"now": "small"}))]).await.unwrap();
    assert_eq!(index.delete(vec!["9".into(), "9".into(), "none".into()]).await.unwrap(), 1);

    let again = Indexes::new(bench.registry.store().clone(), Settings::default());
    let index = again.open(&tenant("a"), "i", PLANE).await.unwrap();
    assert_eq!(index.size().await.unwrap(), 2);
    let all = index.search(query(4.0, 10)).await.unwrap();
    assert_eq!((all[0].id.as_str(), &all[0].attributes["now"]), ("one", &json!("small")));
    assert_eq!((all[1].id.as_str(), all[1].score), ("two", -2.0));
}

#[tokio::test]
async fn settings_are_fixed_and_tenants_are_apart() {
    let bench = bench(Settings::default()).await;
    let index = bench.indexes.open(&tenant("a"), "i", PLANE).await.unwrap();
    index.upsert(vec![entry("x", 1.0, json!({}))]).await.unwrap();
    let other = IndexSettings { dimensions: 3, ..PLANE };
    let refused = bench.indexes.open(&tenant("a"), "i", other).await.err().unwrap();
    assert!(matches!(refused, VectorError::OtherSettings { found, .. } if found == PLANE));
    let theirs = bench.indexes.open(&tenant("b"), "i", other).await.unwrap();
    assert_eq!(theirs.size().await.unwrap(), 0);
}

#[tokio::test]
async fn a_dropped_index_is_gone_for_its_handles_and_its_name_is_free() {
    let bench = bench(Settings::default()).await;
    let (a, indexes) = (tenant("a"), &bench.indexes);
    let old = indexes.open(&a, "i", PLANE).await.unwrap();
    old.upsert(vec![entry("x", 1.0, json!({}))]).await.unwrap();
    indexes.drop_index(&a, "i").await.unwrap();
    let new = indexes.open(&a, "i", IndexSettings { dimensions: 3, ..PLANE }).await.unwrap();
    assert!(matches!(old.search(query(1.0, 1)).await, Err(VectorError::NotFound(_))));
    assert!(matches!(old.upsert(vec![entry("x", 1.0, json!({}))]).await, Err(VectorError::NotFound(_))));
    assert_eq!(new.size().await.unwrap(), 0);
    let gone = indexes.drop_index(&a, "other").await;
    assert!(matches!(gone, Err(VectorError::NotFound(_))));
}

#[tokio::test]
async fn a_deleted_tenant_takes_its_vectors_along() {
    let bench = bench(Settings::default()).await;
    let a = tenant("a");
    let index = bench.indexes.open(&a, "i", PLANE).await.unwrap();
    index.upsert(vec![entry("x", 1.0, json!({}))]).await.unwrap();
    bench.registry.delete_tenant(&a).await.unwrap();
    assert!(matches!(index.size().await, Err(VectorError::NotFound(_))));
    assert!(matches!(bench.indexes.open(&a, "i", PLANE).await, Err(VectorError::NotFound(_))));
    assert!(bench.registry.store().scan(b"t/a/", None, 10).unwrap().is_empty());
}

#[tokio::test]
async fn every_limit_has_an_inside_and_an_outside() {
    let bench = bench(Settings { max_indexes: 2, ..Settings::default() }).await;
    let (a, indexes) = (tenant("a"), &bench.indexes);
    let index = indexes.open(&a, "i", PLANE).await.unwrap();
    let ok = |entry: Entry| {
        let index = index.clone();
        async move { index.upsert(vec![entry]).await.is_ok() }
    };
    assert!(ok(entry(&"i".repeat(MAX_ID_BYTES), 1.0, json!({}))).await);
    assert!(!ok(entry(&"i".repeat(MAX_ID_BYTES + 1), 1.0, json!({}))).await);
    assert!(!ok(entry("", 1.0, json!({}))).await);
    assert!(!ok(entry("a\0", 1.0, json!({}))).await);
    assert!(!ok(entry("nan", f32::NAN, json!({}))).await);
    assert!(!ok(Entry { id: "long".into(), vector: vec![0.0; 3], attributes: Map::new() }).await);
    assert!(!ok(entry("a", 1.0, json!({"t": "x".repeat(MAX_ATTRIBUTES_BYTES)}))).await);
    let many = |n: usize| (0..n).map(|i| entry(&i.to_string(), 1.0, json!({}))).collect::<Vec<_>>();
    assert!(index.upsert(many(MAX_ENTRIES)).await.is_ok());
    assert!(index.upsert(many(MAX_ENTRIES + 1)).await.is_err());
    for limit in [0, MAX_NEIGHBOURS + 1] {
        assert!(matches!(index.search(query(1.0, limit)).await, Err(VectorError::Invalid { field: "limit", .. })));
    }
    assert_eq!(found(&index, query(1.0, MAX_NEIGHBOURS)).await.len(), MAX_ENTRIES + 1);

    assert!(indexes.open(&a, "j", IndexSettings { dimensions: MAX_DIMENSIONS, ..PLANE }).await.is_ok());
    assert!(matches!(indexes.open(&a, "k", PLANE).await, Err(VectorError::TooLarge { what: "indexes", .. })));
    for bad in [("K", 2), ("", 2), ("a/b", 2), ("i", 0), ("i", MAX_DIMENSIONS + 1)] {
        let settings = IndexSettings { dimensions: bad.1, ..PLANE };
        assert!(matches!(indexes.open(&a, bad.0, settings).await, Err(VectorError::Invalid { .. })), "{bad:?}");
    }
}

#[tokio::test]
async fn the_largest_entries_fit_a_call() {
    let bench = bench(Settings::default()).await;
    let wide = IndexSettings { dimensions: MAX_DIMENSIONS, metric: Metric::Cosine };
    let index = bench.indexes.open(&tenant("a"), "wide", wide).await.unwrap();
    let Value::Object(attributes) = json!({"t": "x".repeat(MAX_ATTRIBUTES_BYTES - 10)}) else { panic!() };
    let entry = |i: usize| Entry { id: i.to_string(), vector: vec![1.0; 4096], attributes: attributes.clone() };
    index.upsert((0..MAX_ENTRIES).map(entry).collect()).await.unwrap();
    assert_eq!(index.size().await.unwrap(), MAX_ENTRIES as u64);
    let ids = (0..MAX_ENTRIES).map(|i| i.to_string()).collect();
    assert_eq!(index.delete(ids).await.unwrap(), MAX_ENTRIES as u32);
    assert!(bench.registry.store().scan(b"t/a/vector/wide/", None, 1).unwrap().is_empty());
}

#[tokio::test]
async fn a_full_tenant_gives_up_other_indexes_memory_and_then_refuses() {
    let bench = bench(Settings { tenant_bytes: 60_000, ..Settings::default() }).await;
    let (first, second) = (
        bench.indexes.open(&tenant("a"), "first", PLANE).await.unwrap(),
        bench.indexes.open(&tenant("a"), "second", PLANE).await.unwrap(),
    );
    let some = |from: usize, n: usize| (from..from + n).map(|i| entry(&i.to_string(), i as f32, json!({}))).collect();
    first.upsert(some(0, 60)).await.unwrap();
    second.upsert(some(0, 60)).await.unwrap();
    assert_eq!(found(&first, query(7.0, 1)).await, ["7"], "it comes back from its rows");
    let refused = first.upsert(some(60, 200)).await;
    assert!(matches!(refused, Err(VectorError::TooLarge { .. })), "{refused:?}");
    assert_eq!(first.size().await.unwrap(), 60);
}

#[tokio::test]
async fn a_full_tenant_may_write_as_much_as_it_deletes() {
    // Room for 205 entries, and not for those that a graph keeps of deleted ones.
    let settings = Settings { tenant_bytes: 205 * 770, exact_up_to: 50, ..Settings::default() };
    let bench = bench(settings).await;
    let index = bench.indexes.open(&tenant("a"), "i", PLANE).await.unwrap();
    let some = |from: u32, n: u32| (from..from + n).map(|i| entry(&i.to_string(), i as f32, json!({}))).collect();
    index.upsert(some(0, 200)).await.unwrap();
    assert!(index.upsert(some(200, 40)).await.is_err(), "it is full");
    for round in 0..20 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        let (first, next) = (20 * round, 20 * round + 200);
        index.delete((first..first + 20).map(|i| i.to_string()).collect()).await.unwrap();
        index.upsert(some(next, 20)).await.unwrap();
        let want = (next + 10).to_string();
        assert_eq!(found(&index, query((next + 10) as f32, 1)).await, [want]);
    }
    assert_eq!(index.size().await.unwrap(), 200);
}

#[tokio::test]
async fn a_graph_grows_in_the_background_while_answers_stay_whole() {
    let bench = bench(Settings { exact_up_to: 300, ..Settings::default() }).await;
    let index = bench.indexes.open(&tenant("a"), "i", PLANE).await.unwrap();
    for page in 0..8u32 {
        let page = (0..250).map(|i| page * 250 + i).map(|n| entry(&n.to_string(), n as f32, json!({})));
        index.upsert(page.collect()).await.unwrap();
    }
    for n in (0..2000).step_by(97) {
        assert_eq!(found(&index, query(n as f32, 1)).await, [n.to_string()]);
    }
}
