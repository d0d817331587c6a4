//! The shipped orchestrators over HTTP, pushed and bound as a tenant would, with the real default models and the echo
//! tool. What a small model makes of a task is its own affair; what its decoding is held to, and what the orchestrator
//! does with it, is not.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use stockade_tests::{Answer, Client, Options, Server, component, scratch};

/// A server whose default tenant has the echo tool, and this orchestrator with this configuration.
fn serving(orchestrator: &str, config: &Value) -> Result<(tempfile::TempDir, Server)> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let client = server.admin();
    client.push("echo-tool", "9.0.0", &component("echo-tool"), &json!({}))?;
    client.bind("tool/echo", json!([{"component": "echo-tool", "version": "9.0.0"}]))?;
    let grants = json!({"models": ["*"], "components": ["tool/*", "memory"]});
    client.push(orchestrator, "9.0.0", &component(orchestrator), &grants)?;
    client.bind("orchestrator", json!([{"component": orchestrator, "version": "9.0.0", "config": config}]))?;
    Ok((data, server))
}

fn question(text: &str) -> Value {
    json!({"model": "smollm2", "temperature": 0, "max_tokens": 60, "messages": [{"role": "user", "content": text}]})
}

/// The roles of the components that took part, in order. The trace may be readable up to 3 s after the reply.
fn roles(client: &Client, answer: &Answer) -> Result<Vec<String>> {
    let id = answer.header("stockade-trace").context("a trace id")?;
    let asked = Instant::now();
    loop {
        let trace = client.get(&format!("/stockade/v1/traces/{id}"))?;
        if trace.status == 200 {
            let calls = trace.body["components"].as_array().context("components")?;
            let ran = calls.iter().filter(|c| c["function"].as_str().is_some_and(|f| !f.contains("describe")));
            return Ok(ran.filter_map(|c| c["role"].as_str()).map(str::to_string).collect());
        }
        ensure!(asked.elapsed() < Duration::from_secs(3), "no trace {id} within 3 s: {}", trace.body);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The reply's text; it has ended well and called no tool of the client's.
fn replied(answer: Answer) -> Result<String> {
    let body = answer.expect(200)?;
    let choice = &body["choices"][0];
    ensure!(choice["message"]["tool_calls"].is_null(), "{body}");
    ensure!(["stop", "length"].contains(&choice["finish_reason"].as_str().unwrap_or_default()), "{body}");
    Ok(choice["message"]["content"].as_str().unwrap_or_default().to_string())
}

#[test]
fn a_tool_loop_calls_the_required_tool_and_replies() -> Result<()> {
    let (_data, server) = serving("tool-loop", &json!({"require_tool": true, "limits": {"model_calls": 3}}))?;
    let client = server.admin();
    let answer = client.post("/v1/chat/completions", &question("Use the echo tool to repeat the word hello."))?;
    let roles = roles(&client, &answer)?;
    ensure!(roles.iter().any(|r| r == "tool/echo"), "{roles:?}");
    replied(answer)?;
    Ok(())
}

#[test]
fn an_approval_of_a_tool_loop_may_come_after_a_restart() -> Result<()> {
    approved_after_a_restart("tool-loop", &json!({"approve": ["echo"], "limits": {"model_calls": 2}}))
}

#[test]
fn an_approval_of_react_may_come_after_a_restart() -> Result<()> {
    approved_after_a_restart("react", &json!({"approve": ["echo"], "limits": {"model_calls": 2}}))
}

#[test]
fn an_approval_of_a_plan_may_come_after_a_restart() -> Result<()> {
    approved_after_a_restart("plan-execute", &json!({"approve": ["echo"], "max_steps": 2, "max_replans": 0}))
}

/// The model is held to a call of the echo tool, which waits; the host is killed, and the answer makes it go on.
fn approved_after_a_restart(orchestrator: &str, config: &Value) -> Result<()> {
    let (data, server) = serving(orchestrator, config)?;
    let client = server.admin();
    let mut body = question("Use the echo tool to repeat the word hello.");
    body["tool_choice"] = json!("required");
    let answer = client.post("/v1/chat/completions", &body)?;
    let told = roles(&client, &answer)?;
    ensure!(!told.iter().any(|r| r == "tool/echo"), "not made before somebody allows it: {told:?}");
    let body = answer.expect(200)?;
    let interruption = &body["choices"][0]["stockade"]["interruption"];
    ensure!(interruption["request"]["calls"][0]["name"] == "echo", "{body}");
    let id = interruption["id"].as_str().with_context(|| body.to_string())?.to_string();
    server.kill();

    let server = Server::start(data.path(), &Options::default())?;
    let client = server.admin();
    let resume = format!("/stockade/v1/interruptions/{id}/resume");
    let answer = client.post(&resume, &json!({"answer": {"approve": true}}))?;
    let told = roles(&client, &answer)?;
    ensure!(told.iter().any(|r| r == "tool/echo"), "{told:?}");
    replied(answer)?;
    Ok(())
}

#[test]
fn react_makes_a_model_without_tool_training_call_a_tool() -> Result<()> {
    let (_data, server) = serving("react", &json!({"limits": {"model_calls": 3}}))?;
    let client = server.admin();
    let mut body = question("Use the echo tool to repeat the word hello.");
    body["tool_choice"] = json!("required");
    let answer = client.post("/v1/chat/completions", &body)?;
    let roles = roles(&client, &answer)?;
    ensure!(roles.iter().any(|r| r == "tool/echo"), "{roles:?}");
    ensure!(!replied(answer)?.contains("Action Input:"), "the scratchpad stays inside");

    // A tool of the application's comes back to it, with arguments that fit.
    body["tools"] = json!([{"type": "function", "function": {"name": "get_weather", "description": "Weather of a city",
        "parameters": {"type": "object", "additionalProperties": false, "required": ["city"],
            "properties": {"city": {"type": "string", "maxLength": 30}}}}}]);
    body["tool_choice"] = json!({"type": "function", "function": {"name": "get_weather"}});
    let whole = client.post("/v1/chat/completions", &body)?.expect(200)?;
    let call = &whole["choices"][0]["message"]["tool_calls"][0]["function"];
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().context("arguments")?)?;
    ensure!(call["name"] == "get_weather" && arguments["city"].is_string(), "{whole}");
    ensure!(whole["choices"][0]["finish_reason"] == "tool_calls", "{whole}");
    Ok(())
}

#[test]
fn a_plan_ends_with_a_reply_in_the_form_that_was_asked_for() -> Result<()> {
    let (_data, server) = serving("plan-execute", &json!({"max_steps": 2, "max_replans": 1}))?;
    let client = server.admin();
    let mut body = question("Echo the word hello, then tell me what came back.");
    body["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "word", "schema": {
        "type": "object", "additionalProperties": false, "required": ["word"],
        "properties": {"word": {"type": "string", "maxLength": 20}}}}});
    let answer = client.post("/v1/chat/completions", &body)?;
    let text = replied(answer)?;
    let word: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    ensure!(word["word"].is_string(), "{text}");
    Ok(())
}

#[test]
fn answers_come_from_memory_and_cite_nothing_else() -> Result<()> {
    let (_data, server) = serving("rag", &json!({"banks": ["facts"], "limit": 2}))?;
    let client = server.admin();
    client.push("knows-lines", "1.0.0", &component("knows_lines"), &json!({}))?;
    let lines = ["The Teapot T3 boils a litre of water in 90 seconds.", "The Teapot T3 costs 49 euros."];
    client.bind("memory", json!([{"component": "knows-lines", "version": "1.0.0", "config": {"lines": lines}}]))?;
    let answer = client.post("/v1/chat/completions", &question("How much does the Teapot T3 cost?"))?;
    let roles = roles(&client, &answer)?;
    ensure!(roles.iter().any(|r| r == "memory"), "{roles:?}");
    let text = replied(answer)?;
    ensure!(!text.is_empty() && (3..10).all(|n| !text.contains(&format!("[{n}]"))), "{text}");

    let answer = client.post("/v1/chat/completions", &question("Who was Napoleon?"))?;
    ensure!(replied(answer)?.starts_with("I have found nothing"), "nothing about him in the bank");
    Ok(())
}

#[test]
fn a_router_decides_by_rules_by_examples_and_by_asking_a_model() -> Result<()> {
    // The bound of a route shows which one was taken.
    let config = json!({"default": "other", "by": ["rules", "similarity"], "routes": [
        {"name": "code", "keywords": ["rust"], "max_tokens": 3, "tools": []},
        {"name": "weather", "examples": ["Will it rain tomorrow?", "How warm is it outside?"], "max_tokens": 5, "tools": []},
        {"name": "other", "max_tokens": 7, "tools": []}]});
    let (_data, server) = serving("router", &config)?;
    let client = server.admin();
    let tokens = |text: &str| -> Result<u64> {
        let whole = client.post("/v1/chat/completions", &question(text))?.expect(200)?;
        whole["usage"]["completion_tokens"].as_u64().context("usage")
    };
    ensure!(tokens("Write a long poem about Rust.")? == 3);
    ensure!(tokens("Tell me at length: is it going to rain on Friday?")? == 5);
    ensure!(tokens("Tell me at length about the history of France.")? == 7);

    // Decoding allows the names alone, so a model's choice is always one of them.
    let config = json!({"default": "none", "by": ["model"], "routes": [
        {"name": "sums", "description": "arithmetic", "max_tokens": 3, "tools": []},
        {"name": "poems", "description": "poetry", "max_tokens": 3, "tools": []},
        {"name": "none", "max_tokens": 50, "tools": []}]});
    client.bind("orchestrator", json!([{"component": "router", "version": "9.0.0", "config": config}]))?;
    let whole = client.post("/v1/chat/completions", &question("Write a long poem."))?.expect(200)?;
    ensure!(whole["usage"]["completion_tokens"].as_u64() > Some(3), "the choice costs tokens of its own: {whole}");
    Ok(())
}

#[test]
fn a_shield_that_blocks_ends_an_orchestrated_turn_as_filtered() -> Result<()> {
    let (_data, server) = serving("tool-loop", &json!({"require_tool": true, "limits": {"model_calls": 2}}))?;
    let client = server.admin();
    client.push("blocks-word", "1.0.0", &component("blocks_word"), &json!({}))?;
    // The tool's name stands in the step that tells of the call, and output shields see steps; it stands in the call too.
    client
        .bind("shield.output", json!([{"component": "blocks-word", "version": "1.0.0", "config": {"word": "echo"}}]))?;
    let answer = client.post("/v1/chat/completions", &question("Use the echo tool to repeat the word hello."))?;
    let roles = roles(&client, &answer)?;
    ensure!(!roles.iter().any(|r| r == "tool/echo"), "{roles:?}");
    let body = answer.expect(200)?;
    ensure!(body["choices"][0]["finish_reason"] == "content_filter", "{body}");
    Ok(())
}
