//! The way of a plugin author with the binary alone: new, build, test, push, bind, and a reply that shows it, in each
//! language.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use stockade_tests::{ADMIN_KEY, Options, Server, binary, component, scratch};

fn stockade(folder: &Path, url: &str, args: &[&str]) -> Result<Value> {
    let output = Command::new(binary())
        .args(args)
        .arg("--json")
        .current_dir(folder)
        .env("STOCKADE_URL", url)
        .env("STOCKADE_API_KEY", ADMIN_KEY)
        .env("XDG_CONFIG_HOME", folder)
        .output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "stockade {args:?}: {}\n{out}\n{err}", output.status);
    serde_json::from_str(&out).with_context(|| format!("stockade {args:?} printed {out}"))
}

/// Makes a shield from the language's template and masks a word of a reply with it.
fn author(language: &str) -> Result<()> {
    let (data, folder) = (scratch(), scratch());
    let server = Server::start(data.path(), &Options::default())?;
    stockade(folder.path(), &server.url, &["new", "shield", "my-shield", "--lang", language])?;
    let plugin = folder.path().join("my-shield");
    let built = stockade(&plugin, &server.url, &["build"])?;
    ensure!(built["digest"].as_str().is_some_and(|d| d.len() == 64), "{built}");
    let tested = stockade(&plugin, &server.url, &["test"])?;
    ensure!(tested["failed"] == 0 && tested["passed"].as_u64() > Some(0), "{tested}");
    let pushed = stockade(&plugin, &server.url, &["component", "push", "--grant-wanted"])?;
    ensure!(pushed["name"] == "my-shield", "{pushed}");
    let version = pushed["version"].as_str().context("a version")?;

    let client = server.admin();
    client.bind(
        "shield.output",
        json!([{"component": "my-shield", "version": version, "config": {"words": ["darn"]}}]),
    )?;
    client.push("emits-pieces", "1.0.0", &component("emits_pieces"), &json!({}))?;
    client.bind("orchestrator", json!([{"component": "emits-pieces", "version": "1.0.0"}]))?;
    let pieces = json!(["well, d", "ar", "n it"]).to_string();
    let streamed = client.chat_stream(&json!({"model": "smollm2", "metadata": {"pieces": pieces},
        "messages": [{"role": "user", "content": "go"}]}))?;
    ensure!(streamed.text == "well, *** it", "{streamed:?}");
    Ok(())
}

#[test]
fn a_rust_shield_goes_from_template_to_a_masked_reply() -> Result<()> {
    author("rust")
}

#[test]
fn a_python_shield_goes_from_template_to_a_masked_reply() -> Result<()> {
    author("python")
}

#[test]
fn a_javascript_shield_goes_from_template_to_a_masked_reply() -> Result<()> {
    author("javascript")
}
