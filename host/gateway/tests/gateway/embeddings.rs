//! `POST /v1/embeddings`.

use crate::fakes::*;
use serde_json::json;
use stockade_core::infer::EmbedInput;

#[tokio::test]
async fn every_form_of_input_is_taken() {
    let host = Host::new().await;
    for (input, n) in [(json!("a"), 1), (json!(["a", "b"]), 2), (json!([1, 2]), 1), (json!([[1], [2, 3]]), 2)] {
        let body = json!({"model": "e", "input": input, "dimensions": 4});
        let whole = host.post("/v1/embeddings", body).await.expect(200);
        assert_eq!(whole["object"], "list");
        assert_eq!(whole["data"].as_array().unwrap().len(), n);
        assert_eq!(whole["data"][0]["embedding"], json!([1.0, 0.0, 0.0, 0.0]));
        assert_eq!(whole["usage"], json!({"prompt_tokens": 5, "total_tokens": 5}));
    }
    let embeds = host.inference.embeds.lock().unwrap();
    assert_eq!(embeds[3].inputs[1], EmbedInput::Tokens(vec![2, 3]));
    assert_eq!(embeds[0].dimensions, Some(4));
}

#[tokio::test]
async fn base64_is_little_endian_f32() {
    let host = Host::new().await;
    let body = json!({"model": "e", "input": "a", "encoding_format": "base64"});
    let whole = host.post("/v1/embeddings", body).await.expect(200);
    assert_eq!(whole["data"][0]["embedding"], "AACAPwAAAAAAAAAAAAAAAA==");
}

#[tokio::test]
async fn wrong_fields_are_named() {
    let host = Host::new().await;
    for (body, param) in [
        (json!({"model": "m", "input": "a"}), "model"),
        (json!({"model": "e"}), "input"),
        (json!({"model": "e", "input": ""}), "input"),
        (json!({"model": "e", "input": []}), "input"),
        (json!({"model": "e", "input": ["a", 5]}), "input"),
        (json!({"model": "e", "input": "a", "dimensions": 5}), "dimensions"),
        (json!({"model": "e", "input": "a", "dimensions": 0}), "dimensions"),
        (json!({"model": "e", "input": "a", "encoding_format": "hex"}), "encoding_format"),
        (json!({"model": "e", "input": vec!["a"; 2049]}), "input"),
    ] {
        let error = host.post("/v1/embeddings", body.clone()).await.expect(400);
        assert_eq!(error["error"]["param"], param);
    }
}
