//! `POST /v1/chat/completions` in OpenAI's shapes.

use crate::fakes::*;
use serde_json::{Value, json};
use stockade_core::chat::{Role, ToolChoice};
use stockade_core::event::{Event, FinishReason, ToolCallDelta};
use stockade_core::infer::{Constraint, Prompt};

#[tokio::test]
async fn a_whole_reply_has_every_field_of_the_schema() {
    let host = Host::new().await;
    let reply = host.chat("hello there", json!({})).await;
    assert!(reply.header("x-request-id").starts_with("req_"));
    assert!(reply.header("stockade-trace").starts_with("tr_"));
    let whole = reply.expect(200);
    assert!(whole["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(whole["model"], "m");
    assert!(whole["created"].as_u64() > Some(1_700_000_000));
    assert_eq!(
        whole["choices"],
        json!([{
            "index": 0,
            "message": {"role": "assistant", "content": "hello there", "refusal": null},
            "logprobs": null,
            "finish_reason": "stop",
        }])
    );
    assert_eq!(
        whole["usage"],
        json!({
            "prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 2},
        })
    );
}

#[tokio::test]
async fn a_stream_begins_with_the_role_and_ends_with_usage_and_done() {
    let host = Host::new().await;
    let body = json!({"stream": true, "stream_options": {"include_usage": true}});
    let events = host.chat("a b", body).await.events();
    assert_eq!(events.last().unwrap(), "[DONE]");
    let chunks: Vec<Value> = events[..events.len() - 1].iter().map(|e| serde_json::from_str(e).unwrap()).collect();
    let first = &chunks[0];
    assert_eq!(first["object"], "chat.completion.chunk");
    assert_eq!(first["choices"][0]["delta"]["role"], "assistant");
    assert!(chunks.iter().all(|c| c["id"] == first["id"]));
    let usage = chunks.last().unwrap();
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["total_tokens"], 10);
    let finish = &chunks[chunks.len() - 2]["choices"][0];
    assert_eq!(finish["finish_reason"], "stop");
    assert_eq!(finish["delta"], json!({}));
    let text: String = chunks.iter().filter_map(|c| c["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, "a b");
    let plain = host.chat("a b", json!({"stream": true})).await.events();
    assert!(plain.iter().all(|e| !e.contains("usage")));
}

#[tokio::test]
async fn several_choices_have_their_own_index_and_seed_and_count_the_prompt_once() {
    let host = Host::new().await;
    let body = json!({"n": 3, "seed": 5});
    let whole = host.chat("which", body).await.expect(200);
    let mut texts: Vec<String> = (0..3)
        .map(|i| {
            let choice = &whole["choices"][i];
            assert_eq!(choice["index"], i);
            choice["message"]["content"].as_str().unwrap().to_owned()
        })
        .collect();
    texts.sort();
    assert_eq!(texts, ["choice 0", "choice 1", "choice 2"]);
    assert_eq!(whole["usage"]["prompt_tokens"], 7);
    assert_eq!(whole["usage"]["completion_tokens"], 9);
    let seeds: Vec<_> = host.inference.requests.lock().unwrap().iter().map(|r| r.sampling.seed).collect();
    assert_eq!(seeds, [Some(5), Some(6), Some(7)]);
    let events = host.chat("which", json!({"n": 2, "stream": true})).await.events();
    let finishes: Vec<u64> = events
        .iter()
        .filter_map(|e| serde_json::from_str::<Value>(e).ok())
        .filter(|c| c["choices"][0]["finish_reason"].is_string())
        .map(|c| c["choices"][0]["index"].as_u64().unwrap())
        .collect();
    assert_eq!(finishes.len(), 2);
    assert!(finishes.contains(&0) && finishes.contains(&1));
}

#[tokio::test]
async fn sampling_tools_and_format_reach_the_model() {
    let host = Host::new().await;
    let body = json!({
        "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "repetition_penalty": 1.1,
        "frequency_penalty": 0.2, "presence_penalty": -0.3, "seed": -1, "stop": "END",
        "logit_bias": {"5": -100}, "max_completion_tokens": 12, "logprobs": true, "top_logprobs": 3,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "tool_choice": "required",
        "response_format": {"type": "json_object"},
        "chat_template_kwargs": {"enable_thinking": false},
        "messages": [
            {"role": "developer", "content": "brief"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        ],
    });
    host.chat("", body).await.expect(200);
    let requests = host.inference.requests.lock().unwrap();
    let request = &requests[0];
    let s = &request.sampling;
    assert_eq!((s.temperature, s.top_p, s.top_k, s.min_p), (0.5, 0.9, 40, 0.1));
    assert_eq!((s.repetition_penalty, s.frequency_penalty, s.presence_penalty), (1.1, 0.2, -0.3));
    assert_eq!((s.seed, s.max_tokens, s.logprobs), (Some(u64::MAX), Some(12), Some(3)));
    assert_eq!((s.stop.clone(), s.logit_bias.clone()), (vec!["END".to_string()], vec![(5, -100.0)]));
    assert_eq!(request.constraint, Some(Constraint::JsonObject));
    let Prompt::Chat(chat) = &request.prompt else {
        panic!("a chat");
    };
    assert_eq!(chat.tool_choice, ToolChoice::Required);
    assert_eq!(chat.messages[0].role, Role::System);
    assert_eq!(chat.template_args["enable_thinking"], false);
}

#[tokio::test]
async fn tool_calls_come_in_both_forms() {
    let host = Host::new().await;
    let call = |index, name: Option<&str>, arguments: &str| {
        Event::ToolCall(ToolCallDelta {
            index,
            id: name.map(|n| format!("call_{n}")),
            name: name.map(String::from),
            arguments: arguments.into(),
        })
    };
    let script = script(&[
        call(0, Some("a"), "{\"x\":"),
        call(0, None, "1}"),
        call(1, Some("b"), "{}"),
        end(FinishReason::ToolCalls),
    ]);
    let whole = host.chat(&script, json!({})).await.expect(200);
    let choice = &whole["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["content"], Value::Null);
    assert_eq!(
        choice["message"]["tool_calls"],
        json!([
            {"id": "call_a", "type": "function", "function": {"name": "a", "arguments": "{\"x\":1}"}},
            {"id": "call_b", "type": "function", "function": {"name": "b", "arguments": "{}"}},
        ])
    );
    let events = host.chat(&script, json!({"stream": true})).await.events();
    let deltas: Vec<Value> = events
        .iter()
        .filter_map(|e| serde_json::from_str::<Value>(e).ok())
        .filter_map(|c| c["choices"][0]["delta"].get("tool_calls").cloned())
        .collect();
    assert_eq!(deltas[0][0]["id"], "call_a");
    assert_eq!(deltas[0][0]["type"], "function");
    assert_eq!(deltas[1], json!([{"index": 0, "function": {"arguments": "1}"}}]));
    assert_eq!(deltas[2][0]["index"], 1);
}

#[tokio::test]
async fn logprobs_have_token_bytes_and_alternatives() {
    let host = Host::new().await;
    let body = json!({"logprobs": true, "top_logprobs": 2});
    let script = script(&[text_with_logprobs("é")]);
    let whole = host.chat(&script, body).await.expect(200);
    let entry = &whole["choices"][0]["logprobs"]["content"][0];
    assert_eq!(entry["token"], "é");
    assert_eq!(entry["bytes"], json!([195, 169]));
    assert_eq!(entry["top_logprobs"][1]["token"], "?");
}

#[tokio::test]
async fn failures_before_the_first_byte_have_a_status_and_later_ones_a_frame() {
    let host = Host::new().await;
    for stream in [false, true] {
        let reply = host.chat("fail", json!({"stream": stream})).await;
        assert!(!reply.header("stockade-trace").is_empty());
        let error = reply.expect(500);
        assert_eq!(error["error"]["code"], "internal");
        assert!(!error.to_string().contains("secret cause"));
        let reply = host.chat("full", json!({"stream": stream})).await;
        assert_eq!(reply.header("retry-after"), "1");
        assert_eq!(reply.expect(503)["error"]["code"], "overloaded");
    }
    for (said, code) in [("fail late", "overloaded"), ("cut", "internal")] {
        let events = host.chat(said, json!({"stream": true})).await.events();
        let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
        assert_eq!(last["error"]["code"], code, "{said}");
        assert!(events.iter().any(|e| e.contains("some")));
        assert!(!events.iter().any(|e| e == "[DONE]"));
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_in_openais_shape() {
    let host = Host::new().await;
    let picture = json!([{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AQID"}}]}]);
    for (more, status, param) in [
        (json!({"model": "none"}), 404, "model"),
        (json!({"model": "e"}), 400, "model"),
        (json!({"temperature": 9}), 400, "temperature"),
        (json!({"messages": []}), 400, "messages"),
        (json!({"messages": picture}), 400, "messages"),
        (json!({"tool_choice": "required"}), 400, "tool_choice"),
    ] {
        let reply = host.chat("x", more.clone()).await;
        assert_eq!(reply.header("content-type"), "application/json");
        let id = reply.header("x-request-id");
        let error = reply.expect(status)["error"].clone();
        assert_eq!(error["param"], param, "{more}");
        assert_eq!(error["type"], "invalid_request_error");
        assert_eq!(error["request_id"].as_str(), Some(id.as_str()));
        let code = if status == 404 { "not_found" } else { "invalid_request" };
        assert_eq!(error["code"], code);
    }
    let body = axum::body::Body::from("{\"model\": ");
    let reply = host.send(request(ADMIN, "POST", "/v1/chat/completions", &[], body)).await;
    assert_eq!(reply.expect(400)["error"]["code"], "invalid_request");
}

#[tokio::test]
async fn a_forced_tool_may_be_one_that_the_tenant_has_bound() {
    let host = Host::new().await;
    host.bind("tool/echo", "echo", "tool", json!({})).await;
    host.chat("hi", json!({"tool_choice": "required"})).await.expect(200);
    let named = json!({"type": "function", "function": {"name": "echo"}});
    host.chat("hi", json!({"tool_choice": named})).await.expect(200);
}

#[tokio::test]
async fn models_are_listed_and_found_by_ids_with_slashes() {
    let host = Host::new().await;
    let list = host.get("/v1/models").await.expect(200);
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"][0]["id"], "m");
    assert_eq!(list["data"][0]["object"], "model");
    for path in ["/v1/models/org/big", "/v1/models/org%2Fbig"] {
        assert_eq!(host.get(path).await.expect(200)["id"], "org/big");
    }
    let missing = host.get("/v1/models/none").await.expect(404);
    assert_eq!(missing["error"]["code"], "not_found");
}
