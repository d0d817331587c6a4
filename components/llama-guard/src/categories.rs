//! The hazard categories: codes for programs, short names for the guard, long names for people.

use std::collections::BTreeMap;
use std::fmt;
use stockade_guest::prelude::*;

/// A category's number: 1 is `S1`. Numbers never change, whatever is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Code(pub u8);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S{}", self.0)
    }
}

impl TryFrom<String> for Code {
    type Error = String;

    /// `S1` to `S99`.
    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.strip_prefix('S').filter(|d| !d.starts_with('0') && d.bytes().all(|b| b.is_ascii_digit()));
        let number = digits.filter(|digits| digits.len() <= 2).and_then(|digits| digits.parse().ok());
        number.map(Self).ok_or_else(|| format!("`{text}` is no category code"))
    }
}

/// Short name, as the prompt has it, and long name, as the model cards have it.
const NAMES: [(&str, &str); 14] = [
    ("Violent Crimes", "Violent Crimes"),
    ("Non-Violent Crimes", "Non-Violent Crimes"),
    ("Sex Crimes", "Sex-Related Crimes"),
    ("Child Exploitation", "Child Sexual Exploitation"),
    ("Defamation", "Defamation"),
    ("Specialized Advice", "Specialized Advice"),
    ("Privacy", "Privacy"),
    ("Intellectual Property", "Intellectual Property"),
    ("Indiscriminate Weapons", "Indiscriminate Weapons"),
    ("Hate", "Hate"),
    ("Self-Harm", "Suicide & Self-Harm"),
    ("Sexual Content", "Sexual Content"),
    ("Elections", "Elections"),
    ("Code Interpreter Abuse", "Code Interpreter Abuse"),
];

/// What the guard judges by.
#[derive(Debug, Clone)]
pub struct Categories {
    /// As the prompt lists them.
    listed: BTreeMap<Code, String>,
}

impl Categories {
    /// The first `count` of the standard list.
    pub fn standard(count: usize) -> Self {
        let texts = (1..).zip(NAMES).take(count).map(|(number, (short, _))| (Code(number), format!("{short}.")));
        Self { listed: texts.collect() }
    }

    pub fn custom(listed: BTreeMap<Code, String>) -> Self {
        Self { listed }
    }

    pub fn without(mut self, excluded: &[Code]) -> Self {
        self.listed.retain(|code, _| !excluded.contains(code));
        self
    }

    pub fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// `S1: Violent Crimes.` and so on, a line or more each.
    pub fn lines(&self) -> String {
        self.listed.iter().map(|(code, text)| format!("{code}: {text}\n")).collect()
    }

    /// Whether the guard may name it: a category of the list or of the standard, which it was trained on.
    pub fn knows(&self, code: Code) -> bool {
        self.listed.contains_key(&code) || usize::from(code.0) <= NAMES.len()
    }

    /// For people. Of a category of the tenant's own: its first line.
    pub fn name(&self, code: Code) -> String {
        let standard = NAMES.get(usize::from(code.0).wrapping_sub(1));
        match (self.listed.get(&code), standard) {
            (Some(text), Some((short, long))) if *text == format!("{short}.") => (*long).into(),
            (Some(text), _) => text.lines().next().unwrap_or_default().trim_end_matches('.').into(),
            (None, Some((_, long))) => (*long).into(),
            (None, None) => code.to_string(),
        }
    }
}
