//! Labels: names that move from version to version, for all callers or for a share of them.

use crate::store::Head;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use stockade_guest::prompt_store as api;
use stockade_guest::prompt_store::LabelChange;
use stockade_guest::{Error, Result, system};

/// Most labels of a prompt, and versions of a label.
const MAX_LABELS: usize = 100;
const MAX_SHARES: usize = 16;
const MAX_WEIGHT: u32 = 1_000_000;
/// Most moves that a prompt remembers.
const MAX_MOVES: usize = 100;
/// Most bytes of a move's author or message.
const MAX_NOTE_BYTES: usize = 500;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Label {
    /// Version and weight.
    pub shares: Vec<(u32, u32)>,
    pub protected: bool,
    pub revision: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Move {
    pub label: String,
    pub shares: Vec<(u32, u32)>,
    pub author: String,
    pub message: String,
    /// Milliseconds since 1970.
    pub created: u64,
}

impl Label {
    /// The version for a caller: by its key always the same, without one by chance.
    ///
    /// Source: the point of a key is the first eight bytes of SHA-256 over prompt, label and key, modulo the weights'
    /// sum; the shares lie one after the other below it.
    pub fn draw(&self, prompt: &str, label: &str, key: Option<&str>) -> u32 {
        let total: u64 = self.shares.iter().map(|s| u64::from(s.1)).sum();
        let random = match key {
            _ if self.shares.len() < 2 => Vec::new(),
            Some(key) => Sha256::digest(format!("{prompt}\0{label}\0{key}")).to_vec(),
            None => system::random(8),
        };
        let mut point = random.iter().take(8).fold(0u64, |n, b| n << 8 | u64::from(*b)) % total.max(1);
        for (version, weight) in &self.shares {
            match point.checked_sub((*weight).into()) {
                Some(rest) => point = rest,
                None => return *version,
            }
        }
        // Not reached: the point lies below the sum.
        self.shares.last().map_or(0, |s| s.0)
    }

    pub fn as_api(&self, name: &str) -> api::Label {
        let (name, shares) = (name.to_string(), shares(&self.shares));
        api::Label { name, shares, protected: self.protected, revision: self.revision }
    }
}

impl Move {
    pub fn as_api(&self) -> api::LabelMove {
        api::LabelMove {
            label: self.label.clone(),
            shares: shares(&self.shares),
            author: self.author.clone(),
            message: self.message.clone(),
            created: self.created,
        }
    }
}

fn shares(shares: &[(u32, u32)]) -> Vec<api::Share> {
    shares.iter().map(|&(version, weight)| api::Share { version, weight }).collect()
}

/// Points a label at versions.
pub fn set(head: &mut Head, prompt: &str, name: &str, change: &LabelChange) -> Result<Label> {
    if change.shares.is_empty() || change.shares.len() > MAX_SHARES {
        return Err(Error::Invalid(format!("shares: 1 to {MAX_SHARES} versions")));
    }
    for (i, share) in change.shares.iter().enumerate() {
        head.resolve(prompt, &api::Selector::Version(share.version))?;
        if !(1..=MAX_WEIGHT).contains(&share.weight) {
            return Err(Error::Invalid(format!("weight: 1 to {MAX_WEIGHT}")));
        }
        if change.shares[..i].iter().any(|s| s.version == share.version) {
            return Err(Error::Invalid(format!("version {} has two shares", share.version)));
        }
    }
    expect(head, name, change)?;
    let label = Label {
        shares: change.shares.iter().map(|s| (s.version, s.weight)).collect(),
        protected: change.protected,
        revision: change.expected.unwrap_or_default().saturating_add(1),
    };
    head.labels.insert(name.into(), label.clone());
    if head.labels.len() > MAX_LABELS {
        return Err(Error::TooLarge(format!("{MAX_LABELS} labels a prompt")));
    }
    remember(head, name, change)?;
    Ok(label)
}

/// Takes a label away.
pub fn delete(head: &mut Head, name: &str, change: &LabelChange) -> Result<()> {
    if !head.labels.contains_key(name) {
        return Err(Error::NotFound(format!("label `{name}`")));
    }
    if !change.shares.is_empty() {
        return Err(Error::Invalid("shares: a deleted label has none".into()));
    }
    expect(head, name, change)?;
    head.labels.remove(name);
    remember(head, name, change)
}

fn expect(head: &Head, name: &str, change: &LabelChange) -> Result<()> {
    let now = head.labels.get(name);
    if now.map(|l| l.revision) != change.expected {
        let now = now.map_or("is not there".into(), |l| format!("has revision {}", l.revision));
        return Err(Error::Conflict(format!("label `{name}` {now}")));
    }
    match now {
        Some(label) if label.protected && !change.force => Err(Error::Conflict(format!("label `{name}` is protected"))),
        _ => Ok(()),
    }
}

fn remember(head: &mut Head, name: &str, change: &LabelChange) -> Result<()> {
    if change.author.len() > MAX_NOTE_BYTES || change.message.len() > MAX_NOTE_BYTES {
        return Err(Error::TooLarge(format!("{MAX_NOTE_BYTES} bytes an author or a message")));
    }
    head.moves.push_front(Move {
        label: name.into(),
        shares: change.shares.iter().map(|s| (s.version, s.weight)).collect(),
        author: change.author.clone(),
        message: change.message.clone(),
        created: system::now(),
    });
    head.moves.truncate(MAX_MOVES);
    Ok(())
}
