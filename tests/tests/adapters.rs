//! Adapters through the whole host: named on the command line, imported into a data folder, listed, called.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::process::Command;
use stockade_tests::{Client, Options, Server, binary, fixture, scratch};

/// The greedy text of eight tokens.
fn says(client: &Client, model: &str) -> Result<String> {
    let body =
        json!({"model": model, "prompt": "The quick brown fox", "temperature": 0, "max_tokens": 8, "ignore_eos": true});
    let whole = client.post("/v1/completions", &body)?.expect(200)?;
    Ok(whole["choices"][0]["text"].as_str().context("a text")?.to_string())
}

fn listed(client: &Client) -> Result<Vec<(String, Value)>> {
    let models = client.get("/v1/models")?.expect(200)?;
    let models = models["data"].as_array().context("models")?;
    Ok(models.iter().map(|m| (m["id"].as_str().unwrap_or_default().to_string(), m["parent"].clone())).collect())
}

#[test]
fn adapters_of_one_base_are_served_listed_and_imported() -> Result<()> {
    let data = scratch();
    let model = |name: &str, at: &str| format!("{name}={}", fixture(at).display());
    // One names its base by a path, one by the command line; the base itself is named nowhere else.
    let options = Options::default()
        .arg("--model")
        .arg(&model("a", "llama32-tiny-lora-a"))
        .arg("--model")
        .arg(&model("b", "llama32-tiny-lora-b@llama32-tiny"));
    let server = Server::start(data.path(), &options)?;
    let client = server.admin();
    let models = listed(&client)?;
    let parents: Vec<_> =
        models.iter().filter(|(_, parent)| parent == "llama32-tiny").map(|(id, _)| id.as_str()).collect();
    ensure!(parents == ["a", "b"], "{models:?}");
    ensure!(models.iter().any(|(id, _)| id == "llama32-tiny") && models[0].0 == "a", "{models:?}");
    let [base, a, b] = ["llama32-tiny", "a", "b"].map(|model| says(&client, model));
    let (base, a, b) = (base?, a?, b?);
    ensure!(base != a && a != b && base != b, "{base:?} {a:?} {b:?}");
    ensure!(server.stop()?.success());

    let stockade = |args: &[&str]| -> Result<Value> {
        let run = Command::new(binary()).args(args).arg("--data").arg(data.path()).arg("--json").output()?;
        ensure!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        Ok(serde_json::from_slice(&run.stdout)?)
    };
    stockade(&["models", "add", "mine", &fixture("llama32-tiny-lora-b").display().to_string()])?;
    let shown = stockade(&["models", "show", "mine"])?;
    ensure!(shown["architecture"] == "adapter" && shown["rank"] == 4, "{shown}");
    ensure!(
        shown["base"].as_str().is_some_and(|base| base.ends_with("/llama32-tiny") && base.starts_with('/')),
        "{shown}"
    );
    let server = Server::start(data.path(), &Options::default().arg("--model").arg(&model("tiny", "llama32-tiny")))?;
    ensure!(listed(&server.admin())?.contains(&("mine".into(), json!("tiny"))), "its base is found by its path");
    ensure!(says(&server.admin(), "mine")? == b);
    Ok(())
}
