//! Masks or blocks patterns of the tenant's own and personal data, in conversations and in streams.
//!
//! The patterns are this component's, all else is [`personal_data`]'s: the scan, the stream, the kinds of personal data.

mod pattern;

use pattern::{Action, Pattern, Refused};
use personal_data::{At, Detector, Kind, MAX_MATCHERS, Matcher, Rule, Rules, Scanner, Treatment};
use std::rc::Rc;
use stockade_guest::prelude::*;

/// What is looked for where nothing is configured.
const USUAL: [Kind; 7] =
    [Kind::ApiKey, Kind::Email, Kind::CreditCard, Kind::Iban, Kind::UsSsn, Kind::Ipv4, Kind::Phone];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Kinds of personal data to look for. Without it and without `patterns`: [`USUAL`].
    pii: Option<Vec<Kind>>,
    #[serde(default = "mask")]
    pii_action: Action,
    #[serde(default)]
    patterns: Vec<pattern::Config>,
    /// The host's: the text that the end user sees instead of a violation's message.
    #[serde(default, rename = "refusal")]
    _refusal: Option<String>,
}

fn mask() -> Action {
    Action::Mask
}

#[derive(Deserialize)]
#[serde(try_from = "Config")]
struct RegexShield(Rules<Either>);

impl TryFrom<Config> for RegexShield {
    type Error = Refused;

    fn try_from(config: Config) -> Result<Self, Refused> {
        // The tenant's own patterns come first: where two match, theirs wins.
        let patterns = config.patterns.iter().map(|p| Pattern::new(p).map(Either::Pattern));
        let mut all = patterns.collect::<Result<Vec<_>, _>>()?;
        let kinds = match config.pii {
            // In the kinds' order of precedence, whatever the configuration's.
            Some(wanted) => Kind::ALL.into_iter().filter(|kind| wanted.contains(kind)).collect(),
            None if all.is_empty() => USUAL.to_vec(),
            None => Vec::new(),
        };
        all.extend(kinds.into_iter().map(|kind| Either::Kind(Detector::new(kind), config.pii_action)));
        let scanner = Scanner::new(all).ok_or_else(|| Refused(format!("at most {MAX_MATCHERS} patterns")))?;
        Ok(Self(Rules::new(scanner)))
    }
}

/// A pattern, or a kind of personal data with what becomes of it.
#[expect(clippy::large_enum_variant, reason = "patterns are few and all live as long as the call")]
enum Either {
    Pattern(Pattern),
    Kind(Detector, Action),
}

impl Matcher for Either {
    fn begins(&self, byte: u8) -> bool {
        match self {
            Self::Pattern(pattern) => pattern.begins(byte),
            Self::Kind(detector, _) => detector.begins(byte),
        }
    }
    fn begins_words(&self) -> bool {
        match self {
            Self::Pattern(pattern) => pattern.begins_words(),
            Self::Kind(detector, _) => detector.begins_words(),
        }
    }
    fn window(&self) -> usize {
        match self {
            Self::Pattern(pattern) => pattern.window(),
            Self::Kind(detector, _) => detector.window(),
        }
    }
    fn at(&mut self, text: &[u8], start: usize, complete: bool) -> At {
        match self {
            Self::Pattern(pattern) => pattern.at(text, start, complete),
            Self::Kind(detector, _) => detector.at(text, start, complete),
        }
    }
}

impl Rule for Either {
    fn treatment(&self, _: &str) -> Treatment {
        match self {
            Self::Pattern(pattern) => pattern.treatment(),
            Self::Kind(detector, Action::Mask) => Treatment::Mask(format!("[{}]", detector.kind().label())),
            Self::Kind(detector, Action::Block) => Treatment::Block(detector.kind().violation()),
        }
    }
}

impl Shield for RegexShield {
    fn hold_back(&self) -> u32 {
        self.0.hold_back()
    }
    fn check(&self, _: Direction, messages: Vec<Message>) -> Result<Verdict> {
        self.0.check(messages)
    }
    fn session(self: Rc<Self>, _: Channel, _: Vec<Message>) -> Result<Box<dyn Session>> {
        Ok(Rules::session(self, |shield| &shield.0))
    }
}

stockade_guest::export!(RegexShield as shield);

#[cfg(test)]
mod tests;
