//! `/v1/conversations`, alone and under responses.

use crate::fakes::*;
use serde_json::{Value, json};

#[tokio::test]
async fn items_are_added_listed_read_and_deleted() {
    let host = Host::new().await;
    let made = json!({"metadata": {"topic": "x"}, "items": [{"role": "user", "content": "one"}]});
    let made = host.post("/v1/conversations", made).await.expect(200);
    assert_eq!((&made["object"], &made["metadata"]["topic"]), (&json!("conversation"), &json!("x")));
    let path = format!("/v1/conversations/{}", made["id"].as_str().unwrap());
    let added = json!({"items": [{"role": "assistant", "content": "two"}, {"role": "user", "content": "three"}]});
    let added = host.post(&format!("{path}/items"), added).await.expect(200);
    assert_eq!(added["data"].as_array().unwrap().len(), 2);
    let page = host.get(&format!("{path}/items?limit=2")).await.expect(200);
    let texts = |page: &Value| -> Vec<String> {
        let items = page["data"].as_array().unwrap().iter();
        items.map(|i| i["content"][0]["text"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((texts(&page), &page["has_more"]), (vec!["three".into(), "two".into()], &json!(true)));
    let last = page["last_id"].as_str().unwrap();
    let rest = host.get(&format!("{path}/items?after={last}")).await.expect(200);
    assert_eq!((texts(&rest), &rest["has_more"]), (vec!["one".into()], &json!(false)));
    let forth = host.get(&format!("{path}/items?order=asc")).await.expect(200);
    assert_eq!(texts(&forth), ["one", "two", "three"]);
    let item = host.get(&format!("{path}/items/{last}")).await.expect(200);
    assert_eq!((&item["id"], &item["type"], &item["status"]), (&json!(last), &json!("message"), &json!("completed")));
    assert_eq!(host.delete(&format!("{path}/items/{last}")).await.expect(200)["id"], made["id"]);
    host.get(&format!("{path}/items/{last}")).await.expect(404);
    let changed = host.post(&path, json!({"metadata": {"topic": "y"}})).await.expect(200);
    assert_eq!(changed["metadata"], json!({"topic": "y"}));
    assert_eq!(host.delete(&path).await.expect(200)["deleted"], true);
    host.get(&path).await.expect(404);
    host.get(&format!("{path}/items")).await.expect(404);
}

#[tokio::test]
async fn a_response_goes_on_from_a_conversation_and_adds_to_it() {
    let host = Host::new().await;
    let made = host.post("/v1/conversations", json!({"items": [{"role": "user", "content": "one"}]})).await.expect(200);
    let id = made["id"].as_str().unwrap();
    for said in ["two", "three"] {
        let asked = json!({"model": "m", "conversation": id, "input": said, "store": false});
        let response = host.post("/v1/responses", asked).await.expect(200);
        assert_eq!(response["conversation"]["id"], id);
    }
    let counts: Vec<usize> = host
        .inference
        .requests
        .lock()
        .unwrap()
        .iter()
        .map(|r| match &r.prompt {
            stockade_core::infer::Prompt::Chat(chat) => chat.messages.len(),
            _ => 0,
        })
        .collect();
    assert_eq!(counts, [2, 4]);
    let items = host.get(&format!("/v1/conversations/{id}/items?order=asc")).await.expect(200);
    let roles: Vec<&str> = items["data"].as_array().unwrap().iter().map(|i| i["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "user", "assistant", "user", "assistant"]);
    host.post("/v1/responses", json!({"model": "m", "conversation": "conv_x", "input": "x"})).await.expect(404);
}

#[tokio::test]
async fn conversations_belong_to_their_tenant() {
    let host = Host::new().await;
    let made = host.post("/v1/conversations", json!({"items": [{"role": "user", "content": "one"}]})).await.expect(200);
    let id = made["id"].as_str().unwrap();
    let item = host.get(&format!("/v1/conversations/{id}/items")).await.expect(200)["first_id"].clone();
    let other = host.tenant("other", &["inference"]).await;
    for (method, path) in [
        ("GET", format!("/v1/conversations/{id}")),
        ("DELETE", format!("/v1/conversations/{id}")),
        ("GET", format!("/v1/conversations/{id}/items")),
        ("GET", format!("/v1/conversations/{id}/items/{}", item.as_str().unwrap())),
    ] {
        host.call(&other, method, &path, &Value::Null).await.expect(404);
    }
    let asked = json!({"model": "m", "conversation": id, "input": "x"});
    host.call(&other, "POST", "/v1/responses", &asked).await.expect(404);
    let many: Vec<Value> = (0..21).map(|_| json!({"role": "user", "content": "x"})).collect();
    host.post(&format!("/v1/conversations/{id}/items"), json!({"items": many})).await.expect(400);
}
