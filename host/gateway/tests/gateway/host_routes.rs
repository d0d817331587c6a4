//! The host's own routes: tenants, keys, components, grants, bindings, state, traces, usage.

use crate::fakes::*;
use axum::body::Body;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

const ALL: [&str; 3] = ["inference", "components", "admin"];

#[tokio::test]
async fn keys_open_what_they_name_and_nothing_else() {
    let host = Host::new().await;
    let narrow = host.tenant("alice", &["inference"]).await;
    let call = async |key: &str, path: &str| host.call(key, "GET", path, &Value::Null).await.status;
    assert_eq!(call(&narrow, "/v1/models").await, 200);
    assert_eq!(call(&narrow, "/stockade/v1/components").await, 403);
    assert_eq!(call(&narrow, "/stockade/v1/keys").await, 403);
    assert_eq!(call(&narrow, "/stockade/v1/state/b/k").await, 403);
    for bad in ["sk-wrong", "", " ", &"k".repeat(2000)] {
        let reply = host.call(bad, "GET", "/v1/models", &Value::Null).await;
        assert_eq!(reply.header("www-authenticate"), "Bearer");
        assert_eq!(reply.expect(401)["error"]["code"], "unauthenticated");
        let reply = host.call(bad, "GET", "/stockade/v1/traces", &Value::Null).await;
        assert_eq!(reply.header("content-type"), "application/problem+json");
        assert_eq!(reply.expect(401)["code"], "unauthenticated");
    }
    let components = host.tenant("alice", &["components"]).await;
    assert_eq!(call(&components, "/stockade/v1/components").await, 200);
    assert_eq!(call(&components, "/v1/models").await, 403);
}

#[tokio::test]
async fn what_belongs_to_another_tenant_looks_like_what_does_not_exist() {
    let host = Host::new().await;
    let alice = host.tenant("alice", &ALL).await;
    let bob = host.tenant("bob", &ALL).await;
    host.upload(&alice, "mine", "shield").await;
    let put = json!({"n": 1});
    host.call(&alice, "PUT", "/stockade/v1/state/b/k", &put).await.expect(200);
    let grants = json!({"models": ["m"]});
    host.call(&alice, "PUT", "/stockade/v1/components/mine/grants", &grants).await.expect(200);
    for path in [
        "/stockade/v1/components/mine",
        "/stockade/v1/components/mine/versions/1",
        "/stockade/v1/components/mine/grants",
        "/stockade/v1/state/b/k",
        "/stockade/v1/tenants/alice",
    ] {
        assert_eq!(host.call(&alice, "GET", path, &Value::Null).await.status, 200, "{path}");
        let other = host.call(&bob, "GET", path, &Value::Null).await.expect(404);
        let path = path.replace("mine", "none").replace("/k", "/none").replace("alice", "none");
        let missing = host.call(&bob, "GET", &path, &Value::Null).await.expect(404);
        assert_eq!(other["code"], missing["code"]);
    }
    let delete = "/stockade/v1/components/mine/versions/1";
    host.call(&bob, "DELETE", delete, &Value::Null).await.expect(404);
    let entries = json!({"entries": [{"component": "mine", "version": "1"}]});
    host.call(&bob, "PUT", "/stockade/v1/bindings/shield.input", &entries).await.expect(404);
    let foreign = json!({"tenant": "bob", "name": "x", "scopes": ["inference"]});
    host.call(&alice, "POST", "/stockade/v1/keys", &foreign).await.expect(404);
    let whole_host = json!({"tenant": "*", "name": "x", "scopes": ["admin"]});
    host.call(&alice, "POST", "/stockade/v1/keys", &whole_host).await.expect(403);
    host.call(&alice, "POST", "/stockade/v1/tenants", &json!({"name": "carol"})).await.expect(403);
    host.call(&alice, "PATCH", "/stockade/v1/tenants/alice", &json!({"quotas": {}})).await.expect(403);
    let header = [("stockade-tenant", "bob")];
    let steal = request(&alice, "GET", "/stockade/v1/components", &header, Body::empty());
    assert_eq!(host.send(steal).await.status, 404);
    let list = host.call(&alice, "GET", "/stockade/v1/tenants", &Value::Null).await.expect(200);
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_operator_acts_on_the_tenant_that_it_names() {
    let host = Host::new().await;
    let alice = host.tenant("alice", &ALL).await;
    host.upload(&alice, "mine", "shield").await;
    for (tenant, n) in [("alice", 1), ("default", 0)] {
        let header = [("stockade-tenant", tenant)];
        let list = request(ADMIN, "GET", "/stockade/v1/components", &header, Body::empty());
        let list = host.send(list).await.expect(200);
        assert_eq!(list["data"].as_array().unwrap().len(), n, "{tenant}");
    }
    let header = [("stockade-tenant", "none")];
    let list = request(ADMIN, "GET", "/stockade/v1/components", &header, Body::empty());
    assert_eq!(host.send(list).await.expect(404)["code"], "not_found");
}

#[tokio::test]
async fn tenants_are_made_bounded_listed_by_page_and_deleted() {
    let host = Host::new().await;
    for name in ["a", "b", "c"] {
        let made = host.post("/stockade/v1/tenants", json!({"name": name})).await.expect(201);
        assert_eq!(made["name"], name);
    }
    let again = host.post("/stockade/v1/tenants", json!({"name": "a"})).await.expect(409);
    assert_eq!(again["code"], "conflict");
    for bad in [json!({"name": "A"}), json!({}), json!({"name": "x", "quotas": {"nope": 1}}), json!([])] {
        let error = host.post("/stockade/v1/tenants", bad).await.expect(400);
        assert_eq!(error["code"], "invalid_request");
    }
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("/stockade/v1/tenants?limit=2&after={after}");
        let page = host.get(&path).await.expect(200);
        names.extend(page["data"].as_array().unwrap().iter().map(|t| t["id"].clone()));
        match page["next"].as_str() {
            Some(next) => after = next.into(),
            None => break,
        }
    }
    assert_eq!(names, ["a", "b", "c", "default"]);
    let quotas = json!({"quotas": {"concurrent_requests": 0, "requests_per_minute": 9}});
    host.call(ADMIN, "PATCH", "/stockade/v1/tenants/a", &quotas).await.expect(200);
    let change = json!({"quotas": {"requests_per_minute": null}});
    let changed = host.call(ADMIN, "PATCH", "/stockade/v1/tenants/a", &change).await.expect(200);
    assert_eq!(changed["quotas"], json!({"concurrent_requests": 0}));
    host.delete("/stockade/v1/tenants/b").await.expect(204);
    host.get("/stockade/v1/tenants/b").await.expect(404);
    host.delete("/stockade/v1/tenants/default").await.expect(409);
    for query in ["limit=0", "limit=x", "limit=1001"] {
        host.get(&format!("/stockade/v1/tenants?{query}")).await.expect(400);
    }
}

#[tokio::test]
async fn a_secret_is_shown_once_and_dies_when_rotated_or_deleted() {
    let host = Host::new().await;
    let body =
        json!({"tenant": "default", "name": "ci", "scopes": ["inference"], "expires_at": "2099-01-01T00:00:00Z"});
    let made = host.post("/stockade/v1/keys", body).await.expect(201);
    let (id, secret) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    assert!(secret.starts_with("sk-") && secret.len() == 67);
    let list = host.get("/stockade/v1/keys").await.expect(200);
    assert!(!list.to_string().contains(secret) && !list.to_string().contains("sha256"));
    assert_eq!(list["data"][0]["expires_at"], 4_070_908_800u64);
    let rotated = host.post(&format!("/stockade/v1/keys/{id}/rotate"), Value::Null).await.expect(200);
    let fresh = rotated["key"].as_str().unwrap();
    host.call(secret, "GET", "/v1/models", &Value::Null).await.expect(401);
    host.call(fresh, "GET", "/v1/models", &Value::Null).await.expect(200);
    host.delete(&format!("/stockade/v1/keys/{id}")).await.expect(204);
    host.call(fresh, "GET", "/v1/models", &Value::Null).await.expect(401);
    host.delete(&format!("/stockade/v1/keys/{id}")).await.expect(404);
    for bad in [json!({"scopes": ["root"]}), json!({"scopes": []}), json!({"expires_at": "soon"})] {
        host.post("/stockade/v1/keys", bad).await.expect(400);
    }
}

async fn put_version(host: &Host, path: &str, bytes: &str) -> Reply {
    let path = format!("/stockade/v1/components/{path}");
    host.send(request(ADMIN, "PUT", &path, &[], Body::from(bytes.to_owned()))).await
}

#[tokio::test]
async fn versions_are_immutable_and_bad_uploads_say_why() {
    let host = Host::new().await;
    let made = put_version(&host, "s/versions/1", "ok shield one").await.expect(201);
    assert_eq!((&made["name"], &made["version"]), (&json!("s"), &json!("1")));
    assert_eq!(made["roles"], json!(["shield"]));
    for field in ["digest", "imports", "exports", "grants_wanted", "size_bytes", "compile_ms", "warnings"] {
        assert!(!made[field].is_null(), "{field}");
    }
    put_version(&host, "s/versions/1", "ok shield one").await.expect(200);
    assert_eq!(host.plugins.admitted.load(Ordering::SeqCst), 1, "nothing is compiled twice");
    let other = put_version(&host, "s/versions/1", "ok shield two").await.expect(409);
    assert_eq!(other["code"], "version_exists");
    for bad in ["", "noise"] {
        let error = put_version(&host, "bad/versions/1", bad).await.expect(422);
        assert_eq!(error["code"], "invalid_component");
        assert!(error["reasons"][0]["expected"].is_string());
    }
    host.get("/stockade/v1/components/bad").await.expect(404);
    put_version(&host, "S/versions/1", "ok shield").await.expect(400);
    put_version(&host, "s/versions/2", "ok shield two").await.expect(201);
    let shown = host.get("/stockade/v1/components/s").await.expect(200);
    assert_eq!(shown["latest"], "2");
    assert_eq!(shown["versions"], json!(["1", "2"]));
    let list = host.get("/stockade/v1/components").await.expect(200);
    assert_eq!(list["data"], json!([{"name": "s", "latest": "2", "versions": ["1", "2"]}]));
}

#[tokio::test]
async fn an_upload_over_the_bound_is_refused_however_it_is_sent() {
    let settings = stockade_gateway::Settings { max_component_bytes: 100, ..Default::default() };
    let host = Host::with(settings).await;
    let large = format!("ok shield {}", "x".repeat(100));
    let error = put_version(&host, "s/versions/1", &large).await.expect(413);
    assert_eq!(error["code"], "too_large");
    let pieces = (0..20).map(|_| Ok::<_, std::io::Error>("ok shield "));
    let body = Body::from_stream(futures::stream::iter(pieces));

    let path = "/stockade/v1/components/s/versions/1";
    assert_eq!(host.send(request(ADMIN, "PUT", path, &[], body)).await.status, 413);
}

#[tokio::test]
async fn bindings_change_by_etag_roll_back_and_protect_their_versions() {
    let host = Host::new().await;
    host.upload(ADMIN, "s", "shield").await;
    host.upload(ADMIN, "t", "tool").await;
    let path = "/stockade/v1/bindings/shield.input";
    host.get(path).await.expect(404);
    let entries = |mode: &str| json!({"entries": [{"component": "s", "version": "1", "mode": mode}]});
    let first = host.put(path, entries("enforce")).await;
    let etag = first.header("etag");
    let first = first.expect(200);
    assert_eq!(etag, format!("\"{}\"", first["revision"]));
    assert_eq!(first["role"], "shield.input");
    let conditional = async |etag: &str, body: Value| {
        let body = Body::from(body.to_string());
        host.send(request(ADMIN, "PUT", path, &[("if-match", etag)], body)).await
    };
    conditional(&etag, entries("observe")).await.expect(200);
    let stale = conditional(&etag, entries("enforce")).await.expect(412);
    assert_eq!(stale["code"], "revision_mismatch");
    conditional("\"nonsense\"", entries("enforce")).await.expect(412);
    let back = host.post(&format!("{path}/rollback"), json!({})).await.expect(200);
    assert_eq!(back["entries"][0]["mode"], "enforce");
    let used = host.delete("/stockade/v1/components/s/versions/1").await.expect(409);
    assert_eq!((&used["code"], &used["role"]), (&json!("in_use"), &json!("shield.input")));
    host.delete(path).await.expect(204);
    host.delete(path).await.expect(404);
    host.delete("/stockade/v1/components/s/versions/1").await.expect(204);
    // Roles with a slash, plain and encoded.
    let tool = json!({"entries": [{"component": "t", "version": "1"}]});
    host.put("/stockade/v1/bindings/tool/echo", tool.clone()).await.expect(200);
    host.put("/stockade/v1/bindings/tool%2Fecho", tool.clone()).await.expect(200);
    host.post("/stockade/v1/bindings/tool/echo/rollback", Value::Null).await.expect(200);
    let list = host.get("/stockade/v1/bindings").await.expect(200);
    assert_eq!(list["data"][0]["role"], "tool/echo");
    for (role, body, status) in [
        ("nonsense", tool.clone(), 400),
        ("orchestrator", tool.clone(), 400),
        ("tool/x", json!({"entries": []}), 400),
        ("tool/x", json!({"entries": [{"component": "none", "version": "1"}]}), 404),
        ("tool/x", json!({"entries": [{"component": "t", "version": "1", "mode": "maybe"}]}), 400),
        (
            "tool/x",
            json!({"entries": [{"component": "t", "version": "1", "canary": {"version": "2", "percent": 5}}]}),
            400,
        ),
    ] {
        let reply = host.put(&format!("/stockade/v1/bindings/{role}"), body).await;
        assert_eq!(reply.status, status, "{role}");
    }
    host.put("/stockade/v1/bindings/shield.output", json!({"entries": []})).await.expect(200);
}

#[tokio::test]
async fn grants_read_back_and_directories_are_the_operators() {
    let host = Host::new().await;
    host.upload(ADMIN, "s", "shield").await;
    let path = "/stockade/v1/components/s/grants";
    let none = host.get(path).await.expect(200);
    assert_eq!((&none["models"], &none["revision"]), (&json!([]), &json!(0)));
    let grants = json!({"models": ["m"], "limits": {"cpu_ms": 7}});
    let put = host.put(path, grants).await.expect(200);
    assert_eq!(put["limits"]["cpu_ms"], 7);
    assert_eq!(host.get(path).await.expect(200), put);
    host.put(path, put).await.expect(200);
    host.put(path, json!({"everything": true})).await.expect(400);
    let alice = host.tenant("alice", &ALL).await;
    let directory = json!({"directories": [{"host_path": "/etc", "guest_path": "/etc"}]});
    host.call(&alice, "PUT", path, &directory).await.expect(403);
    host.put(path, directory).await.expect(200);
}

#[tokio::test]
async fn invocations_answer_with_result_error_or_the_limit() {
    let host = Host::new().await;
    host.upload(ADMIN, "t", "tool").await;
    let path = "/stockade/v1/components/t/versions/1/invoke";
    let call = async |function: &str| host.post(path, json!({"function": function, "args": [1]})).await;
    let done = call("echo").await.expect(200);
    assert_eq!(done["result"]["args"], json!([1]));
    assert!(done["usage"]["wall_us"].is_u64());
    let own = call("err").await.expect(200);
    assert_eq!(own["error"], json!({"code": "invalid", "message": "no"}));
    let trap = call("trap").await.expect(503);
    assert_eq!((&trap["code"], &trap["limit"]), (&json!("component_failed"), &json!("trap")));
    let denied = call("denied").await.expect(503);
    assert_eq!(denied["denied"], "bucket `x`");
    call("none").await.expect(404);
    host.post(path, json!({"args": []})).await.expect(400);
    let missing = "/stockade/v1/components/t/versions/2/invoke";
    host.post(missing, json!({"function": "echo"})).await.expect(404);
    let metrics = host.get("/metrics").await;
    let text = String::from_utf8(metrics.bytes.to_vec()).unwrap();
    assert!(text.contains("stockade_component_calls_total{component=\"t\",outcome=\"trap\"} 1"), "{text}");
}

#[tokio::test]
async fn state_reads_back_byte_for_byte_and_bounds_its_values() {
    let host = Host::new().await;
    let path = "/stockade/v1/state/notes/a/b%20c";
    let text = r#"{"n": 123456789012345678901234567890, "e":1.50, "s":"é\u00e9"}"#;
    let put = async |body: &str, headers: &[(&str, &str)]| {
        let body = Body::from(body.to_owned());
        host.send(request(ADMIN, "PUT", path, headers, body)).await
    };
    let first = put(text, &[]).await;
    let etag = first.header("etag");
    first.expect(200);
    let got = host.get(path).await;
    assert_eq!(got.header("etag"), etag);
    assert_eq!(got.bytes, text.as_bytes());
    assert_eq!(put("1", &[("if-none-match", "*")]).await.status, 412);
    assert_eq!(put("1", &[("if-match", &etag)]).await.status, 200);
    assert_eq!(put("2", &[("if-match", &etag)]).await.status, 412);
    assert_eq!(put("{\"a\": ", &[]).await.status, 400);
    assert_eq!(put("", &[]).await.status, 400);
    let largest = format!("\"{}\"", "x".repeat((1 << 20) - 2));
    put(&largest, &[]).await.expect(200);
    assert_eq!(host.get(path).await.bytes, largest.as_bytes());
    assert_eq!(put(&format!("{largest} "), &[]).await.status, 413);
    let list = host.get("/stockade/v1/state/notes").await.expect(200);
    assert_eq!(list["data"][0]["key"], "a/b c");
    host.delete(path).await.expect(204);
    host.delete(path).await.expect(404);
    host.get(path).await.expect(404);
}

#[tokio::test]
async fn traces_and_usage_are_there_within_three_seconds() {
    let host = Host::new().await;
    host.bind("shield.input", "word", "shield", json!({"config": {"word": "x"}})).await;
    let reply = host.chat("hello", json!({"stream": true})).await;
    let trace = host.trace(&reply.header("stockade-trace")).await;
    assert_eq!(trace["status"], "ok");
    assert_eq!(trace["model"], "m");
    assert_eq!(trace["tokens"]["completion_tokens"], 3);
    assert_eq!(trace["route"], "POST /v1/chat/completions");
    assert_eq!(trace["request"].as_str().unwrap(), reply.header("x-request-id"));
    let call = &trace["components"][0];
    assert_eq!((&call["role"], &call["component"]), (&json!("shield.input"), &json!("word")));
    let spans = trace["spans"].as_array().unwrap();
    let names: Vec<&str> = spans.iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names[0], "request");
    assert!(names.contains(&"input shields") && names.contains(&"reply"), "{names:?}");
    assert!(spans[1..].iter().all(|s| s["parent"] == "request" && s["duration_us"].is_u64()));
    let second = host.chat("again", json!({})).await.header("stockade-trace");
    host.trace(&second).await;
    let list = host.get("/stockade/v1/traces?limit=1").await.expect(200);
    assert_eq!(list["data"][0]["id"], second.as_str());
    let older = format!("/stockade/v1/traces?after={second}");
    assert_eq!(host.get(&older).await.expect(200)["data"][0]["id"], trace["id"]);
    let usage = host.get("/stockade/v1/usage").await.expect(200);
    let row = &usage["data"][0];
    assert_eq!((&row["model"], &row["requests"]), (&json!("m"), &json!(2)));
    assert_eq!((&row["prompt_tokens"], &row["completion_tokens"]), (&json!(14), &json!(6)));
    let alice = host.tenant("alice", &ALL).await;
    let path = format!("/stockade/v1/traces/{second}");
    host.call(&alice, "GET", &path, &Value::Null).await.expect(404);
}

#[tokio::test]
async fn quotas_refuse_with_a_time_to_come_back() {
    let host = Host::new().await;
    let alice = host.tenant("alice", &ALL).await;
    let chat = async || {
        let body = chat_body("hi", json!({}));
        host.call(&alice, "POST", "/v1/chat/completions", &body).await
    };
    let quota = async |quotas: Value| {
        let body = json!({"quotas": quotas});
        host.call(ADMIN, "PATCH", "/stockade/v1/tenants/alice", &body).await.expect(200);
    };
    quota(json!({"requests_per_minute": 1})).await;
    chat().await.expect(200);
    let refused = chat().await;
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert_eq!(refused.expect(429)["error"]["code"], "rate_limited");
    quota(json!({"requests_per_minute": null, "tokens_per_day": 5})).await;
    assert_eq!(chat().await.expect(429)["error"]["code"], "quota_exceeded");
    quota(json!({"tokens_per_day": null, "models": ["org/big"]})).await;
    assert_eq!(chat().await.expect(404)["error"]["code"], "not_found");
    let models = host.call(&alice, "GET", "/v1/models", &Value::Null).await.expect(200);
    assert_eq!(models["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_stored_prompt_is_rendered_by_the_bound_store() {
    let host = Host::new().await;
    let body = json!({"name": "greet", "variables": {"a": 1}});
    host.post("/stockade/v1/prompts/render", body.clone()).await.expect(404);
    host.bind("prompt-store", "store", "prompt-store", json!({})).await;
    let done = host.post("/stockade/v1/prompts/render", body).await.expect(200);
    assert_eq!(done, json!({"version": 2, "text": "greet"}));
}

#[tokio::test]
async fn a_secret_goes_in_and_is_never_shown() {
    let host = Host::new().await;
    let path = "/stockade/v1/secrets/API_TOKEN";
    host.put(path, json!({"value": "hush"})).await.expect(204);
    let list = host.get("/stockade/v1/secrets").await.expect(200);
    assert_eq!(list, json!({"data": [{"name": "API_TOKEN"}], "next": null}));
    host.get(path).await.expect(405);
    let error = host.put(path, json!({"value": 5})).await.expect(400);
    assert_eq!(error["param"], "value");
    host.put("/stockade/v1/secrets/a%2Fb", json!({"value": "x"})).await.expect(400);
    host.delete(path).await.expect(204);
    host.delete(path).await.expect(404);
}
