//! What shields and the default chain cost a streamed chat: time to first token, and processor time of the components for
//! each request and each token.
//!
//! `cargo run --release -p stockade-tests --example bench_chain [ROUNDS]`
//!
//! One host with the real default model, tenants that bind more and more, asked in turn, each time with the same question and a
//! question of another number in each round. Greedy, 1 and 65 tokens. Processor time is what the request's trace says of its
//! components; medians, and for wall times the median of the differences to the tenant with nothing bound in the same round.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::time::Instant;
use stockade_tests::{Client, Options, Server, component, scratch};

const LONG: u32 = 65;

struct Side {
    name: &'static str,
    client: Client,
    first_ms: Vec<f64>,
    short_ms: Vec<f64>,
    short_us: Vec<f64>,
    token_us: Vec<f64>,
}

fn main() -> Result<()> {
    let rounds: usize = std::env::args().nth(1).map_or(Ok(30), |n| n.parse())?;
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let admin = server.admin();
    for name in ["pii", "injection-guard", "code-shield"] {
        admin.shipped(name)?;
    }
    let tenant = |name: &'static str, input: &[&str], output: &[&str]| -> Result<Side> {
        let client = admin.tenant_with_key(name, &["admin", "components", "inference"])?;
        for (role, shields) in [("shield.input", input), ("shield.output", output)] {
            let mut entries = Vec::new();
            for shield in shields {
                client.push(shield, "1.0.0", &component(shield), &json!({"models": ["*"]}))?;
                entries.push(json!({"component": shield, "version": "1.0.0"}));
            }
            client.bind(role, json!(entries))?;
        }
        Ok(side(name, client))
    };
    let mut sides = [
        tenant("nothing", &[], &[])?,
        tenant("regex-shield", &["regex-shield"], &["regex-shield"])?,
        tenant("pii-code", &["pii"], &["pii", "code-shield"])?,
        tenant("injection", &["regex-shield", "injection-guard"], &["regex-shield"])?,
        side("default", admin.clone()),
    ];
    for round in 0..=rounds {
        for side in &mut sides {
            let asked = ask(&side.client, round, 1)?;
            let long = ask(&side.client, round, LONG)?;
            // The first round warms up.
            if round > 0 {
                side.first_ms.push(long.first_ms);
                side.short_ms.push(asked.whole_ms);
                side.short_us.push(asked.components_us);
                side.token_us.push((long.components_us - asked.components_us) / f64::from(long.tokens - asked.tokens));
            }
        }
    }
    println!("{rounds} rounds; the tenant `default` has regex-shield both ways, chat and prompt-store");
    println!(
        "| bound | first token, ms | more than nothing bound | one token, ms | more | components, us a request | us a token |"
    );
    println!("|---|---|---|---|---|---|---|");
    let (first, short) = (sides[0].first_ms.clone(), sides[0].short_ms.clone());
    for side in sides {
        let more = |own: &[f64], bare: &[f64]| median(own.iter().zip(bare).map(|(a, b)| a - b).collect());
        println!(
            "| {} | {:.1} | {:+.1} | {:.1} | {:+.1} | {:.0} | {:.1} |",
            side.name,
            median(side.first_ms.clone()),
            more(&side.first_ms, &first),
            median(side.short_ms.clone()),
            more(&side.short_ms, &short),
            median(side.short_us),
            median(side.token_us)
        );
    }
    server.stop()?;
    Ok(())
}

fn side(name: &'static str, client: Client) -> Side {
    let empty = Vec::new;
    Side { name, client, first_ms: empty(), short_ms: empty(), short_us: empty(), token_us: empty() }
}

struct Asked {
    first_ms: f64,
    whole_ms: f64,
    components_us: f64,
    tokens: u32,
}

fn ask(client: &Client, round: usize, tokens: u32) -> Result<Asked> {
    let question = format!("Tell me, at length and in plain words, the story of lighthouse number {round}.");
    let body = json!({"model": "smollm2", "temperature": 0, "max_tokens": tokens, "stream": true,
        "stream_options": {"include_usage": true}, "messages": [{"role": "user", "content": question}]});
    let began = Instant::now();
    let (mut first, mut told) = (None, 0);
    let trace = client.stream("/v1/chat/completions", &body, |data| {
        let chunk: Value = serde_json::from_str(data).unwrap_or_default();
        if chunk["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty()) {
            first.get_or_insert_with(|| began.elapsed().as_secs_f64() * 1e3);
        }
        told = chunk["usage"]["completion_tokens"].as_u64().map_or(told, |n| n as u32);
        data != "[DONE]"
    })?;
    let whole_ms = began.elapsed().as_secs_f64() * 1e3;
    let trace = client.trace(&trace)?;
    let used = trace["components"].as_array().into_iter().flatten().filter_map(|c| c["cpu_us"].as_f64());
    Ok(Asked { first_ms: first.context("some text")?, whole_ms, components_us: used.sum(), tokens: told })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
