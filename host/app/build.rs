//! Embeds what the one binary carries: the shipped components (as `cargo xtask components` left them), what those of the
//! first start compile to (`cargo xtask build`), the plugin API and the guest SDK with its templates.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut source = String::new();

    let components = root.join("target/components");
    println!("cargo::rerun-if-changed={}", components.display());
    let (mut shipped, mut missing, mut compiled) = (Vec::new(), Vec::new(), Vec::new());
    for folder in folders(&root.join("components")) {
        if !folder.join("component.toml").is_file() {
            continue;
        }
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let wasm = components.join(format!("{name}.wasm"));
        println!("cargo::rerun-if-changed={}", wasm.display());
        if wasm.is_file() {
            let artifact = wasm.with_extension("cwasm");
            if artifact.is_file() {
                println!("cargo::rerun-if-changed={}", artifact.display());
                compiled.push((name.clone(), artifact));
            }
            shipped.push((name, wasm));
        } else {
            println!("cargo::warning=component {name} is not built: run `cargo xtask components`");
            missing.push(name);
        }
    }
    table(&mut source, "SHIPPED", &shipped);
    table(&mut source, "COMPILED", &compiled);
    let _ = writeln!(source, "pub static MISSING: &[&str] = &{missing:?};");

    let mut sdk = Vec::new();
    for part in ["guest-sdk", "wit"] {
        println!("cargo::rerun-if-changed={}", root.join(part).display());
        collect(&root.join(part), part, &mut sdk);
    }
    table(&mut source, "SDK", &sdk);
    fs::write(out.join("embedded.rs"), source).expect("OUT_DIR is writable");
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
    found.sort();
    found
}

/// All source files below `folder`, by their path from the root, build output left out.
fn collect(folder: &Path, name: &str, files: &mut Vec<(String, PathBuf)>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        let base = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if ["target", "node_modules", "__pycache__", ".venv", "build", "Cargo.lock"].contains(&base.as_str()) {
            continue;
        }
        let name = format!("{name}/{base}");
        if path.is_dir() {
            collect(&path, &name, files);
        } else if !base.ends_with(".wasm") {
            files.push((name, path));
        }
    }
}

fn table(source: &mut String, name: &str, files: &[(String, PathBuf)]) {
    let _ = writeln!(source, "pub static {name}: &[(&str, &[u8])] = &[");
    for (key, path) in files {
        let path = path.canonicalize().unwrap_or_else(|_| path.clone());
        let _ = writeln!(source, "    ({key:?}, include_bytes!({path:?})),");
    }
    source.push_str("];\n");
}
