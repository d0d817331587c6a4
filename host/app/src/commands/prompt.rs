//! Stored prompts: versions, labels, differences, files.

use super::json_argument;
use crate::cli::Prompt;
use crate::client::{Body, Client, segment};
use crate::failure::{Exit, Failure};
use crate::output::{Output, fields, listing, print_line};
use serde_json::{Value, json};
use std::path::Path;

const ROOT: &str = "/stockade/v1/prompts";

pub fn run(command: Prompt, client: &Client, output: Output) -> Result<(), Failure> {
    match command {
        Prompt::List { text, tag } => {
            let query: String = [("text", text), ("tag", tag)]
                .into_iter()
                .filter_map(|(name, value)| Some(format!("&{name}={}", segment(&value?))))
                .collect();
            let list = client.get(&format!("{ROOT}?limit=1000{query}"))?;
            output.document(&list, |v| listing(v, &["name", "latest", "tags", "description"]));
        }
        Prompt::Get { prompt } => {
            let (name, which) = which(&prompt);
            output.document(&client.get(&format!("{}?{which}", path(name)))?, fields);
        }
        Prompt::Versions { name } => {
            let list = client.get(&format!("{}/versions?limit=1000", path(&name)))?;
            output.document(&list, |v| listing(v, &["version", "parent", "author", "message", "digest"]));
        }
        Prompt::Put { file, name, format, message } => {
            let put = put(client, &file, name.as_deref(), &format, message.as_deref())?;
            output.document(&put, fields);
        }
        Prompt::Label { name, label, versions, protected, force, message } => {
            let mut body = json!({"shares": shares(&versions)?, "protected": protected, "force": force,
                "message": message.unwrap_or_default()});
            if let Some(now) = current(client, &name, &label)? {
                body["expected"] = now["revision"].clone();
            }
            let path = format!("{}/labels/{}", path(&name), segment(&label));
            output.document(&client.call("PUT", &path, Body::Json(&body))?, fields);
        }
        Prompt::Unlabel { name, label, force } => {
            let now = current(client, &name, &label)?;
            let now = now.ok_or_else(|| Failure::new(Exit::NotFound, format!("`{name}` has no label `{label}`")))?;
            let query = format!("expected={}&force={force}", now["revision"]);
            client.call("DELETE", &format!("{}/labels/{}?{query}", path(&name), segment(&label)), Body::None)?;
            output.document(&json!({"removed": label}), fields);
        }
        Prompt::Diff { name, before, after, word } => {
            let unit = if word { "word" } else { "line" };
            let after = after.map_or_else(String::new, |a| format!("&after={}", segment(&a)));
            let path = format!("{}/diff?before={}{after}&unit={unit}", path(&name), segment(&before));
            output.document(&client.get(&path)?, |v| difference(v, word));
        }
        Prompt::Render { prompt, variables, caller } => {
            let (name, _) = which(&prompt);
            let mut body = json!({"name": name, "variables": json_argument("the variables", &variables)?});
            match prompt.split_once('@').map(|(_, at)| (at, at.parse::<u32>())) {
                Some((_, Ok(version))) => body["version"] = json!(version),
                Some((label, Err(_))) => body["label"] = json!(label),
                None => {}
            }
            body["key"] = json!(caller);
            let rendered = client.call("POST", &format!("{ROOT}/render"), Body::Json(&body))?;
            output.document(&rendered, |v| match v["text"].as_str() {
                Some(text) => text.into(),
                None => serde_json::to_string_pretty(&v["messages"]).unwrap_or_default(),
            });
        }
        Prompt::Export { prompt, dotprompt } => {
            let (name, which) = which(&prompt);
            let form = if dotprompt { "dotprompt" } else { "json-lines" };
            let file = client.get(&format!("{}/export?form={form}&{which}", path(name)))?;
            print_line(file["text"].as_str().unwrap_or_default().trim_end());
        }
        Prompt::Import { file, name } => {
            let form = if is_dotprompt(&file) { "dotprompt" } else { "json-lines" };
            let body = json!({"form": form, "text": read(&file)?, "name": name});
            let loaded = client.call("POST", &format!("{ROOT}/import"), Body::Json(&body))?;
            output.document(&loaded, |v| listing(v, &["version", "author", "message", "digest"]));
        }
        Prompt::Rm { prompt, force } => {
            let (name, which) = which(&prompt);
            client.call("DELETE", &format!("{}?force={force}&{which}", path(name)), Body::None)?;
            output.document(&json!({"removed": prompt}), fields);
        }
    }
    Ok(())
}

/// A file as a version: a `.prompt` file, a `.json` definition, or a template's text.
fn put(
    client: &Client,
    file: &Path,
    name: Option<&str>,
    format: &str,
    message: Option<&str>,
) -> Result<Value, Failure> {
    let text = read(file)?;
    if is_dotprompt(file) {
        let body = json!({"form": "dotprompt", "text": text, "name": name, "message": message});
        let mut loaded = client.call("POST", &format!("{ROOT}/import"), Body::Json(&body))?;
        return Ok(loaded["data"][0].take());
    }
    let stem = file.file_stem().and_then(|s| s.to_str());
    let name = name.or(stem).ok_or_else(|| Failure::usage("--name is missing"))?;
    let is_json = file.extension().is_some_and(|e| e == "json");
    let mut body = match is_json {
        true => json_argument("the definition", &text)?,
        false => json!({"template": text, "format": format}),
    };
    if let (Some(message), Value::Object(fields)) = (message, &mut body) {
        fields.insert("message".into(), message.into());
    }
    client.call("PUT", &path(name), Body::Json(&body))
}

fn read(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|e| Failure::usage(format!("{}: {e}", file.display())))
}

fn is_dotprompt(file: &Path) -> bool {
    file.extension().is_some_and(|e| e == "prompt")
}

fn path(name: &str) -> String {
    format!("{ROOT}/{}", segment(name))
}

/// `NAME`, `NAME@VERSION` or `NAME@LABEL` as a name and a query.
fn which(text: &str) -> (&str, String) {
    match text.split_once('@') {
        Some((name, at)) if at.parse::<u32>().is_ok() => (name, format!("version={at}")),
        Some((name, at)) => (name, format!("label={}", segment(at))),
        None => (text, String::new()),
    }
}

/// `3`, or `3=90,4=10`.
fn shares(text: &str) -> Result<Vec<Value>, Failure> {
    let share = |share: &str| {
        let (version, weight) = share.split_once('=').unwrap_or((share, "1"));
        match (version.trim().parse::<u32>(), weight.trim().parse::<u32>()) {
            (Ok(version), Ok(weight)) => Ok(json!({"version": version, "weight": weight})),
            _ => Err(Failure::usage(format!("`{share}` is not VERSION or VERSION=WEIGHT"))),
        }
    };
    text.split(',').map(share).collect()
}

/// A label as it is now.
fn current(client: &Client, name: &str, label: &str) -> Result<Option<Value>, Failure> {
    match client.get(&format!("{}?label={}", path(name), segment(label))) {
        Ok(prompt) => Ok(prompt["labels"].as_array().and_then(|l| l.iter().find(|l| l["name"] == label)).cloned()),
        Err(f) if f.exit == Exit::NotFound => Ok(None),
        Err(f) => Err(f),
    }
}

/// With `-` and `+` before the lines, or words in `[-` `-]` and `{+` `+}`.
fn difference(value: &Value, word: bool) -> String {
    let mut out = String::new();
    for piece in value["data"].as_array().into_iter().flatten() {
        for (kind, (before, after), line) in
            [("same", ("", ""), ' '), ("removed", ("[-", "-]"), '-'), ("added", ("{+", "+}"), '+')]
        {
            let Some(text) = piece[kind].as_str() else { continue };
            match word {
                true => out.extend([before, text, after]),
                false => out.extend(text.lines().map(|l| format!("{line}{l}\n"))),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_shares_and_differences_are_read_and_shown() {
        assert_eq!(which("a"), ("a", String::new()));
        assert_eq!(which("a@3"), ("a", "version=3".into()));
        assert_eq!(which("a@b&c"), ("a", "label=b%26c".into()));
        assert_eq!(shares("3").unwrap(), [json!({"version": 3, "weight": 1})]);
        assert_eq!(shares("3=90,4=10").unwrap()[1], json!({"version": 4, "weight": 10}));
        assert!(shares("x").is_err());
        let pieces = json!({"data": [{"same": "a\n"}, {"removed": "b\n"}, {"added": "c\n"}]});
        assert_eq!(difference(&pieces, false), " a\n-b\n+c\n");
        let pieces = json!({"data": [{"same": "a "}, {"removed": "b"}, {"added": "c"}]});
        assert_eq!(difference(&pieces, true), "a [-b-]{+c+}");
    }
}
