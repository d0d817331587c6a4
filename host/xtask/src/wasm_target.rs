//! A compiler that can build WebAssembly guests: the one in use with its target added, else one made by
//! `guest-toolchain.sh` and kept in the cache folder.

use crate::shell::{output, root, run, say};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

pub const TARGET: &str = "wasm32-unknown-unknown";

/// Environment for a cargo that builds guests.
pub fn environment() -> Result<Vec<(&'static str, PathBuf)>> {
    // Makes cargo's output a component.
    let linker = ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-component-ld".into());
    // A PDF library depends on random numbers for a format that it only reads here; their usual source is a browser's.
    let random = ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", "--cfg getrandom_backend=\"unsupported\"".into());
    let settings = vec![linker, random];
    if has_target() {
        return Ok(settings);
    }
    let mut add = Command::new("rustup");
    if run(add.args(["target", "add", TARGET])).is_ok() && has_target() {
        return Ok(settings);
    }
    say(format!("rustup cannot add {TARGET}: building it from the distribution's packages, once"));
    let dir = cache_dir()?.join("stockade/guest-toolchain");
    let script = root().join("host/xtask/guest-toolchain.sh");
    run(Command::new("bash").arg(script).arg(&dir).env("TARGETS", TARGET)).with_context(|| {
        format!(
            "no compiler for {TARGET}. Ways out: `rustup target add {TARGET}` where rustup has a network; \
             `apt-get update` on Debian, then again"
        )
    })?;
    Ok([settings, vec![("RUSTC", dir.join("toolchain/bin/rustc"))]].concat())
}

/// Whether the compiler in use has the target's standard library.
fn has_target() -> bool {
    let mut rustc = Command::new("rustc");
    rustc.current_dir(root());
    let lib = output(rustc.args(["--print", "target-libdir", "--target", TARGET]));
    lib.is_some_and(|dir| Path::new(&dir).is_dir())
}

fn cache_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("XDG_CACHE_HOME").filter(|d| !d.is_empty()) {
        return Ok(dir.into());
    }
    match std::env::var_os("HOME") {
        Some(home) => Ok(Path::new(&home).join(".cache")),
        None => bail!("neither XDG_CACHE_HOME nor HOME is set: no place for the toolchain"),
    }
}
