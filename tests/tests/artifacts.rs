//! What was compiled of a component goes with the last version that is made of it.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use stockade_tests::{Options, Server, component, fixture, scratch};

/// A host whose compiled components are its own, with nothing shipped among them.
fn start(data: &Path) -> Result<Server> {
    std::fs::create_dir_all(data.join("components"))?;
    let tiny = format!("tiny={}", fixture("llama32-tiny").display());
    let options = Options::default().arg("--offline").arg("--model").arg(&tiny);
    let options = options.env("STOCKADE_COMPONENTS__BIND_SHIPPED", "false");
    Server::start(data, &options.env("STOCKADE_COMPONENTS__ARTIFACTS", ""))
}

/// Digests of the components that something is compiled of.
fn compiled(data: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for engine in std::fs::read_dir(data.join("components"))? {
        for file in std::fs::read_dir(engine?.path())? {
            let name = file?.file_name().to_string_lossy().into_owned();
            found.extend(name.strip_suffix(".cwasm").map(String::from));
        }
    }
    Ok(found)
}

fn version(name: &str) -> String {
    format!("/stockade/v1/components/{name}/versions/1")
}

#[test]
fn artifacts_of_deleted_versions_are_collected_and_shared_ones_stay() -> Result<()> {
    let data = scratch();
    let server = start(data.path())?;
    let admin = server.admin();
    let alice = admin.tenant_with_key("alice", &["components"])?;
    let digest = |pushed: Value| pushed["digest"].as_str().map(String::from).unwrap_or_default();
    let says = digest(admin.push("says", "1", &component("says"), &Value::Null)?);
    let noop = digest(admin.push("noop", "1", &component("noop_tool"), &Value::Null)?);
    alice.push("mine", "1", &component("noop_tool"), &Value::Null)?;
    ensure!(compiled(data.path())? == BTreeSet::from([says.clone(), noop.clone()]));

    admin.delete(&version("says"))?.expect(204)?;
    admin.delete(&version("noop"))?.expect(204)?;
    ensure!(compiled(data.path())? == BTreeSet::from([noop.clone()]), "another tenant's version is made of it");
    let call = json!({"function": "call", "args": ["{}"]});
    alice.post(&format!("{}/invoke", version("mine")), &call)?.expect(200)?;

    // The same bytes again are compiled again.
    admin.push("says", "2", &component("says"), &Value::Null)?;
    ensure!(compiled(data.path())?.contains(&says));
    admin.delete("/stockade/v1/tenants/alice")?.expect(204)?;
    ensure!(compiled(data.path())? == BTreeSet::from([says.clone()]), "they go with a tenant");

    // What a crash left is collected at the next start, and what is named is not.
    let engine = std::fs::read_dir(data.path().join("components"))?.next().expect("an engine's folder")?.path();
    let (left, beside) = (engine.join(format!("{noop}.cwasm")), engine.join("notes.txt"));
    std::fs::write(&left, b"left behind")?;
    std::fs::write(&beside, b"not ours")?;
    server.kill();
    let server = start(data.path())?;
    ensure!(!left.exists() && beside.exists());
    ensure!(compiled(data.path())? == BTreeSet::from([says]));
    server.admin().get("/stockade/v1/components/says/versions/2")?.expect(200)?;
    Ok(())
}
