//! Compiles the components that a first start waits for, so that the product carries machine code of them.
//!
//! An artifact is `NAME.cwasm` beside `NAME.wasm`: the component's sha256, then the machine code. It is for the processor
//! of the machine that builds; where the product runs on one that lacks something, it compiles the component itself.

use crate::shell::{root, run, say};
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

/// What the default tenant's roles are bound to at a first start.
const COMPONENTS: [&str; 4] = ["regex-shield", "chat", "prompt-store", "memory"];
const CPU_SECONDS: &str = "120";
const MEMORY_BYTES: &str = "8589934592";

pub fn compile(compiler: &Path) -> Result<()> {
    for name in COMPONENTS {
        let wasm = root().join(format!("target/components/{name}.wasm"));
        let artifact = wasm.with_extension("cwasm");
        let newest = changed(&wasm)?.max(changed(compiler)?);
        if changed(&artifact).is_ok_and(|made| made > newest) {
            continue;
        }
        let beside = wasm.with_extension("cwasm.new");
        let limits = ["plain", CPU_SECONDS, MEMORY_BYTES, "0"];
        run(Command::new(compiler).arg(&wasm).arg(&beside).args(limits))?;
        let digest = Sha256::digest(fs::read(&wasm)?);
        let code = fs::read(&beside)?;
        if code.is_empty() {
            bail!("{name} compiles to nothing");
        }
        fs::write(&beside, [&digest[..], &code].concat())?;
        fs::rename(&beside, &artifact).with_context(|| format!("cannot write {}", artifact.display()))?;
        say(format!("target/components/{name}.cwasm ({} KiB)", code.len() / 1024));
    }
    Ok(())
}

fn changed(file: &Path) -> Result<SystemTime> {
    fs::metadata(file).and_then(|m| m.modified()).with_context(|| format!("no {}", file.display()))
}
