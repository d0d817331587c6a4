//! Two tenants on one host cannot see each other, and keys open exactly what they name.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
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
