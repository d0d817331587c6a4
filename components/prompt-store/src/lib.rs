//! Prompts in immutable versions under movable labels, in a state bucket.
//!
//! [`store`] owns what is kept and how it changes, [`definition`] what a version holds, [`template`] the languages that
//! templates are written in. Everything that comes in is hostile: sizes, depths and steps are bounded where they arise.

mod definition;
mod diff;
mod dotprompt;
mod files;
mod inclusion;
mod labels;
mod messages;
mod picoschema;
mod render;
mod schema;
mod store;
mod template;
mod variables;
mod yaml;

use definition::Definition;
use stockade_guest::prelude::*;
use stockade_guest::prompt_store as api;
use stockade_guest::prompt_store::{
    Change, Content, Difference, Filter, Form, Label, LabelChange, LabelMove, Prompt, Rendered, Selector, Summary,
    Unit, Version,
};
use store::{NewVersion, Prompts};

/// Most bytes of a prompt's or a label's name.
const MAX_NAME_BYTES: usize = 100;
/// Most bytes of a text that is searched for.
const MAX_FILTER_BYTES: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Store {
    #[serde(default = "prompts")]
    bucket: String,
}

fn prompts() -> String {
    "prompts".into()
}

impl Store {
    fn open(&self) -> Result<Prompts> {
        store::open(&self.bucket)
    }
}

impl PromptStore for Store {
    fn put(&self, name: String, definition: api::Definition, change: Change) -> Result<Version> {
        checked("name", &name)?;
        let prompts = self.open()?;
        let Change { author, message, parent, expected_latest } = change;
        let definition = complete(&prompts, definition)?;
        let new = NewVersion { definition, author, message, parent, expected_latest, created: None };
        prompts.add(&name, new).map(|(number, version)| version.as_api(number))
    }

    fn get(&self, name: String, selector: Selector) -> Result<Prompt> {
        let prompts = self.open()?;
        let (head, _) = prompts.head(&name)?;
        let number = head.resolve(&name, &selector)?.number;
        let version = prompts.version(&name, number)?;
        Ok(Prompt {
            labels: head.labels_of(number),
            version: version.as_api(number),
            definition: version.definition.into(),
            name,
        })
    }

    fn versions(&self, name: String, after: Option<u32>, limit: u32) -> Result<Vec<Version>> {
        page(limit)?;
        let versions = self.open()?.versions(&name, after.unwrap_or_default(), limit)?;
        Ok(versions.iter().map(|(number, version)| version.as_api(*number)).collect())
    }

    fn find(&self, filter: Filter, after: Option<String>, limit: u32) -> Result<Vec<Summary>> {
        page(limit)?;
        let prompts = self.open()?;
        let text = filter.text.map(|t| t.to_lowercase());
        if text.as_ref().is_some_and(|t| t.len() > MAX_FILTER_BYTES) {
            return Err(Error::TooLarge(format!("{MAX_FILTER_BYTES} bytes to search for")));
        }
        let heads = prompts.heads(after.as_deref(), limit, |name, head| {
            if filter.tag.as_ref().is_some_and(|tag| !head.tags.contains(tag)) {
                return Ok(false);
            }
            let Some(text) = &text else { return Ok(true) };
            let has = |found: &str| found.to_lowercase().contains(text);
            if has(name) || has(&head.description) {
                return Ok(true);
            }
            Ok(prompts.version(name, head.latest)?.definition.texts().iter().any(|(_, found)| has(found)))
        })?;
        let summary = |(name, head): (String, store::Head)| Summary {
            name,
            latest: head.latest,
            labels: head.labels.iter().map(|(name, label)| label.as_api(name)).collect(),
            description: head.description,
            tags: head.tags,
        };
        Ok(heads.into_iter().map(summary).collect())
    }

    fn set_label(&self, name: String, label: String, change: LabelChange) -> Result<Label> {
        checked("label", &label)?;
        if label == "latest" || label.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Error::Invalid(format!("label: `{label}` always names a version")));
        }
        let set = self.open()?.update(&name, |head| labels::set(head, &name, &label, &change))?;
        Ok(set.as_api(&label))
    }

    fn delete_label(&self, name: String, label: String, change: LabelChange) -> Result<()> {
        self.open()?.update(&name, |head| labels::delete(head, &label, &change))
    }

    fn label_moves(&self, name: String) -> Result<Vec<LabelMove>> {
        Ok(self.open()?.head(&name)?.0.moves.iter().map(labels::Move::as_api).collect())
    }

    fn delete(&self, name: String, version: Option<u32>, force: bool) -> Result<()> {
        match version {
            Some(version) => self.open()?.delete_version(&name, version),
            None => self.open()?.delete(&name, force),
        }
    }

    fn render(&self, name: String, selector: Selector, variables: String) -> Result<Rendered> {
        let prompts = self.open()?;
        let resolved = prompts.head(&name)?.0.resolve(&name, &selector)?;
        let version = prompts.version(&name, resolved.number)?;
        Ok(Rendered {
            version: resolved.number,
            exposure: resolved.exposure,
            content: render::render(&version.definition, &variables)?,
            digest: version.digest,
            model_config: Value::Object(version.definition.model_config).to_string(),
        })
    }

    fn render_inline(&self, definition: api::Definition, variables: String) -> Result<Content> {
        render::render(&complete(&self.open()?, definition)?, &variables)
    }

    fn diff(&self, name: String, before: Selector, after: Selector, unit: Unit) -> Result<Vec<Difference>> {
        let prompts = self.open()?;
        let (head, _) = prompts.head(&name)?;
        let definition = |selector| -> Result<Definition> {
            Ok(prompts.version(&name, head.resolve(&name, selector)?.number)?.definition)
        };
        diff::diff(&definition(&before)?, &definition(&after)?, unit)
    }

    fn dump(&self, name: String, selector: Selector, form: Form) -> Result<String> {
        let prompts = self.open()?;
        match form {
            Form::JsonLines => files::dump_lines(&prompts, &name),
            Form::Dotprompt => {
                let number = prompts.head(&name)?.0.resolve(&name, &selector)?.number;
                dotprompt::write(&name, &prompts.version(&name, number)?.definition)
            }
        }
    }

    fn load(&self, name: Option<String>, text: String, form: Form, change: Change) -> Result<Vec<Version>> {
        let prompts = self.open()?;
        let loaded = match form {
            Form::JsonLines => files::load_lines(&prompts, name.as_deref(), &text, &change)?,
            Form::Dotprompt => vec![files::load_dotprompt(&prompts, name.as_deref(), &text, change)?],
        };
        Ok(loaded.iter().map(|(number, version)| version.as_api(*number)).collect())
    }
}

/// A definition with all that it includes, checked.
fn complete(prompts: &Prompts, definition: api::Definition) -> Result<Definition> {
    let mut definition = Definition::try_from(definition)?;
    inclusion::resolve(prompts, &mut definition)?;
    definition.validate()?;
    Ok(definition)
}

/// Names stand in keys of the bucket: short, and without the separator.
fn checked(what: &str, name: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(fine) {
        return Err(Error::Invalid(format!("{what}: 1 to {MAX_NAME_BYTES} of a-z, A-Z, 0-9, `-`, `_`, `.`")));
    }
    Ok(())
}

fn page(limit: u32) -> Result<()> {
    if (1..=1000).contains(&limit) { Ok(()) } else { Err(Error::Invalid("limit: 1 to 1000".into())) }
}

stockade_guest::export!(Store as prompt_store);

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod tests;
