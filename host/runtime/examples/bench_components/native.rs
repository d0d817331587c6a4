//! The native side: the tests named `latency` of the components' crates, and for the interpreters, which are no Rust, the same
//! code on the machine's Python and on the same JavaScript engine.

use crate::{CALLS, Cost, root};
use serde_json::Value;
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;

/// A program that prints what calls have cost.
pub struct Peer {
    program: PathBuf,
    args: Vec<String>,
}

/// The peers of these components, built.
pub fn peers<'a>(components: impl Iterator<Item = &'a str>) -> HashMap<&'a str, Peer> {
    let mut peers = HashMap::new();
    let mut crates = Vec::new();
    for component in components {
        match component {
            "code-interpreter-python" => {
                let script = root().join("host/runtime/examples/bench_components/python.py");
                let args = vec![script.display().to_string()];
                peers.insert(component, Peer { program: "python3".into(), args });
            }
            "code-interpreter-javascript" => {
                let folder = "host/runtime/examples/bench_components/quickjs/Cargo.toml";
                let built = build(&["build", "--manifest-path", folder]);
                let (_, program) = built.into_iter().next().expect("a program was built");
                peers.insert(component, Peer { program, args: Vec::new() });
            }
            component => crates.push(component),
        }
    }
    if crates.is_empty() {
        return peers;
    }
    let mut args = vec!["test", "--no-run", "--lib", "--manifest-path", "components/Cargo.toml"];
    args.extend(crates.iter().flat_map(|name| ["-p", name]));
    for (name, program) in build(&args) {
        if let Some(name) = crates.iter().find(|c| **c == name) {
            let args = ["latency", "--nocapture", "--test-threads", "1"].map(String::from).into();
            peers.insert(*name, Peer { program, args });
        }
    }
    peers
}

/// Runs cargo; the programs that it made, by their names.
fn build(args: &[&str]) -> Vec<(String, PathBuf)> {
    let built = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .current_dir(root())
        .args(args)
        .args(["--release", "--message-format", "json", "--target-dir", "target/guests"])
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .stderr(std::process::Stdio::inherit())
        .output()
        .expect("cargo runs");
    assert!(built.status.success(), "the native side does not build: {args:?}");
    let told = String::from_utf8_lossy(&built.stdout).into_owned();
    let programs = told.lines().filter_map(|line| {
        let told: Value = serde_json::from_str(line).ok()?;
        let name = told["target"]["name"].as_str()?.replace('_', "-");
        Some((name, told["executable"].as_str()?.into()))
    });
    programs.collect()
}

/// What each of a peer's tests has printed.
pub fn measure(peer: &Peer) -> Vec<(String, Cost)> {
    let ran = Command::new(&peer.program)
        .args(&peer.args)
        .env("STOCKADE_LATENCY_CALLS", CALLS.to_string())
        .output()
        .unwrap_or_else(|e| panic!("{}: {e}", peer.program.display()));
    let told = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{told}{}", String::from_utf8_lossy(&ran.stderr));
    let lines = told.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(&line[line.find("{\"latency\"")?..]).ok()?;
        let number = |field: &str| line[field].as_f64();
        let cost = Cost { p50: number("p50_us")?, p99: number("p99_us")?, processor: number("cpu_us")? };
        Some((line["latency"].as_str()?.to_string(), cost))
    });
    lines.collect()
}
