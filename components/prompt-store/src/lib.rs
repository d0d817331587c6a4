//! Prompts in immutable versions under movable labels, in a state bucket.
//!
//! A prompt is one [`store::Head`] (its latest version, its labels) and one entry a version. Invariant: a version's
//! entry is written before the head that counts it, with the expectation that it is absent, and never again. Whatever
//! two writers do at once, a version number means one definition for ever.

mod store;
mod template;

use stockade_guest::prelude::*;
use stockade_guest::prompt_store::{Content, Definition, Prompt, Rendered, Selector};

/// Most bytes of a prompt's or a label's name.
const MAX_NAME_BYTES: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Store {
    #[serde(default = "prompts")]
    bucket: String,
}

fn prompts() -> String {
    "prompts".into()
}

impl PromptStore for Store {
    fn put(&self, name: String, definition: Definition) -> Result<u32> {
        checked("name", &name)?;
        template::validate(&definition)?;
        store::open(&self.bucket)?.add(&name, definition.into())
    }

    fn get(&self, name: String, selector: Selector) -> Result<Prompt> {
        let store = store::open(&self.bucket)?;
        let (head, _) = store.head(&name)?;
        let version = head.resolve(&name, &selector)?;
        Ok(Prompt { definition: store.version(&name, version)?.into(), labels: head.labels_of(version), name, version })
    }

    fn names(&self, after: Option<String>, limit: u32) -> Result<Vec<String>> {
        if !(1..=1000).contains(&limit) {
            return Err(Error::Invalid("limit: 1 to 1000".into()));
        }
        store::open(&self.bucket)?.names(after.as_deref(), limit)
    }

    fn set_label(&self, name: String, label: String, version: u32, expected: Option<u32>) -> Result<()> {
        checked("label", &label)?;
        if label == "latest" {
            return Err(Error::Invalid("label: `latest` always names the newest version".into()));
        }
        store::open(&self.bucket)?.update(&name, |head| {
            head.resolve(&name, &Selector::Version(version))?;
            if head.labels.get(&label).copied() != expected {
                return Err(Error::Conflict(format!("label `{label}`")));
            }
            head.labels.insert(label.clone(), version);
            Ok(())
        })
    }

    fn delete_label(&self, name: String, label: String) -> Result<()> {
        store::open(&self.bucket)?.update(&name, |head| match head.labels.remove(&label) {
            Some(_) => Ok(()),
            None => Err(Error::NotFound(format!("label `{label}`"))),
        })
    }

    fn render(&self, name: String, selector: Selector, variables: String) -> Result<Rendered> {
        let store = store::open(&self.bucket)?;
        let (head, _) = store.head(&name)?;
        let version = head.resolve(&name, &selector)?;
        let content: Content = template::render(&store.version(&name, version)?.into(), &variables)?;
        Ok(Rendered { version, content })
    }
}

/// Names stand in keys of the bucket: short, and without the separator.
fn checked(what: &str, name: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(fine) {
        return Err(Error::Invalid(format!("{what}: 1 to {MAX_NAME_BYTES} of a-z, A-Z, 0-9, `-`, `_`, `.`")));
    }
    Ok(())
}

stockade_guest::export!(Store as prompt_store);

#[cfg(test)]
mod tests;
