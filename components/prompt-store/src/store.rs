//! The bucket's layout: `head/NAME` and `version/NAME/NUMBER`, JSON each.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use stockade_guest::prompt_store::{Definition, Selector, Template, TemplateMessage, Variable, VariableKind};
use stockade_guest::state::{self, Bucket, Expectation};
use stockade_guest::types::Role;
use stockade_guest::{Error, Result};

/// How often a write is tried again after somebody else's came between.
const MAX_ATTEMPTS: u32 = 16;
/// Most labels of a prompt.
const MAX_LABELS: usize = 100;

/// What moves of a prompt.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Head {
    /// The newest version; they count from 1 without gaps.
    pub latest: u32,
    pub labels: BTreeMap<String, u32>,
}

impl Head {
    /// The version's number.
    pub fn resolve(&self, name: &str, selector: &Selector) -> Result<u32> {
        match selector {
            Selector::Latest => Ok(self.latest),
            Selector::Version(n) if (1..=self.latest).contains(n) => Ok(*n),
            Selector::Version(n) => Err(Error::NotFound(format!("prompt `{name}` version {n}"))),
            Selector::Label(label) if label == "latest" => Ok(self.latest),
            Selector::Label(label) => {
                let version = self.labels.get(label).copied();
                version.ok_or_else(|| Error::NotFound(format!("prompt `{name}` label `{label}`")))
            }
        }
    }

    pub fn labels_of(&self, version: u32) -> Vec<String> {
        let here = self.labels.iter().filter(|(_, v)| **v == version);
        here.map(|(label, _)| label.clone()).collect()
    }
}

pub struct Prompts(Bucket);

pub fn open(bucket: &str) -> Result<Prompts> {
    state::open(bucket).map(Prompts)
}

impl Prompts {
    /// A prompt's head and its revision.
    pub fn head(&self, name: &str) -> Result<(Head, u64)> {
        let found = self.0.get_json(&head_key(name))?;
        found.ok_or_else(|| Error::NotFound(format!("prompt `{name}`")))
    }

    pub fn version(&self, name: &str, version: u32) -> Result<Stored> {
        match self.0.get_json(&version_key(name, version))? {
            Some((definition, _)) => Ok(definition),
            None => Err(Error::Other(format!("prompt `{name}` has lost its version {version}"))),
        }
    }

    pub fn names(&self, after: Option<&str>, limit: u32) -> Result<Vec<String>> {
        let mut names: Vec<String> = Vec::new();
        let mut after = after.map(head_key);
        while names.len() < limit as usize {
            let page = self.0.scan(HEADS, after.as_deref(), limit - names.len() as u32)?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            names.extend(page.iter().filter_map(|e| e.key.strip_prefix(HEADS)).map(str::to_string));
        }
        Ok(names)
    }

    /// Adds a version, unless it equals the latest one, and returns its number.
    pub fn add(&self, name: &str, definition: Stored) -> Result<u32> {
        for _ in 0..MAX_ATTEMPTS {
            let (mut head, revision) = match self.head(name) {
                Ok((head, revision)) => (head, Some(revision)),
                Err(Error::NotFound(_)) => (Head::default(), None),
                Err(error) => return Err(error),
            };
            if head.latest > 0 && self.version(name, head.latest)? == definition {
                return Ok(head.latest);
            }
            let next = head.latest.checked_add(1).ok_or_else(|| Error::TooLarge("versions of a prompt".into()))?;
            match self.0.set_json(&version_key(name, next), &definition, Expectation::Absent) {
                Ok(_) => {}
                // Written by a call that has not come to the head yet, or never will. The same definition is as good
                // as ours; another one keeps its number, so it is counted in before we go on.
                Err(Error::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
            let ours = self.version(name, next)? == definition;
            head.latest = next;
            let expect = revision.map_or(Expectation::Absent, Expectation::Revision);
            match self.0.set_json(&head_key(name), &head, expect) {
                Ok(_) if ours => return Ok(next),
                Ok(_) | Err(Error::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Overloaded)
    }

    /// Changes a prompt's head, again from the start when somebody else's change came between.
    pub fn update(&self, name: &str, change: impl Fn(&mut Head) -> Result<()>) -> Result<()> {
        for _ in 0..MAX_ATTEMPTS {
            let (mut head, revision) = self.head(name)?;
            change(&mut head)?;
            if head.labels.len() > MAX_LABELS {
                return Err(Error::TooLarge(format!("{MAX_LABELS} labels a prompt")));
            }
            match self.0.set_json(&head_key(name), &head, Expectation::Revision(revision)) {
                Ok(_) => return Ok(()),
                Err(Error::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Overloaded)
    }
}

const HEADS: &str = "head/";

fn head_key(name: &str) -> String {
    format!("{HEADS}{name}")
}
fn version_key(name: &str, version: u32) -> String {
    format!("version/{name}/{version:010}")
}

/// A definition as JSON. The API's own type is generated and does not serialise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    template: StoredTemplate,
    variables: Vec<StoredVariable>,
    description: String,
    metadata: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StoredTemplate {
    Text(String),
    /// Role and content.
    Chat(Vec<(StoredRole, String)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StoredRole {
    System,
    User,
    Assistant,
    Tool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct StoredVariable {
    name: String,
    kind: StoredKind,
    required: bool,
    default: Option<String>,
    description: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StoredKind {
    Text,
    Number,
    Boolean,
    Json,
}

/// Two enums of the same cases, turned into each other.
macro_rules! same_cases {
    ($a:ident, $b:ident: $($case:ident)*) => {
        impl From<$a> for $b {
            fn from(value: $a) -> Self {
                match value { $($a::$case => Self::$case,)* }
            }
        }
        impl From<$b> for $a {
            fn from(value: $b) -> Self {
                match value { $($b::$case => Self::$case,)* }
            }
        }
    };
}
same_cases!(Role, StoredRole: System User Assistant Tool);
same_cases!(VariableKind, StoredKind: Text Number Boolean Json);

impl From<Definition> for Stored {
    fn from(d: Definition) -> Self {
        let template = match d.template {
            Template::Text(text) => StoredTemplate::Text(text),
            Template::Chat(messages) => {
                StoredTemplate::Chat(messages.into_iter().map(|m| (m.role.into(), m.content)).collect())
            }
        };
        let variable = |v: Variable| StoredVariable {
            name: v.name,
            kind: v.kind.into(),
            required: v.required,
            default: v.default,
            description: v.description,
        };
        Self {
            template,
            variables: d.variables.into_iter().map(variable).collect(),
            description: d.description,
            metadata: d.metadata,
        }
    }
}

impl From<Stored> for Definition {
    fn from(s: Stored) -> Self {
        let template = match s.template {
            StoredTemplate::Text(text) => Template::Text(text),
            StoredTemplate::Chat(messages) => {
                let message = |(role, content): (StoredRole, String)| TemplateMessage { role: role.into(), content };
                Template::Chat(messages.into_iter().map(message).collect())
            }
        };
        let variable = |v: StoredVariable| Variable {
            name: v.name,
            kind: v.kind.into(),
            required: v.required,
            default: v.default,
            description: v.description,
        };
        Self {
            template,
            variables: s.variables.into_iter().map(variable).collect(),
            description: s.description,
            metadata: s.metadata,
        }
    }
}
