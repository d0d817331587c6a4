//! A C compiler that can build for WebAssembly, for the guests with C in their dependencies: the Clang in use, else one that
//! comes with Zig, from the Python package index into `target/tools`.

use crate::cargo;
use crate::shell::{output, root, run, say};
use crate::wasm_target::TARGET;
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
    match std::env::var_os("CC_wasm32_unknown_unknown") {
        Some(compiler) => cargo.env("CC_wasm32_unknown_unknown", compiler),
        None if clang_knows_target() => cargo.env("CC_wasm32_unknown_unknown", "clang"),
        None => {
            flags.push(" -target wasm32-freestanding");
            let zig = zig()?;
            cargo.env("CC_wasm32_unknown_unknown", zig.join("zig-cc"));
            cargo.env("AR_wasm32_unknown_unknown", zig.join("zig-ar"))
        }
    };
    cargo.env("CFLAGS_wasm32_unknown_unknown", flags);
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

/// A folder with `zig-cc` and `zig-ar`.
fn zig() -> Result<PathBuf> {
    let tools = root().join("target/tools").join(ZIG);
    if tools.join("zig-ar").is_file() {
        return Ok(tools);
    }
    say(format!("no clang here builds for WebAssembly: fetching {ZIG}, once"));
    run(Command::new("python3").args(["-m", "venv"]).arg(&tools))
        .and_then(|()| run(Command::new(tools.join("bin/pip")).args(["install", "-q", &ZIG.replacen('-', "==", 1)])))
        .context("no C compiler for WebAssembly. Ways out: install clang; or Python 3 with venv, and a network")?;
    let python = tools.join("bin/python");
    for tool in ["cc", "ar"] {
        let program = tools.join(format!("zig-{tool}"));
        fs::write(&program, format!("#!/bin/sh\nexec '{}' -m ziglang {tool} \"$@\"\n", python.display()))
            .with_context(|| format!("cannot write {}", program.display()))?;
        #[cfg(unix)]
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    Ok(tools)
}
