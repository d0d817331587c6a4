use super::*;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

fn format(calls: CallFormat, reasoning: bool) -> ReplyFormat {
    ReplyFormat { calls: Some(calls), tools: vec!["f".into(), "g".into()], reasoning, starts_in_reasoning: false }
}

/// Pieces with neighbours of one kind joined.
fn read<'a>(format: &ReplyFormat, pieces: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut parser = ReplyParser::new(format.clone());
    let mut out = Vec::new();
    pieces.into_iter().for_each(|piece| parser.push(piece, &mut out));
    parser.finish(&mut out);
    let mut joined: Vec<String> = Vec::new();
    for piece in out {
        let (kind, text) = match piece {
            Piece::Text { text, .. } => ("text:", text),
            Piece::Reasoning { text } => ("think:", text),
            Piece::Call { name, arguments } => ("call:", format!("{name} {arguments}")),
        };
        match joined.last_mut() {
            Some(last) if kind != "call:" && last.starts_with(kind) => last.push_str(&text),
            _ => joined.push(format!("{kind}{text}")),
        }
    }
    joined
}

fn cases() -> Vec<(ReplyFormat, &'static str, Vec<&'static str>)> {
    use CallFormat::{Hermes, Llama, Mistral};
    let h = format(Hermes, false);
    let l = format(Llama, false);
    let m = format(Mistral, false);
    let t = format(Hermes, true);
    let lt = format(Llama, true);
    let open = ReplyFormat { starts_in_reasoning: true, ..t.clone() };
    vec![
        (h.clone(), "plain", vec!["text:plain"]),
        (
            h.clone(),
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}</tool_call>\"}}\n</tool_call>",
            vec!["call:f {\"a\": \"}</tool_call>\"}"],
        ),
        (
            h.clone(),
            "Let me see.\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n<tool_call>{\"name\":\"g\",\"arguments\":{\"x\":1.50}}</tool_call>\n",
            vec!["text:Let me see.\n", "call:f {}", "call:g {\"x\":1.50}"],
        ),
        (
            h.clone(),
            "<tool_call>[{\"name\":\"f\",\"arguments\":{}},{\"name\":\"g\"}]</tool_call>",
            vec!["call:f {}", "call:g {}"],
        ),
        (h.clone(), "<tool_call>{\"name\":\"f\",\"arguments\":{}}", vec!["call:f {}"]),
        (
            h.clone(),
            "<tool_call>{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":1}\"}</tool_call>",
            vec!["call:f {\"a\":1}"],
        ),
        (
            h.clone(),
            "<tool_call>{\"name\":\"unknown\",\"arguments\":{}}</tool_call>",
            vec!["text:<tool_call>{\"name\":\"unknown\",\"arguments\":{}}</tool_call>"],
        ),
        (
            h.clone(),
            "<tool_call>{\"name\":\"f\",\"arguments\":{}} is a call",
            vec!["text:<tool_call>{\"name\":\"f\",\"arguments\":{}} is a call"],
        ),
        (
            h.clone(),
            "<tool_call> is a tag. <tool_call>{\"name\":\"f\"}</tool_call> end",
            vec!["text:<tool_call> is a tag. ", "call:f {}", "text:end"],
        ),
        (h.clone(), "<tool_call>{\"name\":\"f\",\"argum", vec!["text:<tool_call>{\"name\":\"f\",\"argum"]),
        (h.clone(), "a <tool", vec!["text:a <tool"]),
        (h.clone(), "{\"name\":\"f\",\"parameters\":{}}", vec!["text:{\"name\":\"f\",\"parameters\":{}}"]),
        (l.clone(), "{\"name\": \"f\", \"parameters\": {\"q\": \"a; {b\"}}", vec!["call:f {\"q\": \"a; {b\"}"]),
        (
            l.clone(),
            "<|python_tag|>{\"name\":\"f\",\"parameters\":{}}; {\"name\":\"g\",\"parameters\":{}}",
            vec!["call:f {}", "call:g {}"],
        ),
        (
            l.clone(),
            "{\"name\":\"f\",\"parameters\":{}} and more",
            vec!["text:{\"name\":\"f\",\"parameters\":{}} and more"],
        ),
        (l.clone(), "{\"temperature\": 20}", vec!["text:{\"temperature\": 20}"]),
        (l.clone(), "Here: {\"name\":\"f\",\"parameters\":{}}", vec!["text:Here: {\"name\":\"f\",\"parameters\":{}}"]),
        // A list of objects, as Llama's own examples have it too.
        (
            l.clone(),
            "[{\"name\":\"f\",\"parameters\":{}}, {\"name\":\"g\",\"arguments\":{\"x\":1}}]",
            vec!["call:f {}", "call:g {\"x\":1}"],
        ),
        (
            l.clone(),
            "[f(a=1), g(b=\"x](\", c='it)s')]",
            vec!["call:f {\"a\": 1}", "call:g {\"b\": \"x](\", \"c\": \"it)s\"}"],
        ),
        (l.clone(), " <|python_start|>[ f( a=[1, True] ) ]<|python_end|>\n", vec!["call:f {\"a\": [1, true]}"]),
        (l.clone(), "<|python_tag|>[g()]", vec!["call:g {}"]),
        (l.clone(), "[f(a=1)] and more", vec!["text:[f(a=1)] and more"]),
        (l.clone(), "[f(1)]", vec!["text:[f(1)]"]),
        (l.clone(), "[f(a=1), h(b=2)]", vec!["text:[f(a=1), h(b=2)]"]),
        (l.clone(), "[1] is a source", vec!["text:[1] is a source"]),
        (l.clone(), "[fun](http://x)", vec!["text:[fun](http://x)"]),
        (l.clone(), "[f", vec!["text:[f"]),
        (l.clone(), "<|python_start|>print(1)", vec!["text:<|python_start|>print(1)"]),
        (l.clone(), "  ", vec!["text:  "]),
        (
            m.clone(),
            "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": \"]\"}, \"id\": \"abcdef123\"}]",
            vec!["call:f {\"a\": \"]\"}"],
        ),
        (
            m.clone(),
            "Let me see.[TOOL_CALLS][{\"name\":\"f\",\"arguments\":{}},{\"name\":\"g\",\"arguments\":{}}]",
            vec!["text:Let me see.", "call:f {}", "call:g {}"],
        ),
        (m.clone(), "[TOOL_CALLS]f[ARGS]{\"a\": 1}[TOOL_CALLS] g[ARGS]{}", vec!["call:f {\"a\": 1}", "call:g {}"]),
        (m.clone(), "[TOOL_CALLS]{\"name\":\"f\"}", vec!["call:f {}"]),
        (m.clone(), "[TOOL_CALLS] is a token", vec!["text:[TOOL_CALLS] is a token"]),
        (m.clone(), "[TOOL_CALLS]h[ARGS]{}", vec!["text:[TOOL_CALLS]h[ARGS]{}"]),
        (m.clone(), "[TOOL_CALLS]f[ARGS]{\"a\":", vec!["text:[TOOL_CALLS]f[ARGS]{\"a\":"]),
        (m.clone(), "[TOOL_CALLS]f[ARGS][1]", vec!["text:[TOOL_CALLS]f[ARGS][1]"]),
        (m, "a [TOOL", vec!["text:a [TOOL"]),
        (t.clone(), "<think>\nhm < 3</think>\n\nAnswer <think>", vec!["think:\nhm < 3", "text:Answer <think>"]),
        (t.clone(), "<think>hm</think>\n<tool_call>{\"name\":\"f\"}</tool_call>", vec!["think:hm", "call:f {}"]),
        (t, "<thin air", vec!["text:<thin air"]),
        (open, "hm</think>yes", vec!["think:hm", "text:yes"]),
        (lt.clone(), "<think>hm</think>{\"name\":\"f\",\"parameters\":{}}", vec!["think:hm", "call:f {}"]),
        (lt, "<think>hm</think> Hello", vec!["think:hm", "text:Hello"]),
        (
            ReplyFormat::default(),
            "<think>a</think><tool_call>{\"name\":\"f\"}</tool_call>",
            vec!["text:<think>a</think><tool_call>{\"name\":\"f\"}</tool_call>"],
        ),
    ]
}

#[test]
fn calls_reasoning_and_lookalikes_are_told_apart() {
    for (format, text, want) in cases() {
        assert_eq!(read(&format, [text]), want, "{text}");
    }
}

#[test]
fn every_cut_into_two_and_into_characters_reads_alike() {
    for (format, text, want) in cases() {
        for (at, _) in text.char_indices() {
            assert_eq!(read(&format, [&text[..at], &text[at..]]), want, "{text} at {at}");
        }
        assert_eq!(read(&format, text.split_inclusive(|_| true)), want, "{text}");
    }
}

/// `STOCKADE_REFERENCE`, else `shared` beside the repository; a missing file skips loudly, or fails where
/// `STOCKADE_REQUIRE_REFERENCE` is set.
fn reference(name: &str) -> Option<String> {
    let root = std::env::var_os("STOCKADE_REFERENCE")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")), PathBuf::from);
    let path = root.join("data").join(name);
    if !path.exists() {
        assert!(std::env::var_os("STOCKADE_REQUIRE_REFERENCE").is_none(), "{} is missing", path.display());
        eprintln!("skipped: {} is missing", path.display());
        return None;
    }
    Some(std::fs::read_to_string(path).unwrap())
}

/// Each family's template, its form of calls, and what stands around a call that it prints.
const TEMPLATES: [(&str, Option<CallFormat>, &str, &str); 7] = [
    ("meta-llama-Llama-3.1-8B-Instruct", Some(CallFormat::Llama), "assistant<|end_header_id|>\n\n", "<|eot_id|>"),
    ("meta-llama-Llama-3.2-3B-Instruct", Some(CallFormat::Llama), "assistant<|end_header_id|>\n\n", "<|eot_id|>"),
    ("Qwen-Qwen2.5-7B-Instruct", Some(CallFormat::Hermes), "<|im_start|>assistant\n", "<|im_end|>"),
    ("NousResearch-Hermes-3-Llama-3.1-8B-tool_use", Some(CallFormat::Hermes), "<|im_start|>assistant\n", "<|im_end|>"),
    ("mistralai-Mistral-Nemo-Instruct-2407", Some(CallFormat::Mistral), "[/INST]", "</s>"),
    ("google-gemma-2-2b-it", None, "", ""),
    ("microsoft-Phi-3.5-mini-instruct", None, "", ""),
];

#[test]
fn calls_that_a_familys_template_prints_are_read_back() {
    let Some(vectors) = reference("chat-templates/vectors.jsonl") else { return };
    let vectors: Vec<Value> = vectors.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (name, want, before, after) in TEMPLATES {
        let template = reference(&format!("chat-templates/{name}.jinja")).unwrap();
        assert_eq!(CallFormat::of_template(&template), want, "{name}");
        let Some(calls) = want else { continue };
        let of_call = |v: &&Value| v["template"] == name && v["case"] == "tool_round";
        let vector = vectors.iter().find(of_call).unwrap();
        let prompt = vector["expected"].as_str().unwrap();
        let printed = prompt.split(before).find(|t| t.contains("\"Paris\"") && !t.contains("\"properties\"")).unwrap();
        let printed = printed.split(after).next().unwrap();
        let tools = vec!["get_weather".to_string()];
        let format = ReplyFormat { calls: Some(calls), tools, ..ReplyFormat::default() };
        let read = read(&format, [printed]);
        let [call] = &read[..] else { panic!("{name}: {read:?} from {printed:?}") };
        let arguments = call.strip_prefix("call:get_weather ").unwrap_or_else(|| panic!("{name}: {call}"));
        let arguments: Value = serde_json::from_str(arguments).unwrap();
        assert_eq!(arguments, json!({"city": "Paris", "days": 2}), "{name}");
    }
}

/// A call with its arguments.
type Call = (String, Value);

/// The expected calls of BFCL, with the first accepted value of each argument.
fn expected_calls(file: &str) -> Option<Vec<Vec<Call>>> {
    let first = |accepted: &Value| match &accepted[0] {
        // Inside of dictionaries values are lists of accepted ones, too.
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), v[0].clone())).collect::<Map<_, _>>().into(),
        value => value.clone(),
    };
    let row = |line: &str| -> Vec<Call> {
        let row: Value = serde_json::from_str(line).unwrap();
        let calls = row["ground_truth"].as_array().unwrap().iter().flat_map(|c| c.as_object().unwrap());
        let arguments =
            |a: &Value| a.as_object().unwrap().iter().map(|(k, v)| (k.clone(), first(v))).collect::<Map<_, _>>();
        calls.map(|(name, a)| (name.replace('.', "_"), arguments(a).into())).collect()
    };
    Some(reference(&format!("bfcl/possible_answer/{file}.jsonl"))?.lines().map(row).collect())
}

/// A value as Python writes it.
fn python(value: &Value) -> String {
    let join = |items: Vec<String>| items.join(", ");
    match value {
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Number(n) => n.to_string(),
        Value::String(s) => format!("'{}'", s.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n")),
        Value::Array(a) => format!("[{}]", join(a.iter().map(python).collect())),
        Value::Object(o) => {
            format!("{{{}}}", join(o.iter().map(|(k, v)| format!("{}: {}", python(&json!(k)), python(v))).collect()))
        }
    }
}

/// The same calls in every form that a family writes them in.
fn written(calls: &[Call]) -> Vec<(CallFormat, String)> {
    let objects = |field: &str| -> Vec<String> {
        calls.iter().map(|(name, arguments)| json!({"name": name, field: arguments}).to_string()).collect()
    };
    let tags: String = objects("arguments").iter().map(|c| format!("<tool_call>\n{c}\n</tool_call>\n")).collect();
    let keywords = |a: &Value| {
        let pairs = a.as_object().unwrap().iter().map(|(k, v)| format!("{k}={}", python(v)));
        pairs.collect::<Vec<_>>().join(", ")
    };
    let pythonic: Vec<String> = calls.iter().map(|(name, a)| format!("{name}({})", keywords(a))).collect();
    let named: String = calls.iter().map(|(name, a)| format!("[TOOL_CALLS]{name}[ARGS]{a}")).collect();
    vec![
        (CallFormat::Hermes, tags),
        (CallFormat::Hermes, format!("<tool_call>[{}]</tool_call>", objects("arguments").join(", "))),
        (CallFormat::Llama, objects("parameters").join("; ")),
        (CallFormat::Llama, format!("<|python_tag|>{}", objects("parameters").join(";"))),
        (CallFormat::Llama, format!("[{}]", pythonic.join(", "))),
        (CallFormat::Llama, format!("<|python_start|>[{}]<|python_end|>", pythonic.join(", "))),
        (CallFormat::Mistral, format!("[TOOL_CALLS] [{}]", objects("arguments").join(", "))),
        (CallFormat::Mistral, named),
    ]
}

#[test]
fn expected_calls_of_bfcl_are_read_in_every_form_however_they_are_cut() {
    for (file, rows) in [("BFCL_v4_simple_python", 400), ("BFCL_v4_parallel", 200)] {
        let Some(cases) = expected_calls(file) else { return };
        assert_eq!(cases.len(), rows);
        for (row, calls) in cases.iter().enumerate() {
            for (format, text) in written(calls) {
                let tools = calls.iter().map(|(name, _)| name.clone()).collect();
                let format = ReplyFormat { calls: Some(format), tools, ..ReplyFormat::default() };
                let mut parser = ReplyParser::new(format);
                let mut out = Vec::new();
                let mut rest = text.as_str();
                while !rest.is_empty() {
                    // Pieces of 1 to 7 characters, other ones in each row.
                    let piece = rest.char_indices().nth(1 + (rest.len() + row) % 7).map_or(rest.len(), |(at, _)| at);
                    parser.push(&rest[..piece], &mut out);
                    rest = &rest[piece..];
                }
                parser.finish(&mut out);
                let read: Vec<Call> = out
                    .into_iter()
                    .map(|piece| match piece {
                        Piece::Call { name, arguments } => (name, serde_json::from_str(&arguments).unwrap()),
                        other => panic!("{file} {row}: {other:?} in {text}"),
                    })
                    .collect();
                assert_eq!(&read, calls, "{file} {row}: {text}");
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_comes_is_read_alike_at_every_cut(
        parts in proptest::collection::vec(prop_oneof![
            Just("["), Just("]"), Just("f"), Just("g("), Just(")"), Just("a="), Just("'"), Just("\""), Just("\\"), Just(","),
            Just("{\"name\":\"f\"}"), Just("[TOOL_CALLS]"), Just("[ARGS]"), Just("{}"), Just("<|python_start|>"),
            Just("<|python_end|>"), Just("<tool_call>"), Just("</tool_call>"), Just(";"), Just(" "), Just("é"), Just("1"),
        ], 0..14),
        calls in prop_oneof![Just(CallFormat::Hermes), Just(CallFormat::Llama), Just(CallFormat::Mistral)],
    ) {
        let format = format(calls, false);
        let all: String = parts.concat();
        let whole = read(&format, [all.as_str()]);
        prop_assert_eq!(&read(&format, parts.iter().copied()), &whole);
        prop_assert_eq!(&read(&format, all.split_inclusive(|_| true)), &whole);
        // Without tools all of it is text.
        let none = ReplyFormat { tools: Vec::new(), ..format };
        let want: Vec<String> = if all.is_empty() { vec![] } else { vec![format!("text:{all}")] };
        prop_assert_eq!(read(&none, parts.iter().copied()), want);
    }

    #[test]
    fn no_text_is_lost_or_panics(parts in proptest::collection::vec(prop_oneof![Just("<tool_call>"), Just("</tool_call>"), Just("{\"name\":\"x\"}"), Just("<think>"), Just("}"), Just("\""), Just("é"), Just(" ")], 0..12)) {
        let all: String = parts.concat();
        // No tool is known and reasoning is off: all of it is text.
        let format = ReplyFormat { calls: Some(CallFormat::Hermes), ..ReplyFormat::default() };
        let want: Vec<String> = if all.is_empty() { vec![] } else { vec![format!("text:{all}")] };
        prop_assert_eq!(read(&format, parts.iter().copied()), want);
    }
}
