//! Assistants and interrupted turns on the real host: by name in place of a model, over a restart, over kill -9.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stockade_tests::{Client, Options, Server, component, scratch};

fn chat(client: &Client, model: &str, text: &str) -> Result<Value> {
    let body =
        json!({"model": model, "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 24});
    client.post("/v1/chat/completions", &body)?.expect(200)
}

/// A tenant's assistant whose orchestrator is pushed and never bound.
fn asking(server: &Server) -> Result<Client> {
    let admin = server.admin();
    admin.push("asks", "1", &component("asks_first"), &Value::Null)?;
    let record = json!({"name": "payer", "model": "smollm2", "orchestrator": {"component": "asks"}});
    admin.post("/stockade/v1/assistants", &record)?.expect(201)?;
    Ok(admin)
}

#[test]
fn an_assistant_speaks_with_its_instructions_and_behind_the_tenants_shields() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let admin = server.admin();
    let record = json!({"name": "helper", "model": "smollm2", "instructions": "You answer questions about capitals.",
        "sampling": {"temperature": 0}, "limits": {"tokens": 12}});
    admin.post("/stockade/v1/assistants", &record)?.expect(201)?;
    let said = chat(&admin, "helper", "What is the capital of France?")?;
    ensure!(said["model"] == "helper", "{said}");
    let tokens = said["usage"]["completion_tokens"].as_u64().context("usage")?;
    ensure!((1..=12).contains(&tokens), "{said}");
    ensure!(said["choices"][0]["message"]["content"].as_str().is_some_and(|t| t.contains("Paris")), "{said}");
    let masked = json!({"name": "guarded", "model": "smollm2", "shields": {
        "input": [{"component": "regex-shield", "config": {"patterns": [{"name": "word", "regex": "xyzzy"}]}}]}});
    let made = admin.post("/stockade/v1/assistants", &masked)?;
    ensure!(made.status == 201, "{}", made.body);
    let blocked = chat(&admin, "guarded", "say xyzzy")?;
    ensure!(blocked["choices"][0]["finish_reason"] == "content_filter", "{blocked}");
    let open = chat(&admin, "smollm2", "say xyzzy")?;
    ensure!(open["choices"][0]["finish_reason"] != "content_filter", "{open}");
    Ok(())
}

#[test]
fn an_interrupted_turn_survives_kill_and_goes_on_once() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let admin = asking(&server)?;
    let told = chat(&admin, "payer", "Pay it")?;
    let interruption = &told["choices"][0]["stockade"]["interruption"];
    ensure!(interruption["question"] == "May I pay?", "{told}");
    let id = interruption["id"].as_str().context("an id")?.to_owned();
    server.kill();

    let server = Server::start(data.path(), &Options::default())?;
    let admin = server.admin();
    let listed = admin.get("/stockade/v1/interruptions")?.expect(200)?;
    ensure!(listed["data"][0]["id"] == id.as_str(), "{listed}");
    let path = format!("/stockade/v1/interruptions/{id}/resume");
    let resumed = admin.post(&path, &json!({"answer": {"approve": true}}))?.expect(200)?;
    let said = resumed["choices"][0]["message"]["content"].as_str().context("text")?;
    ensure!(said == r#"state {"messages":1} answer {"approve":true}"#, "{said}");
    admin.post(&path, &json!({"answer": true}))?.expect(404)?;
    Ok(())
}

#[test]
fn responses_and_conversations_survive_kill() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let admin = server.admin();
    let conversation = admin.post("/v1/conversations", &json!({}))?.expect(200)?;
    let ask = |admin: &Client, more: Value| -> Result<Value> {
        let mut body = json!({"model": "smollm2", "temperature": 0, "max_output_tokens": 8});
        for (name, value) in more.as_object().context("an object")? {
            body[name] = value.clone();
        }
        admin.post("/v1/responses", &body)?.expect(200)
    };
    let first = ask(&admin, json!({"input": "Hello", "conversation": conversation["id"]}))?;
    server.kill();
    let server = Server::start(data.path(), &Options::default())?;
    let admin = server.admin();
    let path = format!("/v1/responses/{}", first["id"].as_str().context("an id")?);
    ensure!(admin.get(&path)?.expect(200)? == first, "the response has changed");
    let path = format!("/v1/conversations/{}/items", conversation["id"].as_str().context("an id")?);
    let items = admin.get(&path)?.expect(200)?;
    ensure!(items["data"].as_array().is_some_and(|i| i.len() == 2), "{items}");
    let next = ask(&admin, json!({"input": "And?", "previous_response_id": first["id"]}))?;
    ensure!(next["usage"]["input_tokens"].as_u64() > first["usage"]["input_tokens"].as_u64(), "{next}");
    Ok(())
}
