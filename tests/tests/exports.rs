//! `stockade models quantize`: files that the format's own library reads, and refusals by their exit codes.

use anyhow::{Result, ensure};
use std::path::PathBuf;
use std::process::{Command, Output};
use stockade_tests::python::environment;
use stockade_tests::{binary, fixture, scratch};

const TYPES: [&str; 6] = ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_k_m"];

fn quantize(arguments: &[&str]) -> Result<Output> {
    let folder = scratch();
    let data = folder.path().to_string_lossy();
    Ok(Command::new(binary()).args(["models", "quantize"]).args(arguments).args(["--data", &data]).output()?)
}

#[test]
fn quantized_files_are_read_by_the_formats_own_library() -> Result<()> {
    let base = fixture("llama32-tiny");
    let out = scratch();
    let files: Vec<PathBuf> = TYPES.iter().map(|ty| out.path().join(format!("{ty}.gguf"))).collect();
    for (ty, file) in TYPES.iter().zip(&files) {
        let output = quantize(&[&base.to_string_lossy(), &file.to_string_lossy(), "--to", ty])?;
        ensure!(output.status.success(), "{ty}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let python = environment("formats", &[&["gguf==0.19.0", "safetensors==0.8.0", "numpy"]])?;
    let script = stockade_tests::root().join("tests/clients/gguf_files.py");
    let output = Command::new(python).arg(script).arg(&base).args(&files).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(said.contains("all went well"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn what_cannot_be_quantized_is_refused_and_writes_nothing() -> Result<()> {
    let base = fixture("llama32-tiny").to_string_lossy().into_owned();
    let encoder = fixture("bert-tiny").to_string_lossy().into_owned();
    let folder = scratch();
    let there = folder.path().join("there.gguf");
    std::fs::write(&there, "mine")?;
    let there = there.to_string_lossy().into_owned();
    let new = folder.path().join("new.gguf").to_string_lossy().into_owned();
    for (name, arguments, code) in [
        ("no such type", [base.as_str(), &new, "--to", "q3"], 2),
        ("no such model", ["no-model-of-this-name", &new, "--to", "q8_0"], 3),
        ("a file that is there", [&base, &there, "--to", "q8_0"], 4),
        ("an encoder", [&encoder, &new, "--to", "q8_0"], 1),
    ] {
        let output = quantize(&arguments)?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(code), "{name}: {:?} {told}", output.status);
        ensure!(!std::path::Path::new(&new).exists(), "{name}: a file was written");
    }
    ensure!(std::fs::read_to_string(&there)? == "mine", "the file is no more as it was");
    Ok(())
}
