//! The official `openai` Python client against the real host.

use anyhow::{Context, Result, ensure};
use std::path::PathBuf;
use std::process::Command;
use stockade_tests::{ADMIN_KEY, Options, Server, root, scratch};

/// A virtual environment with the pinned client, kept below `target`.
fn python() -> Result<PathBuf> {
    let folder = root().join("target/python-clients");
    let python = folder.join("bin/python");
    let stamp = folder.join("openai-3.17.0");
    if !stamp.is_file() {
        let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder).status()?;
        ensure!(made.success(), "python3 -m venv failed");
        let installed = Command::new(&python).args(["-m", "pip", "install", "--quiet", "openai==3.17.0"]).status()?;
        ensure!(installed.success(), "the openai package could not be installed");
        std::fs::write(stamp, "")?;
    }
    Ok(python)
}

#[test]
fn the_openai_client_works_unchanged() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let script = root().join("tests/clients/openai_client.py");
    let output = Command::new(python()?)
        .arg(&script)
        .env("OPENAI_BASE_URL", format!("{}/v1", server.url))
        .env("OPENAI_API_KEY", ADMIN_KEY)
        .output()
        .with_context(|| script.display().to_string())?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{out}\n{err}");
    ensure!(out.contains("all checks passed"), "{out}");
    Ok(())
}
