//! How often the shipped orchestrators and tools do what they are for, with the default models.
//!
//! ```console
//! $ cargo run --release -p stockade-tests --example bench_agents -- FOLDER
//! ```
//! `FOLDER` holds `country-facts/countries.jsonl` (`samayo/country-json`, MIT) and `clinc150/intents.tsv`
//! (`clinc/oos-eval`, CC-BY 3.0).

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::Path;
use stockade_tests::interval::share;
use stockade_tests::{Client, Options, Server, scratch};

/// Questions about capitals, sums, and messages of each intent.
const CAPITALS: usize = 100;
const SUMS: usize = 50;
const MESSAGES: usize = 20;
/// Intents that the router tells apart, and examples of each.
const INTENTS: [&str; 10] = [
    "balance",
    "book_flight",
    "weather",
    "translate",
    "alarm",
    "recipe",
    "traffic",
    "tell_joke",
    "pto_request",
    "play_music",
];
const EXAMPLES: usize = 5;

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).context("usage: bench_agents FOLDER")?;
    let read = |name: &str| std::fs::read_to_string(Path::new(&folder).join(name)).with_context(|| name.to_string());
    let (countries, intents) = (read("country-facts/countries.jsonl")?, read("clinc150/intents.tsv")?);
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let client = server.admin();
    println!("| component | task | n | right |\n|---|---|---|---|");
    capitals(&client, &countries)?;
    sums(&client)?;
    routes(&client, &intents)?;
    Ok(())
}

fn bind(client: &Client, role: &str, name: &str, config: Value) -> Result<()> {
    let version = client.shipped(name)?;
    client.bind(role, json!([{"component": name, "version": version, "config": config}]))?;
    Ok(())
}

fn row(component: &str, task: &str, right: usize, n: usize) {
    println!("| `{component}` | {task} | {n} | {} |", share(right, n));
}

/// The reply's text to one question.
fn answer(client: &Client, body: Value) -> Result<String> {
    let mut whole = json!({"model": "smollm2", "temperature": 0, "max_tokens": 48});
    whole.as_object_mut().context("a body")?.extend(body.as_object().cloned().unwrap_or_default());
    let reply = posted(client, "/v1/chat/completions", &whole)?;
    Ok(reply["choices"][0]["message"]["content"].as_str().unwrap_or_default().into())
}

/// Asked again where a machine that was busy with other things let the host's deadline pass.
fn posted(client: &Client, path: &str, body: &Value) -> Result<Value> {
    for _ in 0..4 {
        let answer = client.post(path, body)?;
        if answer.status != 503 {
            return answer.expect(200);
        }
    }
    client.post(path, body)?.expect(200)
}

/// Capitals, from what the model knows and from the memory.
fn capitals(client: &Client, countries: &str) -> Result<()> {
    let rows: Vec<Value> = countries.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_string();
    let facts: Vec<(String, String, String)> =
        rows.iter().map(|r| (text(r, "country"), text(r, "capital"), text(r, "region"))).collect();
    let item = |(country, capital, region): &(String, String, String)| {
        let fact = format!("{country} lies in {region}. The capital of {country} is {capital}.");
        json!({"id": country, "text": fact, "metadata": "{}"})
    };
    let known: Vec<_> = facts.iter().filter(|(_, capital, _)| !capital.is_empty()).cloned().collect();
    let version = client.shipped("memory")?;
    let path = format!("/stockade/v1/components/memory/versions/{version}/invoke");
    for page in known.chunks(50) {
        let items: Vec<Value> = page.iter().map(item).collect();
        posted(client, &path, &json!({"function": "insert", "args": ["facts", items]}))?;
    }
    let asked: Vec<_> = known.iter().step_by((known.len() / CAPITALS).max(1)).take(CAPITALS).collect();
    let question = |country: &str| format!("What is the capital of {country}?");
    let says = |text: &str, capital: &str| text.to_lowercase().contains(&capital.to_lowercase());

    bind(client, "orchestrator", "chat", json!({"tools": []}))?;
    let mut right = 0;
    for (country, capital, _) in &asked {
        let said = answer(client, json!({"messages": [{"role": "user", "content": question(country)}]}))?;
        right += usize::from(says(&said, capital));
    }
    row("chat", "capitals, from what the model knows", right, asked.len());

    bind(client, "orchestrator", "rag", json!({"banks": ["facts"], "attribute": true}))?;
    let (mut right, mut cites) = (0, 0);
    for (country, capital, _) in &asked {
        let body = json!({"model": "smollm2", "temperature": 0, "max_output_tokens": 48, "input": question(country)});
        let reply = posted(client, "/v1/responses", &body)?;
        let message = reply["output"].as_array().into_iter().flatten().find(|i| i["type"] == "message");
        let content = message.map_or(Value::Null, |m| m["content"][0].clone());
        let said = says(content["text"].as_str().unwrap_or_default(), capital);
        let cited = content["annotations"].as_array().into_iter().flatten().any(|a| a["file_id"] == **country);
        right += usize::from(said);
        cites += usize::from(said && cited);
    }
    row("rag", "the same, from a bank of all countries", right, asked.len());
    row("rag", "... and the country's own note cited", cites, asked.len());

    bind(client, "tool/knowledge-search", "knowledge-search", json!({"banks": ["facts"]}))?;
    let mut found = 0;
    for (country, capital, _) in &asked {
        let call = json!({"tool_name": "knowledge-search", "kwargs": {"query": question(country)}});
        let passages = posted(client, "/v1/tool-runtime/invoke", &call)?["content"].to_string();
        found += usize::from(passages.contains(&format!("The capital of {country} is {capital}.")));
    }
    row("knowledge-search", "the country's note among five passages", found, asked.len());
    Ok(())
}

/// Products of two-digit numbers, in the head and with the calculator.
fn sums(client: &Client) -> Result<()> {
    bind(client, "tool/calculator", "calculator", json!({}))?;
    let ways = [
        ("chat", json!({"tools": []}), "auto", "products of two-digit numbers, in the head"),
        ("tool-loop", json!({"tools": ["calculator"]}), "required", "the same with `calculator`"),
        ("react", json!({"tools": ["calculator"]}), "required", "the same with `calculator`"),
        ("plan-execute", json!({"tools": ["calculator"], "max_steps": 2}), "required", "the same with `calculator`"),
    ];
    for (orchestrator, config, choice, task) in ways {
        bind(client, "orchestrator", orchestrator, config)?;
        let mut right = 0;
        for i in 0..SUMS {
            let (a, b) = (12 + (i * 37) % 87, 13 + (i * 53) % 86);
            let ask = format!("What is {a} * {b}?");
            let mut body = json!({"messages": [{"role": "user", "content": ask}]});
            if choice != "auto" {
                body["tool_choice"] = choice.into();
            }
            let said = answer(client, body)?.replace(',', "");
            right += usize::from(said.contains(&(a * b).to_string()));
        }
        row(orchestrator, task, right, SUMS);
    }
    Ok(())
}

/// Messages of ten intents by their likeness to five examples of each.
fn routes(client: &Client, intents: &str) -> Result<()> {
    let of = |split: &'static str, intent: &'static str| {
        intents.lines().filter_map(move |line| {
            let [s, i, text] = line.split('\t').collect::<Vec<_>>()[..] else { return None };
            (s == split && i == intent).then(|| text.to_string())
        })
    };
    // A route shows in how many tokens it lets the reply have.
    let route = |(n, intent): (usize, &'static str)| {
        let examples: Vec<String> = of("train", intent).take(EXAMPLES).collect();
        json!({"name": intent, "examples": examples, "max_tokens": n, "tools": []})
    };
    let mut all: Vec<Value> = (1..).zip(INTENTS).map(route).collect();
    all.push(json!({"name": "other", "tools": [], "max_tokens": INTENTS.len() + 1}));
    bind(client, "orchestrator", "router", json!({"default": "other", "by": ["similarity"], "routes": all}))?;
    let long = json!({"type": "json_schema", "json_schema": {"name": "long", "schema": {"type": "object",
        "additionalProperties": false, "required": ["text"],
        "properties": {"text": {"type": "string", "minLength": 200}}}}});
    let (mut right, mut n) = (0, 0);
    for (tokens, intent) in (1..).zip(INTENTS) {
        for text in of("test", intent).take(MESSAGES) {
            let body = json!({"model": "smollm2", "temperature": 0, "response_format": long,
                "messages": [{"role": "user", "content": text}]});
            let reply = posted(client, "/v1/chat/completions", &body)?;
            right += usize::from(reply["usage"]["completion_tokens"] == tokens);
            n += 1;
        }
    }
    row("router", "the intent, of ten, by five examples each", right, n);
    Ok(())
}
