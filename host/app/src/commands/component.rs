//! Components, their bindings, logs and calls.

use super::{json_argument, name_and_version};
use crate::cli::{Component, Invoke};
use crate::client::{Body, Client, segment};
use crate::failure::{Exit, Failure};
use crate::manifest::Manifest;
use crate::output::{Output, fields, listing};
use serde_json::{Value, json};
use std::path::Path;

const ROOT: &str = "/stockade/v1";

pub fn run(command: Component, client: &Client, output: Output) -> Result<(), Failure> {
    match command {
        Component::Push { file, name, version, grant_wanted, bind } => {
            let file = match file {
                Some(file) => file,
                None => super::plugin::built_component(Path::new("."))?,
            };
            let options = Push { name, version, grant_wanted, bind };
            let pushed = push(client, &file, &options)?;
            output.document(&pushed, fields);
        }
        Component::List => {
            let list = client.get(&format!("{ROOT}/components?limit=1000"))?;
            output.document(&list, |v| listing(v, &["name", "latest", "versions"]));
        }
        Component::Show { name } => {
            let path = match name.split_once('@') {
                Some((name, version)) => version_path(name, version),
                None => format!("{ROOT}/components/{}", segment(&name)),
            };
            output.document(&client.get(&path)?, fields);
        }
        Component::Bind { role, component, config, observe, allow_on_failure } => {
            let mut entry = entry(&component, config.as_deref())?;
            if observe {
                entry["mode"] = json!("observe");
            }
            if allow_on_failure {
                entry["on_failure"] = json!("allow");
            }
            output.document(&bind(client, &role, entry)?, fields);
        }
        Component::Bindings => {
            let list = client.get(&format!("{ROOT}/bindings?limit=1000"))?;
            output.document(&list, |v| listing(v, &["role", "revision", "entries"]));
        }
        Component::Unbind { role } => {
            client.call("DELETE", &binding_path(&role), Body::None)?;
            output.document(&json!({"role": role, "bound": false}), fields);
        }
        Component::Rollback { role } => {
            let done = client.call("POST", &format!("{}/rollback", binding_path(&role)), Body::None)?;
            output.document(&done, fields);
        }
        Component::Rm { component } => {
            let (name, version) = name_and_version(&component)?;
            client.call("DELETE", &version_path(name, version), Body::None)?;
            output.document(&json!({"name": name, "version": version, "removed": true}), fields);
        }
        Component::Logs { name } => logs(client, output, &name)?,
        Component::Invoke(invocation) => invoke(&invocation, client, output)?,
    }
    Ok(())
}

pub struct Push {
    pub name: Option<String>,
    pub version: Option<String>,
    pub grant_wanted: bool,
    pub bind: Option<String>,
}

/// Uploads a component and, where asked for, grants and binds it.
pub fn push(client: &Client, file: &Path, options: &Push) -> Result<Value, Failure> {
    let bytes = std::fs::read(file).map_err(|e| Failure::usage(format!("{}: {e}", file.display())))?;
    let manifest = Manifest::of_component(&bytes);
    let stem = file.file_stem().and_then(|s| s.to_str()).unwrap_or_default().replace('_', "-");
    let name = options.name.clone().or(manifest.name).unwrap_or(stem);
    let version = options.version.clone().or(manifest.version).unwrap_or_else(|| "0.1.0".into());
    let pushed = client.call("PUT", &version_path(&name, &version), Body::Wasm(&bytes))?;
    if options.grant_wanted {
        client.call("PUT", &grants_path(&name), Body::Json(&pushed["grants_wanted"]))?;
    }
    if let Some(role) = &options.bind {
        bind(client, role, json!({"component": name, "version": version}))?;
    }
    Ok(pushed)
}

pub fn invoke(invocation: &Invoke, client: &Client, output: Output) -> Result<(), Failure> {
    let (name, version) = name_and_version(&invocation.component)?;
    let args = match json_argument("the arguments", &invocation.args)? {
        list @ Value::Array(_) => list,
        one => json!([one]),
    };
    let body = json!({"function": invocation.function, "args": args});
    let answer = client.call("POST", &format!("{}/invoke", version_path(name, version)), Body::Json(&body))?;
    output.document(&answer, |v| serde_json::to_string_pretty(v).unwrap_or_else(|_| v.to_string()));
    match answer.get("error") {
        Some(error) if !error.is_null() => Err(Failure::new(Exit::Failed, "the component answered with an error")),
        _ => Ok(()),
    }
}

fn entry(component: &str, config: Option<&str>) -> Result<Value, Failure> {
    let (name, version) = name_and_version(component)?;
    let mut entry = json!({"component": name, "version": version});
    if let Some(config) = config {
        entry["config"] = json_argument("the configuration", config)?;
    }
    Ok(entry)
}

/// Puts an entry into a role's binding: a shield list keeps its other components, any other role is replaced. Goes by
/// compare-and-set, so that a change in between is never lost.
fn bind(client: &Client, role: &str, entry: Value) -> Result<Value, Failure> {
    let before = match client.get(&binding_path(role)) {
        Ok(binding) => Some(binding),
        Err(f) if f.exit == Exit::NotFound => None,
        Err(f) => return Err(f),
    };
    let mut entries = Vec::new();
    if role.starts_with("shield.") {
        entries = before.as_ref().and_then(|b| b["entries"].as_array().cloned()).unwrap_or_default();
    }
    match entries.iter_mut().find(|e| e["component"] == entry["component"]) {
        Some(same) => *same = entry,
        None => entries.push(entry),
    }
    let revision = before.as_ref().map(|b| format!("\"{}\"", b["revision"]));
    let headers: Vec<(&str, &str)> = revision.iter().map(|r| ("if-match", r.as_str())).collect();
    client.call_with("PUT", &binding_path(role), &headers, Body::Json(&json!({"entries": entries})))
}

fn logs(client: &Client, output: Output, name: &str) -> Result<(), Failure> {
    let traces = client.get(&format!("{ROOT}/traces?limit=100"))?;
    for summary in traces["data"].as_array().into_iter().flatten().rev() {
        let Some(id) = summary["id"].as_str() else { continue };
        let trace = client.get(&format!("{ROOT}/traces/{}", segment(id)))?;
        for call in trace["components"].as_array().into_iter().flatten().filter(|c| c["component"] == name) {
            for text in call["logs"].as_array().into_iter().flatten() {
                let line = json!({"trace": id, "version": call["version"], "function": call["function"], "log": text});
                output.line(&line, |l| {
                    format!("{id} {}  {}", l["function"].as_str().unwrap_or(""), l["log"].as_str().unwrap_or(""))
                });
            }
        }
    }
    Ok(())
}

fn version_path(name: &str, version: &str) -> String {
    format!("{ROOT}/components/{}/versions/{}", segment(name), segment(version))
}

pub fn grants_path(name: &str) -> String {
    format!("{ROOT}/components/{}/grants", segment(name))
}

fn binding_path(role: &str) -> String {
    // A role's own `/` belongs to the path.
    format!("{ROOT}/bindings/{}", role.split('/').map(segment).collect::<Vec<_>>().join("/"))
}
