//! The shipped memory in its sandbox: state and vectors by grant, bytes as base64.

mod support;

use serde_json::{Value, json};
use stockade_core::plugin::*;
use support::*;

async fn memory(bench: &Bench, buckets: &[&str]) -> Pinned {
    bench.registry.ensure_default_tenant().await.unwrap();
    let pinned = bench.pin("memory", "memory").await;
    let buckets = buckets.iter().map(|b| b.to_string()).collect();
    granted(pinned, Grants { buckets, models: vec!["*".into()], ..Grants::default() })
}

async fn ask(bench: &Bench, memory: &Pinned, function: &str, args: Value) -> Result<Value, CallError> {
    let Value::Array(args) = args else { panic!("arguments are an array") };
    bench.runtime.invoke(call(memory), function.into(), args).await.map(|i| i.result)
}

#[tokio::test]
async fn notes_and_documents_go_in_and_come_back() {
    let bench = bench();
    let memory = memory(&bench, &["memory", "memory.*"]).await;
    let note = json!({"id": "n", "text": "green tea", "metadata": "{\"hot\":true}"});
    assert_eq!(ask(&bench, &memory, "insert", json!(["b", [note]])).await.unwrap(), json!(["n"]));
    // "black tea" as base64, and as numbers.
    for (id, data) in [("x", json!("YmxhY2sgdGVh")), ("y", json!([98, 108, 97, 99, 107]))] {
        let document = json!({"id": id, "name": "d.txt", "media-type": "", "data": data, "metadata": "{}"});
        let ingested = ask(&bench, &memory, "ingest", json!(["b", document])).await.unwrap();
        assert_eq!(ingested["chunks"], json!(1));
    }
    let query = json!({"text": "tea", "limit": 5, "filter": "{\"hot\":true}"});
    let hits = ask(&bench, &memory, "search", json!(["b", query])).await.unwrap();
    assert_eq!((&hits[0]["item"]["id"], hits.as_array().unwrap().len()), (&json!("n"), 1));
    assert_eq!(hits[0]["signals"][0][0], json!("vector"));
    let listed = ask(&bench, &memory, "list", json!(["b", "x", null, 10])).await.unwrap();
    assert_eq!(listed[0]["text"], json!("black tea"));
    ask(&bench, &memory, "drop", json!(["b"])).await.unwrap();
    let gone = ask(&bench, &memory, "search", json!(["b", {"text": "tea", "limit": 5}])).await;
    assert_eq!(gone.unwrap(), json!([]));
    let again = ask(&bench, &memory, "drop", json!(["b"])).await;
    assert!(matches!(again, Err(CallError::Component { code: "not-found", .. })), "{again:?}");
}

#[tokio::test]
async fn an_index_needs_a_grant_of_its_name() {
    let bench = bench();
    let memory = memory(&bench, &["memory"]).await;
    let insert = |bank: &str| json!([bank, [{"id": "n", "text": "tea", "metadata": "{}"}]]);
    ask(&bench, &memory, "create", json!(["words", "keyword", "{}"])).await.unwrap();
    ask(&bench, &memory, "insert", insert("words")).await.unwrap();
    let refused = ask(&bench, &memory, "insert", insert("meaning")).await;
    assert!(matches!(&refused, Err(CallError::Denied { what, .. }) if what.contains("memory.meaning")), "{refused:?}");
}
