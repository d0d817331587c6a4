//! `/v1/responses` in OpenAI's shape.

use crate::fakes::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use stockade_core::ModelId;
use stockade_core::chat::{Role, ToolChoice};
use stockade_core::event::{Event, FinishReason, StepKind, StepStatus, ToolCallDelta};
use stockade_core::infer::{ChatPrompt, Constraint, Inference, Prompt};

fn asked(host: &Host, i: usize) -> (ChatPrompt, stockade_core::infer::GenerateRequest) {
    let request = host.inference.requests.lock().unwrap()[i].clone();
    match &request.prompt {
        Prompt::Chat(chat) => (chat.clone(), request),
        other => panic!("{other:?}"),
    }
}

async fn respond(host: &Host, body: Value) -> Value {
    let mut whole = json!({"model": "m"});
    for (k, v) in body.as_object().unwrap() {
        whole[k] = v.clone();
    }
    host.post("/v1/responses", whole).await.expect(200)
}

#[tokio::test]
async fn a_whole_response_has_every_field_of_the_schema() {
    let host = Host::new().await;
    let body = json!({"input": "hello there", "instructions": "Be kind.", "metadata": {"a": "b"}, "temperature": 0.5});
    let r = respond(&host, body).await;
    assert!(r["id"].as_str().unwrap().starts_with("resp_"));
    for (field, want) in [
        ("object", json!("response")),
        ("status", json!("completed")),
        ("error", Value::Null),
        ("incomplete_details", Value::Null),
        ("model", json!("m")),
        ("parallel_tool_calls", json!(true)),
        ("tools", json!([])),
        ("tool_choice", json!("auto")),
        ("instructions", json!("Be kind.")),
        ("metadata", json!({"a": "b"})),
        ("temperature", json!(0.5)),
        ("top_p", json!(1.0)),
        ("text", json!({"format": {"type": "text"}})),
        ("store", json!(true)),
        ("truncation", json!("disabled")),
        ("previous_response_id", Value::Null),
    ] {
        assert_eq!(r[field], want, "{field}");
    }
    assert_eq!(r["usage"]["total_tokens"], 10);
    assert_eq!(r["usage"]["input_tokens_details"]["cached_tokens"], 2);
    let [item] = &r["output"].as_array().unwrap()[..] else { panic!("{r}") };
    assert_eq!(
        (&item["type"], &item["role"], &item["status"]),
        (&json!("message"), &json!("assistant"), &json!("completed"))
    );
    assert_eq!(
        item["content"],
        json!([{"type": "output_text", "text": "hello there", "annotations": [], "logprobs": []}])
    );
    let (chat, _) = asked(&host, 0);
    assert_eq!(chat.messages.iter().map(|m| m.role).collect::<Vec<_>>(), [Role::System, Role::User]);
}

#[tokio::test]
async fn a_stream_tells_every_change_in_order_without_a_gap() {
    let host = Host::new().await;
    let said = script(&[
        Event::Reasoning { text: "hm".into() },
        text("one "),
        text("two"),
        Event::ToolCall(ToolCallDelta {
            index: 0,
            id: Some("c1".into()),
            name: Some("f".into()),
            arguments: "{".into(),
        }),
        Event::ToolCall(ToolCallDelta { index: 0, arguments: "}".into(), ..ToolCallDelta::default() }),
        end(FinishReason::ToolCalls),
    ]);
    let tool = json!({"type": "function", "name": "f", "parameters": {"type": "object"}});
    let body = json!({"model": "m", "input": said, "stream": true, "tools": [tool]});
    let events = host.post("/v1/responses", body).await.named_events();
    let names: Vec<&str> = events.iter().map(|(n, _)| n.strip_prefix("response.").unwrap()).collect();
    assert_eq!(
        names,
        [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "reasoning_text.delta",
            "reasoning_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "completed",
        ]
    );
    for (i, (_, event)) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], i);
    }
    let last = &events.last().unwrap().1["response"];
    let kinds: Vec<&str> = last["output"].as_array().unwrap().iter().map(|i| i["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["reasoning", "message", "function_call"]);
    assert_eq!(last["output"][2]["arguments"], "{}");
    assert_eq!(last["output"][2]["call_id"], "c1");
    // Every item is in the response exactly as its `done` told it.
    let done: Vec<&Value> = events.iter().filter(|(n, _)| n.ends_with("item.done")).map(|(_, e)| &e["item"]).collect();
    assert_eq!(json!(done), last["output"]);
    let stored = host.get(&format!("/v1/responses/{}", last["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(&stored, last);
}

#[tokio::test]
async fn responses_go_on_from_each_other_and_are_kept_until_deleted() {
    let host = Host::new().await;
    let first = respond(&host, json!({"input": "one"})).await;
    let call = json!([
        {"role": "user", "content": [{"type": "input_text", "text": "two"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "3"},
    ]);
    let second =
        respond(&host, json!({"input": call, "previous_response_id": first["id"], "instructions": "New."})).await;
    assert_eq!(second["previous_response_id"], first["id"]);
    respond(&host, json!({"input": "four", "previous_response_id": second["id"]})).await;
    let roles = |i: usize| asked(&host, i).0.messages.iter().map(|m| m.role).collect::<Vec<_>>();
    use Role::{Assistant as A, System as S, Tool as T, User as U};
    assert_eq!(roles(1), [S, U, A, U, A, T]);
    // Instructions are of one response; what was said stays.
    assert_eq!(roles(2), [U, A, U, A, T, A, U]);
    let id = second["id"].as_str().unwrap();
    let items = host.get(&format!("/v1/responses/{id}/input_items?order=asc")).await.expect(200);
    let kinds: Vec<&str> = items["data"].as_array().unwrap().iter().map(|i| i["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["message", "function_call", "function_call_output"]);
    let ids: BTreeSet<&str> = items["data"].as_array().unwrap().iter().map(|i| i["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 3);
    let listed = host.get("/v1/responses?limit=2").await.expect(200);
    assert_eq!((listed["data"].as_array().unwrap().len(), &listed["has_more"]), (2, &json!(true)));
    assert_eq!(host.delete(&format!("/v1/responses/{id}")).await.expect(200)["deleted"], true);
    host.get(&format!("/v1/responses/{id}")).await.expect(404);
    host.get(&format!("/v1/responses/{id}/input_items")).await.expect(404);
    let lost = json!({"model": "m", "input": "x", "previous_response_id": id});
    let lost = host.post("/v1/responses", lost).await.expect(404);
    assert_eq!(lost["error"]["param"], "previous_response_id");
    let unkept = respond(&host, json!({"input": "x", "store": false})).await;
    host.get(&format!("/v1/responses/{}", unkept["id"].as_str().unwrap())).await.expect(404);
}

#[tokio::test]
async fn stored_responses_belong_to_their_tenant() {
    let host = Host::new().await;
    let first = respond(&host, json!({"input": "one"})).await;
    let other = host.tenant("other", &["inference"]).await;
    let path = format!("/v1/responses/{}", first["id"].as_str().unwrap());
    host.call(&other, "GET", &path, &Value::Null).await.expect(404);
    host.call(&other, "GET", &format!("{path}/input_items"), &Value::Null).await.expect(404);
    host.call(&other, "DELETE", &path, &Value::Null).await.expect(404);
    let body = json!({"model": "m", "input": "x", "previous_response_id": first["id"]});
    host.call(&other, "POST", "/v1/responses", &body).await.expect(404);
    assert_eq!(host.call(&other, "GET", "/v1/responses", &Value::Null).await.expect(200)["data"], json!([]));
    host.get(&path).await.expect(200);
}

#[tokio::test]
async fn schema_tokens_and_choice_reach_the_model() {
    let host = Host::new().await;
    let schema = json!({"type": "object"});
    let body = json!({
        "input": "x", "max_output_tokens": 7, "tool_choice": {"type": "function", "name": "f"},
        "tools": [{"type": "function", "name": "f", "description": "d", "parameters": schema}],
        "text": {"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": true}},
        "top_logprobs": 2,
    });
    let cut = script(&[text("x"), end(FinishReason::Length)]);
    respond(&host, body).await;
    let (chat, request) = asked(&host, 0);
    assert_eq!(request.constraint, Some(Constraint::JsonSchema(schema)));
    assert_eq!((request.sampling.max_tokens, request.sampling.logprobs), (Some(7), Some(2)));
    assert_eq!((chat.tool_choice, chat.tools[0].name.as_str()), (ToolChoice::Named("f".into()), "f"));
    let short = respond(&host, json!({"input": cut})).await;
    assert_eq!(
        (&short["status"], &short["incomplete_details"]["reason"]),
        (&json!("incomplete"), &json!("max_output_tokens"))
    );
    assert_eq!(short["output"][0]["status"], "incomplete");
}

#[tokio::test]
async fn blocks_and_failures_have_their_shapes() {
    let host = Host::new().await;
    host.bind("shield.input", "word", "shield", json!({"config": {"word": "evil"}, "refusal": "No."})).await;
    let blocked = respond(&host, json!({"input": "evil"})).await;
    assert_eq!(
        (&blocked["status"], &blocked["incomplete_details"]["reason"]),
        (&json!("incomplete"), &json!("content_filter"))
    );
    assert_eq!(blocked["output"][0]["content"], json!([{"type": "refusal", "refusal": "No."}]));
    assert!(host.inference.requests.lock().unwrap().is_empty(), "no model was asked");
    // What was blocked is no part of what is said later.
    let next = respond(&host, json!({"input": "good", "previous_response_id": blocked["id"]})).await;
    assert_eq!(next["status"], "completed");
    host.bind("shield.output", "word", "shield", json!({"config": {"word": "secret"}})).await;
    let body = json!({"model": "m", "input": "the secret is", "stream": true});
    let events = host.post("/v1/responses", body).await.named_events();
    let names: Vec<&str> = events.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(names.last(), Some(&"response.incomplete"));
    assert!(names.contains(&"response.refusal.done") && names.contains(&"response.output_text.done"));
    assert!(!json!(events.iter().map(|e| &e.1["delta"]).collect::<Vec<_>>()).to_string().contains("secret"));
    let content = &events.last().unwrap().1["response"]["output"][0]["content"];
    assert_eq!((&content[0]["text"], &content[1]["type"]), (&json!("the "), &json!("refusal")));

    let late = json!({"model": "m", "input": "fail late", "stream": true});
    let events = host.post("/v1/responses", late).await.named_events();
    let (name, last) = events.last().unwrap();
    assert_eq!((name.as_str(), &last["response"]["status"]), ("response.failed", &json!("failed")));
    assert_eq!(last["response"]["error"]["code"], "server_error");
    host.bind("shield.input", "broken", "shield", json!({})).await;
    let failed = host.post("/v1/responses", json!({"model": "m", "input": "x"})).await.expect(503);
    assert_eq!(failed["error"]["code"], "component_failed");
}

#[tokio::test]
async fn requests_that_are_wrong_are_refused_by_their_field() {
    let host = Host::new().await;
    for (body, param) in [
        (json!({"input": 3}), "input"),
        (json!({}), "input"),
        (json!({"input": "x", "background": true, "store": false}), "background"),
        (json!({"input": "x", "background": true, "stream": true}), "stream"),
        (json!({"input": "x", "truncation": "sometimes"}), "truncation"),
        (json!({"input": "x", "previous_response_id": "a", "conversation": "b"}), "previous_response_id"),
        (json!({"input": "x", "tools": [{"type": "web_search"}]}), "tools[0].type"),
        (
            json!({"input": "x", "tools": [{"type": "mcp", "server_label": "x", "server_url": "http://x"}]}),
            "tools[0].server_label",
        ),
        (json!({"input": "x", "tool_choice": "required"}), "tool_choice"),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]}]}),
            "input",
        ),
        (json!({"input": "y".repeat(1_000_001)}), "input"),
    ] {
        let mut whole = json!({"model": "m"});
        for (k, v) in body.as_object().unwrap() {
            whole[k] = v.clone();
        }
        let reply = host.post("/v1/responses", whole).await.expect(400);
        assert_eq!(reply["error"]["param"], param);
    }
    host.post("/v1/responses", json!({"input": "x", "model": "none"})).await.expect(404);
}

#[tokio::test]
async fn the_tenants_tools_and_look_ups_are_items_and_a_request_may_narrow_the_tools() {
    let host = Host::new().await;
    let started = |id, kind, title, detail| step(id, kind, StepStatus::Started, title, detail);
    let events = json!([
        text("I look."),
        started("s1", StepKind::Tool, "add", json!({"arguments": {"x": 1}})),
        step("s1", StepKind::Tool, StepStatus::Done, "add", json!({"arguments": {"x": 1}, "result": "2"})),
        started("s2", StepKind::Retrieval, "search", json!({"query": "q"})),
        step(
            "s2",
            StepKind::Retrieval,
            StepStatus::Done,
            "search",
            json!({"query": "q", "banks": ["b"], "hits": [{"id": "d1", "text": "t", "score": 0.5}]})
        ),
        step("s3", StepKind::Plan, StepStatus::Done, "plan", json!({})),
        text("2"),
        end(FinishReason::Stop),
    ]);
    host.bind("orchestrator", "says", "orchestrator", json!({"config": {"events": events, "tools": ["add", "sub"]}}))
        .await;
    for tool in ["add", "sub"] {
        host.bind(&format!("tool/{tool}"), "adder", "tool", json!({})).await;
    }
    let narrow = json!([{"type": "mcp", "server_label": "stockade", "allowed_tools": ["add"]}]);
    let r = respond(
        &host,
        json!({"input": "x", "tools": narrow, "prompt": {"id": "greet", "version": "3"},
        "include": ["file_search_call.results"]}),
    )
    .await;
    let output = r["output"].as_array().unwrap();
    let kinds: Vec<&str> = output.iter().map(|i| i["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["message", "mcp_call", "file_search_call", "message"]);
    assert_eq!(
        (&output[1]["name"], &output[1]["output"], &output[1]["arguments"]),
        (&json!("add"), &json!("2"), &json!(r#"{"x":1}"#))
    );
    assert_eq!((&output[2]["queries"], &output[2]["results"][0]["file_id"]), (&json!(["q"]), &json!("d1")));
    {
        let turns = host.plugins.turns.lock().unwrap();
        let call = &turns[0].0;
        assert_eq!(call.pins.tools().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["add"]);
        assert_eq!(call.target.config["tools"], json!(["add"]));
        assert_eq!(call.target.config["prompt"], json!({"name": "greet", "version": 3}));
    }
    // The call and its result are there for the model in the next response.
    respond(&host, json!({"input": "y", "previous_response_id": r["id"]})).await;
    let turns = host.plugins.turns.lock().unwrap();
    let roles: Vec<Role> = turns[1].1.messages.iter().map(|m| m.role).collect();
    assert_eq!(roles, [Role::User, Role::Assistant, Role::Tool, Role::Assistant, Role::User]);
}

#[tokio::test]
async fn an_interrupted_response_asks_for_an_approval_and_goes_on_with_it() {
    let host = Host::new().await;
    host.bind("orchestrator", "asks", "orchestrator", json!({})).await;
    let first = respond(&host, json!({"input": "Pay it"})).await;
    let request = &first["output"][1];
    assert_eq!((&request["type"], &request["name"]), (&json!("mcp_approval_request"), &json!("pay")));
    assert_eq!(request["arguments"], r#"{"amount":3}"#);
    let approval = json!({"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": true});
    let beside = json!([approval, {"role": "user", "content": "and?"}]);
    let beside = json!({"model": "m", "previous_response_id": first["id"], "input": beside});
    host.post("/v1/responses", beside).await.expect(400);
    let next = json!({"previous_response_id": first["id"], "input": [approval]});
    let second = respond(&host, next.clone()).await;
    assert_eq!(second["output"][0]["content"][0]["text"], r#"state {"secret":7} answer {"approve":true}"#);
    let mut again = next;
    again["model"] = "m".into();
    host.post("/v1/responses", again).await.expect(404);
    // The same through the interruption's own route, in this dialect, as a stream.
    let third = respond(&host, json!({"input": "Pay it"})).await;
    let id = third["stockade"]["interruption"]["id"].as_str().unwrap();
    let path = format!("/stockade/v1/interruptions/{id}/resume");
    let events = host.post(&path, json!({"answer": {"approve": false}, "stream": true})).await.named_events();
    let last = &events.last().unwrap().1["response"];
    assert_eq!((&last["status"], &last["previous_response_id"]), (&json!("completed"), &third["id"]));
    let path = format!("/v1/responses/{}/input_items", last["id"].as_str().unwrap());
    assert_eq!(host.get(&path).await.expect(200)["data"][0]["approve"], false);
}

#[tokio::test]
async fn file_search_runs_the_searching_orchestrator_over_the_named_stores_alone() {
    let host = Host::new().await;
    host.bind("memory", "memory", "memory", json!({})).await;
    host.bind(
        "orchestrator",
        "says",
        "orchestrator",
        json!({"config": {
        "system": "Be kind.", "limits": {"model_calls": 3}, "approve": ["pay"], "tools": ["pay"]}}),
    )
    .await;
    let store = host.post("/v1/vector_stores", json!({"name": "s"})).await.expect(200)["id"].clone();
    let filters = json!({"type": "eq", "key": "a", "value": 1});
    let search = json!({"type": "file_search", "vector_store_ids": [store], "max_num_results": 3, "filters": filters,
        "ranking_options": {"score_threshold": 0.25}});
    let body = json!({"model": "m", "input": "x", "tools": [search]});
    host.post("/v1/responses", body.clone()).await.expect(409);
    host.upload(ADMIN, "rag", "orchestrator").await;
    assert_eq!(respond(&host, body.clone()).await["tools"][0], search);
    {
        let turns = host.plugins.turns.lock().unwrap();
        let call = &turns[0].0;
        let config = &call.target.config;
        assert_eq!((&config["banks"], &config["filter"], &config["limit"]), (&json!([store]), &filters, &json!(3)));
        assert_eq!((&config["system"], &config["limits"]), (&json!("Be kind."), &json!({"model_calls": 3})));
        assert_eq!((&config["approve"], &config["tools"]), (&json!(["pay"]), &json!([])));
        assert_eq!(config["ranking"], json!({"threshold": 0.25}));
        let store = store.as_str().unwrap().to_string();
        assert_eq!(call.pins.bank(store.clone(), false), Some(store.clone()));
        assert_eq!(call.pins.bank(store, true), None, "it reads");
        assert_eq!(call.pins.bank("other".into(), false), None);
    }
    let with = |tools: Value| json!({"model": "m", "input": "x", "tools": tools});
    // Beside the search the tools that the request names are there, and no other.
    for tool in ["add", "sub"] {
        host.bind(&format!("tool/{tool}"), "adder", "tool", json!({})).await;
    }
    let own = |name: &str| json!({"type": "stockade", "name": name});
    for (tools, choice, offered) in [
        (json!([search, own("add")]), json!("auto"), vec!["add"]),
        (json!([search, own("add")]), json!({"type": "stockade", "name": "add"}), vec!["add"]),
        (json!([search]), json!("required"), vec![]),
    ] {
        respond(&host, json!({"input": "x", "tools": tools, "tool_choice": choice})).await;
        let turns = host.plugins.turns.lock().unwrap();
        let (call, turn) = turns.last().map(|t| (&t.0, &t.1)).unwrap();
        assert_eq!(call.pins.tools().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), offered);
        assert_eq!(call.target.config["tools"], json!(offered));
        assert_ne!(turn.tool_choice, ToolChoice::Required, "the search is a tool that is called in any case");
    }
    let unnamed = json!({"model": "m", "input": "x", "tools": [search], "tool_choice": own("sub")});
    host.post("/v1/responses", unnamed).await.expect(400);
    for (tools, status) in [
        (json!([search, search]), 400),
        (json!([search, own("mul")]), 409),
        (json!([{"type": "file_search", "vector_store_ids": []}]), 400),
        (json!([{"type": "file_search", "vector_store_ids": ["vs_0"]}]), 404),
    ] {
        host.post("/v1/responses", with(tools)).await.expect(status);
    }
}

async fn read(host: &Host, id: &str) -> Value {
    host.get(&format!("/v1/responses/{id}")).await.expect(200)
}

/// The response once its status is another than `is`.
async fn past(host: &Host, id: &str, is: &[&str]) -> Value {
    for _ in 0..500 {
        let response = read(host, id).await;
        if !is.iter().any(|s| response["status"] == *s) {
            return response;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{id} stays {is:?}");
}

const OPEN: [&str; 2] = ["queued", "in_progress"];

async fn in_background(host: &Host, body: Value) -> String {
    let mut whole = body;
    whole["background"] = json!(true);
    let queued = respond(host, whole).await;
    assert_eq!((&queued["status"], &queued["background"]), (&json!("queued"), &json!(true)));
    assert_eq!((&queued["output"], &queued["usage"]), (&json!([]), &Value::Null));
    queued["id"].as_str().unwrap().into()
}

#[tokio::test]
async fn a_background_response_is_read_until_it_has_ended() {
    let host = Host::new().await;
    let conversation = host.post("/v1/conversations", json!({})).await.expect(200)["id"].clone();
    let id = in_background(&host, json!({"input": "hello there", "conversation": conversation})).await;
    let done = past(&host, &id, &OPEN).await;
    assert_eq!(
        (&done["status"], &done["output"][0]["content"][0]["text"]),
        (&json!("completed"), &json!("hello there"))
    );
    let path = format!("/v1/conversations/{}/items", conversation.as_str().unwrap());
    // The conversation follows the response.
    for _ in 0..100 {
        if host.get(&path).await.expect(200)["data"].as_array().unwrap().len() == 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(host.get(&path).await.expect(200)["data"].as_array().unwrap().len(), 2);
    let items = host.get(&format!("/v1/responses/{id}/input_items")).await.expect(200);
    assert_eq!(items["data"][0]["content"][0]["text"], "hello there");
    let next = respond(&host, json!({"input": "and?", "previous_response_id": id})).await;
    assert_eq!(next["background"], false);
    // One that has ended stays as it is, cancelled or not.
    let kept = host.post(&format!("/v1/responses/{id}/cancel"), json!({})).await.expect(200);
    assert_eq!(kept, done);
    let path = format!("/v1/responses/{}/cancel", next["id"].as_str().unwrap());
    host.post(&path, json!({})).await.expect(400);
    host.post("/v1/responses/resp_0/cancel", json!({})).await.expect(404);

    let failed = in_background(&host, json!({"input": "fail"})).await;
    let failed = past(&host, &failed, &OPEN).await;
    assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!("server_error")));
    assert!(!failed.to_string().contains("secret cause"));
    host.bind("shield.input", "word", "shield", json!({"config": {"word": "evil"}, "refusal": "No."})).await;
    let blocked = in_background(&host, json!({"input": "evil"})).await;
    let blocked = past(&host, &blocked, &OPEN).await;
    assert_eq!(blocked["incomplete_details"]["reason"], "content_filter");
}

#[tokio::test]
async fn a_background_response_may_be_cancelled_or_deleted_under_way() {
    let host = Host::new().await;
    let id = in_background(&host, json!({"input": "hang"})).await;
    assert_eq!(past(&host, &id, &["queued"]).await["status"], "in_progress");
    let next = json!({"model": "m", "input": "x", "previous_response_id": id});
    assert_eq!(host.post("/v1/responses", next).await.expect(400)["error"]["param"], "previous_response_id");
    let listed = host.get("/v1/responses").await.expect(200);
    assert_eq!(listed["data"][0]["status"], "in_progress");
    let path = format!("/v1/responses/{id}/cancel");
    for _ in 0..2 {
        assert_eq!(host.post(&path, json!({})).await.expect(200)["status"], "cancelled");
    }
    let gone = in_background(&host, json!({"input": "hang"})).await;
    past(&host, &gone, &["queued"]).await;
    host.delete(&format!("/v1/responses/{gone}")).await.expect(200);
    for _ in 0..500 {
        if host.inference.cancelled.load(std::sync::atomic::Ordering::SeqCst) == 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(host.inference.cancelled.load(std::sync::atomic::Ordering::SeqCst), 2, "the model does not go on");
    host.get(&format!("/v1/responses/{gone}")).await.expect(404);
    assert_eq!(read(&host, &id).await["status"], "cancelled");
}

#[tokio::test]
async fn a_background_response_that_a_restart_cut_off_has_failed() {
    let host = Host::new().await;
    let id = in_background(&host, json!({"input": "hang"})).await;
    past(&host, &id, &["queued"]).await;
    let again = host.restarted();
    let failed = read(&again, &id).await;
    assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!("server_error")));
    assert!(failed["error"]["message"].as_str().unwrap().contains("the host was stopped"));
    assert_eq!(again.get("/v1/responses").await.expect(200)["data"][0]["status"], "failed");
    assert_eq!(again.post(&format!("/v1/responses/{id}/cancel"), json!({})).await.expect(200)["status"], "failed");
    respond(&again, json!({"input": "once more", "previous_response_id": id})).await;
}

#[tokio::test]
async fn a_tenants_background_responses_are_bounded_in_number() {
    let host = Host::new().await;
    for _ in 0..64 {
        in_background(&host, json!({"input": "hang"})).await;
    }
    let body = json!({"model": "m", "input": "x", "background": true});
    let refused = host.post("/v1/responses", body.clone()).await.expect(429);
    assert_eq!(refused["error"]["code"], "rate_limited");
    respond(&host, json!({"input": "x"})).await;
    let key = host.tenant("other", &["inference"]).await;
    assert_eq!(host.call(&key, "POST", "/v1/responses", &body).await.status, 200);
    let id = host.get("/v1/responses?limit=2").await.expect(200)["data"][1]["id"].clone();
    host.post(&format!("/v1/responses/{}/cancel", id.as_str().unwrap()), json!({})).await.expect(200);
    for _ in 0..500 {
        if host.post("/v1/responses", body.clone()).await.status == 200 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("a cancelled one makes room");
}

#[tokio::test]
async fn citations_of_what_was_found_become_annotations() {
    let host = Host::new().await;
    let hit = json!({"number": 1, "id": "c", "document": "file_1", "text": "t", "score": 0.5,
        "metadata": {"file_id": "file_1", "filename": "a.md", "year": 2026}});
    let events = json!([
        step("s1", StepKind::Retrieval, StepStatus::Started, "search", json!({"query": "q"})),
        step("s1", StepKind::Retrieval, StepStatus::Done, "search", json!({"query": "q", "hits": [hit]})),
        text("Né ["),
        text("1], [2]."),
        end(FinishReason::Stop),
    ]);
    host.bind("orchestrator", "says", "orchestrator", json!({"config": {"events": events}})).await;
    let body = json!({"model": "m", "input": "x", "stream": true, "include": ["file_search_call.results"]});
    let told = host.post("/v1/responses", body).await.named_events();
    let annotation = json!({"type": "file_citation", "index": 3, "file_id": "file_1", "filename": "a.md"});
    let added: Vec<_> = told.iter().filter(|e| e.0 == "response.output_text.annotation.added").collect();
    assert_eq!(added.len(), 1);
    assert_eq!((&added[0].1["annotation"], &added[0].1["annotation_index"]), (&annotation, &json!(0)));
    let output = &told.last().unwrap().1["response"]["output"];
    assert_eq!(output[1]["content"][0]["annotations"], json!([annotation]));
    assert_eq!(output[0]["results"][0]["attributes"], json!({"year": 2026}));
    assert_eq!(respond(&host, json!({"input": "x"})).await["output"][0]["results"], Value::Null);
}

#[tokio::test]
async fn a_reference_stands_for_the_item_that_was_kept() {
    let host = Host::new().await;
    let first = respond(&host, json!({"input": "one"})).await;
    let path = format!("/v1/responses/{}/input_items", first["id"].as_str().unwrap());
    let input = host.get(&path).await.expect(200)["data"][0]["id"].clone();
    let refer = |id: &Value| json!({"type": "item_reference", "id": id});
    let said = &first["output"][0]["id"];
    let body = json!({"input": [refer(&input), {"id": said}, {"role": "user", "content": "two"}]});
    respond(&host, body).await;
    let texts = |i: usize| asked(&host, i).0.messages.iter().map(|m| m.joined_text()).collect::<Vec<_>>();
    assert_eq!(texts(1), ["one", "one", "two"]);
    let kept = host.get("/v1/responses").await.expect(200)["data"][0]["id"].clone();
    let kept = host.get(&format!("/v1/responses/{}/input_items?order=asc", kept.as_str().unwrap())).await.expect(200);
    let kinds: Vec<_> = kept["data"].as_array().unwrap().iter().map(|i| i["role"].clone()).collect();
    assert_eq!(kinds, ["user", "assistant", "user"], "in the order in which they were given");
    // What the chain says already is not said twice.
    let body = json!({"previous_response_id": first["id"], "input": [refer(said), {"role": "user", "content": "two"}]});
    respond(&host, body).await;
    assert_eq!(texts(2), ["one", "one", "two"]);
    for unknown in ["msg_000000000000000000000000", "nonsense", ""] {
        let body = json!({"model": "m", "input": [refer(&json!(unknown)), {"role": "user", "content": "x"}]});
        host.post("/v1/responses", body).await.expect(404);
    }
}

#[tokio::test]
async fn truncation_drops_the_oldest_exchanges_until_the_rest_fits() {
    let host = Host::new().await;
    let turn = |role: &str, n: usize| json!({"role": role, "content": format!("{n}{}", "x".repeat(150))});
    let mut input: Vec<Value> = (0..8).flat_map(|n| [turn("user", n), turn("assistant", n)]).collect();
    input.push(json!({"role": "user", "content": "last"}));
    let body = json!({"input": input, "instructions": "Be kind.", "truncation": "auto", "max_output_tokens": 100});
    let r = respond(&host, body.clone()).await;
    assert_eq!(r["truncation"], "auto");
    let (chat, _) = asked(&host, 0);
    let texts: Vec<String> = chat.messages.iter().map(|m| m.joined_text()).collect();
    assert_eq!((texts[0].as_str(), texts.last().unwrap().as_str()), ("Be kind.", "last"));
    assert!((4..14).contains(&texts.len()) && chat.messages[1].role == Role::User, "{}", texts.len());
    let rendered = host.inference.render(&ModelId::new("m").unwrap(), &chat).unwrap().tokens.len();
    assert!(rendered <= 1000 - 100, "{rendered}");
    let mut plain = body;
    plain["truncation"] = "disabled".into();
    respond(&host, plain).await;
    assert_eq!(asked(&host, 1).0.messages.len(), 18);
}

#[tokio::test]
async fn values_of_a_prompts_variables_pass_the_input_shields() {
    let body = json!({"model": "m", "input": "hi", "prompt": {"id": "greet", "variables": {"who": "a bomb", "n": 1}}});
    let shield = |action: &str| json!({"config": {"word": "bomb", "action": action}, "refusal": "No."});
    let host = Host::new().await;
    host.bind("orchestrator", "says", "orchestrator", json!({})).await;
    host.bind("shield.input", "word", "shield", shield("block")).await;
    let refused = host.post("/v1/responses", body.clone()).await.expect(403);
    assert_eq!(refused["error"]["message"], "No.");
    assert!(host.plugins.turns.lock().unwrap().is_empty());

    let host = Host::new().await;
    host.bind("orchestrator", "says", "orchestrator", json!({})).await;
    host.bind("shield.input", "word", "shield", shield("mask")).await;
    host.post("/v1/responses", body).await.expect(200);
    let (call, _) = host.plugins.turns.lock().unwrap().pop().unwrap();
    assert_eq!(call.target.config["prompt"]["variables"], json!({"who": "a #", "n": 1}));
}

/// Two calls of the client's tools at once.
fn two_calls() -> Vec<Event> {
    let call = |index: u32, name: &str, arguments: &str| {
        Event::ToolCall(ToolCallDelta {
            index,
            id: (!name.is_empty()).then(|| format!("c{index}")),
            name: (!name.is_empty()).then(|| name.into()),
            arguments: arguments.into(),
        })
    };
    vec![call(0, "f", "{\"a\":"), call(1, "g", "{}"), call(0, "", "1}"), end(FinishReason::ToolCalls)]
}

#[tokio::test]
async fn one_tool_call_at_a_time_is_all_that_a_client_gets_that_takes_no_more() {
    let host = Host::new().await;
    let said = script(&two_calls());
    let calls = |response: &Value| -> Vec<(String, String)> {
        let items = response["output"].as_array().unwrap().iter().filter(|i| i["type"] == "function_call");
        let text = |value: &Value| value.as_str().unwrap().to_string();
        items.map(|i| (text(&i["name"]), text(&i["arguments"]))).collect()
    };
    let one = respond(&host, json!({"input": said, "parallel_tool_calls": false})).await;
    assert_eq!((calls(&one), &one["parallel_tool_calls"]), (vec![("f".into(), "{\"a\":1}".into())], &json!(false)));
    let both = respond(&host, json!({"input": said, "parallel_tool_calls": true})).await;
    assert_eq!((calls(&both).len(), &both["parallel_tool_calls"]), (2, &json!(true)));
    let chat = |more: Value| host.chat(&said, more);
    let message = chat(json!({"parallel_tool_calls": false})).await.expect(200)["choices"][0]["message"].clone();
    assert_eq!(message["tool_calls"].as_array().unwrap().len(), 1, "{message}");
    let message = chat(json!({})).await.expect(200)["choices"][0]["message"].clone();
    assert_eq!(message["tool_calls"].as_array().unwrap().len(), 2, "{message}");
}

#[tokio::test]
async fn bounds_on_tool_calls_reach_an_orchestrator_that_knows_them_and_are_refused_otherwise() {
    let host = Host::new().await;
    host.bind("orchestrator", "says", "orchestrator", json!({})).await;
    let bounds = json!({"input": "x", "max_tool_calls": 3, "parallel_tool_calls": false});
    // Without a tool of the tenant's there is nothing to bound.
    let whole = respond(&host, bounds.clone()).await;
    assert_eq!((&whole["max_tool_calls"], &whole["parallel_tool_calls"]), (&json!(3), &json!(false)));
    host.bind("tool/echo", "echo", "tool", json!({})).await;
    for (field, value) in [("max_tool_calls", json!(3)), ("parallel_tool_calls", json!(false))] {
        let body = json!({"model": "m", "input": "x", field: value});
        let error = host.post("/v1/responses", body).await.expect(400)["error"].clone();
        assert_eq!(error["param"], field);
        assert!(error["message"].as_str().unwrap().contains("says@1 has no `limits."), "{error}");
    }
    let manifest =
        json!({"config": {"properties": {"limits": {"properties": {"tool_calls": {}, "calls_at_once": {}}}}}});
    let bytes = axum::body::Body::from(format!("ok orchestrator {manifest}"));
    host.send(request(ADMIN, "PUT", "/stockade/v1/components/says/versions/2", &[], bytes)).await.expect(201);
    for (own, want) in [
        (json!({}), json!({"tool_calls": 3, "calls_at_once": 1})),
        (
            json!({"limits": {"model_calls": 4, "tool_calls": 2}}),
            json!({"model_calls": 4, "tool_calls": 2, "calls_at_once": 1}),
        ),
        (json!({"limits": {"tool_calls": 9}}), json!({"tool_calls": 3, "calls_at_once": 1})),
    ] {
        let entries = json!({"entries": [{"component": "says", "version": "2", "config": own}]});
        host.put("/stockade/v1/bindings/orchestrator", entries).await.expect(200);
        let whole = respond(&host, bounds.clone()).await;
        assert_eq!((&whole["max_tool_calls"], &whole["parallel_tool_calls"]), (&json!(3), &json!(false)));
        assert_eq!(host.plugins.turns.lock().unwrap().last().unwrap().0.target.config["limits"], want);
    }
    host.chat("x", json!({"parallel_tool_calls": false})).await.expect(200);
    let limits = host.plugins.turns.lock().unwrap().last().unwrap().0.target.config["limits"].clone();
    assert_eq!(limits, json!({"tool_calls": 9, "calls_at_once": 1}));
    for wrong in [json!({"max_tool_calls": 0}), json!({"max_tool_calls": "x"}), json!({"parallel_tool_calls": 1})] {
        let mut body = json!({"model": "m", "input": "x"});
        body.as_object_mut().unwrap().extend(wrong.as_object().unwrap().clone());
        host.post("/v1/responses", body).await.expect(400);
    }
}
