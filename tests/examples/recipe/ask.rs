//! The models of a recipe, served, and questions to them.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use stockade_tests::{Client, Options, Server};

/// Questions under way at once: the server batches them.
const CONCURRENT: usize = 8;
/// How long a shipped component may take until it can be called.
const ADMISSION: Duration = Duration::from_secs(120);

/// The recipe's models, served for as long as this lives.
pub struct Models {
    _server: Server,
    client: Client,
}

impl Models {
    /// Serves models by name: from the catalogue, or from a folder.
    pub fn serve(out: &Path, models: &[(&str, Option<PathBuf>)]) -> Result<Self> {
        let mut options = Options::default();
        for (name, folder) in models {
            let model =
                folder.as_ref().map_or_else(|| (*name).to_owned(), |folder| format!("{name}={}", folder.display()));
            options = options.arg("--model").arg(&model);
        }
        let server = Server::start(&out.join("data"), &options)?;
        Ok(Self { client: server.admin(), _server: server })
    }

    fn post(&self, route: &str, body: &Value) -> Result<Value> {
        self.client.post(route, body)?.expect(200)
    }

    /// The likeliest answer.
    pub fn chat(&self, model: &str, messages: &[Value], max_tokens: u32) -> Result<String> {
        let body = json!({"model": model, "messages": messages, "max_tokens": max_tokens, "temperature": 0});
        let reply = self.post("/v1/chat/completions", &body)?;
        Ok(reply["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned())
    }

    /// The likeliest continuation of a text.
    pub fn complete(&self, model: &str, prompt: &str, max_tokens: u32) -> Result<String> {
        let body = json!({"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0.7, "seed": 1});
        let reply = self.post("/v1/completions", &body)?;
        Ok(reply["choices"][0]["text"].as_str().unwrap_or_default().to_owned())
    }

    /// p(unsafe) / (p(safe) + p(unsafe)) where the verdict begins: the first token that is not white space.
    pub fn unsafe_probability(&self, model: &str, messages: &[Value]) -> Result<f64> {
        let body = json!({
            "model": model, "messages": messages, "max_tokens": 3, "temperature": 0, "logprobs": true, "top_logprobs": 20,
        });
        let reply = self.post("/v1/chat/completions", &body)?;
        let tokens = reply["choices"][0]["logprobs"]["content"].as_array().context("no log-probabilities")?;
        let verdict = tokens.iter().find(|token| token["token"].as_str().is_some_and(|text| !text.trim().is_empty()));
        let Some(verdict) = verdict else { return Ok(0.5) };
        let (mut safe, mut harmful) = (0.0, 0.0);
        for choice in verdict["top_logprobs"].as_array().into_iter().flatten() {
            let p = choice["logprob"].as_f64().unwrap_or(f64::NEG_INFINITY).exp();
            match choice["token"].as_str().unwrap_or_default() {
                "" => {}
                text if "safe".starts_with(text) => safe += p,
                text if "unsafe".starts_with(text) => harmful += p,
                _ => {}
            }
        }
        Ok(if safe + harmful > 0.0 { harmful / (safe + harmful) } else { 0.5 })
    }

    /// The highest score of any category by the shipped `moderation`, which is admitted some time after the start.
    pub fn moderation_score(&self, text: &str) -> Result<f64> {
        let body = json!({"input": text});
        let begun = Instant::now();
        let reply = loop {
            match self.post("/v1/moderations", &body) {
                Err(_) if begun.elapsed() < ADMISSION => std::thread::sleep(Duration::from_millis(200)),
                reply => break reply?,
            }
        };
        let scores = reply["results"][0]["category_scores"].as_object().context("no scores")?;
        Ok(scores.values().filter_map(Value::as_f64).fold(0.0, f64::max))
    }
}

/// Asks for each row, several at once; answers in the rows' order.
pub fn each<T: Send>(rows: &[Value], ask: impl Fn(&Value) -> Result<T> + Sync) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(Vec::with_capacity(rows.len()));
    std::thread::scope(|scope| {
        let work = || -> Result<()> {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(row) = rows.get(at) else { return Ok(()) };
                let answer = ask(row)?;
                answers.lock().unwrap_or_else(|e| e.into_inner()).push((at, answer));
            }
        };
        let workers: Vec<_> = (0..CONCURRENT).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a question panicked")))
    })?;
    let mut answers = answers.into_inner().unwrap_or_else(|e| e.into_inner());
    answers.sort_by_key(|(at, _)| *at);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}
