//! What stands in the place of a value, and which values stay.

use personal_data::Kind;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use stockade_guest::prelude::Deserialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Style {
    /// `[EMAIL]`
    #[default]
    Label,
    /// The last four characters stay, of an e-mail address its first and its domain.
    Partial,
    /// `[EMAIL 1f9a02bc]`: equal for equal values.
    Hash,
}

/// Characters that [`Style::Partial`] leaves at the end.
const SHOWN: usize = 4;
/// Shortest value of which it leaves any.
const SHORTEST_SHOWN: usize = 8;

pub struct Masking {
    salt: String,
    whole: BTreeSet<String>,
    /// What `*` stood before.
    endings: Vec<String>,
}

impl Masking {
    pub fn new(salt: Option<&str>, allow: &[String]) -> Self {
        let (endings, whole): (Vec<&String>, Vec<&String>) = allow.iter().partition(|value| value.starts_with('*'));
        Self {
            salt: salt.unwrap_or_default().into(),
            whole: whole.into_iter().map(|value| plain(value)).collect(),
            endings: endings.into_iter().map(|value| plain(&value[1..])).filter(|ending| !ending.is_empty()).collect(),
        }
    }

    pub fn allows(&self, value: &str) -> bool {
        if self.whole.is_empty() && self.endings.is_empty() {
            return false;
        }
        let value = plain(value);
        self.whole.contains(&value) || self.endings.iter().any(|ending| value.ends_with(ending.as_str()))
    }

    pub fn mask(&self, kind: Kind, style: Style, value: &str) -> String {
        let label = kind.label();
        match (style, kind) {
            (Style::Hash, _) => {
                let mut hash = Sha256::new();
                for part in [self.salt.as_str(), kind.name(), &plain(value)] {
                    hash.update((part.len() as u64).to_le_bytes());
                    hash.update(part);
                }
                let digest = hash.finalize();
                let short = digest[..4].iter().fold(0, |number, &byte| number << 8 | u32::from(byte));
                format!("[{label} {short:08x}]")
            }
            (Style::Partial, Kind::Email) => match value.split_once('@') {
                Some((local, domain)) => format!("{}***@{domain}", local.chars().next().unwrap_or('*')),
                None => format!("[{label}]"),
            },
            // Four characters of a key or of a date are too much of it.
            (Style::Partial, Kind::PrivateKey | Kind::ApiKey | Kind::UrlCredentials | Kind::DateOfBirth)
            | (Style::Label, _) => format!("[{label}]"),
            (Style::Partial, _) => partial(value),
        }
    }
}

/// Stars for all letters and digits but the last four.
fn partial(value: &str) -> String {
    let count = value.chars().filter(char::is_ascii_alphanumeric).count();
    let mut hidden = if count < SHORTEST_SHOWN { count } else { count - SHOWN };
    let star = |c: char| {
        let hide = c.is_ascii_alphanumeric() && hidden > 0;
        hidden -= usize::from(hide);
        if hide { '*' } else { c }
    };
    value.chars().map(star).collect()
}

/// A value as it is compared: small letters, without blanks and hyphens.
fn plain(value: &str) -> String {
    value.chars().filter(|c| !matches!(c, ' ' | '-')).map(|c| c.to_ascii_lowercase()).collect()
}
