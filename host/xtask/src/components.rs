//! Builds the guest workspace into `target/components`.
//!
//! A shipped plugin is a folder of `components/` with a `component.toml`, which goes into its `NAME.wasm` as the custom
//! section `stockade:manifest`; cargo builds it unless its manifest says how else. A test guest is a file of `tests/guests/` and comes without one. A file that would not
//! change is not written, so that nothing which embeds it is built again.

use crate::foreign::Build;
use crate::shell::{root, run, say, sorted_dir};
use crate::wasm_target::{TARGET, environment};
use crate::{c_compiler, cargo, shell};
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Points a cargo command at the guest workspace, with a target folder apart from the host's.
pub fn guest_workspace(command: &mut Command) -> &mut Command {
    let manifest = root().join("components/Cargo.toml");
    let target = root().join("target/guests");
    command.arg("--manifest-path").arg(manifest).arg("--target-dir").arg(target)
}

pub fn build() -> Result<()> {
    let environment = environment()?;
    // A run each: the examples switch on the features that tests ask of the plugins' dependencies, and code-shield's parser
    // those of Unicode, whose tables would make others half as large again.
    for what in [
        &["--lib", "--workspace", "--exclude=code-shield"][..],
        &["--lib", "--package", "code-shield"],
        &["--examples", "--package", "test-guests"],
    ] {
        let mut build = cargo();
        build.args(["build", "--release", "--target", TARGET]).args(what);
        if what.contains(&"code-shield") {
            c_compiler::prepare(&mut build)?;
        }
        run(guest_workspace(&mut build).envs(environment.clone()))?;
    }

    let built = root().join("target/guests").join(TARGET).join("release");
    let out = root().join("target/components");
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    for folder in sorted_dir(&root().join("components"))? {
        let manifest = folder.join("component.toml");
        if manifest.is_file() {
            let name = file_stem(&folder)?;
            let manifest = read_manifest(&manifest)?;
            let component = match Build::of(&manifest) {
                Some(build) => build.component(&folder, name)?,
                None => Some(read(&built.join(format!("{}.wasm", name.replace('-', "_"))))?),
            };
            let to = out.join(format!("{name}.wasm"));
            match component {
                Some(component) => write(&to, &with_manifest(component, manifest)?)?,
                // One from before would speak an older plugin API.
                None => drop(fs::remove_file(&to)),
            }
        }
    }
    for file in sorted_dir(&root().join("tests/guests"))? {
        let name = file_stem(&file)?;
        if file.extension().is_some_and(|e| e == "rs") && name != "lib" {
            let from = built.join(format!("examples/{name}.wasm"));
            let component =
                read(&from).with_context(|| format!("tests/guests/Cargo.toml needs an [[example]] named `{name}`"))?;
            write(&out.join(format!("{name}.wasm")), &component)?;
        }
    }
    Ok(())
}

fn read_manifest(path: &Path) -> Result<toml::Table> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{}", path.display()))
}

/// Appends the manifest as JSON, but for how it is built. A custom section may stand at a component's end.
fn with_manifest(mut component: Vec<u8>, mut manifest: toml::Table) -> Result<Vec<u8>> {
    manifest.remove("build");
    let value = serde_json::to_value(manifest)?;
    const NAME: &[u8] = b"stockade:manifest";
    let mut body = Vec::new();
    leb128(&mut body, NAME.len());
    body.extend_from_slice(NAME);
    body.extend_from_slice(&serde_json::to_vec(&value)?);
    component.push(0);
    leb128(&mut component, body.len());
    component.extend_from_slice(&body);
    Ok(component)
}

fn leb128(out: &mut Vec<u8>, mut n: usize) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cargo did not build {}", file.display()))
}

fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(file).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let shown = file.strip_prefix(shell::root()).unwrap_or(file);
    say(format!("{} ({} KiB)", shown.display(), bytes.len() / 1024));
    // Beside and renamed: whoever reads meanwhile sees the old or the new one, whole.
    let beside = file.with_extension("wasm.new");
    fs::write(&beside, bytes)
        .and_then(|()| fs::rename(&beside, file))
        .with_context(|| format!("cannot write {}", file.display()))
}

fn file_stem(path: &Path) -> Result<&str> {
    path.file_stem().and_then(|n| n.to_str()).context("a file name is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leb128_matches_known_encodings() {
        for (n, want) in [(0, &[0][..]), (127, &[127]), (128, &[0x80, 1]), (624_485, &[0xe5, 0x8e, 0x26])] {
            let mut out = Vec::new();
            leb128(&mut out, n);
            assert_eq!(out, want);
        }
    }

    #[test]
    fn manifest_becomes_a_custom_section_at_the_end() {
        let manifest = "name = \"a\"\n[build]\noutput = \"x\"".parse().unwrap();
        let component = with_manifest(vec![1, 2], manifest).unwrap();
        let mut want = vec![1, 2, 0, 30, 17];
        want.extend_from_slice(b"stockade:manifest{\"name\":\"a\"}");
        assert_eq!(component, want);
    }
}
