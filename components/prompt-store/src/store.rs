//! The bucket's layout, JSON each: `head/NAME` is what moves of a prompt, `version/NAME/NUMBER` a version.
//!
//! Invariants:
//! - a version's entry is written in the commit of the head that counts it, and never again
//! - a number is never given twice, not even after its version or its whole prompt was deleted
//! - a version that a label points at is not deleted, since both are decided by the same compare-and-set of the head

use crate::definition::Definition;
use crate::labels::{Label, Move};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use stockade_guest::prompt_store as api;
use stockade_guest::prompt_store::Selector;
use stockade_guest::state::{self, Bucket, Expectation, Write};
use stockade_guest::{Error, Result, system};

/// How often a write is tried again after somebody else's came between.
const MAX_ATTEMPTS: u32 = 16;
/// Most single versions that are deleted of a prompt.
const MAX_DELETED: usize = 1000;
/// Most bytes of an author or a message.
const MAX_NOTE_BYTES: usize = 1000;

/// What moves of a prompt.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// The newest version that is there; 0: the prompt is deleted.
    pub latest: u32,
    /// The highest number that was ever given.
    pub last: u32,
    /// Versions up to here went with the prompt they belonged to.
    pub floor: u32,
    /// Single versions that were deleted.
    pub deleted: BTreeSet<u32>,
    pub labels: BTreeMap<String, Label>,
    /// The labels' newest moves, newest first.
    pub moves: VecDeque<Move>,
    /// The latest version's, to be found by.
    pub description: String,
    pub tags: Vec<String>,
}

/// A version that a selector has found.
#[derive(Debug, PartialEq)]
pub struct Resolved {
    pub number: u32,
    pub exposure: Option<api::Exposure>,
}

impl Head {
    pub fn has(&self, version: u32) -> bool {
        version > self.floor && version <= self.last && !self.deleted.contains(&version)
    }

    pub fn resolve(&self, name: &str, selector: &Selector) -> Result<Resolved> {
        let plain = |number| Resolved { number, exposure: None };
        let (label, key) = match selector {
            Selector::Latest => return Ok(plain(self.latest)),
            Selector::Version(n) if self.has(*n) => return Ok(plain(*n)),
            Selector::Version(n) => return Err(Error::NotFound(format!("prompt `{name}` version {n}"))),
            Selector::Label(label) => (label, None),
            Selector::Sticky(sticky) => (&sticky.label, Some(&*sticky.key)),
        };
        if label == "latest" {
            return Ok(plain(self.latest));
        }
        let found = self.labels.get(label);
        let found = found.ok_or_else(|| Error::NotFound(format!("prompt `{name}` label `{label}`")))?;
        let exposure = api::Exposure {
            label: label.clone(),
            revision: found.revision,
            versions: found.shares.len().try_into().unwrap_or(u32::MAX),
        };
        Ok(Resolved { number: found.draw(name, label, key), exposure: Some(exposure) })
    }

    /// Labels that point at a version, alone or with others.
    pub fn labels_of(&self, version: u32) -> Vec<api::Label> {
        let here = self.labels.iter().filter(|(_, l)| l.shares.iter().any(|s| s.0 == version));
        here.map(|(name, label)| label.as_api(name)).collect()
    }

    fn count(&mut self, number: u32, definition: &Definition) {
        (self.latest, self.last) = (number, number);
        self.description = definition.description.clone();
        self.tags = definition.tags.clone();
    }
}

/// `3` or `production`, as templates and files name a version.
pub fn selector(text: &str) -> Selector {
    text.parse().map_or_else(|_| Selector::Label(text.into()), Selector::Version)
}

/// A version.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    pub digest: String,
    pub parent: Option<u32>,
    pub author: String,
    pub message: String,
    /// Milliseconds since 1970.
    pub created: u64,
    pub definition: Definition,
}

impl Version {
    pub fn as_api(&self, number: u32) -> api::Version {
        api::Version {
            number,
            digest: self.digest.clone(),
            parent: self.parent,
            author: self.author.clone(),
            message: self.message.clone(),
            created: self.created,
        }
    }
}

/// A version as it is stored.
#[derive(Serialize, Deserialize)]
struct Entry {
    digest: String,
    parent: Option<u32>,
    author: String,
    message: String,
    created: u64,
    definition: Value,
}

impl TryFrom<Entry> for Version {
    type Error = Error;
    fn try_from(entry: Entry) -> Result<Self> {
        let Entry { digest, parent, author, message, created, definition } = entry;
        let definition = Definition::from_json(definition)?;
        Ok(Self { digest, parent, author, message, created, definition })
    }
}

impl From<&Version> for Entry {
    fn from(version: &Version) -> Self {
        let Version { digest, parent, author, message, created, definition } = version.clone();
        Self { digest, parent, author, message, created, definition: definition.to_json() }
    }
}

/// A version that is to be added.
#[derive(Debug)]
pub struct NewVersion {
    pub definition: Definition,
    pub author: String,
    pub message: String,
    /// `None`: the latest.
    pub parent: Option<u32>,
    /// What must be the latest version; 0: none.
    pub expected_latest: Option<u32>,
    /// `None`: now.
    pub created: Option<u64>,
}

pub struct Prompts(Bucket);

pub fn open(bucket: &str) -> Result<Prompts> {
    state::open(bucket).map(Prompts)
}

impl Prompts {
    /// A prompt's head and its revision. A deleted prompt is not found.
    pub fn head(&self, name: &str) -> Result<(Head, u64)> {
        let found = self.0.get_json::<Head>(&head_key(name))?.filter(|(head, _)| head.latest > 0);
        found.ok_or_else(|| Error::NotFound(format!("prompt `{name}`")))
    }

    /// A version, which is what was put: its digest is checked.
    pub fn version(&self, name: &str, number: u32) -> Result<Version> {
        let found = self.0.get_json::<Entry>(&version_key(name, number))?;
        let lost = || Error::Other(format!("prompt `{name}` has lost its version {number}"));
        let version = Version::try_from(found.ok_or_else(lost)?.0)?;
        if version.digest != version.definition.digest() {
            return Err(Error::Other(format!("prompt `{name}` version {number} is not what was put")));
        }
        Ok(version)
    }

    /// Numbers after `after` with their versions, in order, at most `limit`.
    pub fn versions(&self, name: &str, after: u32, limit: u32) -> Result<Vec<(u32, Version)>> {
        let (head, _) = self.head(name)?;
        let prefix = versions_of(name);
        let mut found: Vec<(u32, Version)> = Vec::new();
        let mut after = version_key(name, after.max(head.floor));
        while found.len() < limit as usize {
            let page = self.0.scan(&prefix, Some(&after), limit - found.len() as u32)?;
            let Some(last) = page.last() else { break };
            after = last.key.clone();
            for entry in page {
                let number = entry.key.strip_prefix(&prefix).and_then(|n| n.parse().ok());
                if let Some(number) = number.filter(|n| head.has(*n)) {
                    let entry: Entry = serde_json::from_slice(&entry.value)?;
                    found.push((number, entry.try_into()?));
                }
            }
        }
        Ok(found)
    }

    /// Heads after the name `after`, in order, as far as `wanted` wants them and at most `limit`.
    pub fn heads(
        &self,
        after: Option<&str>,
        limit: u32,
        wanted: impl Fn(&str, &Head) -> Result<bool>,
    ) -> Result<Vec<(String, Head)>> {
        let mut heads: Vec<(String, Head)> = Vec::new();
        let mut after = after.map(head_key);
        while heads.len() < limit as usize {
            let page = self.0.scan(HEADS, after.as_deref(), 100)?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            for entry in page {
                let head: Head = serde_json::from_slice(&entry.value)?;
                let name = entry.key.strip_prefix(HEADS).unwrap_or_default();
                if heads.len() < limit as usize && head.latest > 0 && wanted(name, &head)? {
                    heads.push((name.into(), head));
                }
            }
        }
        Ok(heads)
    }

    /// Adds a version, unless it equals the latest one, and returns it with its number.
    pub fn add(&self, name: &str, new: NewVersion) -> Result<(u32, Version)> {
        if new.author.len() > MAX_NOTE_BYTES || new.message.len() > MAX_NOTE_BYTES {
            return Err(Error::TooLarge(format!("{MAX_NOTE_BYTES} bytes an author or a message")));
        }
        let digest = new.definition.digest();
        for _ in 0..MAX_ATTEMPTS {
            let (mut head, revision) = match self.0.get_json::<Head>(&head_key(name))? {
                Some((head, revision)) => (head, Expectation::Revision(revision)),
                None => (Head::default(), Expectation::Absent),
            };
            if new.expected_latest.is_some_and(|expected| expected != head.latest) {
                return Err(Error::Conflict(format!("prompt `{name}`: the latest version is {}", head.latest)));
            }
            if let Some(parent) = new.parent.filter(|p| !head.has(*p)) {
                return Err(Error::NotFound(format!("prompt `{name}` version {parent}")));
            }
            if head.latest > 0 {
                let latest = self.version(name, head.latest)?;
                if latest.digest == digest {
                    return Ok((head.latest, latest));
                }
            }
            let next = head.last.checked_add(1).ok_or_else(|| Error::TooLarge("versions of a prompt".into()))?;
            let version = Version {
                digest: digest.clone(),
                parent: new.parent.or((head.latest > 0).then_some(head.latest)),
                author: new.author.clone(),
                message: new.message.clone(),
                created: new.created.unwrap_or_else(system::now),
                definition: new.definition.clone(),
            };
            head.count(next, &version.definition);
            let writes = [
                Write::set_json(version_key(name, next), &Entry::from(&version))?.expect(Expectation::Absent),
                Write::set_json(head_key(name), &head)?.expect(revision),
            ];
            match self.0.commit(&writes) {
                Ok(_) => return Ok((next, version)),
                Err(Error::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Overloaded)
    }

    /// Changes a prompt's head, again from the start when somebody else's change came between.
    pub fn update<T>(&self, name: &str, change: impl Fn(&mut Head) -> Result<T>) -> Result<T> {
        for _ in 0..MAX_ATTEMPTS {
            let (mut head, revision) = self.head(name)?;
            let answer = change(&mut head)?;
            match self.0.set_json(&head_key(name), &head, Expectation::Revision(revision)) {
                Ok(_) => return Ok(answer),
                Err(Error::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Overloaded)
    }

    /// Deletes one version.
    pub fn delete_version(&self, name: &str, number: u32) -> Result<()> {
        let before = |head: &Head| (head.floor + 1..number).rev().find(|n| head.has(*n));
        // What the version before the latest one says, should the latest go.
        let (head, _) = self.head(name)?;
        let earlier = before(&head).map(|n| self.version(name, n)).transpose()?;
        self.update(name, |head| {
            head.resolve(name, &Selector::Version(number))?;
            if let Some(label) = head.labels_of(number).first() {
                return Err(Error::Conflict(format!("label `{}` points at version {number}", label.name)));
            }
            if head.deleted.len() >= MAX_DELETED {
                return Err(Error::TooLarge(format!("{MAX_DELETED} deleted versions of a prompt")));
            }
            if head.latest == number {
                let (Some(latest), Some(earlier)) = (before(head), &earlier) else {
                    return Err(Error::Conflict(format!("version {number} is the only one: delete the prompt")));
                };
                head.latest = latest;
                head.description = earlier.definition.description.clone();
                head.tags = earlier.definition.tags.clone();
            }
            head.deleted.insert(number);
            Ok(())
        })?;
        self.0.delete(&version_key(name, number), Expectation::Anything)
    }

    /// Deletes a prompt with its versions and labels. Its numbers stay taken.
    pub fn delete(&self, name: &str, force: bool) -> Result<()> {
        let (from, to) = self.update(name, |head| {
            if let Some((label, _)) = head.labels.iter().find(|(_, l)| l.protected && !force) {
                return Err(Error::Conflict(format!("label `{label}` is protected")));
            }
            let (from, last) = (head.floor + 1, head.last);
            *head = Head { last, floor: last, ..Head::default() };
            Ok((from, last))
        })?;
        let deletes: Vec<Write> = (from..=to).map(|n| Write::delete(version_key(name, n))).collect();
        self.0.write_all(&deletes)
    }
}

const HEADS: &str = "head/";

fn head_key(name: &str) -> String {
    format!("{HEADS}{name}")
}
fn versions_of(name: &str) -> String {
    format!("version/{name}/")
}
fn version_key(name: &str, version: u32) -> String {
    format!("version/{name}/{version:010}")
}
