//! The project's own commands: `cargo xtask components | build | serve | test | bench | recipe`.
//!
//! Each prints what it runs, and an error names a way out. Nothing here is part of the product.

mod artifacts;
mod c_compiler;
mod components;
mod foreign;
mod shell;
mod wasm_target;

use anyhow::{Context, Result, bail};
use shell::{root, run, say};
use std::path::Path;
use std::process::Command;

const USAGE: &str = "cargo xtask COMMAND
  components         build the shipped plugins and the test guests into target/components
  build [ARGS..]     components, then target/release/stockade: one file that needs nothing else; ARGS go to cargo, for
                     example `--features cuda`
  serve [ARGS..]     build, fetch the models that are missing, run `stockade serve ARGS`
  test  [ARGS..]     build, fetch the models, then the tests of the host and of the plugins; ARGS go to the host's run
  bench [NAME..]     the benchmarks whose name contains NAME, or all
  recipe NAME        a training recipe of host/train/recipes, from its data to its figures";

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    match command.as_str() {
        "components" => components::build(),
        "build" => build(&rest),
        "serve" => serve(&rest),
        "test" => test(&rest),
        "bench" => bench(&rest),
        "recipe" => {
            build(&[])?;
            pull_models(&root().join("target/release/stockade"))?;
            run(cargo().args(["run", "--release", "-p", "stockade-tests", "--example", "recipe", "--"]).args(&rest))
        }
        _ => bail!("`{command}` is not a command\n\n{USAGE}"),
    }
}

fn build(args: &[String]) -> Result<()> {
    components::build()?;
    // With the product beside it, so that what both are made of is built once.
    let both = ["-p", "stockade-app", "-p", "stockade-runtime", "--bin", "stockade-compile"];
    run(cargo().args(["build", "--release"]).args(both).args(args))?;
    artifacts::compile(&root().join("target/release/stockade-compile"))?;
    run(cargo().args(["build", "--release", "-p", "stockade-app"]).args(args))
}

/// The catalogue's defaults: a chat model and an embedder.
const MODELS: [&str; 2] = ["smollm2", "minilm"];

fn serve(args: &[String]) -> Result<()> {
    build(&[])?;
    let stockade = root().join("target/release/stockade");
    let own_models = args.iter().any(|a| a == "--offline" || a == "--model" || a.starts_with("--model="));
    if !own_models {
        pull_models(&stockade)?;
    }
    shell::exec(Command::new(&stockade).arg("serve").args(args))
}

fn pull_models(stockade: &Path) -> Result<()> {
    for model in MODELS {
        run(Command::new(stockade).args(["models", "pull", model])).with_context(|| {
            format!("no `{model}`; `cargo xtask serve --model NAME=PATH` serves a model of your own")
        })?;
    }
    Ok(())
}

/// The whole-host tests start the release binary, and parity is tested on the real models.
fn test(args: &[String]) -> Result<()> {
    build(&[])?;
    pull_models(&root().join("target/release/stockade"))?;
    let mut host = tests_command();
    run(host.args(["--release", "--workspace"]).args(args))?;
    // Plugins run natively against the fakes of the SDK's harness.
    let mut guests = tests_command();
    run(components::guest_workspace(&mut guests).arg("--workspace"))?;
    // The SDK stands outside of its users' workspace, so that it can be vendored; its tests are doc tests for the most.
    let mut sdk = cargo();
    sdk.args(["test", "-p", "stockade-guest"]);
    run(components::guest_workspace(&mut sdk))
}

/// `cargo nextest run` where it is installed, else `cargo test`.
fn tests_command() -> Command {
    let nextest = Command::new("cargo-nextest").arg("--version").output();
    let mut command = cargo();
    if nextest.is_ok_and(|o| o.status.success()) {
        command.args(["nextest", "run", "--no-tests", "pass"]);
    } else {
        say("cargo-nextest is not installed: cargo test runs the tests, more slowly");
        command.arg("test");
    }
    command
}

/// Benchmarks are examples `bench_*` of the host's crates.
fn bench(names: &[String]) -> Result<()> {
    components::build()?;
    let mut found = 0;
    for krate in shell::sorted_dir(&root().join("host"))? {
        for file in shell::sorted_dir(&krate.join("examples")).unwrap_or_default() {
            let name = file.file_stem().and_then(|n| n.to_str()).unwrap_or_default();
            if !name.starts_with("bench_") || !(names.is_empty() || names.iter().any(|n| name.contains(n.as_str()))) {
                continue;
            }
            let manifest = krate.join("Cargo.toml");
            let manifest = manifest.to_str().context("path is not UTF-8")?;
            run(cargo().args(["run", "--release", "--manifest-path", manifest, "--example", name]))?;
            found += 1;
        }
    }
    if found == 0 {
        bail!("no benchmark matches {names:?}: they are host/*/examples/bench_*.rs");
    }
    Ok(())
}

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.current_dir(root());
    command
}
