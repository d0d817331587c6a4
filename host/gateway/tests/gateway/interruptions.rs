//! Turns that wait for an answer: kept, told, taken once, guarded on both sides.

use crate::fakes::*;
use serde_json::{Value, json};
use std::time::Duration;
use stockade_gateway::Settings;

async fn asking() -> Host {
    let host = Host::new().await;
    host.bind("orchestrator", "asks", "orchestrator", json!({"config": {"a": 1}})).await;
    host
}

async fn interrupted(host: &Host) -> String {
    let reply = host.chat("Pay it", json!({"tools": []})).await.expect(200);
    reply["choices"][0]["stockade"]["interruption"]["id"].as_str().unwrap().to_owned()
}

fn path(id: &str) -> String {
    format!("/stockade/v1/interruptions/{id}/resume")
}

#[tokio::test]
async fn a_chat_tells_its_question_and_goes_on_once_with_the_answer() {
    let host = asking().await;
    let reply = host.chat("Pay it", json!({})).await.expect(200);
    let choice = &reply["choices"][0];
    assert_eq!((&choice["finish_reason"], &choice["message"]["content"]), (&json!("stop"), &json!("one moment")));
    let told = &choice["stockade"]["interruption"];
    assert_eq!(told["question"], "May I pay?");
    assert_eq!(told["request"], json!({"tool": "pay", "arguments": {"amount": 3}}));
    assert!(!reply.to_string().contains("secret"), "the state is the orchestrator's own");
    let id = told["id"].as_str().unwrap();
    let listed = host.get("/stockade/v1/interruptions").await.expect(200);
    assert_eq!((&listed["data"][0]["id"], &listed["data"][0]["question"]), (&told["id"], &json!("May I pay?")));
    assert!(!listed.to_string().contains("secret"));
    // The binding moves on; the turn goes on in what it ran in.
    host.upload(ADMIN, "says", "orchestrator").await;
    let entry = json!({"entries": [{"component": "says", "version": "1"}]});
    host.put("/stockade/v1/bindings/orchestrator", entry).await.expect(200);
    let resumed = host.post(&path(id), json!({"answer": {"approve": true}})).await.expect(200);
    assert_eq!(resumed["object"], "chat.completion");
    assert_eq!(resumed["choices"][0]["message"]["content"], r#"state {"secret":7} answer {"approve":true}"#);
    host.post(&path(id), json!({"answer": true})).await.expect(404);
    let turns = host.plugins.turns.lock().unwrap();
    assert_eq!(turns[0].1.messages, turns[1].1.messages);
    assert_eq!(turns[1].0.target.config, json!({"a": 1}));
}

#[tokio::test]
async fn a_stream_carries_the_interruption_on_its_last_chunk_and_so_does_a_resumed_one() {
    let host = asking().await;
    let events = host.chat("Pay it", json!({"stream": true})).await.events();
    let last: Value = serde_json::from_str(&events[events.len() - 2]).unwrap();
    let id = last["choices"][0]["stockade"]["interruption"]["id"].as_str().unwrap();
    let events = host.post(&path(id), json!({"answer": "yes", "stream": true})).await.events();
    assert_eq!(events.last().unwrap(), "[DONE]");
    assert!(events.iter().any(|e| e.contains(r#"answer \"yes\""#)), "{events:?}");
}

#[tokio::test]
async fn of_two_answers_at_once_one_goes_on() {
    let host = asking().await;
    let id = interrupted(&host).await;
    let path = path(&id);
    let answer = || host.post(&path, json!({"answer": true}));
    let (a, b) = tokio::join!(answer(), answer());
    let mut statuses = [a.status, b.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 404]);
}

#[tokio::test]
async fn shields_judge_question_and_answer() {
    let host = asking().await;
    let id = interrupted(&host).await;
    host.bind("shield.input", "word", "shield", json!({"config": {"word": "evil"}})).await;
    let blocked = host.post(&path(&id), json!({"answer": {"reason": "evil"}})).await.expect(200);
    assert_eq!(blocked["choices"][0]["finish_reason"], "content_filter");
    assert_eq!(host.plugins.turns.lock().unwrap().len(), 1, "the orchestrator was not asked");
    host.bind("shield.output", "word", "shield", json!({"config": {"word": "pay"}})).await;
    let blocked = host.chat("Go", json!({})).await.expect(200);
    let choice = &blocked["choices"][0];
    assert_eq!((&choice["finish_reason"], choice.get("stockade")), (&json!("content_filter"), None));
    assert_eq!(host.get("/stockade/v1/interruptions").await.expect(200)["data"], json!([]));
}

#[tokio::test]
async fn interruptions_expire_and_belong_to_their_tenant() {
    let host = asking().await;
    let id = interrupted(&host).await;
    let other = host.tenant("other", &["inference"]).await;
    host.call(&other, "POST", &path(&id), &json!({"answer": true})).await.expect(404);
    host.get(&format!("/stockade/v1/interruptions/{id}")).await.expect(200);
    let brief = Host::with(Settings { interruption: Duration::ZERO, ..Settings::default() }).await;
    brief.bind("orchestrator", "asks", "orchestrator", json!({})).await;
    let id = interrupted(&brief).await;
    brief.post(&path(&id), json!({"answer": true})).await.expect(404);
}
