//! A C compiler that can build for WebAssembly, for the guests with C in their dependencies: the Clang in use, else one that
//! comes with Zig, from PyPI into `target/tools`.

use crate::shell::{output, root, run, say};
use crate::wasm_target::TARGET;
use crate::cargo;
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const ZIG: &str = "ziglang-0.17.1";

/// Has a cargo command that builds guests compile their C.
pub fn prepare(cargo: &mut Command) -> Result<()> {
    let headers = headers()?;
    let mut flags = OsString::from("-isystem ");
    flags.push(&headers);
    // What the grammars' code takes to come with the headers.
    flags.push(" -include stddef.h -Dstatic_assert=_Static_assert");
    let compiler = match std::env::var_os("CC_wasm32_unknown_unknown") {
        Some(compiler) => compiler,
        None if clang_knows_target() => "clang".into(),
        None => {
            flags.push(" -target wasm32-freestanding");
            zig()?.into()
        }
    };
    cargo.env("CC_wasm32_unknown_unknown", compiler).env("CFLAGS_wasm32_unknown_unknown", flags);
    // Some grammars bring a C library that tree-sitter has had none of since 0.27: they get an empty one.
    let library = root().join("target/tools/no-c-library");
    fs::create_dir_all(&library).with_context(|| format!("cannot make {}", library.display()))?;
    for file in ["stdio.c", "stdlib.c", "string.c"] {
        fs::write(library.join(file), "")?;
    }
    for (key, path) in [("wasm-headers", &headers), ("wasm-src", &library)] {
        cargo.arg("--config").arg(format!("target.{TARGET}.tree-sitter-language.{key}={path:?}"));
    }
    Ok(())
}

/// The C headers for a target without a C library, which tree-sitter brings: not all of its grammars look there.
fn headers() -> Result<PathBuf> {
    let mut metadata = cargo();
    metadata.args(["metadata", "--format-version", "1", "--filter-platform", TARGET]);
    metadata.arg("--manifest-path").arg(root().join("components/Cargo.toml"));
    let told = output(&mut metadata).context("cargo cannot tell the guests' dependencies")?;
    let told: serde_json::Value = serde_json::from_str(&told)?;
    let packages = told["packages"].as_array().context("cargo tells no packages")?;
    let language = packages.iter().find(|p| p["name"] == "tree-sitter-language");
    let manifest = language.and_then(|p| p["manifest_path"].as_str()).context("no guest uses tree-sitter")?;
    Ok(Path::new(manifest).with_file_name("wasm").join("include"))
}

fn clang_knows_target() -> bool {
    output(Command::new("clang").arg("--print-targets")).is_some_and(|targets| targets.contains("wasm32"))
}

/// A program that calls Zig as a C compiler.
fn zig() -> Result<PathBuf> {
    let tools = root().join("target/tools").join(ZIG);
    let program = tools.join("zig-cc");
    if program.is_file() {
        return Ok(program);
    }
    say("clang cannot build for WebAssembly: fetching a C compiler that can, once");
    run(Command::new("python3").args(["-m", "venv"]).arg(&tools))
        .and_then(|()| run(Command::new(tools.join("bin/pip")).args(["install", "-q", &ZIG.replacen('-', "==", 1)])))
        .context("no C compiler for WebAssembly. Ways out: install clang, or Python 3 with venv and a network")?;
    let script = format!("#!/bin/sh\nexec '{}' -m ziglang cc \"$@\"\n", tools.join("bin/python").display());
    let beside = program.with_extension("new");
    fs::write(&beside, script)?;
    #[cfg(unix)]
    fs::set_permissions(&beside, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    fs::rename(&beside, &program).with_context(|| format!("cannot write {}", program.display()))?;
    Ok(program)
}
