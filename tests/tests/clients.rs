//! The official Python clients against the real host.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use stockade_tests::{ADMIN_KEY, Options, Server, root, scratch};

/// A virtual environment with the pinned client, kept below `target`.
fn python(folder: &str, package: &str, options: &[&str]) -> Result<PathBuf> {
    let folder = root().join("target").join(folder);
    let python = folder.join("bin/python");
    let stamp = folder.join(package.replace("==", "-"));
    if !stamp.is_file() {
        let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder).status()?;
        ensure!(made.success(), "python3 -m venv failed");
        let install = ["-m", "pip", "install", "--quiet"];
        let installed = Command::new(&python).args(install).args(options).arg(package).status()?;
        ensure!(installed.success(), "{package} could not be installed");
        std::fs::write(stamp, "")?;
    }
    Ok(python)
}

/// Runs a script of `tests/clients` against a server of its own.
fn works(python: &Path, script: &str) -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let script = root().join("tests/clients").join(script);
    let output = Command::new(python)
        .arg(&script)
        .env("OPENAI_BASE_URL", format!("{}/v1", server.url))
        .env("OPENAI_API_KEY", ADMIN_KEY)
        .env("LLAMA_STACK_CLIENT_BASE_URL", &server.url)
        .env("LLAMA_STACK_CLIENT_API_KEY", ADMIN_KEY)
        .output()
        .with_context(|| script.display().to_string())?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{out}\n{err}");
    ensure!(out.contains("all checks passed"), "{out}");
    Ok(())
}

#[test]
fn the_openai_client_works_unchanged() -> Result<()> {
    works(&python("python-clients", "openai==3.17.0", &[])?, "openai_client.py")
}

/// The client's package asks for Python 3.12; what is called here works with 3.11 as well.
#[test]
fn the_llama_stack_client_keeps_prompts() -> Result<()> {
    let options = ["--ignore-requires-python"];
    works(&python("python-llama-stack", "llama-stack-client==0.7.5", &options)?, "llama_stack_prompts.py")
}
