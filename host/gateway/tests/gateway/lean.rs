//! The gateway builds without models, GPUs and the wasm engine.

use std::process::Command;

#[test]
fn no_candle_wgpu_or_wasmtime_is_in_the_dependency_graph() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let out = Command::new(cargo)
        .args(["tree", "-p", "stockade-gateway", "--edges", "normal,build", "--prefix", "none"])
        .args(["--offline", "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let tree = String::from_utf8(out.stdout).unwrap();
    assert!(tree.contains("stockade-core"));
    for line in tree.lines() {
        for heavy in ["candle", "wasmtime", "wgpu", "stockade-infer", "stockade-runtime"] {
            assert!(!line.starts_with(heavy), "{line}");
        }
    }
}
