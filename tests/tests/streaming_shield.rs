//! A block in mid-stream, with the reply cut at every byte: nothing of the blocked span is ever sent.
//!
//! The orchestrator `emits-pieces` is a test guest that came in through the upload path; it replies with the pieces that
//! the request's metadata lists, so that the cut is known exactly.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use stockade_tests::{Client, Options, Server, component, scratch};

const SECRET: &str = "the launch code is XK-4711-ZULU and more";
const FORBIDDEN: &str = "XK-4711-ZULU";

fn prepared(server: &Server) -> Result<Client> {
    let client = server.admin();
    client.push("emits-pieces", "1.0.0", &component("emits_pieces"), &json!({}))?;
    client.bind("orchestrator", json!([{"component": "emits-pieces", "version": "1.0.0"}]))?;
    client.bind("shield.input", json!([]))?;
    Ok(client)
}

fn request(pieces: &[&str]) -> Value {
    json!({"model": "smollm2", "messages": [{"role": "user", "content": "go"}],
        "metadata": {"pieces": serde_json::to_string(pieces).expect("strings are JSON")}})
}

#[test]
fn a_forbidden_span_is_blocked_at_every_cut_and_never_sent_in_part() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let client = prepared(&server)?;
    let shield = json!([{"component": "regex-shield", "version": shipped_version(&client)?, 
        "config": {"refusal": "No.", "patterns": [{"name": "launch-code", "regex": "XK-[0-9]{4}-[A-Z]{4}", "action": "block"}]}}]);
    client.bind("shield.output", shield)?;

    let mut cuts: Vec<Vec<&str>> = (1..SECRET.len()).map(|i| vec![&SECRET[..i], &SECRET[i..]]).collect();
    cuts.push(vec![SECRET]);
    cuts.push((0..SECRET.len()).map(|i| &SECRET[i..i + 1]).collect());
    for pieces in cuts {
        let streamed = client.chat_stream(&request(&pieces))?;
        ensure!(streamed.finish_reason.as_deref() == Some("content_filter"), "{pieces:?}: {streamed:?}");
        ensure!(SECRET.starts_with(&streamed.text), "{pieces:?}: sent {:?}", streamed.text);
        ensure!(
            streamed.text.len() <= SECRET.find(FORBIDDEN).expect("it is there"),
            "{pieces:?}: sent {:?}",
            streamed.text
        );
        for chunk in &streamed.chunks {
            let sent = chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
            ensure!(!sent.contains("XK"), "{pieces:?}: {chunk}");
        }
        let whole = client.post("/v1/chat/completions", &request(&pieces))?.expect(200)?;
        ensure!(whole["choices"][0]["finish_reason"] == "content_filter", "{whole}");
        ensure!(!whole.to_string().contains("XK"), "{whole}");
    }
    Ok(())
}

#[test]
fn a_masked_span_is_replaced_at_every_cut() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let client = prepared(&server)?;
    let shield = json!([{"component": "regex-shield", "version": shipped_version(&client)?,
        "config": {"patterns": [{"name": "launch-code", "regex": "XK-[0-9]{4}-[A-Z]{4}", "action": "mask"}]}}]);
    client.bind("shield.output", shield)?;
    let expected = client.chat_stream(&request(&[SECRET]))?.text;
    ensure!(!expected.contains("XK") && expected.ends_with(" and more"), "{expected}");
    for i in 1..SECRET.len() {
        let streamed = client.chat_stream(&request(&[&SECRET[..i], &SECRET[i..]]))?;
        ensure!(streamed.text == expected, "cut at {i}: {:?} instead of {expected:?}", streamed.text);
        ensure!(streamed.finish_reason.as_deref() == Some("stop"), "{streamed:?}");
    }
    Ok(())
}

#[test]
fn a_blocked_question_costs_no_model_token() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let client = server.admin();
    let shield = json!([{"component": "regex-shield", "version": shipped_version(&client)?, 
        "config": {"refusal": "We do not talk about that.", "patterns": [{"name": "topic", "regex": "(?i)forbidden topic", "action": "block"}]}}]);
    client.bind("shield.input", shield)?;
    let body =
        json!({"model": "smollm2", "messages": [{"role": "user", "content": "Tell me about the FORBIDDEN TOPIC"}]});
    let whole = client.post("/v1/chat/completions", &body)?.expect(200)?;
    let choice = &whole["choices"][0];
    ensure!(choice["finish_reason"] == "content_filter", "{whole}");
    ensure!(choice["message"]["refusal"] == "We do not talk about that.", "{whole}");
    ensure!(whole["usage"]["completion_tokens"] == 0, "{whole}");
    Ok(())
}

/// The version under which the shipped regex-shield is bound.
fn shipped_version(client: &Client) -> Result<Value> {
    let component = client.get("/stockade/v1/components/regex-shield")?.expect(200)?;
    Ok(component["latest"].clone())
}
