//! What models write, and what clients want them to write.

use crate::Target;
use serde_json::json;
use std::sync::{LazyLock, Mutex, mpsc};
use std::time::Duration;
use stockade_core::TenantId;
use stockade_core::event::{Event, TextDelta};
use stockade_core::infer::Constraint;
use stockade_infer::{CallFormat, GrammarSettings, Grammars, Prepared, Reply, ReplyFormat, Vocabulary};

/// First byte: the format; second: how the rest is cut; then a reply's bytes.
pub const REPLY: Target = Target {
    name: "reply",
    run: |bytes| {
        let [format, cut, text @ ..] = bytes else { return };
        let whole = read(*format, [text]);
        let cut = usize::from(*cut) % 16 + 1;
        assert_eq!(read(*format, text.chunks(cut)), whole, "the same reply in pieces of {cut}");
        let said: String =
            whole.iter().filter_map(|e| if let Event::Text(t) = e { Some(&*t.text) } else { None }).collect();
        let stopped = stops(*format).into_iter().find(|stop| said.contains(stop));
        // Text before and after a call is told apart by the call, so a stop string may seem to stand across one.
        let calls = whole.iter().any(|e| !matches!(e, Event::Text(_)));
        assert!(calls || stopped.is_none(), "a stop string came through");
    },
    seeds: || {
        [
            "\0\x03<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}</tool_call>\"}}\n</tool_call>",
            "\x01\x05{\"name\": \"f\", \"parameters\": {\"a\": [1, 2]}}; {\"name\": \"g\", \"parameters\": {}}",
            "\x01\x01[f(a=1, b=\"x\"), g(c=[True, None], d={'k': -1.5e3})]",
            "\x02\x07Well. [TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {}}]",
            "\x02\x02[TOOL_CALLS]f[ARGS]{\"a\": 1}",
            "\x03\x04<think>\nSo \u{1f600}.\n</think>\nYes. END or not",
            "\x07\x01plain text END of it",
        ]
        .iter()
        .map(|s| s.as_bytes().to_vec())
        .collect()
    },
    words: &[
        "<tool_call>",
        "</tool_call>",
        "<|python_tag|>",
        "<|python_start|>",
        "<|python_end|>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "<think>",
        "</think>",
        "{\"name\": \"f\"",
        "\"arguments\":",
        "f(",
        "a=",
        "'",
        "\"",
        "\\u00e9",
        "\\x00",
        "True",
        "END",
        "\u{fffd}",
        "[[[[[[",
        "{{{{{{",
        "1e400",
    ],
};

/// A JSON schema, or after a first byte `/` a regular expression, after `%` a Lark grammar.
pub const GRAMMAR: Target = Target {
    name: "grammar",
    run: |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let constraint = match (text.strip_prefix('/'), text.strip_prefix('%')) {
            (Some(regex), _) => Constraint::Regex(regex.into()),
            (_, Some(lark)) => Constraint::Lark(lark.into()),
            _ => match serde_json::from_str(text) {
                Ok(schema) => Constraint::JsonSchema(schema),
                Err(_) => return,
            },
        };
        follow(&constraint);
    },
    seeds: || {
        let schemas = [
            json!({"type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["a"]}),
            json!({"type": "array", "items": {"enum": ["x", 1, null]}, "minItems": 1, "maxItems": 3}),
            json!({"$defs": {"n": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/n"}]}}, "$ref": "#/$defs/n"}),
            json!({"type": "string", "pattern": "^[a-z]{1,5}$", "maxLength": 9}),
            json!({"allOf": [{"type": "number", "multipleOf": 0.5}], "additionalProperties": false}),
        ];
        let mut seeds: Vec<Vec<u8>> = schemas.iter().map(|s| s.to_string().into_bytes()).collect();
        seeds.push(b"/[a-c]{2,4}(x|yz)*".to_vec());
        seeds.push(b"%start: a \"!\"\na: /[0-9]+/ | \"(\" a \")\"\n".to_vec());
        seeds
    },
    words: &[
        "{",
        "}",
        "[",
        "]",
        "\"",
        "(",
        ")",
        "|",
        "*",
        "{0,999999}",
        "\\p{L}",
        "(?i)",
        "\"$ref\":\"#\"",
        "\"pattern\":\"(a|a)*b\"",
        "\"maxLength\":999999999",
        "\"oneOf\":[",
        "\"not\":{}",
        "start:",
        "%ignore",
        "%json",
        "null",
        "1e308",
        "-9223372036854775808",
        "-1e19",
        "-0",
    ],
};

fn stops(format: u8) -> Vec<String> {
    if format & 4 == 0 { Vec::new() } else { vec!["END".into(), "no\u{e9}".into()] }
}

/// A reply's events, neighbouring texts joined.
fn read<'a>(format: u8, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Event> {
    let calls =
        [Some(CallFormat::Hermes), Some(CallFormat::Llama), Some(CallFormat::Mistral), None][usize::from(format & 3)];
    let tools = vec!["f".to_owned(), "g".to_owned()];
    let reasoning = format & 8 != 0 || calls.is_none();
    let format = (format & 16 == 0).then_some((calls, format));
    let parsed = format.map(|(calls, f)| ReplyFormat { calls, tools, reasoning, starts_in_reasoning: f & 32 != 0 });
    let mut reply = Reply::new(&stops(format.map_or(4, |(_, f)| f)), parsed, 7);
    let mut events = Vec::new();
    for piece in pieces {
        if reply.push(piece, None, &mut events) {
            break;
        }
    }
    reply.finish(&mut events);
    let mut joined: Vec<Event> = Vec::new();
    for event in events {
        match (joined.last_mut(), event) {
            (Some(Event::Text(last)), Event::Text(more)) => last.text += &more.text,
            (Some(Event::Reasoning { text }), Event::Reasoning { text: more }) => *text += &more,
            (_, Event::Text(TextDelta { text, .. })) if text.is_empty() => {}
            (_, event) => joined.push(event),
        }
    }
    joined
}

static GRAMMARS: LazyLock<Mutex<Grammars>> = LazyLock::new(|| {
    let tokens = (0..=255u8).map(|byte| (vec![byte], false)).chain([(b"<end>".to_vec(), true)]);
    let settings = GrammarSettings { cached: 1, cached_per_tenant: 1, ..GrammarSettings::default() };
    Mutex::new(Grammars::new(&Vocabulary::new(tokens, vec![256]), settings).expect("grammars of bytes"))
});

/// Compiles a grammar and goes some steps along the first way that it allows.
fn follow(constraint: &Constraint) {
    let grammars = GRAMMARS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut grammar = match grammars.prepare(&TenantId::default_tenant(), constraint) {
        Err(_) => return,
        Ok(Prepared::Ready(grammar)) => grammar,
        Ok(Prepared::Job(job)) => {
            let (tx, rx) = mpsc::channel();
            grammars.start(job, Box::new(move |compiled| drop(tx.send(compiled))));
            match rx.recv_timeout(Duration::from_secs(60)).expect("compiling ends") {
                Ok(grammar) => grammar,
                Err(_) => return,
            }
        }
    };
    for _ in 0..24 {
        let Ok(mask) = grammar.mask() else { return };
        let Some(token) = (0..257).rev().find(|token| mask.allows(*token)) else { return };
        if !matches!(grammar.accept(token), Ok(false)) {
            return;
        }
    }
}
