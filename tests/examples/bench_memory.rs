//! How well the shipped memory finds, on the Cranfield collection (1400 abstracts, 225 questions, judged by experts).
//!
//! `cargo run --release -p stockade-tests --example bench_memory FOLDER`
//!
//! FOLDER holds the collection's own files `cran.all.1400`, `cran.qry` and `cranqrel`. One hybrid bank is filled, and each
//! question is asked in each mode. nDCG@10 with gains of 4 to 1 for the judges' grades 1 (a complete answer) to 4; other
//! judgements count as none. The interval is of 95 %, by the normal approximation over questions.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use stockade_tests::{Client, Options, Server, scratch};

const K: usize = 10;

/// Texts by id out of the collection's form: `.I 12`, then sections as `.T` and `.W`.
fn sections(text: &str, wanted: &[char]) -> Vec<(String, String)> {
    let mut entries: Vec<(String, String)> = Vec::new();
    let mut section = ' ';
    for line in text.lines() {
        if let Some(id) = line.strip_prefix(".I ") {
            entries.push((id.trim().to_string(), String::new()));
        } else if let Some(name) = line.strip_prefix('.').filter(|n| n.len() == 1) {
            section = name.chars().next().unwrap_or(' ');
        } else if let Some((_, text)) = entries.last_mut().filter(|_| wanted.contains(&section)) {
            text.push_str(line);
            text.push(' ');
        }
    }
    entries
}

/// Gains of documents by question; questions count from 1 in the order of their file.
fn gains(text: &str) -> HashMap<usize, HashMap<String, f64>> {
    let mut gains: HashMap<usize, HashMap<String, f64>> = HashMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if let [question, document, grade] = fields.as_slice()
            && let (Ok(question), Ok(grade @ 1..=4)) = (question.parse(), grade.parse::<i32>())
        {
            gains.entry(question).or_default().insert((*document).into(), f64::from(5 - grade));
        }
    }
    gains
}

fn ndcg(found: &[String], gains: &HashMap<String, f64>) -> f64 {
    let discounted = |gains: &mut dyn Iterator<Item = f64>| -> f64 {
        gains.take(K).enumerate().map(|(place, gain)| gain / (place as f64 + 2.0).log2()).sum()
    };
    let mut ideal: Vec<f64> = gains.values().copied().collect();
    ideal.sort_by(|a, b| b.total_cmp(a));
    let got = discounted(&mut found.iter().map(|id| gains.get(id).copied().unwrap_or(0.0)));
    got / discounted(&mut ideal.into_iter())
}

fn memory(client: &Client, version: &str, function: &str, args: Value) -> Result<Value> {
    let path = format!("/stockade/v1/components/memory/versions/{version}/invoke");
    let answer = client.post(&path, &json!({"function": function, "args": args}))?.expect(200)?;
    ensure!(answer["error"].is_null(), "{function}: {}", answer["error"]);
    Ok(answer["result"].clone())
}

fn main() -> Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).context("the folder of the collection")?);
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).with_context(|| name.to_string());
    let documents = sections(&read("cran.all.1400")?, &['T', 'W']);
    let questions = sections(&read("cran.qry")?, &['W']);
    let gains = gains(&read("cranqrel")?);

    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let admin = server.admin();
    let bound = admin.get("/stockade/v1/bindings/memory")?.expect(200)?;
    let version = bound["entries"][0]["version"].as_str().context("memory is bound")?.to_string();
    let began = Instant::now();
    for page in documents.chunks(100) {
        let item = |(id, text): &(String, String)| json!({"id": id, "text": text, "metadata": "{}"});
        let items: Vec<Value> = page.iter().map(item).collect();
        memory(&admin, &version, "insert", json!(["cranfield", items]))?;
    }
    println!("{} documents in {:.1} s", documents.len(), began.elapsed().as_secs_f64());
    for (mode, options) in [
        ("keyword", json!({})),
        ("vector", json!({})),
        ("hybrid", json!({"ranker": "rrf"})),
        ("hybrid", json!({"ranker": "weighted", "alpha": 0.5})),
    ] {
        let mut scores = Vec::new();
        let mut times: Vec<Duration> = Vec::new();
        for (number, (_, text)) in questions.iter().enumerate() {
            let Some(gains) = gains.get(&(number + 1)) else { continue };
            let query = json!({"text": text, "limit": K, "mode": mode, "options": options.to_string()});
            let began = Instant::now();
            let hits = memory(&admin, &version, "search", json!(["cranfield", query]))?;
            times.push(began.elapsed());
            let ids = hits.as_array().into_iter().flatten().filter_map(|h| h["item"]["id"].as_str());
            scores.push(ndcg(&ids.map(str::to_string).collect::<Vec<_>>(), gains));
        }
        let n = scores.len() as f64;
        let mean = scores.iter().sum::<f64>() / n;
        let deviation = (scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
        times.sort();
        let (half, p50) = (1.96 * deviation / n.sqrt(), times[times.len() / 2]);
        println!("{mode:8} {options:40} nDCG@{K} {mean:.3} ± {half:.3}  n {n}  p50 {p50:?}");
    }
    server.stop()?;
    Ok(())
}
