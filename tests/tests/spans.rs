//! What a component measures of itself stands in its request's stored trace.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stockade_tests::{Options, Server, component, fixture, scratch};

#[test]
fn a_components_spans_stand_below_its_call_in_the_trace() -> Result<()> {
    let data = scratch();
    let tiny = format!("tiny={}", fixture("llama32-tiny").display());
    let options = Options::default().arg("--offline").arg("--model").arg(&tiny);
    let server = Server::start(data.path(), &options.env("STOCKADE_COMPONENTS__BIND_SHIPPED", "false"))?;
    let client = server.admin();
    client.push("says", "1", &component("says"), &Value::Null)?;
    client.bind("orchestrator", json!([{"component": "says", "version": "1", "config": {"text": "Hello."}}]))?;

    let chat = json!({"model": "tiny", "messages": [{"role": "user", "content": "go"}]});
    let reply = client.post("/v1/chat/completions", &chat)?;
    let id = reply.header("stockade-trace").context("a trace")?.to_string();
    ensure!(reply.expect(200)?["choices"][0]["message"]["content"] == "Hello.");
    let trace = client.trace(&id)?;
    let spans = trace["spans"].as_array().context("spans")?;
    let named = |name: &str| spans.iter().find(|s| s["name"] == name).with_context(|| format!("no {name}: {trace}"));
    let (own, call) = (named("saying")?, named("orchestrator says@1")?);
    ensure!(own["parent"] == call["name"] && own["attributes"] == json!({"bytes": "6"}), "{own}");
    ensure!(call.get("attributes").is_none() && call["parent"] == "request", "{call}");
    let times = |span: &Value| Some((span["start_us"].as_u64()?, span["duration_us"].as_u64()?));
    let ((own_start, own_us), (start, us)) = times(own).zip(times(call)).context("times")?;
    ensure!(own_start >= start && own_us <= us, "{own} {call}");
    Ok(())
}
