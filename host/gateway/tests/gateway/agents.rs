//! `/v1/agents` in the last shape of Llama Stack 0.2.

use crate::fakes::*;
use serde_json::{Value, json};
use stockade_core::chat::Role;
use stockade_core::event::{Event, FinishReason, StepKind, StepStatus, ToolCallDelta};

async fn agent(host: &Host, more: Value) -> String {
    let mut config = json!({"model": "m", "instructions": "Be kind.", "toolgroups": [], "client_tools": []});
    for (k, v) in more.as_object().unwrap() {
        config[k] = v.clone();
    }
    let made = host.post("/v1/agents", json!({"agent_config": config})).await.expect(200);
    made["agent_id"].as_str().unwrap().to_owned()
}

/// Paths of a fresh session and of its turns.
async fn session(host: &Host, agent: &str) -> String {
    let path = format!("/v1/agents/{agent}/session");
    let made = host.post(&path, json!({"session_name": "s"})).await.expect(200);
    format!("{path}/{}", made["session_id"].as_str().unwrap())
}

fn says(events: &[Event]) -> Value {
    json!({"config": {"events": events}})
}

fn payloads(reply: &Reply) -> Vec<Value> {
    let events = reply.events();
    events.iter().map(|e| serde_json::from_str::<Value>(e).unwrap()["event"]["payload"].clone()).collect()
}

fn kinds(payloads: &[Value]) -> Vec<String> {
    let one = |p: &Value| {
        let event = p["event_type"].as_str().unwrap();
        p["step_type"].as_str().map_or(event.to_owned(), |step| format!("{step} {event}"))
    };
    payloads.iter().map(one).collect()
}

fn user(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text}], "stream": true})
}

#[tokio::test]
async fn an_agent_is_made_listed_read_and_deleted_with_its_sessions() {
    let host = Host::new().await;
    host.bind("orchestrator", "says", "orchestrator", json!({})).await;
    let id =
        agent(&host, json!({"name": "kind", "sampling_params": {"strategy": {"type": "greedy"}, "max_tokens": 5}}))
            .await;
    let read = host.get(&format!("/v1/agents/{id}")).await.expect(200);
    assert_eq!((&read["agent_config"]["name"], &read["agent_id"]), (&json!("kind"), &json!(id)));
    assert!(read["created_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(host.get("/v1/agents").await.expect(200)["data"][0]["agent_id"], id.as_str());
    // An agent is an assistant.
    let assistant = host.get(&format!("/stockade/v1/assistants/{id}")).await.expect(200);
    assert_eq!((&assistant["instructions"], &assistant["sampling"]["max_tokens"]), (&json!("Be kind."), &json!(5)));
    let path = session(&host, &id).await;
    let shown = host.get(&path).await.expect(200);
    assert_eq!((&shown["session_name"], &shown["turns"]), (&json!("s"), &json!([])));
    assert_eq!(host.get(&format!("/v1/agents/{id}/sessions")).await.expect(200)["data"].as_array().unwrap().len(), 1);
    let other = host.tenant("other", &["inference"]).await;
    host.call(&other, "GET", &path, &Value::Null).await.expect(404);
    host.call(&other, "DELETE", &format!("/v1/agents/{id}"), &Value::Null).await.expect(404);
    assert_eq!(host.delete(&format!("/v1/agents/{id}")).await.status, 204);
    host.get(&path).await.expect(404);
    host.get(&format!("/stockade/v1/assistants/{id}")).await.expect(404);
    let bad = json!({"agent_config": {"model": "m", "instructions": "", "input_shields": ["none"]}});
    host.post("/v1/agents", bad).await.expect(404);
}

#[tokio::test]
async fn a_turn_streams_its_steps_and_the_next_one_knows_it() {
    let host = Host::new().await;
    let events = [
        text("I "),
        text("look."),
        step("a", StepKind::Tool, StepStatus::Started, "add", json!({"arguments": {"x": 1}})),
        step("a", StepKind::Tool, StepStatus::Done, "add", json!({"arguments": {"x": 1}, "result": "2"})),
        step(
            "b",
            StepKind::Retrieval,
            StepStatus::Done,
            "search",
            json!({"query": "q", "banks": ["b"], "hits": [{"text": "found"}]}),
        ),
        text("2"),
        end(FinishReason::Stop),
    ];
    host.bind("orchestrator", "says", "orchestrator", says(&events)).await;
    host.bind("shield.input", "word", "shield", json!({"config": {"word": "evil"}})).await;
    let id = agent(&host, json!({"max_infer_iters": 4})).await;
    let path = session(&host, &id).await;
    let reply = host.post(&format!("{path}/turn"), user("add")).await;
    let told = payloads(&reply);
    assert_eq!(
        kinds(&told),
        [
            "turn_start",
            "shield_call step_start",
            "shield_call step_complete",
            "inference step_start",
            "inference step_progress",
            "inference step_progress",
            "inference step_complete",
            "tool_execution step_start",
            "tool_execution step_complete",
            "memory_retrieval step_start",
            "memory_retrieval step_complete",
            "inference step_start",
            "inference step_progress",
            "inference step_complete",
            "turn_complete",
        ]
    );
    let turn = &told.last().unwrap()["turn"];
    let steps = turn["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 5);
    assert_eq!(steps[0]["violation"], Value::Null);
    assert_eq!(steps[2]["tool_responses"][0]["content"], "2");
    assert_eq!(steps[2]["tool_calls"][0]["arguments"], json!({"x": 1}));
    assert_eq!((&steps[3]["vector_db_ids"], &steps[3]["inserted_context"]), (&json!("b"), &json!("found")));
    assert_eq!(
        (&turn["output_message"]["content"], &turn["output_message"]["stop_reason"]),
        (&json!("2"), &json!("end_of_turn"))
    );
    let turn_path = format!("{path}/turn/{}", turn["turn_id"].as_str().unwrap());
    assert_eq!(&host.get(&turn_path).await.expect(200), turn);
    let step_path = format!("{turn_path}/step/{}", steps[2]["step_id"].as_str().unwrap());
    assert_eq!(&host.get(&step_path).await.expect(200)["step"], &steps[2]);
    let whole = json!({"messages": [{"role": "user", "content": "again"}]});
    assert_eq!(host.post(&format!("{path}/turn"), whole).await.expect(200)["output_message"]["content"], "2");
    assert_eq!(host.get(&path).await.expect(200)["turns"].as_array().unwrap().len(), 2);
    let turns = host.plugins.turns.lock().unwrap();
    let roles: Vec<Role> = turns[1].1.messages.iter().map(|m| m.role).collect();
    assert_eq!(roles, [Role::User, Role::Assistant, Role::Assistant, Role::Tool, Role::Assistant, Role::User]);
    let config = &turns[0].0.target.config;
    assert_eq!(
        (&config["system"], &config["limits"]["model_calls"], &config["tools"]),
        (&json!("Be kind."), &json!(4), &json!([]))
    );
}

#[tokio::test]
async fn a_blocked_turn_tells_its_violation() {
    let host = Host::new().await;
    host.bind("orchestrator", "says", "orchestrator", says(&[text("the secret"), end(FinishReason::Stop)])).await;
    host.bind("shield.input", "word", "shield", json!({"config": {"word": "evil"}, "refusal": "No."})).await;
    let id = agent(&host, json!({})).await;
    let path = session(&host, &id).await;
    let told = payloads(&host.post(&format!("{path}/turn"), user("evil")).await);
    assert_eq!(kinds(&told), ["turn_start", "shield_call step_start", "shield_call step_complete", "turn_complete"]);
    let violation = &told[2]["step_details"]["violation"];
    assert_eq!((&violation["user_message"], &violation["violation_level"]), (&json!("No."), &json!("error")));
    assert_eq!(violation["metadata"]["shield"], "word@1");
    assert_eq!(told[3]["turn"]["output_message"]["content"], "No.");
    assert!(host.plugins.turns.lock().unwrap().is_empty(), "the orchestrator was not asked");
    host.bind("shield.output", "word", "shield", json!({"config": {"word": "secret"}})).await;
    let told = payloads(&host.post(&format!("{path}/turn"), user("good")).await);
    let steps = told.last().unwrap()["turn"]["steps"].as_array().unwrap().clone();
    let last = steps.last().unwrap();
    assert_eq!(
        (&last["step_type"], &last["violation"]["metadata"]["side"]),
        (&json!("shield_call"), &json!("shield.output"))
    );
    assert!(!json!(told).to_string().contains("secret"));
}

#[tokio::test]
async fn a_turn_waits_for_the_clients_tools_and_goes_on_with_their_answers() {
    let host = Host::new().await;
    let call =
        ToolCallDelta { index: 0, id: Some("c1".into()), name: Some("boil".into()), arguments: r#"{"l":"x"}"#.into() };
    host.bind("orchestrator", "says", "orchestrator", says(&[Event::ToolCall(call), end(FinishReason::ToolCalls)]))
        .await;
    let tool = json!({"name": "boil", "description": "d", "parameters": [
        {"name": "l", "parameter_type": "str", "description": "liquid", "required": true},
        {"name": "c", "parameter_type": "bool", "description": "", "required": false}]});
    let id = agent(&host, json!({"client_tools": [tool], "tool_config": {"tool_choice": "required"}})).await;
    let path = session(&host, &id).await;
    let told = payloads(&host.post(&format!("{path}/turn"), user("boil")).await);
    let waits = told.last().unwrap();
    assert_eq!(waits["event_type"], "turn_awaiting_input");
    let message = &waits["turn"]["output_message"];
    assert_eq!(
        (&message["tool_calls"][0]["tool_name"], &message["stop_reason"]),
        (&json!("boil"), &json!("end_of_message"))
    );
    assert_eq!(message["tool_calls"][0]["arguments"], json!({"l": "x"}));
    let entry = json!({"entries": [{"component": "says", "version": "1", "config": {"events": [text("100"), end(FinishReason::Stop)]}}]});
    host.put("/stockade/v1/bindings/orchestrator", entry).await.expect(200);
    let resume = format!("{path}/turn/{}/resume", waits["turn"]["turn_id"].as_str().unwrap());
    let answers = json!({"tool_responses": [{"call_id": "c1", "tool_name": "boil", "content": "100"}], "stream": true});
    let told = payloads(&host.post(&resume, answers.clone()).await);
    let turn = &told.last().unwrap()["turn"];
    let steps: Vec<&str> = turn["steps"].as_array().unwrap().iter().map(|s| s["step_type"].as_str().unwrap()).collect();
    assert_eq!(steps, ["inference", "tool_execution", "inference"]);
    assert_eq!(turn["output_message"]["content"], "100");
    host.post(&resume, answers).await.expect(409);
    let turns = host.plugins.turns.lock().unwrap();
    let spec = &turns[0].1.tools[0].parameters;
    assert_eq!((&spec["properties"]["l"]["type"], &spec["required"]), (&json!("string"), &json!(["l"])));
    let roles: Vec<Role> = turns[1].1.messages.iter().map(|m| m.role).collect();
    assert_eq!(roles, [Role::User, Role::Assistant, Role::Tool]);
}

#[tokio::test]
async fn an_interrupted_turn_waits_and_goes_on_by_either_way() {
    let host = Host::new().await;
    host.bind("orchestrator", "asks", "orchestrator", json!({})).await;
    let id = agent(&host, json!({})).await;
    let path = session(&host, &id).await;
    let waits = async || {
        let told = payloads(&host.post(&format!("{path}/turn"), user("pay")).await);
        let last = told.last().unwrap().clone();
        assert_eq!(last["event_type"], "turn_awaiting_input");
        last["turn"].clone()
    };
    let turn = waits().await;
    let call = &turn["output_message"]["tool_calls"][0];
    assert_eq!(call["tool_name"], "pay");
    let answer =
        json!({"tool_responses": [{"call_id": call["call_id"], "tool_name": "pay", "content": "{\"approve\": true}"}]});
    let resume = format!("{path}/turn/{}/resume", turn["turn_id"].as_str().unwrap());
    let done = host.post(&resume, answer).await.expect(200);
    assert_eq!(done["output_message"]["content"], r#"state {"secret":7} answer {"approve":true}"#);
    let turn = waits().await;
    let id = turn["stockade"]["interruption"]["id"].as_str().unwrap();
    let done = host.post(&format!("/stockade/v1/interruptions/{id}/resume"), json!({"answer": "go"})).await.expect(200);
    assert_eq!(
        (&done["turn_id"], &done["output_message"]["content"]),
        (&turn["turn_id"], &json!(r#"state {"secret":7} answer "go""#))
    );
    assert_eq!(host.get(&path).await.expect(200)["turns"].as_array().unwrap().len(), 2);
}
