//! What a chat waits for while a job trains beside it, on the real model.
//!
//! `cargo run --release -p stockade-tests --example chat_beside_training [CHATS]`
//!
//! Two clients ask `smollm2` about texts of some 150 tokens that it has not seen before, streamed: alone, and while a LoRA of `smollm2` trains on
//! the host's default share of cores. Told: time to the first token and from token to token, median, 95th and 99th
//! percentile, and the tokens a second of the job, with chats beside it and without.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use stockade_tests::{Client, Options, Server, scratch};

const JOBS: &str = "/stockade/v1/jobs";
const QUESTIONS: [&str; 4] =
    ["What is the capital of France?", "Name three colours.", "What is two and three?", "Who wrote Hamlet?"];

#[derive(Default)]
struct Times {
    first: Vec<Duration>,
    next: Vec<Duration>,
}

/// A question that shares no prefix with another, so that all of it is computed.
fn question(n: usize) -> String {
    let facts: Vec<String> =
        (0..16).map(|i| format!("Box {} holds {} coins", n * 31 + i, (n * 17 + i * 7) % 90)).collect();
    format!("{n}: {}. {}", facts.join(", "), QUESTIONS[n % QUESTIONS.len()])
}

fn ask(client: &Client, n: usize, times: &mut Times) -> Result<()> {
    let body = json!({"model": "smollm2", "temperature": 0, "max_tokens": 24, "stream": true,
        "messages": [{"role": "user", "content": question(n)}]});
    let (mut before, mut first) = (Instant::now(), true);
    client.stream("/v1/chat/completions", &body, |data| {
        let text = serde_json::from_str::<Value>(data).ok();
        let text = text.is_some_and(|t| t["choices"][0]["delta"]["content"].as_str().is_some_and(|c| !c.is_empty()));
        if text {
            let list = if first { &mut times.first } else { &mut times.next };
            list.push(before.elapsed());
            (before, first) = (Instant::now(), false);
        }
        data != "[DONE]"
    })?;
    Ok(())
}

fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort();
    times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1000.0
}

/// Asks `chats` questions from number `from` on, half of them from either client.
fn measure(client: &Client, from: usize, chats: usize, what: &str) -> Result<()> {
    let one = |first: usize| -> Result<Times> {
        let mut times = Times::default();
        (first..from + chats).step_by(2).try_for_each(|n| ask(client, n, &mut times))?;
        Ok(times)
    };
    let mut times = std::thread::scope(|scope| {
        let other = scope.spawn(|| one(from + 1));
        let mut times = one(from)?;
        let theirs = other.join().expect("a client does not panic")?;
        times.first.extend(theirs.first);
        times.next.extend(theirs.next);
        anyhow::Ok(times)
    })?;
    for (name, list) in [("first token", &mut times.first), ("next token", &mut times.next)] {
        ensure!(!list.is_empty(), "no {name}");
        let [p50, p95, p99] = [50, 95, 99].map(|p| percentile(list, p));
        println!("{what:16} {name:12} n {:5}  p50 {p50:7.1} ms  p95 {p95:7.1} ms  p99 {p99:7.1} ms", list.len());
    }
    Ok(())
}

fn progress(client: &Client, id: &str) -> Result<(f64, f64)> {
    let job = client.get(&format!("{JOBS}/{id}"))?.expect(200)?;
    ensure!(job["error"].is_null(), "{job}");
    let number = |name: &str| job["progress"][name].as_f64().context("a number");
    Ok((number("tokens")?, number("step")?))
}

fn main() -> Result<()> {
    let chats: usize = std::env::args().nth(1).map_or(Ok(500), |n| n.parse())?;
    let data = scratch();
    let server = Server::start(data.path(), &Options::default().arg("--offline"))?;
    let client = server.admin();
    measure(&client, 0, 4, "warming up")?;
    measure(&client, 100_000, chats, "alone")?;

    let rows: Vec<Value> = (0..64)
        .map(|i| {
            json!({"messages": [{"role": "user", "content": format!("{} ({i})", QUESTIONS[i % 4])},
                {"role": "assistant", "content": "Ask me again tomorrow, when the sun is up and the birds are singing."}]})
        })
        .collect();
    let spec = json!({
        "method": "sft",
        "model": {"base": "smollm2", "adapter": {"kind": "lora", "rank": 8, "alpha": 16, "targets": ["q_proj", "v_proj"]}},
        "data": {"train": rows, "max_tokens": 128},
        "optim": {"steps": 100_000, "batch": 4, "learning_rate": 1e-4},
        "output": {"name": "busy"},
    });
    let job = client.post(JOBS, &json!({"kind": "train", "spec": spec}))?.expect(201)?;
    let id = job["id"].as_str().context("a job has an id")?;
    while progress(&client, id)?.1 < 2.0 {
        std::thread::sleep(Duration::from_millis(200));
    }
    let speed = |seconds: u64| -> Result<f64> {
        let (before, begin) = (progress(&client, id)?.0, Instant::now());
        std::thread::sleep(Duration::from_secs(seconds));
        Ok((progress(&client, id)?.0 - before) / begin.elapsed().as_secs_f64())
    };
    println!("the job alone    {:.0} tokens/s", speed(20)?);
    let (before, begin) = (progress(&client, id)?.0, Instant::now());
    measure(&client, 200_000, chats, "beside training")?;
    println!("the job beside   {:.0} tokens/s", (progress(&client, id)?.0 - before) / begin.elapsed().as_secs_f64());
    client.post(&format!("{JOBS}/{id}/cancel"), &Value::Null)?.expect(200)?;
    Ok(())
}
