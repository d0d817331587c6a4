//! Banks: their rows, what they are set to, and the layout of the bucket.
//!
//! ```text
//! bank/BANK                    Settings
//! item/BANK/ID                 records::Record
//! document/BANK/DOCUMENT       records::DocumentRecord
//! words/BANK/LEVEL/SEGMENT     segment::Segment
//! edge/BANK/HASH/FROM          graph::Incoming; HASH is of the id that the edges lead to
//! ```

use crate::chunking::Chunking;
use crate::{Banks, embedding, words};
use serde_json::Map;
use stockade_guest::memory::{Bank as Listed, BankKind};
use stockade_guest::prelude::*;
use stockade_guest::state::{Bucket, Expectation};
use stockade_guest::vectors;

/// Longest name of a bank.
const MAX_NAME_BYTES: usize = 48;
/// Longest time to live: a hundred years.
const MAX_TTL_SECONDS: u64 = 100 * 366 * 86_400;

/// What a bank is, from its making on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    pub kind: Kind,
    pub config: Config,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Vector,
    Keyword,
    Hybrid,
    Keyvalue,
    Graph,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub embedding_model: String,
    pub language: String,
    pub chunking: Chunking,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
}

/// An open bank.
pub struct Bank {
    pub name: String,
    pub settings: Settings,
    pub bucket: Bucket,
    /// Of its vectors.
    pub index: String,
}

impl Kind {
    pub fn has_vectors(self) -> bool {
        matches!(self, Self::Vector | Self::Hybrid)
    }
    pub fn has_words(self) -> bool {
        matches!(self, Self::Keyword | Self::Hybrid | Self::Graph)
    }
}

impl From<BankKind> for Kind {
    fn from(kind: BankKind) -> Self {
        match kind {
            BankKind::Vector => Self::Vector,
            BankKind::Keyword => Self::Keyword,
            BankKind::Hybrid => Self::Hybrid,
            BankKind::Keyvalue => Self::Keyvalue,
            BankKind::Graph => Self::Graph,
        }
    }
}

impl From<Kind> for BankKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Vector => Self::Vector,
            Kind::Keyword => Self::Keyword,
            Kind::Hybrid => Self::Hybrid,
            Kind::Keyvalue => Self::Keyvalue,
            Kind::Graph => Self::Graph,
        }
    }
}

impl Banks {
    /// Makes a bank; the same again is no error.
    pub fn make(&self, name: &str, kind: BankKind, config: &str) -> Result<Bank> {
        check_name(name)?;
        let settings = Settings { kind: kind.into(), config: self.config(config)? };
        let bank = self.open(name, settings.clone())?;
        match bank.bucket.get_json::<Settings>(&bank_key(name))? {
            Some((found, _)) if found == settings => return Ok(bank),
            Some(_) => return Err(Error::Conflict(format!("bank `{name}` is of another kind or config"))),
            None => {}
        }
        // What a drop that was cut off has left behind must not come back to life.
        bank.purge()?;
        match bank.bucket.set_json(&bank_key(name), &settings, Expectation::Absent) {
            Ok(_) => Ok(bank),
            // Somebody else made it meanwhile.
            Err(Error::Conflict(_)) => {
                let found = self.bank(name)?;
                let same = found.settings == settings;
                if same {
                    Ok(found)
                } else {
                    Err(Error::Conflict(format!("bank `{name}` is of another kind or config")))
                }
            }
            Err(e) => Err(e),
        }
    }

    /// `None`: nobody has made it or written to it, so there is nothing in it.
    pub fn find(&self, name: &str) -> Result<Option<Bank>> {
        check_name(name)?;
        let bucket = state::open(&self.bucket)?;
        let found = bucket.get_json(&bank_key(name))?;
        found.map(|(settings, _)| self.open(name, settings)).transpose()
    }

    /// One that has to be there.
    pub fn bank(&self, name: &str) -> Result<Bank> {
        self.find(name)?.ok_or_else(|| Error::NotFound(format!("bank `{name}`")))
    }

    pub fn bank_or_new(&self, name: &str) -> Result<Bank> {
        match self.find(name)? {
            Some(bank) => Ok(bank),
            None => self.make(name, BankKind::Hybrid, "{}"),
        }
    }

    pub fn list_banks(&self, after: Option<&str>, limit: u32) -> Result<Vec<Listed>> {
        let bucket = state::open(&self.bucket)?;
        let after = after.map(bank_key);
        let listed = bucket.scan("bank/", after.as_deref(), limit)?.into_iter().map(|entry| {
            let settings: Settings = serde_json::from_slice(&entry.value)?;
            let bank = self.open(&entry.key["bank/".len()..], settings)?;
            Ok(Listed {
                items: bank.count()?,
                kind: bank.settings.kind.into(),
                config: serde_json::to_string(&bank.settings.config)?,
                name: bank.name,
            })
        });
        listed.collect()
    }

    fn open(&self, name: &str, settings: Settings) -> Result<Bank> {
        let bucket = state::open(&self.bucket)?;
        Ok(Bank { name: name.into(), settings, bucket, index: format!("{}.{name}", self.bucket) })
    }

    /// The config as given, over this component's own.
    fn config(&self, given: &str) -> Result<Config> {
        let given: Map<String, Value> = serde_json::from_str(given).map_err(|e| invalid("config", e))?;
        let mut whole = json!({
            "embedding_model": self.embedding_model,
            "language": self.language,
            "chunking": Chunking::default(),
        });
        for (key, value) in given {
            whole[key] = value;
        }
        let mut config: Config = serde_json::from_value(whole).map_err(|e| invalid("config", e))?;
        config.chunking = config.chunking.checked()?;
        words::Language::named(&config.language)?;
        if config.ttl_seconds.is_some_and(|ttl| !(1..=MAX_TTL_SECONDS).contains(&ttl)) {
            return Err(Error::Invalid(format!("config.ttl_seconds: 1 to {MAX_TTL_SECONDS}")));
        }
        Ok(config)
    }
}

impl Bank {
    pub fn item_key(&self, id: &str) -> String {
        format!("item/{}/{id}", self.name)
    }
    pub fn document_key(&self, document: &str) -> String {
        format!("document/{}/{document}", self.name)
    }

    /// Removes the bank, from the first write on, and then all that is in it.
    pub fn remove(&self) -> Result<()> {
        self.bucket.delete(&bank_key(&self.name), Expectation::Anything)?;
        self.purge()
    }

    fn purge(&self) -> Result<()> {
        for kind in ["item", "document", "words", "edge"] {
            self.bucket.delete_all(&format!("{kind}/{}/", self.name))?;
        }
        match vectors::drop(&self.index) {
            Err(Error::NotFound(_)) => Ok(()),
            // A bank without vectors needs no grant for an index.
            Err(Error::Denied(_)) if !self.settings.kind.has_vectors() => Ok(()),
            dropped => dropped,
        }
    }

    fn count(&self) -> Result<u64> {
        if self.settings.kind.has_vectors() {
            return embedding::size(self);
        }
        let prefix = self.item_key("");
        let (mut count, mut after) = (0, None);
        loop {
            let page = self.bucket.keys(&prefix, after.as_deref(), 1000)?;
            let Some(last) = page.last() else { return Ok(count) };
            count += page.len() as u64;
            after = Some(last.key.clone());
        }
    }
}

fn bank_key(name: &str) -> String {
    format!("bank/{name}")
}

fn check_name(name: &str) -> Result<()> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    if (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(Error::Invalid(format!("bank: 1 to {MAX_NAME_BYTES} of a-z, 0-9, `-`, `_`, `.`")))
}

pub fn invalid(what: &str, why: impl std::fmt::Display) -> Error {
    Error::Invalid(format!("{what}: {why}"))
}
