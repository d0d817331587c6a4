//! Official Python clients as test clients: virtual environments below `target`, a pinned client each.

use crate::{ADMIN_KEY, Options, Server, root, scratch};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A virtual environment of this name; each list is the arguments of one `pip install`.
pub fn environment(name: &str, installations: &[&[&str]]) -> Result<PathBuf> {
    let folder = root().join("target/python-clients").join(name);
    let (python, stamp) = (folder.join("bin/python"), folder.join("complete"));
    let wanted = format!("{installations:?}");
    if !std::fs::read_to_string(&stamp).is_ok_and(|s| s == wanted) {
        let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder).status()?;
        ensure!(made.success(), "python3 -m venv failed");
        for packages in installations {
            let pip = ["-m", "pip", "install", "--quiet"];
            let installed = Command::new(&python).args(pip).args(*packages).status()?;
            ensure!(installed.success(), "{packages:?} could not be installed");
        }
        std::fs::write(stamp, wanted)?;
    }
    Ok(python)
}

pub fn openai() -> Result<PathBuf> {
    environment("openai", &[&["openai==3.17.0"]])
}

/// The client of Llama Stack in this version. It asks for Python 3.12 and for pandas; what is called here runs on 3.11,
/// and what it needs is named, since pip then must not look.
pub fn llama_stack(version: &str) -> Result<PathBuf> {
    let client = format!("llama-stack-client=={version}");
    let alone = ["--no-deps", "--ignore-requires-python", &client];
    let needs = [
        "anyio",
        "click",
        "distro",
        "fire",
        "httpx==0.28.1",
        "prompt-toolkit",
        "pyaml",
        "pydantic==2.14.4",
        "requests",
        "rich",
        "sniffio",
        "termcolor",
        "tqdm",
        "typing-extensions",
    ];
    environment(&format!("llama-stack-{version}"), &[&alone, &needs])
}

/// Runs a script of `tests/clients` against a host; it says at its end that all went well.
pub fn passes(python: &Path, script: &str, server: &Server) -> Result<()> {
    passes_with(python, script, &[], server)
}

/// As [`passes`], with arguments.
pub fn passes_with(python: &Path, script: &str, arguments: &[&str], server: &Server) -> Result<()> {
    let script = root().join("tests/clients").join(script);
    let output = Command::new(python)
        .arg(&script)
        .args(arguments)
        .env("OPENAI_BASE_URL", format!("{}/v1", server.url))
        .env("OPENAI_API_KEY", ADMIN_KEY)
        .env("LLAMA_STACK_CLIENT_BASE_URL", &server.url)
        .env("LLAMA_STACK_CLIENT_API_KEY", ADMIN_KEY)
        .env("STOCKADE_URL", &server.url)
        .env("STOCKADE_API_KEY", ADMIN_KEY)
        .output()
        .with_context(|| script.display().to_string())?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{out}\n{err}");
    ensure!(out.contains("all checks passed"), "{out}");
    Ok(())
}

/// As [`passes`], against a fresh host that has these shipped components in.
pub fn passes_fresh(python: &Path, script: &str, shipped: &[&str]) -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    for name in shipped {
        server.admin().shipped(name)?;
    }
    passes(python, script, &server)
}
