//! The arrows of the workspace: the runtime reaches models through a seam alone.

#[test]
fn no_model_code_is_in_the_runtimes_dependency_graph() {
    let tree = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--offline", "-e", "normal", "--prefix", "none", "-p", "stockade-runtime"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    assert!(tree.contains("wasmtime"));
    for heavy in ["candle", "wgpu", "tokenizers", "stockade-model", "stockade-infer", "axum"] {
        assert!(!tree.lines().any(|l| l.starts_with(heavy)), "{heavy}");
    }
}
