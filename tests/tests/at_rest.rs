//! What lies in a data folder: no secret in plain text, no bytes of what was deleted, and a backup without the key.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use stockade_tests::{Options, Server, binary, component, scratch};

const SECRET: &str = "correct horse battery staple";

/// Whether the bytes stand anywhere in a file below the folder.
fn stands_in(folder: &Path, bytes: &[u8]) -> Result<bool> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let found = match path.is_dir() {
            true => stands_in(&path, bytes)?,
            false => std::fs::read(&path)?.windows(bytes.len()).any(|w| w == bytes),
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

fn stockade(args: &[&str]) -> Result<Value> {
    let out = Command::new(binary()).args(args).arg("--json").output()?;
    ensure!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(serde_json::from_slice(&out.stdout)?)
}

#[test]
fn secrets_are_sealed_and_deleted_versions_leave_no_bytes() -> Result<()> {
    let data = scratch();
    // A component that nothing else is made of.
    let mut wasm = component("noop_tool");
    wasm.extend(b"\x00\x0f\x0emark-of-a-kind");
    // Nor does the host push anything meanwhile, whose blob may be there before its row when the host stops.
    let options = Options::default().env("STOCKADE_COMPONENTS__BIND_SHIPPED", "false");
    let server = Server::start(data.path(), &options)?;
    let client = server.admin();
    client.put("/stockade/v1/secrets/token", &json!({"value": SECRET}))?.expect(204)?;
    for version in ["1.0.0", "1.0.1"] {
        client.push("marked", version, &wasm, &json!({}))?;
    }
    let blobs = data.path().join("blobs");
    for (version, left) in [("1.0.0", true), ("1.0.1", false)] {
        client.delete(&format!("/stockade/v1/components/marked/versions/{version}"))?.expect(204)?;
        ensure!(stands_in(&blobs, b"mark-of-a-kind")? == left, "after {version}");
    }
    server.stop()?;

    ensure!(!stands_in(data.path(), SECRET.as_bytes())?, "the secret stands in the data folder");
    let key = data.path().join("secrets.key");
    ensure!(key.metadata()?.permissions().mode() & 0o777 == 0o600);
    let key = std::fs::read_to_string(key)?;
    let copies = scratch();
    let copy = copies.path().join("copy");
    let (folder, to) = (data.path().to_str().context("UTF-8")?, copy.to_str().context("UTF-8")?);
    let done = stockade(&["backup", to, "--data", folder])?;
    ensure!(done["secrets_key"] == "not copied");
    ensure!(!stands_in(&copy, key.trim().as_bytes())?);

    // What a crash would have left.
    let orphan = blobs.join("00").join("0".repeat(62));
    std::fs::write(&orphan, "nobody's")?;
    let done = stockade(&["compact", "--data", folder])?;
    ensure!(done["blobs_deleted"] == 1 && done["blob_bytes_deleted"] == 8 && !orphan.exists(), "{done}");
    Ok(())
}
