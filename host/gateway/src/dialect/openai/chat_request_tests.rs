//! What a chat request may hold, and what is said of one that is wrong.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn with(field: &str, value: Value) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    body[field] = value;
    body
}

#[test]
fn wrong_types_and_ranges_name_their_field() {
    for (field, value, param) in [
        ("model", json!(5), "model"),
        ("messages", json!("hi"), "messages"),
        ("messages", json!([]), "messages"),
        ("messages", json!([5]), "messages[0]"),
        ("messages", json!([{"role": "king", "content": "x"}]), "messages[0].role"),
        ("messages", json!([{"role": "user"}]), "messages[0].content"),
        ("messages", json!([{"role": "user", "content": 5}]), "messages[0].content"),
        ("messages", json!([{"role": "user", "content": [{"type": "audio"}]}]), "messages[0].content[0].type"),
        (
            "messages",
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}]}]),
            "messages[0].content[0].image_url.url",
        ),
        ("messages", json!([{"role": "tool", "content": "x"}]), "messages[0].tool_call_id"),
        ("temperature", json!("hot"), "temperature"),
        ("temperature", json!(2.1), "temperature"),
        ("temperature", json!(-0.1), "temperature"),
        ("top_p", json!(1.5), "top_p"),
        ("n", json!(0), "n"),
        ("n", json!(9), "n"),
        ("n", json!(1.5), "n"),
        ("max_tokens", json!(0), "max_tokens"),
        ("max_tokens", json!("5"), "max_tokens"),
        ("max_completion_tokens", json!(-1), "max_completion_tokens"),
        ("presence_penalty", json!(3), "presence_penalty"),
        ("stop", json!(5), "stop"),
        ("stop", json!([""]), "stop"),
        ("stream", json!("yes"), "stream"),
        ("stream_options", json!({"include_usage": true}), "stream_options"),
        ("seed", json!("x"), "seed"),
        ("seed", json!(1e300), "seed"),
        ("logit_bias", json!({"x": 1}), "logit_bias.x"),
        ("logit_bias", json!({"1": 101}), "logit_bias.1"),
        ("top_logprobs", json!(5), "top_logprobs"),
        ("top_logprobs", json!(21), "top_logprobs"),
        ("tools", json!([{"type": "function", "function": {}}]), "tools[0].function.name"),
        ("tool_choice", json!("often"), "tool_choice"),
        ("tool_choice", json!({"type": "function", "function": {}}), "tool_choice.function.name"),
        ("response_format", json!({"type": "yaml"}), "response_format.type"),
        (
            "response_format",
            json!({"type": "json_schema", "json_schema": {"name": "x"}}),
            "response_format.json_schema.schema",
        ),
        ("metadata", json!({"a": 1}), "metadata.a"),
        ("top_k", json!(-2), "top_k"),
        ("repetition_penalty", json!(0), "repetition_penalty"),
    ] {
        let error = parse(&with(field, value.clone())).unwrap_err();
        assert_eq!(error.param.as_deref(), Some(param), "{field}: {value}");
        assert_eq!(error.code.status(), 400);
    }
}

#[test]
fn edges_of_ranges_and_unknown_fields_are_taken() {
    for (field, value) in [
        ("temperature", json!(2)),
        ("temperature", json!(0)),
        ("n", json!(8)),
        ("n", json!(8.0)),
        ("seed", json!(-1)),
        ("top_k", json!(-1)),
        ("stop", Value::Null),
        ("user", json!("ann")),
        ("service_tier", json!({"anything": 1})),
        ("store", json!(true)),
        ("logit_bias", json!({"1": -100})),
        ("metadata", json!({"a": "b"})),
    ] {
        assert!(parse(&with(field, value.clone())).is_ok(), "{field}: {value}");
    }
}

#[test]
fn a_conversation_with_tools_and_pictures_becomes_the_internal_form() {
    let body = json!({
        "model": "m",
        "max_tokens": 5,
        "max_completion_tokens": 7,
        "logprobs": true,
        "top_logprobs": 3,
        "messages": [
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AQID"}},
            ]},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            ]},
            {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "done"}]},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
    });
    let r = parse(&body).unwrap();
    assert_eq!(r.sampling.max_tokens, Some(7));
    assert_eq!(r.sampling.logprobs, Some(3));
    assert_eq!(r.chat.messages[0].role, Role::System);
    assert_eq!(r.chat.messages[1].parts[1], Part::Image(Image { media_type: "image/png".into(), data: vec![1, 2, 3] }));
    assert_eq!(r.chat.messages[2].tool_calls().count(), 1);
    assert!(matches!(&r.chat.messages[3].parts[..], [Part::ToolResult(t)] if t.content == "done"));
    assert_eq!(r.chat.tool_choice, ToolChoice::Named("f".into()));
    assert_eq!(r.constraint, Some(Constraint::JsonSchema(json!({"type": "object"}))));
}

/// Any JSON at all.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z_]{0,8}|\\PC{0,8}".prop_map(Value::from),
        Just(json!("function")),
        Just(json!("user")),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        let key = prop_oneof![
            "[a-z]{1,4}",
            Just("role".to_string()),
            Just("content".to_string()),
            Just("type".to_string()),
            Just("function".to_string()),
            Just("name".to_string()),
            Just("image_url".to_string()),
            Just("tool_calls".to_string()),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..6).prop_map(|kv| Value::Object(kv.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Whatever stands in a field, the answer is a request or an error of the caller, never a panic.
    #[test]
    fn hostile_fields_are_refused_or_taken(
        field in prop::sample::select(vec![
            "model", "messages", "tools", "tool_choice", "response_format", "logit_bias", "stop",
            "stream_options", "metadata", "n", "seed", "logprobs", "top_logprobs", "temperature",
            "chat_template_kwargs", "max_tokens",
        ]),
        value in any_json(),
    ) {
        if let Err(e) = parse(&with(field, value)) {
            prop_assert_eq!(e.code.status(), 400);
        }
    }

    #[test]
    fn hostile_bodies_are_refused_or_taken(body in any_json()) {
        if let Err(e) = parse(&body) {
            prop_assert_eq!(e.code.status(), 400);
        }
    }
}
