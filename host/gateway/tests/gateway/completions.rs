//! `POST /v1/completions` and the tokenizer routes, as evaluation harnesses use them.

use crate::fakes::*;
use serde_json::{Value, json};
use stockade_core::event::FinishReason;
use stockade_core::infer::Prompt;

#[tokio::test]
async fn every_form_of_prompt_is_taken_and_choices_are_in_order() {
    let host = Host::new().await;
    for (prompt, texts) in [
        (json!("a b"), vec!["a b"]),
        (json!(["a", "b"]), vec!["a", "b"]),
        (json!([97, 98]), vec!["ab"]),
        (json!([[97], [98]]), vec!["a", "b"]),
    ] {
        let body = json!({"model": "m", "prompt": prompt, "n": 2});
        let whole = host.post("/v1/completions", body).await.expect(200);
        assert_eq!(whole["object"], "text_completion");
        let choices = whole["choices"].as_array().unwrap();
        assert_eq!(choices.len(), texts.len() * 2);
        for (i, choice) in choices.iter().enumerate() {
            assert_eq!(choice["index"], i);
            assert_eq!(choice["text"], texts[i / 2]);
        }
        let prompts = texts.len() as u64;
        assert_eq!(whole["usage"]["prompt_tokens"], 7 * prompts);
        assert_eq!(whole["usage"]["completion_tokens"], 6 * prompts);
    }
    let requests = host.inference.requests.lock().unwrap().clone();
    assert_eq!(requests[0].sampling.max_tokens, Some(16));
    assert!(matches!(&requests[6].prompt, Prompt::Tokens(t) if t == &[97, 98]));
    for prompt in [json!([]), json!([[]]), json!([1.5]), json!({"a": 1}), json!([1, "a"]), json!(-1)] {
        let body = json!({"model": "m", "prompt": prompt});
        let error = host.post("/v1/completions", body).await.expect(400);
        assert_eq!(error["error"]["param"], "prompt");
    }
}

#[tokio::test]
async fn an_echoed_prompt_is_scored_without_a_generated_token() {
    let host = Host::new().await;
    let body = json!({"model": "m", "prompt": [97, 98, 99], "echo": true, "max_tokens": 0, "logprobs": 1});
    let whole = host.post("/v1/completions", body).await.expect(200);
    let choice = &whole["choices"][0];
    assert_eq!(choice["text"], "abc");
    assert_eq!(
        choice["logprobs"],
        json!({
            "tokens": ["a", "b", "c"],
            "token_logprobs": [null, -0.25, -0.25],
            "top_logprobs": [null, {"b": -0.25}, {"c": -0.25}],
            "text_offset": [0, 1, 2],
        })
    );
    assert_eq!(whole["usage"]["prompt_tokens"], 3);
    assert_eq!(whole["usage"]["completion_tokens"], 0);
    assert!(host.inference.requests.lock().unwrap().is_empty());
    // With a generated token after it, as lm-eval asks.
    let generated = script(&[text_with_logprobs("!"), end(FinishReason::Length)]);
    let body = json!({"model": "m", "prompt": generated, "echo": true, "max_tokens": 1, "logprobs": 1});
    let whole = host.post("/v1/completions", body).await.expect(200);
    let choice = &whole["choices"][0];
    let tokens = choice["logprobs"]["tokens"].as_array().unwrap();
    assert_eq!(tokens.first().unwrap(), "^");
    assert_eq!(tokens.last().unwrap(), "!");
    assert_eq!(choice["finish_reason"], "length");
    assert!(choice["text"].as_str().unwrap().ends_with("]!"));
}

#[tokio::test]
async fn a_streamed_completion_writes_the_echo_first() {
    let host = Host::new().await;
    let body = json!({"model": "m", "prompt": "a b", "echo": true, "stream": true,
        "stream_options": {"include_usage": true}});
    let events = host.post("/v1/completions", body).await.events();
    assert_eq!(events.last().unwrap(), "[DONE]");
    let chunks: Vec<Value> = events[..events.len() - 1].iter().map(|e| serde_json::from_str(e).unwrap()).collect();
    let text: String = chunks.iter().filter_map(|c| c["choices"][0]["text"].as_str()).collect();
    assert_eq!(text, "a ba b");
    assert_eq!(chunks[0]["choices"][0]["text"], "a b");
    assert_eq!(chunks.last().unwrap()["usage"]["prompt_tokens"], 7);
}

#[tokio::test]
async fn tokenizer_routes_have_vllms_shapes() {
    let host = Host::new().await;
    let body = json!({"model": "m", "prompt": "hi", "return_token_strs": true});
    let tokens = host.post("/tokenize", body).await.expect(200);
    assert_eq!(
        tokens,
        json!({"count": 3, "max_model_len": 1000, "tokens": [94, 104, 105], "token_strs": ["^", "h", "i"]})
    );
    let body = json!({"prompt": "hi", "add_special_tokens": false});
    let tokens = host.post("/tokenize", body).await.expect(200);
    assert_eq!(tokens["tokens"], json!([104, 105]));
    let body = json!({"messages": [{"role": "user", "content": "yo"}]});
    let tokens = host.post("/tokenize", body).await.expect(200);
    assert_eq!(tokens["count"], 2);
    let text = host.post("/detokenize", json!({"tokens": [104, 105]})).await.expect(200);
    assert_eq!(text, json!({"prompt": "hi"}));
    let error = host.post("/detokenize", json!({"tokens": ["x"]})).await.expect(400);
    assert_eq!(error["error"]["param"], "tokens");
    let info = host.get("/tokenizer_info").await.expect(200);
    let whole = json!({"bos_token": "^", "chat_template": "m", "model": "m", "model_max_length": 1000,
        "tokenizer_class": "PreTrainedTokenizerFast"});
    assert_eq!(info, whole);
    let other = host.get("/tokenizer_info?model=org/big").await.expect(200);
    assert_eq!(other["chat_template"], "org/big");
    host.get("/tokenizer_info?model=nothing").await.expect(404);
}
