//! The whole surface: unknown routes and methods, hostile bodies, panics, readiness, documents.

use crate::fakes::*;
use axum::body::Body;
use proptest::prelude::*;
use serde_json::{Value, json};

#[tokio::test]
async fn unknown_routes_and_methods_answer_in_the_shape_of_their_dialect() {
    let host = Host::new().await;
    let error = host.get("/v1/nothing").await.expect(404);
    assert_eq!(error["error"]["code"], "not_found");
    let reply = host.get("/stockade/v1/nothing").await;
    assert_eq!(reply.header("content-type"), "application/problem+json");
    let id = reply.header("x-request-id");
    let problem = reply.expect(404);
    assert_eq!(problem["code"], "not_found");
    assert_eq!(problem["request_id"].as_str(), Some(id.as_str()));
    for field in ["type", "title", "status", "detail"] {
        assert!(!problem[field].is_null(), "{field}");
    }
    let reply = host.delete("/v1/chat/completions").await;
    assert!(reply.header("allow").contains("POST"));
    assert_eq!(reply.expect(405)["error"]["code"], "method_not_allowed");
    assert_eq!(host.delete("/stockade/v1/usage").await.expect(405)["code"], "method_not_allowed");
    let reply = host.get("/stockade/v1/traces/%ff").await;
    assert_eq!(reply.header("content-type"), "application/problem+json");
    assert_eq!(reply.expect(400)["code"], "invalid_request");
    host.post("/stockade/v1/bindings/orchestrator", Value::Null).await.expect(405);
}

#[tokio::test]
async fn the_openapi_document_tells_exactly_the_served_routes() {
    let host = Host::new().await;
    let document = host.call("", "GET", "/openapi.json", &Value::Null).await.expect(200);
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 20);
    let methods = ["get", "post", "put", "patch", "delete"];
    for (path, operations) in paths {
        let concrete: String =
            path.split('/').map(|s| if s.starts_with('{') { "x" } else { s }).collect::<Vec<_>>().join("/");
        for method in methods {
            let told = operations.get(method).is_some();
            // Without a key: a served route refuses the key, one that is not served the route or method.
            let reply = host.call("", &method.to_uppercase(), &concrete, &Value::Null).await;
            let served = ![404, 405].contains(&reply.status);
            let rollback = path.ends_with("/rollback");
            // The router cannot tell `ROLE/rollback` from a role of that name; the other methods refuse it later.
            if !rollback && path != "/stockade/v1/bindings/{role}" {
                assert_eq!(served, told, "{method} {path}: {}", reply.status);
            } else if told {
                assert!(served, "{method} {path}: {}", reply.status);
            }
        }
    }
    for absent in ["audit", "canary"] {
        assert!(paths.keys().all(|p| !p.contains(absent)), "{absent}");
    }
}

#[tokio::test]
async fn health_follows_readiness_and_requests_are_refused_until_then() {
    let host = Host::new().await;
    let health = host.call("", "GET", "/health", &Value::Null).await.expect(200);
    assert_eq!(health["status"], "ready");
    host.readiness.set_draining();
    let health = host.call("", "GET", "/health", &Value::Null).await.expect(503);
    assert_eq!(health["status"], "draining");
    let reply = host.chat("hi", json!({})).await;
    assert!(!reply.header("retry-after").is_empty());
    assert_eq!(reply.expect(503)["error"]["code"], "overloaded");
}

#[tokio::test]
async fn metrics_have_the_promised_names() {
    let host = Host::new().await;
    host.bind("shield.input", "word", "shield", json!({"config": {"word": "x"}})).await;
    host.chat("hi", json!({})).await.expect(200);
    let metrics = host.call("", "GET", "/metrics", &Value::Null).await;
    let text = String::from_utf8(metrics.bytes.to_vec()).unwrap();
    for line in [
        "stockade_requests_total{method=\"POST\",route=\"/v1/chat/completions\",status=\"200\"} 1",
        "stockade_sequences_running 3",
        "stockade_sequences_waiting 0",
        "stockade_kv_pages_used 0",
        "stockade_component_calls_total{component=\"word\",outcome=\"pass\"} 1",
        "stockade_tokens_total{kind=\"completion\"} 3",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[tokio::test]
async fn a_panic_is_an_internal_error_without_its_text() {
    let host = Host::new().await;
    let path = "/stockade/v1/components/s/versions/1";
    let reply = host.send(request(ADMIN, "PUT", path, &[], Body::from("panic"))).await;
    let problem = reply.expect(500);
    assert_eq!(problem["code"], "internal");
    assert!(!problem.to_string().contains("scripted"));
    host.chat("hi", json!({})).await.expect(200);
}

#[tokio::test]
async fn deep_wide_and_large_bodies_are_refused() {
    let host =
        Host::with(stockade_gateway::Settings { max_body_bytes: 1 << 20, max_json_values: 1000, ..Default::default() })
            .await;
    let post =
        async |body: String| host.send(request(ADMIN, "POST", "/v1/chat/completions", &[], Body::from(body))).await;
    let deep = format!("{{\"model\":{}1{}}}", "[".repeat(50_000), "]".repeat(50_000));
    assert_eq!(post(deep).await.expect(400)["error"]["code"], "invalid_request");
    let wide = format!("{{\"stop\":[{}1]}}", "1,".repeat(2000));
    post(wide).await.expect(400);
    let large = format!("{{\"model\":\"{}\"}}", "x".repeat(1 << 20));
    assert_eq!(post(large).await.expect(413)["error"]["code"], "too_large");
    post(String::new()).await.expect(400);
    post("[]".into()).await.expect(400);
    post("\u{0}".into()).await.expect(400);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Any bytes on any route are answered without a failure of the host.
    #[test]
    fn noise_on_any_route_is_the_callers_fault(
        path in prop::sample::select(vec![
            "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/tokenize", "/detokenize",
            "/stockade/v1/tenants", "/stockade/v1/keys", "/stockade/v1/prompts/render",
        ]),
        noise in prop::collection::vec(any::<u8>(), 0..200),
        field in prop::sample::select(vec!["model", "prompt", "messages", "input", "tokens", "name", "scopes"]),
        value in prop::sample::select(vec!["null", "[]", "{}", "-1", "1e400", "\"\\ud800\"", "[[[]]]", "\"m\"", "true"]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let host = Host::new().await;
            let half = format!("{{\"model\": \"m\", \"{field}\": {value}}}");
            for body in [Body::from(noise), Body::from(half)] {
                let reply = host.send(request(ADMIN, "POST", path, &[], body)).await;
                assert!(reply.status < 500, "{path}: {}", reply.status);
            }
        });
    }
}
