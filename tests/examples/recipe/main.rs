//! `cargo xtask recipe NAME`: runs a training recipe of `host/train/recipes` from its data to its figures.
//!
//! Everything goes the way a user goes: `stockade train` makes the model, `stockade serve` serves it beside its base,
//! and the test questions are asked over HTTP. Results land in `target/recipes/NAME`.

mod ask;
mod score;

use anyhow::{Context, Result, bail, ensure};
use ask::Models;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use stockade_tests::{binary, root};

/// Trains, asks, and answers with the figures.
type Run = fn(&Recipe) -> Result<Value>;

const RECIPES: [(&str, Run); 4] = [("intents", intents), ("guard", guard), ("topics", topics), ("stories", stories)];

fn main() -> Result<()> {
    let wanted = std::env::args().nth(1);
    let names: Vec<&str> = RECIPES.iter().map(|(name, _)| *name).collect();
    let Some((name, run)) = RECIPES.into_iter().find(|(known, _)| wanted.as_deref() == Some(*known)) else {
        bail!("the recipes are {}", names.join(", "));
    };
    let recipe =
        Recipe { folder: root().join("host/train/recipes").join(name), out: root().join("target/recipes").join(name) };
    fs::create_dir_all(&recipe.out)?;
    let figures = run(&recipe)?;
    let text = serde_json::to_string_pretty(&figures)?;
    fs::write(recipe.out.join("figures.json"), &text)?;
    println!("{text}");
    Ok(())
}

struct Recipe {
    folder: PathBuf,
    out: PathBuf,
}

impl Recipe {
    /// Runs a job file of the recipe and answers with the seconds it took.
    fn train(&self, job: &str, out: &str) -> Result<f64> {
        let start = Instant::now();
        train(&self.folder.join(job), &self.out.join(out))?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn rows(&self, file: &str) -> Result<Vec<Value>> {
        rows(&self.folder.join(file))
    }

    /// The lines of a run's `metrics.jsonl`.
    fn metrics(&self, out: &str) -> Result<Vec<Value>> {
        rows(&self.out.join(out).join("metrics.jsonl"))
    }
}

/// `stockade train`, with its progress on this terminal; what is there already is not trained again.
fn train(job: &Path, out: &Path) -> Result<()> {
    let status = Command::new(binary()).arg("train").arg(job).arg("--out").arg(out).arg("--resume").status()?;
    ensure!(status.success(), "training {} ended with {status}", job.display());
    Ok(())
}

fn rows(file: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// How often the answer is the expected label, before and after.
fn intents(recipe: &Recipe) -> Result<Value> {
    let seconds = recipe.train("job.toml", "model")?;
    let server = Models::serve(&recipe.out, &[("smollm2", None), ("intents", Some(recipe.out.join("model")))])?;
    let test = recipe.rows("test.jsonl")?;
    let accuracy = |model: &str| -> Result<Value> {
        let right = ask::each(&test, |row| {
            let turns = row["messages"].as_array().context("messages")?;
            let (question, answer) = turns.split_at(turns.len() - 1);
            let said = server.chat(model, question, 12)?;
            Ok(said.trim() == answer[0]["content"])
        })?;
        Ok(score::share(&right))
    };
    Ok(json!({"train_seconds": seconds, "before": accuracy("smollm2")?, "after": accuracy("intents")?}))
}

/// Average precision of p(unsafe), beside the embedding heads of `moderation`, on what was held out, and on OpenAI's set, which
/// nothing was learnt from.
fn guard(recipe: &Recipe) -> Result<Value> {
    let seconds = recipe.train("job.toml", "model")?;
    let server = Models::serve(&recipe.out, &[("smollm2", None), ("guard", Some(recipe.out.join("model")))])?;
    let prompts = recipe.rows("train.jsonl")?;
    let system = prompts[0]["messages"][0].clone();
    let shape = prompts[0]["messages"][1]["content"].as_str().context("a prompt")?;
    let (before, rest) = shape.split_once("User: ").context("the conversation")?;
    let (_, after) = rest.split_once("\n\n<END CONVERSATION>").context("its end")?;
    let task = |text: &str| format!("{before}User: {}\n\n<END CONVERSATION>{after}", text.trim());
    let judged = |model: &str, test: &[Value]| -> Result<Value> {
        let scores = ask::each(test, |row| {
            let text = row["text"].as_str().context("text")?;
            let question = [system.clone(), json!({"role": "user", "content": task(text)})];
            Ok((server.unsafe_probability(model, &question)?, row["unsafe"] == true))
        })?;
        Ok(score::average_precision(&scores))
    };
    let heads = |test: &[Value]| -> Result<Value> {
        let score =
            |row: &Value| Ok((server.moderation_score(row["text"].as_str().context("text")?)?, row["unsafe"] == true));
        Ok(score::average_precision(&ask::each(test, score)?))
    };
    let held = recipe.rows("test.jsonl")?;
    let (contrast, plain): (Vec<Value>, Vec<Value>) = held.into_iter().partition(|row| row["set"] == "xstest");
    let mut figures = json!({"train_seconds": seconds});
    for (name, test) in [("held_out", plain), ("xstest", contrast)] {
        figures[name] =
            json!({"before": judged("smollm2", &test)?, "after": judged("guard", &test)?, "heads": heads(&test)?});
    }
    // Not in the repository: figures of a set that is there for evaluation alone.
    let openai = root().join("../shared/data/openai-moderation/samples.jsonl");
    if openai.exists() {
        let labels = ["S", "H", "V", "HR", "SH", "H2", "V2"];
        let test: Vec<Value> = rows(&openai)?
            .into_iter()
            .filter(|row| row["prompt"].as_str().is_some_and(|text| text.len() <= 2000))
            .map(|row| json!({"text": row["prompt"], "unsafe": labels.iter().any(|label| row[*label] == 1)}))
            .collect();
        figures["openai_moderation"] = judged("guard", &test)?;
    } else {
        eprintln!("OpenAI's moderation set is not there; that figure is left out");
    }
    Ok(figures)
}

/// The mean reward over the run, and right answers to questions that it has not seen.
fn topics(recipe: &Recipe) -> Result<Value> {
    let seconds = recipe.train("job.toml", "model")?;
    let metrics = recipe.metrics("model")?;
    let reward = |lines: &[Value]| score::mean(lines.iter().filter_map(|line| line["reward"].as_f64()));
    let tenth = (metrics.len() / 10).max(1);
    let server = Models::serve(&recipe.out, &[("smollm2", None), ("topics", Some(recipe.out.join("model")))])?;
    let test = recipe.rows("test.jsonl")?;
    let accuracy = |model: &str| -> Result<Value> {
        let right = ask::each(&test, |row| {
            let said = server.chat(model, row["messages"].as_array().context("messages")?, 8)?;
            Ok(row["reference"].as_str().is_some_and(|topic| said.trim().eq_ignore_ascii_case(topic)))
        })?;
        Ok(score::share(&right))
    };
    Ok(json!({
        "train_seconds": seconds,
        "reward": {"first_tenth": reward(&metrics[..tenth]), "last_tenth": reward(&metrics[metrics.len() - tenth..])},
        "test": {"before": accuracy("smollm2")?, "after": accuracy("topics")?},
    }))
}

/// Loss on held-out prose and Shakespeare after learning the first, and again after going on with the second.
fn stories(recipe: &Recipe) -> Result<Value> {
    let pretrain = recipe.train("job.toml", "model")?;
    let went_on = recipe.train("continue.toml", "continued")?;
    let mut losses = serde_json::Map::new();
    for (model, domain) in
        [("model", "prose"), ("model", "shakespeare"), ("continued", "prose"), ("continued", "shakespeare")]
    {
        // A step without a learning rate measures and changes nothing.
        let job = fs::read_to_string(recipe.folder.join("measure.toml"))?
            .replace("MODEL", &recipe.out.join(model).display().to_string())
            .replace("DOMAIN", &recipe.folder.join(domain).display().to_string());
        let file = recipe.out.join(format!("measure-{model}-{domain}.toml"));
        fs::write(&file, job)?;
        let out = recipe.out.join(format!("measured-{model}-{domain}"));
        train(&file, &out)?;
        let loss = rows(&out.join("metrics.jsonl"))?.iter().rev().find_map(|line| line["eval_loss"].as_f64());
        losses.insert(format!("{model} on {domain}"), json!(loss));
    }
    let server = Models::serve(
        &recipe.out,
        &[("stories", Some(recipe.out.join("model"))), ("continued", Some(recipe.out.join("continued")))],
    )?;
    let samples = ["Once upon a time there was", "ROMEO:"].map(|prompt| {
        let texts =
            ["stories", "continued"].map(|model| (model, server.complete(model, prompt, 80).unwrap_or_default()));
        json!({"prompt": prompt, "texts": texts.into_iter().collect::<std::collections::BTreeMap<_, _>>()})
    });
    Ok(json!({"train_seconds": pretrain, "continue_seconds": went_on, "eval_loss": losses, "samples": samples}))
}
