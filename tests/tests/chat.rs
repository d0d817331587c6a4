//! A tenant chats with the real default model through four sandboxed components.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stockade_tests::{Options, Server, scratch};

fn question(text: &str) -> Value {
    json!({"model": "smollm2", "temperature": 0, "max_tokens": 40,
        "messages": [{"role": "user", "content": text}]})
}

#[test]
fn the_real_model_answers_through_shields_orchestrator_and_prompt_store() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let client = server.admin();

    let answer = client.post("/v1/chat/completions", &question("What is the capital of France?"))?;
    let id = answer.header("stockade-trace").context("a trace id")?.to_string();
    let whole = answer.expect(200)?;
    let text = whole["choices"][0]["message"]["content"].as_str().context("an answer")?;
    ensure!(text.contains("Paris"), "{text}");
    ensure!(whole["usage"]["completion_tokens"].as_u64() > Some(3), "{whole}");

    let trace = client.trace(&id)?;
    ensure!(trace["status"] == "ok" && trace["model"] == "smollm2", "{trace}");
    let calls = trace["components"].as_array().context("components")?;
    for (role, component) in [
        ("shield.input", "regex-shield"),
        ("orchestrator", "chat"),
        ("prompt-store", "prompt-store"),
        ("shield.output", "regex-shield"),
    ] {
        let call = calls
            .iter()
            .find(|c| c["role"] == role && c["component"] == component)
            .with_context(|| format!("{component} as {role} in {trace}"))?;
        ensure!(call["wall_us"].as_u64() > Some(0), "{call}");
        ensure!(call["peak_memory_bytes"].as_u64() > Some(0), "{call}");
        ensure!(call["digest"].as_str().is_some_and(|d| d.len() == 64), "{call}");
    }

    // Greedy decoding through the stream gives the same text.
    let streamed = client.chat_stream(&question("What is the capital of France?"))?;
    ensure!(streamed.text == text && streamed.done, "{:?} instead of {text:?}", streamed.text);
    ensure!(streamed.finish_reason.as_deref() == Some("stop"), "{streamed:?}");
    Ok(())
}

#[test]
fn a_schema_is_obeyed_whatever_the_model_wants() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let mut body = question("Describe Paris.");
    body["max_tokens"] = json!(120);
    body["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "city", "schema": {
        "type": "object", "additionalProperties": false, "required": ["name", "population"],
        "properties": {"name": {"type": "string", "maxLength": 20}, "population": {"type": "integer", "minimum": 0, "maximum": 99999999}}}}});
    let whole = server.admin().post("/v1/chat/completions", &body)?.expect(200)?;
    let text = whole["choices"][0]["message"]["content"].as_str().context("an answer")?;
    let city: Value = serde_json::from_str(text).with_context(|| text.to_string())?;
    ensure!(city["name"].is_string() && city["population"].is_u64(), "{city}");
    ensure!(city.as_object().map(|o| o.len()) == Some(2), "{city}");
    Ok(())
}

#[test]
fn a_named_tool_is_called_with_arguments_that_fit_its_schema() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let mut body = question("What is the weather in Paris?");
    body["max_tokens"] = json!(100);
    body["tools"] = json!([{"type": "function", "function": {"name": "get_weather", "description": "Weather of a city",
        "parameters": {"type": "object", "additionalProperties": false, "required": ["city"],
            "properties": {"city": {"type": "string", "maxLength": 30}}}}}]);
    body["tool_choice"] = json!({"type": "function", "function": {"name": "get_weather"}});
    let whole = server.admin().post("/v1/chat/completions", &body)?.expect(200)?;
    let choice = &whole["choices"][0];
    let call = &choice["message"]["tool_calls"][0];
    ensure!(call["function"]["name"] == "get_weather", "{whole}");
    let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().context("arguments")?)?;
    ensure!(arguments["city"].is_string(), "{arguments}");
    Ok(())
}

#[test]
fn bound_tools_are_run_by_the_orchestrator_and_their_result_reaches_the_model() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let client = server.admin();
    client.push("echo-tool", "9.0.0", &stockade_tests::component("echo-tool"), &Value::Null)?;
    client.bind("tool/echo", json!([{"component": "echo-tool", "version": "9.0.0"}]))?;
    let mut body = question("Use the echo tool to repeat the word hello.");
    body["max_tokens"] = json!(200);
    body["tool_choice"] = json!("required");
    let answer = client.post("/v1/chat/completions", &body)?;
    let id = answer.header("stockade-trace").context("a trace id")?.to_string();
    let whole = answer.expect(200)?;
    ensure!(
        whole["choices"][0]["message"]["tool_calls"].is_null(),
        "the host's own tool is no business of the client: {whole}"
    );
    let trace = client.trace(&id)?;
    let calls = trace["components"].as_array().context("components")?;
    ensure!(
        calls.iter().any(|c| c["role"] == "tool/echo" && c["function"].as_str().is_some_and(|f| f.contains("call"))),
        "{trace}"
    );
    Ok(())
}

#[test]
fn embeddings_of_like_texts_are_closer_than_those_of_unlike_ones() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let input = json!(["A man is eating food.", "A man eats a piece of bread.", "The stock market fell today."]);
    let answer = server.admin().post("/v1/embeddings", &json!({"model": "minilm", "input": input}))?.expect(200)?;
    let vector = |i: usize| -> Vec<f64> {
        answer["data"][i]["embedding"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
    };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let (a, b, c) = (vector(0), vector(1), vector(2));
    ensure!(a.len() == 384, "{} dimensions", a.len());
    ensure!((dot(&a, &a) - 1.0).abs() < 1e-4);
    ensure!(dot(&a, &b) > dot(&a, &c) + 0.3, "{} against {}", dot(&a, &b), dot(&a, &c));
    Ok(())
}
