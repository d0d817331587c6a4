//! Shields in front of and behind the model: nothing of a blocked span is sent, failures close.

use crate::fakes::*;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use stockade_core::event::{Event, FinishReason, ToolCallDelta};

/// A streamed reply, put together.
#[derive(Debug, Default)]
struct Streamed {
    text: String,
    reasoning: String,
    refusal: String,
    name: String,
    arguments: String,
    finish: Option<String>,
    error: Option<Value>,
    logprobs: Vec<String>,
    chunks: usize,
}

fn streamed(reply: &Reply) -> Streamed {
    let mut out = Streamed::default();
    for data in reply.events() {
        if data == "[DONE]" {
            continue;
        }
        let chunk: Value = serde_json::from_str(&data).unwrap();
        out.chunks += 1;
        if chunk["error"].is_object() {
            out.error = Some(chunk["error"].clone());
        }
        let choice = &chunk["choices"][0];
        let delta = &choice["delta"];
        out.text += delta["content"].as_str().unwrap_or_default();
        out.reasoning += delta["reasoning_content"].as_str().unwrap_or_default();
        out.refusal += delta["refusal"].as_str().unwrap_or_default();
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            out.name += call["function"]["name"].as_str().unwrap_or_default();
            out.arguments += call["function"]["arguments"].as_str().unwrap_or_default();
        }
        for entry in choice["logprobs"]["content"].as_array().into_iter().flatten() {
            out.logprobs.push(entry["token"].as_str().unwrap().into());
        }
        if let Some(finish) = choice["finish_reason"].as_str() {
            out.finish = Some(finish.into());
        }
    }
    out
}

fn word(word: &str, action: &str) -> Value {
    json!({"config": {"word": word, "action": action}, "refusal": "No."})
}

#[tokio::test]
async fn a_blocked_input_is_a_refusal_without_a_model_token() {
    let host = Host::new().await;
    host.bind("shield.input", "word", "shield", word("bomb", "block")).await;
    let reply = host.chat("a bomb", json!({})).await;
    let id = reply.header("stockade-trace");
    let whole = reply.expect(200);
    let choice = &whole["choices"][0];
    assert_eq!(choice["finish_reason"], "content_filter");
    assert_eq!(choice["message"]["refusal"], "No.");
    assert_eq!(choice["message"]["content"], Value::Null);
    assert_eq!(whole["usage"]["total_tokens"], 0);
    assert!(host.inference.requests.lock().unwrap().is_empty());
    let trace = host.trace(&id).await;
    assert_eq!(trace["status"], "blocked");
    assert_eq!(trace["components"][0]["decision"], "block");

    let stream = streamed(&host.chat("a bomb", json!({"stream": true, "n": 2})).await);
    assert_eq!(stream.refusal, "No.No.");
    assert_eq!(stream.finish.as_deref(), Some("content_filter"));
}

#[tokio::test]
async fn an_output_shield_is_told_the_conversation_as_the_input_shields_left_it() {
    let host = Host::new().await;
    host.bind("shield.input", "word", "shield", word("bomb", "mask")).await;
    host.bind("shield.output", "word", "shield", word("xyz", "block")).await;
    host.chat("a bomb", json!({})).await.expect(200);
    let told = host.plugins.conversations.lock().unwrap().clone();
    assert_eq!(told.len(), 1);
    let last = told[0].last().unwrap().joined_text();
    assert!(last.starts_with("a ") && !last.contains("bomb"), "{last}");
}

#[tokio::test]
async fn a_masked_input_reaches_the_model_masked_in_every_dialect() {
    let host = Host::new().await;
    host.bind("shield.input", "word", "shield", word("bob", "mask")).await;
    host.chat("hi bob", json!({})).await.expect(200);
    for prompt in [json!("hi bob"), json!(["hi bob"]), json!([104, 105, 32, 98, 111, 98])] {
        let body = json!({"model": "m", "prompt": prompt, "echo": true});
        let whole = host.post("/v1/completions", body).await.expect(200);
        assert_eq!(whole["choices"][0]["text"], "hi #hi #");
    }
    let body = json!({"model": "e", "input": ["hi bob", "you"]});
    host.post("/v1/embeddings", body).await.expect(200);
    let seen = format!("{:?}", host.inference.requests.lock().unwrap());
    assert!(!seen.contains("bob") && seen.contains("hi #"), "{seen}");
    let seen = format!("{:?}", host.inference.embeds.lock().unwrap());
    assert!(!seen.contains("bob") && seen.contains("hi #"), "{seen}");
}

#[tokio::test]
async fn input_shields_block_completions_and_embeddings_too() {
    let host = Host::new().await;
    host.bind("shield.input", "word", "shield", word("bomb", "block")).await;
    let body = json!({"model": "m", "prompt": ["fine", "a bomb"]});
    let whole = host.post("/v1/completions", body).await.expect(200);
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
    assert_eq!(whole["choices"][1]["finish_reason"], "content_filter");
    assert_eq!(whole["choices"][1]["text"], "");
    let body = json!({"model": "e", "input": "a bomb"});
    let refused = host.post("/v1/embeddings", body).await.expect(403);
    assert_eq!(refused["error"]["message"], "No.");
    assert!(host.inference.embeds.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_block_in_mid_stream_sends_nothing_of_the_span_at_any_cut() {
    let host = Host::new().await;
    host.bind("shield.output", "word", "shield", word("sécret", "block")).await;
    host.bind("shield.output", "word2", "shield", word("zzz", "mask")).await;
    let said = "the code is sécret and more";
    for cut in (1..said.len()).filter(|c| said.is_char_boundary(*c)) {
        let script = script(&[text(&said[..cut]), text(&said[cut..])]);
        let stream = streamed(&host.chat(&script, json!({"stream": true})).await);
        assert_eq!(stream.text, "the code is ", "cut at {cut}");
        assert_eq!(stream.refusal, "No.");
        assert_eq!(stream.finish.as_deref(), Some("content_filter"));
        assert!(stream.error.is_none());
    }
    let pieces: Vec<Event> = said.split_inclusive(|_| true).map(text).collect();
    let reply = host.chat(&script(&pieces), json!({})).await;
    let id = reply.header("stockade-trace");
    let whole = reply.expect(200);
    assert!(!whole.to_string().contains("sécr"), "{whole}");
    assert_eq!(whole["choices"][0]["message"]["content"], "the code is ");
    assert!(whole["usage"]["prompt_tokens"].as_u64() > Some(0));
    assert_eq!(host.trace(&id).await["status"], "blocked");
}

#[tokio::test]
async fn the_model_stops_when_a_shield_ends_the_reply() {
    let host = Host::new().await;
    host.bind("shield.output", "word", "shield", word("xxx", "block")).await;
    host.chat("flood", json!({})).await.expect(200);
    for _ in 0..100 {
        if host.inference.cancelled.load(Ordering::SeqCst) == 1 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the generation goes on");
}

#[tokio::test]
async fn reasoning_and_tool_calls_pass_the_shields_as_well() {
    let host = Host::new().await;
    host.bind("shield.output", "word", "shield", word("secret", "mask")).await;
    let call = |name: Option<&str>, arguments: &str| {
        Event::ToolCall(ToolCallDelta {
            index: 0,
            id: name.map(|_| "call_1".into()),
            name: name.map(String::from),
            arguments: arguments.into(),
        })
    };
    let script = script(&[
        Event::Reasoning { text: "a sec".into() },
        Event::Reasoning { text: "ret thought".into() },
        text("the secr"),
        text("et"),
        call(Some("find_secret"), "{\"q\": \"se"),
        call(None, "cret\"}"),
        end(FinishReason::ToolCalls),
    ]);
    let stream = streamed(&host.chat(&script, json!({"stream": true})).await);
    assert_eq!(stream.reasoning, "a # thought");
    assert_eq!(stream.text, "the #");
    assert_eq!(stream.name, "find_#");
    assert_eq!(stream.arguments, "{\"q\": \"#\"}");
    assert_eq!(stream.finish.as_deref(), Some("tool_calls"));
    let whole = host.chat(&script, json!({})).await.expect(200);
    let message = &whole["choices"][0]["message"];
    assert_eq!(message["tool_calls"][0]["id"], "call_1");
    assert_eq!(message["tool_calls"][0]["function"]["name"], "find_#");
    assert!(!whole.to_string().contains("secret"), "{whole}");
}

#[tokio::test]
async fn a_tool_call_with_a_forbidden_argument_never_leaves() {
    let host = Host::new().await;
    host.bind("shield.output", "word", "shield", word("rm -rf", "block")).await;
    let call = Event::ToolCall(ToolCallDelta {
        index: 0,
        id: Some("c".into()),
        name: Some("shell".into()),
        arguments: "{\"run\": \"rm -rf /\"}".into(),
    });
    let script = script(&[call, end(FinishReason::ToolCalls)]);
    let stream = streamed(&host.chat(&script, json!({"stream": true})).await);
    assert_eq!(stream.arguments, "{\"run\": \"");
    assert_eq!(stream.finish.as_deref(), Some("content_filter"));
}

#[tokio::test]
async fn escapes_in_arguments_hide_nothing_however_they_are_cut() {
    let host = Host::new().await;
    host.bind("shield.output", "word", "shield", word("ann@", "block")).await;
    let whole = r#"{"to": "ann\u0040example.org"}"#;
    let call = |first: bool, arguments: &str| {
        Event::ToolCall(ToolCallDelta {
            index: 0,
            id: first.then(|| "c".into()),
            name: first.then(|| "mail".into()),
            arguments: arguments.into(),
        })
    };
    for cut in 0..=whole.len() {
        let (before, after) = whole.split_at(cut);
        let script = script(&[call(true, before), call(false, after), end(FinishReason::ToolCalls)]);
        let stream = streamed(&host.chat(&script, json!({"stream": true})).await);
        assert_eq!(stream.arguments, "{\"to\": \"", "cut at {cut}");
        assert_eq!(stream.finish.as_deref(), Some("content_filter"));
    }
    // What was judged is what arrives, and an escape that never becomes whole arrives too.
    for (arguments, want) in
        [(r#"{"to": "b\u006fb\n"}"#, r#"{"to": "bob\n"}"#), (r#"{"to": "b\u00"#, r#"{"to": "b\u00"#)]
    {
        let script = script(&[call(true, arguments), end(FinishReason::ToolCalls)]);
        assert_eq!(streamed(&host.chat(&script, json!({"stream": true})).await).arguments, want);
    }
}

#[tokio::test]
async fn what_stands_around_a_conversation_passes_the_input_shields() {
    let tool = |description: &str, property: &str| {
        let parameters = json!({"type": "object", "properties": {(property): {"type": "string", "enum": ["a bomb"]}}});
        json!({"tools": [{"type": "function", "function": {"name": "f", "description": description,
            "parameters": parameters}}]})
    };
    let named = json!({"messages": [{"role": "user", "name": "a bomb", "content": "hi"}]});
    let template = json!({"chat_template_kwargs": {"tone": {"of": ["a bomb"]}}});
    let result = json!({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": r#"{"is": "a b\u006fmb"}"#}]});
    let host = Host::new().await;
    host.bind("shield.input", "word", "shield", word("bomb", "block")).await;
    for more in [&tool("a bomb", "x"), &tool("fine", "x"), &tool("fine", "bomb"), &template, &named] {
        let whole = host.chat("hi", more.clone()).await.expect(200);
        assert_eq!(whole["choices"][0]["finish_reason"], "content_filter", "{more}");
        assert_eq!(whole["choices"][0]["message"]["refusal"], "No.", "{more}");
    }
    assert!(host.inference.requests.lock().unwrap().is_empty());

    let host = Host::new().await;
    host.bind("shield.input", "word", "shield", word("bomb", "mask")).await;
    for more in [&tool("a bomb", "x"), &template, &named] {
        host.chat("hi", more.clone()).await.expect(200);
        let asked = host.inference.requests.lock().unwrap().pop().unwrap();
        let seen = format!("{asked:?}");
        assert!(!seen.contains("bomb") && seen.contains("a #"), "{seen}");
    }
    // The name of a property cannot be masked.
    let whole = host.chat("hi", tool("fine", "bomb")).await.expect(200);
    assert_eq!(whole["choices"][0]["finish_reason"], "content_filter");
    // A tool's JSON comes as what it says.
    host.chat("hi", result).await.expect(200);
    let seen = format!("{:?}", host.inference.requests.lock().unwrap());
    assert!(seen.contains("a bomb"), "the scripted shield looks at texts alone: {seen}");
}

#[tokio::test]
async fn several_output_shields_judge_a_piece_at_once() {
    let host = Host::new().await;
    host.bind("shield.output", "meets-a", "shield", json!({})).await;
    host.bind("shield.output", "meets-b", "shield", json!({})).await;
    // One after the other, the first would wait for ever.
    let reply = tokio::time::timeout(std::time::Duration::from_secs(20), host.chat("two words", json!({})));
    let whole = reply.await.expect("they meet").expect(200);
    assert_eq!(whole["choices"][0]["message"]["content"], "two words");
}

#[tokio::test]
async fn logprobs_follow_their_text_and_those_of_masked_text_stay_behind() {
    let host = Host::new().await;
    host.bind("shield.output", "word", "shield", word("bc", "mask")).await;
    let script = script(&[text_with_logprobs("ab"), text_with_logprobs("cdb")]);
    let body = json!({"stream": true, "logprobs": true, "top_logprobs": 2});
    let stream = streamed(&host.chat(&script, body).await);
    assert_eq!(stream.text, "a#db");
    assert_eq!(stream.logprobs, ["a", "d", "b"]);
}

#[tokio::test]
async fn a_failing_shield_closes_unless_the_binding_says_otherwise() {
    for (role, limit) in [("shield.input", "cpu"), ("shield.output", "memory")] {
        let host = Host::new().await;
        host.bind(role, "broken", "shield", json!({})).await;
        for stream in [false, true] {
            let reply = host.chat("hello", json!({"stream": stream})).await;
            let id = reply.header("stockade-trace");
            let error = reply.expect(503)["error"].clone();
            assert_eq!(error["code"], "component_failed", "{role}");
            assert_eq!(error["limit"], limit);
            assert_eq!(error["component"], "broken");
            assert!(!error.to_string().contains("hello"));
            assert_eq!(host.trace(&id).await["status"], "failed");
        }
        let host = Host::new().await;
        host.bind(role, "broken", "shield", json!({"on_failure": "allow"})).await;
        let reply = host.chat("hello you", json!({})).await;
        let id = reply.header("stockade-trace");
        let whole = reply.expect(200);
        assert_eq!(whole["choices"][0]["message"]["content"], "hello you");
        let trace = host.trace(&id).await;
        assert_eq!(trace["status"], "ok");
        let notes = trace["notes"].to_string();
        assert!(notes.contains("let through"), "{notes}");
    }
}

#[tokio::test]
async fn a_shield_that_lies_about_offsets_has_failed() {
    let host = Host::new().await;
    host.bind("shield.output", "liar", "shield", json!({})).await;
    let error = host.chat("hello", json!({})).await.expect(503);
    assert_eq!(error["error"]["code"], "component_failed");
    assert_eq!(error["error"]["limit"], "trap");
    assert!(!error.to_string().contains("hello"));
}

#[tokio::test]
async fn an_observing_shield_is_recorded_and_changes_nothing() {
    for role in ["shield.input", "shield.output"] {
        let host = Host::new().await;
        let mut binding = word("hello", "block");
        binding["mode"] = json!("observe");
        host.bind(role, "word", "shield", binding).await;
        let reply = host.chat("say hello twice", json!({})).await;
        let id = reply.header("stockade-trace");
        let whole = reply.expect(200);
        assert_eq!(whole["choices"][0]["message"]["content"], "say hello twice");
        let notes = host.trace(&id).await["notes"].to_string();
        assert!(notes.contains("observe"), "{role}: {notes}");
    }
}

#[tokio::test]
async fn the_orchestrator_answers_in_the_models_place_behind_the_same_shields() {
    let host = Host::new().await;
    let events = json!([
        {"type": "text", "text": "my sec"},
        {"type": "text", "text": "ret"},
        {"type": "end", "reason": "stop", "usage": {"prompt_tokens": 1, "cached_tokens": 0, "completion_tokens": 2}},
    ]);
    host.bind("orchestrator", "says", "orchestrator", json!({"config": {"events": events}})).await;
    host.bind("shield.output", "word", "shield", word("secret", "mask")).await;
    let whole = host.chat("hi", json!({})).await.expect(200);
    assert_eq!(whole["choices"][0]["message"]["content"], "my #");
    assert_eq!(whole["usage"]["completion_tokens"], 2);
    assert!(host.inference.requests.lock().unwrap().is_empty());
    // Completions are no conversation.
    let body = json!({"model": "m", "prompt": "plain"});
    let whole = host.post("/v1/completions", body).await.expect(200);
    assert_eq!(whole["choices"][0]["text"], "plain");
}

#[tokio::test]
async fn an_orchestrator_without_an_end_has_failed() {
    let host = Host::new().await;
    let config = json!({"config": {"events": [{"type": "text", "text": "half"}]}});
    host.bind("orchestrator", "says", "orchestrator", config).await;
    let stream = streamed(&host.chat("hi", json!({"stream": true})).await);
    assert_eq!(stream.text, "half");
    assert_eq!(stream.error.unwrap()["code"], "component_failed");
    assert!(stream.finish.is_none());
    host.chat("hi", json!({})).await.expect(503);
}
