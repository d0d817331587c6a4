//! Constraints over a network that knows nothing: whatever comes out must be in the language all the same.

mod tiny;

use proptest::prelude::*;
use serde_json::{Value, json};
use stockade_core::chat::{Message, Role, ToolChoice, ToolSpec};
use stockade_core::event::FinishReason;
use stockade_core::infer::*;
use stockade_infer::{Engine, GrammarSettings, Settings};
use tiny::*;

fn constrained(seed: u64, constraint: Constraint) -> GenerateRequest {
    let mut request = request(prompt(seed, 20), 600);
    request.sampling.seed = Some(seed);
    request.sampling.ignore_eos = false;
    // The random network would go on for long; this makes it find an end.
    request.sampling.logit_bias =
        vec![(EOS, 20.0), (u32::from(b'"'), 4.0), (u32::from(b'}'), 6.0), (u32::from(b']'), 6.0)];
    request.constraint = Some(constraint);
    request
}

fn engine() -> Engine {
    tiny::engine(256, Settings::default()).0
}

/// Replies that ended by themselves, as JSON.
fn values(engine: &Engine, schema: &Value, runs: u64) -> Vec<Value> {
    (0..runs)
        .filter_map(|seed| {
            let reply = generate(engine, constrained(seed, Constraint::JsonSchema(schema.clone())));
            assert_eq!(reply.error, None, "{schema}");
            (reply.reason == Some(FinishReason::Stop)).then(|| {
                serde_json::from_str(&reply.text).unwrap_or_else(|e| panic!("{e}: {} for {schema}", reply.text))
            })
        })
        .collect()
}

#[test]
fn every_reply_is_valid_whatever_the_logits_say() {
    let engine = engine();
    let schema = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12, "minLength": 2},
            "age": {"type": "integer", "minimum": 3, "maximum": 120},
            "tags": {"type": "array", "items": {"enum": ["a", "b", 3, null]}, "minItems": 1, "maxItems": 3},
            "when": {"type": "string", "format": "date"},
        },
        "required": ["name", "age", "tags", "when"],
        "additionalProperties": false,
    });
    let values = values(&engine, &schema, 12);
    assert!(values.len() >= 10, "{}", values.len());
    for value in values {
        let object = value.as_object().unwrap();
        assert_eq!(object.len(), 4);
        assert!((2..=12).contains(&object["name"].as_str().unwrap().chars().count()), "{value}");
        assert!((3..=120).contains(&object["age"].as_i64().unwrap()), "{value}");
        let tags = object["tags"].as_array().unwrap();
        assert!(
            (1..=3).contains(&tags.len())
                && tags.iter().all(|t| [json!("a"), json!("b"), json!(3), json!(null)].contains(t)),
            "{value}"
        );
        assert_eq!(object["when"].as_str().unwrap().len(), 10, "{value}");
    }
}

#[test]
fn objects_regexes_and_grammars_hold() {
    let engine = engine();
    for seed in 0..6 {
        let reply = generate(&engine, constrained(seed, Constraint::JsonObject));
        if reply.reason == Some(FinishReason::Stop) {
            assert!(serde_json::from_str::<Value>(&reply.text).unwrap().is_object(), "{}", reply.text);
        } else {
            assert!(reply.text.starts_with('{') || reply.text.trim_start().starts_with('{'));
        }
        let reply = generate(&engine, constrained(seed, Constraint::Regex("(yes|no), [0-9]{3}é?".into())));
        assert_eq!(reply.reason, Some(FinishReason::Stop));
        let (word, rest) = reply.text.split_once(", ").unwrap();
        assert!(["yes", "no"].contains(&word));
        assert!(rest.trim_end_matches('é').len() == 3 && rest[..3].bytes().all(|b| b.is_ascii_digit()), "{rest}");
        let lark = "start: item (\",\" item){2}\nitem: /[ab]/ | \"(\" start \")\"\n";
        let reply = generate(&engine, constrained(seed, Constraint::Lark(lark.into())));
        if reply.reason == Some(FinishReason::Stop) {
            assert!(reply.text.chars().all(|c| "ab,()".contains(c)), "{}", reply.text);
            assert_eq!(reply.text.matches('(').count(), reply.text.matches(')').count());
        }
    }
}

#[test]
fn what_cannot_be_enforced_is_refused_and_the_engine_goes_on() {
    let engine = engine();
    for (name, constraint) in [
        ("no schema", Constraint::JsonSchema(json!(3))),
        ("nothing fits", Constraint::JsonSchema(json!(false))),
        ("contradiction", Constraint::JsonSchema(json!({"type": "string", "enum": [1]}))),
        ("remote reference", Constraint::JsonSchema(json!({"$ref": "http://localhost:1234/integer.json"}))),
        ("unique items", Constraint::JsonSchema(json!({"type": "array", "uniqueItems": true}))),
        (
            "leniency asked for",
            Constraint::JsonSchema(json!({"type": "array", "uniqueItems": true, "x-guidance": {"lenient": true}})),
        ),
        ("regex", Constraint::Regex("(".into())),
        ("look-behind", Constraint::Regex("(?<=a)b".into())),
        ("empty grammar", Constraint::Lark(" ".into())),
        ("grammar", Constraint::Lark("start: missing".into())),
        ("too large", Constraint::Regex("a".repeat(300 << 10))),
    ] {
        let error = match engine.generate(constrained(1, constraint)) {
            Err(error) => error.to_string(),
            Ok(stream) => collect(stream).error.unwrap_or_else(|| panic!("{name} was accepted")),
        };
        assert!(error.starts_with("the schema or grammar cannot be enforced: "), "{name}: {error}");
        assert!(error.len() < 600, "{name}: {error}");
    }
    let reply = generate(&engine, constrained(1, Constraint::Regex("ok".into())));
    assert_eq!(reply.text, "ok");
}

#[test]
fn constrained_runs_are_the_same_in_a_batch_and_alone_and_from_the_cache() {
    let schema = json!({"type": "array", "items": {"type": "integer"}, "maxItems": 30});
    let ask = |seed| constrained(seed, Constraint::JsonSchema(schema.clone()));
    let alone: Vec<_> = (0..6).map(|seed| generate(&engine(), ask(seed)).result()).collect();
    let (engine, _) = tiny::engine(21, Settings { max_step_tokens: 16, watermark_permille: 0, ..Settings::default() });
    for _ in 0..2 {
        let streams: Vec<_> = (0..6).map(|seed| engine.generate(ask(seed)).unwrap()).collect();
        let readers: Vec<_> = streams.into_iter().map(|s| std::thread::spawn(move || collect(s))).collect();
        let together: Vec<_> = readers.into_iter().map(|r| r.join().unwrap().result()).collect();
        assert_eq!(together, alone);
    }
}

#[test]
fn an_enforced_tool_choice_gives_exactly_one_call_with_valid_arguments() {
    let engine = engine();
    let parameters = json!({
        "type": "object",
        "properties": {"city": {"$ref": "#/$defs/city"}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["city", "days"],
        "additionalProperties": false,
        "$defs": {"city": {"enum": ["Oslo", "Rome"]}},
    });
    let tool = |name: &str| ToolSpec { name: name.into(), description: String::new(), parameters: parameters.clone() };
    for (seed, choice) in
        [(1, ToolChoice::Required), (2, ToolChoice::Named("forecast".into())), (3, ToolChoice::Required)]
    {
        let mut ask = constrained(seed, Constraint::JsonObject);
        ask.constraint = None;
        ask.prompt = Prompt::Chat(ChatPrompt {
            messages: vec![Message::text(Role::User, "Weather?")],
            tools: vec![tool("weather"), tool("forecast")],
            tool_choice: choice.clone(),
            ..ChatPrompt::default()
        });
        let reply = generate(&engine, ask);
        assert_eq!((reply.reason, reply.text.as_str()), (Some(FinishReason::ToolCalls), ""), "{reply:?}");
        assert_eq!(reply.calls.len(), 1);
        let call = &reply.calls[0];
        if let ToolChoice::Named(name) = choice {
            assert_eq!(call.name.as_deref(), Some(name.as_str()));
        }
        let arguments: Value = serde_json::from_str(&call.arguments).unwrap();
        assert!(["Oslo", "Rome"].contains(&arguments["city"].as_str().unwrap()));
        assert!((1..=9).contains(&arguments["days"].as_i64().unwrap()));
    }
}

#[test]
fn a_grammar_that_compiles_for_too_long_fails_its_request_at_the_deadline() {
    let grammar = GrammarSettings { compile_deadline: std::time::Duration::ZERO, ..GrammarSettings::default() };
    let (engine, _) = tiny::engine(64, Settings { grammar, ..Settings::default() });
    let reply = generate(&engine, constrained(1, Constraint::Regex("ok".into())));
    assert!(reply.error.unwrap().contains("too long"));
    eventually("it left the queue", || engine.load().sequences_waiting == 0);
}

/// A small oracle for the keywords that the property below draws.
fn satisfies(schema: &Value, value: &Value) -> bool {
    let number = |key: &str| schema.get(key).and_then(Value::as_u64);
    match schema.get("type").and_then(Value::as_str) {
        Some("integer") => value.as_i64().is_some_and(|n| n >= 0 && n as u64 <= number("maximum").unwrap_or(u64::MAX)),
        Some("boolean") => value.is_boolean(),
        Some("string") => {
            value.as_str().is_some_and(|s| s.chars().count() as u64 <= number("maxLength").unwrap_or(u64::MAX))
        }
        Some("array") => value.as_array().is_some_and(|items| {
            items.len() as u64 <= number("maxItems").unwrap_or(u64::MAX)
                && items.iter().all(|i| satisfies(&schema["items"], i))
        }),
        Some("object") => value.as_object().is_some_and(|object| {
            let properties = schema["properties"].as_object().unwrap();
            object.len() == properties.len()
                && properties.iter().all(|(key, of)| object.get(key).is_some_and(|v| satisfies(of, v)))
        }),
        _ => false,
    }
}

fn schemas() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        (0u32..5000).prop_map(|m| json!({"type": "integer", "minimum": 0, "maximum": m})),
        Just(json!({"type": "boolean"})),
        (0u32..8).prop_map(|m| json!({"type": "string", "maxLength": m})),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), 0u32..4).prop_map(|(items, m)| json!({"type": "array", "items": items, "maxItems": m})),
            proptest::collection::btree_map("[a-z]{1,4}", inner, 1..3).prop_map(|properties| {
                let required: Vec<&String> = properties.keys().collect();
                json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn replies_satisfy_any_schema_even_with_stop_strings_absent_and_pages_short(schema in schemas(), seed in 0u64..1000) {
        let (engine, _) = tiny::engine(24, Settings { max_step_tokens: 16, ..Settings::default() });
        let mut ask = constrained(seed, Constraint::JsonSchema(schema.clone()));
        ask.sampling.temperature = 2.0;
        let reply = generate(&engine, ask);
        prop_assert_eq!(&reply.error, &None);
        if reply.reason == Some(FinishReason::Stop) {
            let value: Value = serde_json::from_str(&reply.text).unwrap();
            prop_assert!(satisfies(&schema, &value), "{} for {}", value, schema);
        }
    }

    #[test]
    fn a_stop_string_cuts_a_constrained_reply_and_changes_nothing_before_it(schema in schemas(), seed in 0u64..1000, stop in "[a-z0-9\",:]{1,2}") {
        let (engine, _) = tiny::engine(64, Settings::default());
        let whole = generate(&engine, constrained(seed, Constraint::JsonSchema(schema.clone())));
        let mut ask = constrained(seed, Constraint::JsonSchema(schema));
        ask.sampling.stop = vec![stop.clone()];
        let cut = generate(&engine, ask);
        prop_assert_eq!(&cut.text, whole.text.split(&stop).next().unwrap());
        prop_assert_eq!(&cut.logprobs[..], &whole.logprobs[..cut.logprobs.len()]);
    }
}
