//! Shields in the middle of a turn, on a real host over HTTP: what goes to a tool, what comes back, and several at once.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stockade_tests::{Client, Options, Server, component, scratch};

/// A host whose orchestrator calls the tool `set__echo` with these arguments and says what it answered.
fn calling(arguments: &str) -> Result<(tempfile::TempDir, Server)> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let client = server.admin();
    // What a first start binds would mask as well.
    client.delete("/stockade/v1/bindings/shield.input")?;
    bind(&client, "tool/set", "offers_tools", &json!({}), json!({"names": ["echo"]}))?;
    let grants = json!({"components": ["tool/*"]});
    bind(&client, "orchestrator", "calls_tools", &grants, json!({"arguments": arguments}))?;
    Ok((data, server))
}

fn bind(client: &Client, role: &str, guest: &str, grants: &Value, config: Value) -> Result<()> {
    let name = guest.replace('_', "-");
    client.push(&name, "1.0.0", &component(guest), grants)?;
    client.bind(role, json!([{"component": name, "version": "1.0.0", "config": config, "refusal": "Not here."}]))?;
    Ok(())
}

fn blocks(word: &str) -> Value {
    json!({"word": word})
}

/// What the orchestrator said, and the trace's lines as `ROLE FUNCTION DECISION BYTES`.
fn turn(client: &Client) -> Result<(String, Vec<String>)> {
    let body = json!({"model": "smollm2", "messages": [{"role": "user", "content": "go"}]});
    let answer = client.post("/v1/chat/completions", &body)?;
    let id = answer.header("stockade-trace").context("a trace id")?.to_string();
    let said = answer.expect(200)?["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_string();
    let trace = client.trace(&id)?;
    let text = |call: &Value, field: &str| call[field].as_str().unwrap_or_default().to_string();
    let line = |call: &Value| {
        let bytes = call["scanned_bytes"].as_u64().unwrap_or_default();
        format!("{} {} {} {bytes}", text(call, "role"), text(call, "function"), text(call, "decision"))
    };
    Ok((said, trace["components"].as_array().context("components")?.iter().map(line).collect()))
}

#[test]
fn a_blocked_call_never_reaches_its_tool_and_the_trace_says_who_blocked_it() -> Result<()> {
    let (_data, server) = calling(r#"{"to":"\u0061nn@example.org"}"#)?;
    let client = server.admin();
    let (said, trace) = turn(&client)?;
    ensure!(said.contains("echo {") && trace.iter().any(|l| l.starts_with("tool/set call ok")), "{said} {trace:?}");

    bind(&client, "shield.output", "blocks_word", &json!({}), blocks("ann@"))?;
    let (said, trace) = turn(&client)?;
    ensure!(said.contains("Blocked(") && said.contains("Not here.") && !said.contains("example.org"), "{said}");
    ensure!(!trace.iter().any(|l| l.starts_with("tool/set call")), "{trace:?}");
    // `set__echo` and `{"to":"ann@example.org"}`.
    ensure!(trace.iter().any(|l| l == "shield.output check block 33"), "{trace:?}");
    Ok(())
}

#[test]
fn masked_arguments_arrive_masked() -> Result<()> {
    let (_data, server) = calling(r#"{"to":"ann@example.org"}"#)?;
    let client = server.admin();
    let version = client.shipped("pii")?;
    client.bind("shield.output", json!([{"component": "pii", "version": version}]))?;
    let (said, trace) = turn(&client)?;
    ensure!(said.contains("echo {") && !said.contains("example.org"), "{said}");
    ensure!(trace.iter().any(|l| l.starts_with("shield.output check edit")), "{trace:?}");
    Ok(())
}

#[test]
fn a_blocked_result_never_reaches_the_orchestrator_even_at_the_end_of_20_kb() -> Result<()> {
    let (_data, server) = calling(&format!(r#"{{"q":"{} Order 66"}}"#, "x".repeat(20_000)))?;
    let client = server.admin();
    bind(&client, "shield.input", "blocks_word", &json!({}), blocks("Order 66"))?;
    let (said, trace) = turn(&client)?;
    ensure!(said.contains("Blocked(") && !said.contains("xx") && !said.contains("66"), "{said}");
    ensure!(trace.iter().any(|l| l.starts_with("tool/set call ok")), "{trace:?}");
    ensure!(trace.iter().any(|l| l.starts_with("shield.input check block 200")), "{trace:?}");
    Ok(())
}

#[test]
fn tools_called_over_http_are_screened_as_those_of_a_turn() -> Result<()> {
    let (_data, server) = calling("{}")?;
    let client = server.admin();
    let invoke = |client: &Client, q: &str| {
        client.post("/v1/tool-runtime/invoke", &json!({"tool_name": "set__echo", "kwargs": {"q": q}}))
    };
    let over_mcp = |client: &Client, q: &str| -> Result<Value> {
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "set__echo", "arguments": {"q": q}}});
        Ok(client.post("/mcp", &call)?.expect(200)?["result"].clone())
    };
    ensure!(invoke(&client, "secret")?.expect(200)?["content"].as_str().is_some_and(|c| c.contains("secret")));
    for role in ["shield.output", "shield.input"] {
        bind(&client, role, "blocks_word", &json!({}), blocks("secret"))?;
        let refused = invoke(&client, "secret")?.expect(403)?;
        ensure!(refused["error"]["message"] == "Not here.", "{refused}");
        let refused = over_mcp(&client, "secret")?;
        ensure!(refused["isError"] == true && refused["content"][0]["text"] == "Not here.", "{refused}");
        ensure!(invoke(&client, "fine")?.expect(200)?["content"].as_str().is_some_and(|c| c.contains("fine")));
        ensure!(over_mcp(&client, "fine")?["isError"] == false);
        client.delete(&format!("/stockade/v1/bindings/{role}"))?;
    }
    Ok(())
}

#[test]
fn several_output_shields_judge_at_once() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let client = server.admin();
    bind(&client, "orchestrator", "says", &json!({}), json!({"text": "hi"}))?;
    let grants = json!({"buckets": ["meeting"]});
    client.push("meets-another", "1.0.0", &component("meets_another"), &grants)?;
    let shield = json!({"component": "meets-another", "version": "1.0.0"});
    // Each waits for the other: one after the other, the first would fail after ten seconds, and with it the request.
    client.bind("shield.output", json!([shield, shield]))?;
    let (said, _) = turn(&client)?;
    ensure!(said == "hi", "{said}");
    Ok(())
}
