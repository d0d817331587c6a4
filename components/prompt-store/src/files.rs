//! Prompts in files: JSON lines of all versions and labels, and `.prompt` files.

use crate::definition::Definition;
use crate::labels;
use crate::store::{NewVersion, Prompts, Version};
use crate::{checked, dotprompt, inclusion};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use stockade_guest::prompt_store::{Change, LabelChange, Share};
use stockade_guest::{Error, Result};

/// Most bytes and lines of a file.
const MAX_BYTES: usize = 4 << 20;
const MAX_LINES: usize = 1000;

/// A line of a file: a version, or a label.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Line {
    prompt: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    definition: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    /// Version and weight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shares: Vec<(u32, u32)>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    protected: bool,
}

/// All of a prompt as JSON lines.
pub fn dump_lines(prompts: &Prompts, name: &str) -> Result<String> {
    let mut out = String::new();
    let mut add = |line: &Line| -> Result<()> {
        out.push_str(&serde_json::to_string(line)?);
        out.push('\n');
        if out.len() > MAX_BYTES {
            return Err(Error::TooLarge(format!("{MAX_BYTES} bytes a file")));
        }
        Ok(())
    };
    let mut after = 0;
    loop {
        let page = prompts.versions(name, after, 100)?;
        let Some((last, _)) = page.last() else { break };
        after = *last;
        for (number, version) in page {
            let Version { digest, parent, author, message, created, definition } = version;
            add(&Line {
                prompt: name.into(),
                version: Some(number),
                digest: Some(digest),
                parent,
                author: Some(author),
                message: Some(message),
                created: Some(created),
                definition: Some(definition.to_json()),
                ..Line::default()
            })?;
        }
    }
    for (label, state) in prompts.head(name)?.0.labels {
        let (shares, protected) = (state.shares, state.protected);
        add(&Line { prompt: name.into(), label: Some(label), shares, protected, ..Line::default() })?;
    }
    Ok(out)
}

/// Puts a file of JSON lines. Invariant: the same file twice changes nothing the second time.
pub fn load_lines(prompts: &Prompts, rename: Option<&str>, text: &str, change: &Change) -> Result<Vec<(u32, Version)>> {
    let lines = read_lines(text)?;
    let mut loaded = Vec::new();
    // Numbers here by the file's own, a prompt each.
    let mut numbers: BTreeMap<(String, u32), u32> = BTreeMap::new();
    for (i, line) in lines {
        let name = rename.unwrap_or(&line.prompt).to_string();
        let name = name.as_str();
        checked("name", name).map_err(|e| Error::Invalid(format!("line {}: {e}", i + 1)))?;
        match line {
            Line { version: Some(version), definition: Some(definition), label: None, ref prompt, .. } => {
                let definition = Definition::from_json(definition)?;
                definition.validate()?;
                if line.digest.is_some_and(|d| d != definition.digest()) {
                    let text = format!("prompt `{prompt}` version {version}: not what its digest says");
                    return Err(Error::Invalid(text));
                }
                let made = match known(prompts, name, &definition)? {
                    Some(known) => known,
                    None => {
                        let parent = line.parent.and_then(|p| numbers.get(&(prompt.clone(), p)).copied());
                        let author = line.author.unwrap_or_else(|| change.author.clone());
                        let message = line.message.unwrap_or_else(|| change.message.clone());
                        let (expected_latest, created) = (None, line.created);
                        prompts
                            .add(name, NewVersion { definition, author, message, parent, expected_latest, created })?
                    }
                };
                numbers.insert((prompt.clone(), version), made.0);
                loaded.push(made);
            }
            Line { label: Some(label), version: None, definition: None, ref prompt, .. } => {
                checked("label", &label)?;
                let here = |(version, weight): &(u32, u32)| {
                    let found = numbers.get(&(prompt.clone(), *version));
                    let missing = || Error::Invalid(format!("label `{label}`: version {version} is not in the file"));
                    found.map(|&version| Share { version, weight: *weight }).ok_or_else(missing)
                };
                let change = LabelChange {
                    shares: line.shares.iter().map(here).collect::<Result<_>>()?,
                    protected: line.protected,
                    expected: None,
                    force: false,
                    author: change.author.clone(),
                    message: change.message.clone(),
                };
                if !prompts.head(name)?.0.labels.contains_key(&label) {
                    prompts.update(name, |head| labels::set(head, name, &label, &change))?;
                }
            }
            _ => return Err(Error::Invalid(format!("line {}: neither a version nor a label", i + 1))),
        }
    }
    Ok(loaded)
}

/// Lines with their numbers from 0.
fn read_lines(text: &str) -> Result<Vec<(usize, Line)>> {
    if text.len() > MAX_BYTES {
        return Err(Error::TooLarge(format!("{MAX_BYTES} bytes a file")));
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read = |(i, line): (usize, &str)| {
        if i >= MAX_LINES {
            return Err(Error::TooLarge(format!("{MAX_LINES} lines a file")));
        }
        let line = serde_json::from_str(line).map_err(|e| Error::Invalid(format!("line {}: {e}", i + 1)));
        line.map(|line| (i, line))
    };
    lines.map(read).collect()
}

/// The version that has this definition already.
fn known(prompts: &Prompts, name: &str, definition: &Definition) -> Result<Option<(u32, Version)>> {
    let digest = definition.digest();
    let mut after = 0;
    loop {
        let page = match prompts.versions(name, after, 100) {
            Ok(page) => page,
            Err(Error::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some((last, _)) = page.last() else { return Ok(None) };
        after = *last;
        if let Some(found) = page.into_iter().find(|(_, v)| v.digest == digest) {
            return Ok(Some(found));
        }
    }
}

/// Puts a `.prompt` file.
pub fn load_dotprompt(prompts: &Prompts, name: Option<&str>, text: &str, change: Change) -> Result<(u32, Version)> {
    let (mut definition, own) = dotprompt::read(text)?;
    let name = name.or(own.as_deref()).ok_or_else(|| Error::Invalid("name: the file gives itself none".into()))?;
    checked("name", name)?;
    inclusion::resolve(prompts, &mut definition)?;
    definition.validate()?;
    prompts.add(
        name,
        NewVersion {
            definition,
            author: change.author,
            message: change.message,
            parent: change.parent,
            expected_latest: change.expected_latest,
            created: None,
        },
    )
}
