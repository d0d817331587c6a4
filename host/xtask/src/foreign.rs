//! Components in other languages: what the `[build]` table of a `component.toml` says is run, and kept as long as nothing
//! that goes in changes.
//!
//! Their toolchains come from the language's own registry into `target/tools`. Where one is missing the component is left
//! out with a line that says so: the host is whole without it.

use crate::shell::{output, root, run, say, sorted_dir};
use anyhow::{Context, Result};
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::Path;
use std::process::Command;

/// What a `component.toml` says about building.
pub struct Build {
    command: Vec<String>,
    output: String,
    /// A program that has to be there.
    needs: String,
}

impl Build {
    /// `None` for a component that cargo builds.
    pub fn of(manifest: &toml::Table) -> Option<Self> {
        let build = manifest.get("build")?.as_table()?;
        let text = |name: &str| build.get(name).and_then(toml::Value::as_str).unwrap_or_default().to_string();
        let command = build.get("command")?.as_array()?;
        let command = command.iter().filter_map(toml::Value::as_str).map(str::to_string).collect();
        Some(Self { command, output: text("output"), needs: text("needs") })
    }

    /// The component, built now or before; `None` where it cannot be built here.
    pub fn component(&self, folder: &Path, name: &str) -> Result<Option<Vec<u8>>> {
        let kept = root().join("target/foreign");
        fs::create_dir_all(&kept).with_context(|| format!("cannot make {}", kept.display()))?;
        let (wasm, stamp) = (kept.join(format!("{name}.wasm")), kept.join(format!("{name}.stamp")));
        let digest = format!("{:016x}", digest(&[folder, &root().join("wit/v0.1")])?);
        if fs::read_to_string(&stamp).is_ok_and(|s| s == digest)
            && let Ok(bytes) = fs::read(&wasm)
        {
            return Ok(Some(bytes));
        }
        if output(Command::new(&self.needs).arg("--version")).is_none() {
            say(format!("{name} is left out: it needs {} to build", self.needs));
            return Ok(None);
        }
        let [program, arguments @ ..] = self.command.as_slice() else {
            anyhow::bail!("{}: build.command is empty", folder.display());
        };
        let mut command = Command::new(program);
        command.args(arguments).current_dir(folder);
        command.env("TOOLS", root().join("target/tools")).env("WIT", root().join("wit/v0.1"));
        if let Err(e) = run(&mut command) {
            say(format!("{name} is left out: {e:#}"));
            return Ok(None);
        }
        let built = folder.join(&self.output);
        let bytes = fs::read(&built).with_context(|| format!("no {} was built", built.display()))?;
        fs::write(&wasm, &bytes)?;
        fs::write(&stamp, digest)?;
        Ok(Some(bytes))
    }
}

/// Of all files in these folders, by name and content; build output left out.
fn digest(folders: &[&Path]) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    let mut open: Vec<_> = folders.iter().map(|f| f.to_path_buf()).collect();
    while let Some(path) = open.pop() {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_string();
        if ["target", "tests", "__pycache__", "README.md"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            open.extend(sorted_dir(&path)?);
        } else {
            hasher.write(name.as_bytes());
            hasher.write(&fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
        }
    }
    Ok(hasher.finish())
}
