//! The shipped memory over the whole host: documents and notes, by invoke, and across a kill.

use anyhow::Result;
use serde_json::{Value, json};
use stockade_tests::{Options, Server, component, scratch};

fn found(hits: &Value) -> Vec<&str> {
    hits.as_array().into_iter().flatten().filter_map(|h| h["item"]["text"].as_str()).collect()
}

fn query(text: &str) -> Value {
    json!({"text": text, "limit": 5})
}

fn note(text: &str) -> Value {
    json!({"id": "", "text": text, "metadata": "{}"})
}

#[test]
fn notes_and_documents_survive_a_kill_and_are_found_by_words_and_meaning() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let admin = server.admin();
    let notes = ["The cat sleeps on the warm stove.", "Invoices are due within thirty days.", "Rust compiles slowly."];
    let notes: Vec<Value> = notes.into_iter().map(note).collect();
    assert_eq!(admin.memory("insert", json!(["notes", notes]))?.as_array().map(Vec::len), Some(3));
    // "Hello, **world**." in base64.
    let document = json!({"id": "hello", "name": "hello.md", "media-type": "text/markdown",
        "data": "SGVsbG8sICoqd29ybGQqKi4=", "metadata": "{\"lang\":\"en\"}"});
    let ingested = admin.memory("ingest", json!(["notes", document]))?;
    assert_eq!(ingested, json!({"document": "hello", "chunks": 1, "bytes": 17}));
    server.kill();

    let server = Server::start(data.path(), &Options::default())?;
    let admin = server.admin();
    let hits = admin.memory("search", json!(["notes", query("when must a bill be paid")]))?;
    assert_eq!(found(&hits)[0], "Invoices are due within thirty days.", "no word in common: {hits}");
    let words = json!({"text": "compile", "limit": 5, "mode": "keyword"});
    assert_eq!(found(&admin.memory("search", json!(["notes", words]))?), ["Rust compiles slowly."]);
    let filtered = json!({"text": "anything", "limit": 5, "filter": "{\"lang\":\"en\"}"});
    assert_eq!(found(&admin.memory("search", json!(["notes", filtered]))?), ["Hello, **world**."]);
    let banks = admin.memory("banks", json!([null, 10]))?;
    assert_eq!(
        (&banks[0]["name"], &banks[0]["kind"], &banks[0]["items"]),
        (&json!("notes"), &json!("hybrid"), &json!(4))
    );
    assert_eq!(admin.memory("forget", json!(["notes", "hello"]))?, json!(1));
    assert_eq!(found(&admin.memory("search", json!(["notes", filtered]))?), [""; 0]);
    server.stop()?;
    Ok(())
}

#[test]
fn a_memory_sees_its_own_tenants_banks_only() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let admin = server.admin();
    admin.memory("insert", json!(["notes", [note("A secret of the default tenant.")]]))?;
    let other = admin.tenant_with_key("other", &["admin", "components", "inference"])?;
    let grants = json!({"buckets": ["*"], "models": ["*"]});
    other.push("memory", "1.0.0", &component("memory"), &grants)?;
    other.bind("memory", json!([{"component": "memory", "version": "1.0.0"}]))?;
    assert_eq!(other.memory("banks", json!([null, 10]))?, json!([]));
    other.memory("insert", json!(["notes", [note("Nothing of note.")]]))?;
    assert_eq!(found(&other.memory("search", json!(["notes", query("secret")]))?), ["Nothing of note."]);
    Ok(())
}
