//! Assistants: stored by version, named in place of a model, never with fewer shields than the tenant's.

use crate::fakes::*;
use serde_json::{Value, json};
use stockade_core::infer::Prompt;
use stockade_core::plugin::Role;

async fn host() -> Host {
    let host = Host::new().await;
    host.bind("orchestrator", "says", "orchestrator", json!({"config": {"prompt": {"name": "p"}}})).await;
    host
}

#[tokio::test]
async fn versions_are_made_read_listed_and_deleted() {
    let host = host().await;
    let made = host.post("/stockade/v1/assistants", json!({"name": "helper", "model": "m"})).await.expect(201);
    assert_eq!((&made["version"], &made["name"]), (&json!(1), &json!("helper")));
    host.post("/stockade/v1/assistants", json!({"name": "helper", "model": "m"})).await.expect(409);
    let two = json!({"model": "m", "instructions": "Be kind."});
    assert_eq!(host.put("/stockade/v1/assistants/helper", two.clone()).await.expect(200)["version"], 2);
    assert_eq!(host.put("/stockade/v1/assistants/helper", two).await.expect(200)["version"], 2, "nothing new");
    let first = host.get("/stockade/v1/assistants/helper/versions/1").await.expect(200);
    assert_eq!(first.get("instructions"), None);
    let page = host.get("/stockade/v1/assistants/helper/versions?limit=1").await.expect(200);
    assert_eq!((page["data"][0]["version"].clone(), page["next"].clone()), (json!(1), json!("1")));
    let models = host.get("/v1/models").await.expect(200);
    let listed: Vec<&Value> = models["data"].as_array().unwrap().iter().filter(|m| m["id"] == "helper").collect();
    assert_eq!((listed.len(), &listed[0]["owned_by"], &listed[0]["object"]), (1, &json!("default"), &json!("model")));
    assert_eq!(host.get("/v1/models/helper").await.expect(200)["base_model"], "m");
    assert_eq!(host.delete("/stockade/v1/assistants/helper").await.status, 204);
    host.get("/stockade/v1/assistants/helper").await.expect(404);
    host.get("/v1/models/helper").await.expect(404);
}

#[tokio::test]
async fn a_record_that_names_what_is_not_there_is_refused() {
    let host = host().await;
    for (bad, status) in [
        (json!({"name": "a", "model": "none"}), 404),
        (json!({"name": "a", "model": "e"}), 400),
        (json!({"name": "m", "model": "m"}), 409),
        (json!({"name": "A", "model": "m"}), 400),
        (json!({"name": "a", "model": "m", "color": "red"}), 400),
        (json!({"name": "a", "model": "m", "tools": ["none"]}), 409),
        (json!({"name": "a", "model": "m", "orchestrator": {"component": "none"}}), 404),
        (json!({"name": "a", "model": "m", "shields": {"input": [{"component": "says"}]}}), 409),
        (json!({"name": "a", "model": "m", "sampling": {"temperature": 9}}), 400),
        (json!({"name": "a", "model": "m", "sampling": {"n": 2}}), 400),
    ] {
        let reply = host.post("/stockade/v1/assistants", bad.clone()).await;
        assert_eq!(reply.status, status, "{bad}: {}", String::from_utf8_lossy(&reply.bytes));
    }
    assert_eq!(host.get("/stockade/v1/assistants").await.expect(200)["data"], json!([]));
}

#[tokio::test]
async fn a_chat_by_an_assistants_name_runs_its_record() {
    let host = host().await;
    let record = json!({"name": "helper", "model": "m", "instructions": "Be kind.", "limits": {"turns": 3, "tokens": 9},
        "sampling": {"temperature": 0.5, "max_tokens": 50, "seed": 4},
        "memory": {"banks": [{"name": "notes", "scope": "user", "write": true}, {"name": "here", "scope": "session"}]}});
    host.post("/stockade/v1/assistants", record).await.expect(201);
    let chat = |model: &str, more: Value| {
        let mut body = chat_body("Hi", more);
        body["model"] = model.into();
        host.post("/v1/chat/completions", body)
    };
    let reply = chat("helper", json!({"temperature": 0.1, "user": "ann"})).await;
    let trace = reply.header("stockade-trace");
    assert_eq!(reply.expect(200)["model"], "helper");
    chat("helper@1", json!({"user": "bob", "metadata": {"session": "s"}})).await.expect(200);
    chat("helper@2", json!({})).await.expect(404);
    chat("helper@x", json!({})).await.expect(404);
    let turns = host.plugins.turns.lock().unwrap().clone();
    assert_eq!(turns.len(), 2);
    let (call, turn) = &turns[0];
    assert_eq!(call.target.config, json!({"system": "Be kind.", "limits": {"model_calls": 3}}));
    assert_eq!((turn.model.as_str(), turn.sampling.temperature, turn.sampling.seed), ("m", 0.1, Some(4)));
    assert_eq!(turn.sampling.max_tokens, Some(9), "the record's bound wins");
    let bank = |i: usize, name: &str| turns[i].0.pins.bank(name.into(), true);
    assert!(bank(0, "notes").is_some() && bank(0, "notes") != bank(1, "notes"));
    assert_eq!((bank(0, "here"), bank(0, "other")), (None, None));
    assert!(turns[1].0.pins.bank("here".into(), false).is_some());
    let notes = host.trace(&trace).await["notes"].to_string();
    assert!(notes.contains("assistant helper@1"), "{notes}");
}

#[tokio::test]
async fn mandatory_shields_stand_and_an_assistants_own_come_on_top() {
    let host = host().await;
    host.bind("shield.input", "word", "shield", json!({"config": {"word": "bad"}})).await;
    host.upload(ADMIN, "extra", "shield").await;
    let record = json!({"name": "strict", "model": "m",
        "shields": {"input": [{"component": "extra", "config": {"word": "rude"}, "refusal": "Not so."}]}});
    host.post("/stockade/v1/assistants", record).await.expect(201);
    let finish = async |said: &str| {
        let mut body = chat_body(said, json!({}));
        body["model"] = "strict".into();
        let reply = host.post("/v1/chat/completions", body).await.expect(200);
        (reply["choices"][0]["finish_reason"].clone(), reply["choices"][0]["message"]["refusal"].clone())
    };
    assert_eq!(finish("bad word").await.0, "content_filter");
    assert_eq!(finish("rude word").await, (json!("content_filter"), json!("Not so.")));
    assert_eq!(finish("kind word").await.0, "stop");
    assert_eq!(host.chat("rude word", json!({})).await.expect(200)["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn an_unbound_orchestrator_is_pinned_by_name_with_its_own_grants() {
    let host = Host::new().await;
    host.upload(ADMIN, "says", "orchestrator").await;
    host.put("/stockade/v1/components/says/grants", json!({"models": ["m"]})).await.expect(200);
    let record = json!({"name": "own", "model": "m", "orchestrator": {"component": "says", "config": {"deep": true}}});
    host.post("/stockade/v1/assistants", record).await.expect(201);
    let mut body = chat_body("Hi", json!({}));
    body["model"] = "own".into();
    let reply = host.post("/v1/chat/completions", body).await.expect(200);
    assert_eq!(reply["choices"][0]["message"]["content"], "turn of 1");
    {
        let turns = host.plugins.turns.lock().unwrap();
        let target = &turns[0].0.target;
        assert_eq!((&target.role, &target.config), (&Role::Orchestrator, &json!({"deep": true})));
        assert_eq!(target.grants.models, ["m"]);
    }
    // Without an assistant the tenant has no orchestrator: the model answers itself.
    host.chat("Hi", json!({})).await.expect(200);
    let asked = host.inference.requests.lock().unwrap();
    assert!(matches!(&asked[0].prompt, Prompt::Chat(chat) if chat.messages.len() == 1));
}

#[tokio::test]
async fn a_turn_ends_at_the_records_bound_on_its_time() {
    let host = Host::new().await;
    host.upload(ADMIN, "hangs", "orchestrator").await;
    let record =
        json!({"name": "slow", "model": "m", "orchestrator": {"component": "hangs"}, "limits": {"seconds": 1}});
    host.post("/stockade/v1/assistants", record).await.expect(201);
    let mut body = chat_body("Hi", json!({}));
    body["model"] = "slow".into();
    let begun = std::time::Instant::now();
    host.post("/v1/chat/completions", body).await.expect(503);
    assert!((1..10).contains(&begun.elapsed().as_secs()));
}

#[tokio::test]
async fn assistants_belong_to_their_tenant_and_their_scope() {
    let host = host().await;
    host.post("/stockade/v1/assistants", json!({"name": "helper", "model": "m"})).await.expect(201);
    let other = host.tenant("other", &["inference", "components"]).await;
    host.call(&other, "GET", "/stockade/v1/assistants/helper", &Value::Null).await.expect(404);
    let mut body = chat_body("Hi", json!({}));
    body["model"] = "helper".into();
    host.call(&other, "POST", "/v1/chat/completions", &body).await.expect(404);
    let weak = host.tenant("other", &["inference"]).await;
    let made = host.call(&weak, "POST", "/stockade/v1/assistants", &json!({"name": "x", "model": "m"})).await;
    made.expect(403);
}
