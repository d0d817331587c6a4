//! How often the default model calls tools as it should, free and held to the tools' schemas: a sample of the Berkeley
//! Function Calling Leaderboard.
//!
//! ```console
//! $ cargo run --release -p stockade-tests --example bfcl -- FOLDER [ITEMS]
//! ```
//! `FOLDER` holds `BFCL_v4_simple_python.jsonl` and `BFCL_v4_multiple.jsonl` of `ShishirPatil/gorilla` (Apache-2.0) and
//! `possible_answer/` beside them; the first `ITEMS` (50) rows of each are asked, greedily.

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::path::Path;
use stockade_tests::interval::share;
use stockade_tests::{Client, Options, Server, scratch};

/// How often a question is asked before a deadline that has passed ends the run.
const TRIES: usize = 5;

/// What a reply came to.
#[derive(Default, Clone, Copy)]
struct Tally {
    /// One call at least, of a tool that exists, with the arguments that its schema requires, of its types.
    valid: usize,
    /// The first call is of the right function.
    function: usize,
    /// And every argument is an accepted one.
    correct: usize,
}

struct Item {
    question: Value,
    tools: Value,
    expected: Map<String, Value>,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().context("usage: bfcl FOLDER [ITEMS]")?;
    let wanted: usize = arguments.next().map_or(Ok(50), |n| n.parse())?;
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let client = server.admin();
    client.shipped("react")?;
    println!("| tools offered | way | n | valid call | right function | right arguments |\n|---|---|---|---|---|---|");
    for (file, offered) in [("BFCL_v4_multiple", "two to four"), ("BFCL_v4_simple_python", "one")] {
        let items = items(Path::new(&folder), file, wanted)?;
        for (way, orchestrator, choice) in [
            ("held to the schemas (`required`)", "chat", "required"),
            ("ReAct grammar (`required`)", "react", "required"),
            ("free (`auto`)", "chat", "auto"),
        ] {
            client.bind("orchestrator", json!([{"component": orchestrator, "version": "0.1.0"}]))?;
            let mut tally = Tally::default();
            for item in &items {
                score(&client, item, choice, &mut tally)?;
            }
            let n = items.len();
            let [valid, function, correct] = [tally.valid, tally.function, tally.correct].map(|k| share(k, n));
            println!("| {offered} | {way} | {n} | {valid} | {function} | {correct} |");
        }
    }
    Ok(())
}

fn rows(path: &Path, most: usize) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    text.lines().take(most).map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn items(folder: &Path, file: &str, most: usize) -> Result<Vec<Item>> {
    let questions = rows(&folder.join(format!("{file}.jsonl")), most)?;
    let answers = rows(&folder.join("possible_answer").join(format!("{file}.jsonl")), most)?;
    let item = |(question, answer): (Value, Value)| {
        anyhow::ensure!(question["id"] == answer["id"], "{} and {} differ", question["id"], answer["id"]);
        let expected = answer["ground_truth"][0].as_object().context("an expected call")?.clone();
        let tools = question["function"].as_array().context("functions")?.iter().map(tool).collect();
        Ok(Item { question: question["question"][0].clone(), tools, expected })
    };
    questions.into_iter().zip(answers).map(item).collect()
}

/// BFCL's description as JSON Schema, with a name that tools may have.
fn tool(function: &Value) -> Value {
    json!({"type": "function", "function": {
        "name": tool_name(function["name"].as_str().unwrap_or_default()),
        "description": function["description"],
        "parameters": schema(&function["parameters"]),
    }})
}

fn tool_name(name: &str) -> String {
    name.replace('.', "_")
}

fn schema(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut out = Map::new();
            for (key, value) in map {
                match (key.as_str(), value.as_str()) {
                    ("type", Some("dict")) => out.insert(key.clone(), json!("object")),
                    ("type", Some("float")) => out.insert(key.clone(), json!("number")),
                    ("type", Some("tuple")) => out.insert(key.clone(), json!("array")),
                    ("type", Some("any")) => None,
                    ("default" | "optional" | "format", _) if map.contains_key("type") => None,
                    _ => out.insert(key.clone(), schema(value)),
                };
            }
            out.into()
        }
        Value::Array(items) => items.iter().map(schema).collect(),
        other => other.clone(),
    }
}

fn score(client: &Client, item: &Item, choice: &str, tally: &mut Tally) -> Result<()> {
    let body = json!({"model": "smollm2", "temperature": 0, "max_tokens": 256, "messages": item.question,
        "tools": item.tools, "tool_choice": choice});
    let reply = reply(client, &body)?;
    let call = &reply["choices"][0]["message"]["tool_calls"][0]["function"];
    let arguments: Option<Value> = call["arguments"].as_str().and_then(|a| serde_json::from_str(a).ok());
    let name = call["name"].as_str().unwrap_or_default();
    let offered = item.tools.as_array().into_iter().flatten().find(|t| t["function"]["name"] == name);
    let (Some(arguments), Some(tool)) = (arguments.as_ref().and_then(Value::as_object), offered) else {
        return Ok(());
    };
    let schema = &tool["function"]["parameters"];
    let mut required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let typed = |(key, value): (&String, &Value)| {
        schema["properties"][key]["type"].as_str().is_none_or(|kind| is_of(kind, value))
    };
    if !required.all(|key| arguments.contains_key(key)) || !arguments.iter().all(typed) {
        return Ok(());
    }
    tally.valid += 1;
    let Some((_, accepted)) = item.expected.iter().find(|(expected, _)| tool_name(expected) == name) else {
        return Ok(());
    };
    tally.function += 1;
    let accepted = accepted.as_object().context("arguments")?;
    let known = arguments.keys().all(|key| accepted.contains_key(key));
    let right = |(key, values): (&String, &Value)| {
        let mut values = values.as_array().into_iter().flatten();
        match arguments.get(key) {
            Some(given) => values.any(|v| alike(v, given)),
            // The empty text says that the argument may be left out.
            None => values.any(|v| v == ""),
        }
    };
    if known && accepted.iter().all(right) {
        tally.correct += 1;
    }
    Ok(())
}

/// Asked again where a machine that was busy with other things let the host's deadline pass.
fn reply(client: &Client, body: &Value) -> Result<Value> {
    for _ in 1..TRIES {
        let answer = client.post("/v1/chat/completions", body)?;
        if answer.status != 503 {
            return answer.expect(200);
        }
    }
    client.post("/v1/chat/completions", body)?.expect(200)
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "string" => value.is_string(),
        "integer" => value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    }
}

/// Equal as BFCL counts it: numbers by value, texts without case and punctuation, dictionaries by accepted values.
fn alike(accepted: &Value, given: &Value) -> bool {
    match (accepted, given) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::String(a), Value::String(b)) => plain(a) == plain(b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            let any = |v: &Value, given: &Value| v.as_array().into_iter().flatten().any(|v| alike(v, given));
            a.len() == b.len() && a.iter().all(|(key, v)| b.get(key).is_some_and(|given| any(v, given)))
        }
        (a, b) => a == b,
    }
}

fn plain(text: &str) -> String {
    text.chars().filter(|c| !" ,./-_*^".contains(*c)).flat_map(char::to_lowercase).collect()
}
