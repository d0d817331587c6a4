//! Official Python clients against the real host: `openai`, and `llama-stack-client` of the last line with agents.

use anyhow::{Context, Result, ensure};
use std::path::PathBuf;
use std::process::Command;
use stockade_tests::{ADMIN_KEY, Options, Server, root, scratch};

/// What the virtual environments hold: a name, and the arguments of each installation.
const OPENAI: (&str, &[&[&str]]) = ("openai-3.17.0", &[&["openai==3.17.0"]]);
/// The client asks for Python 3.12 and for pandas; the part of it that is used here needs neither.
const LLAMA_STACK: (&str, &[&[&str]]) = (
    "llama-stack-client-0.2.23",
    &[
        &["--no-deps", "--ignore-requires-python", "llama-stack-client==0.2.23"],
        &[
            "httpx==0.28.1",
            "pydantic==2.14.4",
            "anyio",
            "click",
            "distro",
            "fire",
            "prompt-toolkit",
            "pyaml",
            "requests",
            "rich",
            "sniffio",
            "termcolor",
            "tqdm",
        ],
    ],
);

/// A virtual environment with a pinned client, kept below `target`.
fn python((name, installations): (&str, &[&[&str]])) -> Result<PathBuf> {
    let folder = root().join("target/python-clients").join(name);
    let python = folder.join("bin/python");
    let stamp = folder.join("complete");
    if !stamp.is_file() {
        let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder).status()?;
        ensure!(made.success(), "python3 -m venv failed");
        for packages in installations {
            let pip = ["-m", "pip", "install", "--quiet"];
            let installed = Command::new(&python).args(pip).args(*packages).status()?;
            ensure!(installed.success(), "{packages:?} could not be installed");
        }
        std::fs::write(stamp, "")?;
    }
    Ok(python)
}

/// Runs a script of `tests/clients` against a fresh host; it says at its end that all went well.
fn passes(script: &str, client: (&str, &[&[&str]])) -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let script = root().join("tests/clients").join(script);
    let output = Command::new(python(client)?)
        .arg(&script)
        .env("OPENAI_BASE_URL", format!("{}/v1", server.url))
        .env("OPENAI_API_KEY", ADMIN_KEY)
        .env("STOCKADE_URL", &server.url)
        .env("STOCKADE_API_KEY", ADMIN_KEY)
        .output()
        .with_context(|| script.display().to_string())?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{out}\n{err}\n{}", server.log());
    ensure!(out.contains("all checks passed"), "{out}");
    Ok(())
}

#[test]
fn the_openai_client_works_unchanged() -> Result<()> {
    passes("openai_client.py", OPENAI)
}

#[test]
fn the_openai_client_keeps_responses_and_conversations() -> Result<()> {
    passes("responses_client.py", OPENAI)
}

#[test]
fn the_llama_stack_client_runs_agents() -> Result<()> {
    passes("agents_client.py", LLAMA_STACK)
}
