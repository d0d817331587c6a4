//! Prompts in files: JSON lines of all versions and labels, and `.prompt` files.

use crate::definition::Definition;
use crate::labels;
use crate::store::{NewVersion, Prompts, Version};
use crate::{checked, dotprompt, inclusion};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use stockade_guest::prompt_store::{Change, LabelChange, Share};
use stockade_guest::{Error, Result};

/// Most bytes and lines of a file.
const MAX_BYTES: usize = 4 << 20;
const MAX_LINES: usize = 1000;

/// A line of a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Line {
    Version {
        prompt: String,
        version: u32,
        #[serde(default)]
        digest: Option<String>,
        #[serde(default)]
        parent: Option<u32>,
        #[serde(default)]
        author: Option<String>,
        #[serde(default)]
        message: Option<String>,
        #[serde(default)]
        created: Option<u64>,
        definition: Box<Definition>,
    },
    Label {
        prompt: String,
        label: String,
        /// Version and weight.
        shares: Vec<(u32, u32)>,
        #[serde(default)]
        protected: bool,
    },
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
            let definition = Box::new(definition);
            let (digest, created) = (Some(digest), Some(created));
            let (author, message) = (Some(author), Some(message));
            let version = number;
            add(&Line::Version { prompt: name.into(), version, digest, parent, author, message, created, definition })?;
        }
    }
    for (label, state) in prompts.head(name)?.0.labels {
        add(&Line::Label { prompt: name.into(), label, shares: state.shares, protected: state.protected })?;
    }
    Ok(out)
}

/// Puts a file of JSON lines. Invariant: the same file twice changes nothing the second time.
pub fn load_lines(prompts: &Prompts, rename: Option<&str>, text: &str, change: &Change) -> Result<Vec<(u32, Version)>> {
    let lines = read_lines(text)?;
    let mut loaded = Vec::new();
    // Numbers here by the file's own, a prompt each.
    let mut numbers: BTreeMap<(String, u32), u32> = BTreeMap::new();
    for line in lines {
        match line {
            Line::Version { prompt, version, digest, parent, author, message, created, definition } => {
                let name = rename.unwrap_or(&prompt);
                checked("name", name)?;
                definition.validate()?;
                if digest.is_some_and(|d| d != definition.digest()) {
                    return Err(Error::Invalid(format!(
                        "prompt `{prompt}` version {version}: not what its digest says"
                    )));
                }
                let known = known(prompts, name, &definition)?;
                let (number, version_here) = match known {
                    Some(known) => known,
                    None => {
                        let parent = parent.and_then(|p| numbers.get(&(prompt.clone(), p)).copied());
                        let author = author.unwrap_or_else(|| change.author.clone());
                        let message = message.unwrap_or_else(|| change.message.clone());
                        let definition = *definition;
                        let new = NewVersion { definition, author, message, parent, expected_latest: None, created };
                        prompts.add(name, new)?
                    }
                };
                numbers.insert((prompt, version), number);
                loaded.push((number, version_here));
            }
            Line::Label { prompt, label, shares, protected } => {
                let name = rename.unwrap_or(&prompt);
                checked("label", &label)?;
                let here = |(version, weight): &(u32, u32)| {
                    let found = numbers.get(&(prompt.clone(), *version));
                    let missing = || Error::Invalid(format!("label `{label}`: version {version} is not in the file"));
                    found.map(|&version| Share { version, weight: *weight }).ok_or_else(missing)
                };
                let change = LabelChange {
                    shares: shares.iter().map(here).collect::<Result<_>>()?,
                    protected,
                    expected: None,
                    force: false,
                    author: change.author.clone(),
                    message: change.message.clone(),
                };
                if !prompts.head(name)?.0.labels.contains_key(&label) {
                    prompts.update(name, |head| labels::set(head, name, &label, &change))?;
                }
            }
        }
    }
    Ok(loaded)
}

fn read_lines(text: &str) -> Result<Vec<Line>> {
    if text.len() > MAX_BYTES {
        return Err(Error::TooLarge(format!("{MAX_BYTES} bytes a file")));
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read = |(i, line): (usize, &str)| {
        if i >= MAX_LINES {
            return Err(Error::TooLarge(format!("{MAX_LINES} lines a file")));
        }
        serde_json::from_str(line).map_err(|e| Error::Invalid(format!("line {}: {e}", i + 1)))
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
