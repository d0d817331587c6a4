//! Two tenants on one host cannot see each other, and keys open exactly what they name.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use stockade_tests::{Client, Options, Server, component, scratch};

const ALL: [&str; 3] = ["inference", "components", "admin"];

fn status(client: &Client, method: &str, path: &str, body: &Value) -> Result<u16> {
    let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    Ok(client.send(method, path, "application/json", &[], &bytes)?.status)
}

#[test]
fn what_belongs_to_another_tenant_answers_like_what_does_not_exist() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let admin = server.admin();
    let alice = admin.tenant_with_key("alice", &ALL)?;
    let bob = admin.tenant_with_key("bob", &ALL)?;

    alice.push("mine", "1.0.0", &component("regex-shield"), &json!({}))?;
    alice
        .put("/stockade/v1/state/notes/secret", &json!({"n": 1}))?
        .expect(200)
        .or_else(|_| Ok::<_, anyhow::Error>(Value::Null))?;
    let chat = json!({"model": "smollm2", "max_tokens": 4, "messages": [{"role": "user", "content": "hi"}]});
    let answer = alice.post("/v1/chat/completions", &chat)?;
    let trace = answer.header("stockade-trace").unwrap_or_default().to_string();
    answer.expect(200)?;
    std::thread::sleep(std::time::Duration::from_secs(1));

    for path in [
        "/stockade/v1/components/mine".to_string(),
        "/stockade/v1/components/mine/versions/1.0.0".into(),
        "/stockade/v1/components/mine/grants".into(),
        "/stockade/v1/state/notes/secret".into(),
        format!("/stockade/v1/traces/{trace}"),
    ] {
        let (own, other) = (alice.get(&path)?, bob.get(&path)?);
        ensure!(own.status == 200, "{path}: {} {}", own.status, own.body);
        let missing = bob.get(&path.replace("mine", "none").replace("secret", "none").replace(&trace, "none"))?;
        ensure!(other.status == 404 && missing.status == 404, "{path}: {} {}", other.status, missing.status);
        ensure!(other.body["code"] == missing.body["code"], "{} {}", other.body, missing.body);
    }
    ensure!(bob.get("/stockade/v1/components")?.expect(200)?["data"] == json!([]));
    ensure!(status(&bob, "DELETE", "/stockade/v1/components/mine/versions/1.0.0", &Value::Null)? == 404);
    let binding = json!({"entries": [{"component": "mine", "version": "1.0.0"}]});
    ensure!([404, 400].contains(&status(&bob, "PUT", "/stockade/v1/bindings/shield.input", &binding)?));

    // Keys of one tenant make keys of that tenant only.
    let foreign = json!({"tenant": "bob", "name": "x", "scopes": ["inference"]});
    ensure!([403, 404].contains(&status(&alice, "POST", "/stockade/v1/keys", &foreign)?));
    ensure!([403, 404].contains(&alice.on_tenant("bob").get("/stockade/v1/components")?.status));
    ensure!([403, 404].contains(&alice.post("/stockade/v1/tenants", &json!({"name": "carol"}))?.status));
    Ok(())
}

/// A tenant with a memory of its own.
fn with_memory(admin: &Client, name: &str) -> Result<Client> {
    let tenant = admin.tenant_with_key(name, &ALL)?;
    tenant.push("memory", "1.0.0", &component("memory"), &json!({"buckets": ["*"], "models": ["*"]}))?;
    tenant.bind("memory", json!([{"component": "memory", "version": "1.0.0"}]))?;
    Ok(tenant)
}

/// Uploads a text as a file; answers with its id.
fn upload(client: &Client, name: &str, text: &str) -> Result<String> {
    let part = |head: &str, body: &str| format!("--b0\r\ncontent-disposition: form-data; {head}\r\n\r\n{body}\r\n");
    let form = part("name=\"purpose\"", "assistants") + &part(&format!("name=\"file\"; filename=\"{name}\""), text);
    let form = form + "--b0--\r\n";
    let made =
        client.send("POST", "/v1/files", "multipart/form-data; boundary=b0", &[], form.as_bytes())?.expect(200)?;
    Ok(made["id"].as_str().context("a file has an id")?.into())
}

fn found(client: &Client, path: &str, query: &Value) -> Result<String> {
    Ok(client.post(path, query)?.expect(200)?.to_string())
}

#[test]
fn files_vector_stores_and_memory_are_a_tenants_own() -> Result<()> {
    const SECRET: &str = "The vault opens with the word heliotrope.";
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let (alice, bob) = (with_memory(&server.admin(), "alice")?, with_memory(&server.admin(), "bob")?);
    let file = upload(&alice, "vault.txt", SECRET)?;
    let store = alice.post("/v1/vector_stores", &json!({"name": "vault"}))?.expect(200)?;
    let store = store["id"].as_str().context("a store has an id")?.to_string();
    let batch = alice.post(&format!("/v1/vector_stores/{store}/file_batches"), &json!({"file_ids": [file]}))?;
    let batch = batch.expect(200)?["id"].as_str().context("a batch has an id")?.to_string();
    let attached = format!("/v1/vector_stores/{store}/files/{file}");
    let asked = Instant::now();
    while alice.get(&attached)?.expect(200)?["status"] != "completed" {
        ensure!(asked.elapsed() < Duration::from_secs(60), "{}", alice.get(&attached)?.body);
        std::thread::sleep(Duration::from_millis(100));
    }
    let chunk =
        json!({"vector_store_id": store, "chunks": [{"content": "Heliotrope is purple.", "chunk_id": "purple"}]});
    alice.post("/v1/vector-io/insert", &chunk)?.expect(200)?;
    let query = json!({"vector_store_id": store, "query": "heliotrope"});
    ensure!(found(&alice, "/v1/vector-io/query", &query)?.contains("purple"));
    ensure!(found(&alice, &format!("/v1/vector_stores/{store}/search"), &query)?.contains(SECRET));

    // What is alice's answers bob like what does not exist, whatever he does to it.
    let own = upload(&bob, "own.txt", "Nothing of note.")?;
    let search = json!({"query": "heliotrope"});
    let insert = |store: &str| json!({"vector_store_id": store, "chunks": [{"content": "Planted."}]});
    let whole = |id: &str| format!("/v1/vector_stores/{id}");
    for (method, path, body) in [
        ("GET", format!("/v1/files/{file}"), Value::Null),
        ("GET", format!("/v1/files/{file}/content"), Value::Null),
        ("DELETE", format!("/v1/files/{file}"), Value::Null),
        ("GET", whole(&store), Value::Null),
        ("POST", whole(&store), json!({"name": "bobs"})),
        ("DELETE", whole(&store), Value::Null),
        ("POST", whole(&store) + "/search", search.clone()),
        ("GET", whole(&store) + "/files", Value::Null),
        ("POST", whole(&store) + "/files", json!({"file_id": own})),
        ("GET", attached.clone(), Value::Null),
        ("POST", attached.clone(), json!({"attributes": {"a": 1}})),
        ("DELETE", attached.clone(), Value::Null),
        ("GET", attached.clone() + "/content", Value::Null),
        ("POST", whole(&store) + "/file_batches", json!({"file_ids": [own]})),
        ("GET", format!("{}/file_batches/{batch}", whole(&store)), Value::Null),
        ("GET", format!("{}/file_batches/{batch}/files", whole(&store)), Value::Null),
        ("POST", format!("{}/file_batches/{batch}/cancel", whole(&store)), json!({})),
        ("POST", "/v1/vector-io/insert".into(), insert(&store)),
        ("POST", "/v1/vector-io/query".into(), query.clone()),
    ] {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let other = bob.send(method, &path, "application/json", &[], &bytes)?;
        let none = |text: &str| text.replace(&store, "vs_none").replace(&file, "file-none");
        let missing =
            bob.send(method, &none(&path), "application/json", &[], none(&String::from_utf8(bytes)?).as_bytes())?;
        ensure!(other.status == 404 && missing.status == 404, "{method} {path}: {} {}", other.body, missing.body);
        ensure!(other.body["code"] == missing.body["code"], "{method} {path}: {} {}", other.body, missing.body);
    }
    // Alice's file in a store of bob's, and alice's store in a file search of bob's.
    let bobs = bob.post("/v1/vector_stores", &json!({"name": "bobs"}))?.expect(200)?;
    let bobs = bobs["id"].as_str().context("a store has an id")?.to_string();
    ensure!(bob.post(&(whole(&bobs) + "/files"), &json!({"file_id": file}))?.status == 404);
    let asks = json!({"model": "smollm2", "input": "heliotrope?", "max_output_tokens": 4,
        "tools": [{"type": "file_search", "vector_store_ids": [store]}]});
    let answer = bob.post("/v1/responses", &asks)?;
    ensure!(answer.status == 404, "{} {}", answer.status, answer.body);
    for path in ["/v1/files", "/v1/vector_stores"] {
        let listed = bob.get(path)?.expect(200)?.to_string();
        ensure!(!listed.contains(&file) && !listed.contains(&store), "{path}: {listed}");
    }
    // The same bank name is another bank: a store's is its id, and a bank of no store is a name.
    ensure!(bob.memory("search", json!([store, {"text": "heliotrope", "limit": 5}]))? == json!([]));
    ensure!(!bob.memory("banks", json!([null, 100]))?.to_string().contains(&store));

    // Nothing of it has changed for alice.
    ensure!(alice.get(&format!("/v1/files/{file}/content"))?.body == SECRET);
    ensure!(alice.get(&whole(&store))?.expect(200)?["name"] == "vault");
    let still = found(&alice, &(whole(&store) + "/search"), &json!({"query": "planted heliotrope"}))?;
    ensure!(still.contains(SECRET) && !still.contains("Planted"), "{still}");
    Ok(())
}

#[test]
fn scopes_and_bad_keys_are_told_apart() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let admin = server.admin();
    let narrow = admin.tenant_with_key("alice", &["inference"])?;
    ensure!(narrow.get("/v1/models")?.status == 200);
    ensure!(narrow.get("/stockade/v1/components")?.status == 403);
    ensure!(server.client("sk-wrong").get("/v1/models")?.status == 401);
    ensure!(server.client("").get("/v1/models")?.status == 401);
    let unknown = narrow.get("/stockade/v1/nothing-here")?;
    ensure!(unknown.status == 404 && unknown.body["code"] == "not_found", "{}", unknown.body);
    Ok(())
}
