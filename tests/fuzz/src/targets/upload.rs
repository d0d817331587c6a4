//! Uploads: the gate passes or refuses with reasons, in time and memory that follow the upload's size.

use crate::Target;
use std::path::Path;

pub const GATE: Target = Target {
    name: "upload",
    run: |bytes| {
        if let Err(reasons) = stockade_runtime::inspect(bytes) {
            assert!(!reasons.is_empty(), "a refusal without a reason");
        }
    },
    seeds: || {
        let mut seeds = built();
        // An empty component, one with a core module in it, and a core module.
        seeds.push(b"\0asm\x0d\0\x01\0".to_vec());
        seeds.push(b"\0asm\x0d\0\x01\0\x01\x08\0asm\x01\0\0\0".to_vec());
        seeds.push(b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x0a\x04\x01\x02\0\x0b".to_vec());
        seeds
    },
    words: &[
        "\0asm\x0d\0\x01\0",
        "\0asm\x01\0\0\0",
        "stockade:plugin/",
        "wasi:io/",
        "@0.1.0",
        "stockade:manifest",
        "{\"roles\":[]}",
    ],
};

/// The smallest components that are built here.
fn built() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/components");
    let names = ["echo-tool", "calculator", "regex-shield"];
    names.iter().filter_map(|name| std::fs::read(folder.join(format!("{name}.wasm"))).ok()).collect()
}
