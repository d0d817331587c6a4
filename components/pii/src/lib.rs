//! Masks or blocks personal data and secrets, in conversations and in streams.
//!
//! [`personal_data`] finds them; what becomes of each is decided here.

mod mask;

use mask::{Masking, Style};
use personal_data::{At, Detector, Kind, Matcher, Rule, Rules, Scanner, Treatment};
use std::collections::BTreeMap;
use std::rc::Rc;
use stockade_guest::prelude::*;

/// Most bytes of the values that stay, together.
const MAX_ALLOWED_BYTES: usize = 64 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    action: What,
    #[serde(default)]
    style: Style,
    salt: Option<String>,
    #[serde(default)]
    kinds: BTreeMap<Kind, OfKind>,
    #[serde(default)]
    context: BTreeMap<Kind, Vec<String>>,
    #[serde(default)]
    allow: Vec<String>,
    roles: Option<Vec<Speaker>>,
    /// The host's: the text that the end user sees instead of a violation's message.
    #[serde(default, rename = "refusal")]
    _refusal: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum What {
    #[default]
    Mask,
    Block,
    Allow,
}

/// `"mask"`, or `{"action": "mask", "style": "partial"}`.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum OfKind {
    Action(What),
    Both { action: What, style: Option<Style> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Speaker {
    System,
    User,
    Assistant,
    Tool,
}

impl From<Role> for Speaker {
    fn from(role: Role) -> Self {
        match role {
            Role::System => Self::System,
            Role::User => Self::User,
            Role::Assistant => Self::Assistant,
            Role::Tool => Self::Tool,
        }
    }
}

#[derive(Deserialize)]
#[serde(try_from = "Config")]
struct Pii {
    rules: Rules<Of>,
    /// Whose messages are looked at; `None`: everybody's.
    roles: Option<Vec<Speaker>>,
}

impl TryFrom<Config> for Pii {
    type Error = &'static str;

    fn try_from(mut config: Config) -> Result<Self, &'static str> {
        if config.allow.iter().map(String::len).sum::<usize>() > MAX_ALLOWED_BYTES {
            return Err("the values of `allow` have more than 64 KiB");
        }
        let masking = Rc::new(Masking::new(config.salt.as_deref(), &config.allow));
        let mut rules = Vec::new();
        for kind in Kind::ALL {
            let (what, style) = match config.kinds.get(&kind) {
                None => (config.action, config.style),
                Some(&OfKind::Action(action)) => (action, config.style),
                Some(&OfKind::Both { action, style }) => (action, style.unwrap_or(config.style)),
            };
            if (what, style) == (What::Mask, Style::Hash) && config.salt.is_none() {
                return Err("the style `hash` needs a `salt`");
            }
            if what != What::Allow {
                let words = config.context.remove(&kind).unwrap_or_default();
                let detector = Detector::new(kind).with_context(words);
                rules.push(Of { detector, what, style, masking: masking.clone() });
            }
        }
        let scanner = Scanner::new(rules).expect("there are fewer kinds than a scanner takes matchers");
        Ok(Self { rules: Rules::new(scanner), roles: config.roles })
    }
}

/// What becomes of one kind.
struct Of {
    detector: Detector,
    what: What,
    style: Style,
    masking: Rc<Masking>,
}

impl Matcher for Of {
    fn begins(&self, byte: u8) -> bool {
        self.detector.begins(byte)
    }
    fn begins_words(&self) -> bool {
        self.detector.begins_words()
    }
    fn window(&self) -> usize {
        self.detector.window()
    }
    fn at(&mut self, text: &[u8], start: usize, complete: bool) -> At {
        self.detector.at(text, start, complete)
    }
}

impl Rule for Of {
    fn treatment(&self, matched: &str) -> Treatment {
        let kind = self.detector.kind();
        match self.what {
            _ if self.masking.allows(matched) => Treatment::Keep,
            What::Allow => Treatment::Keep,
            What::Mask => Treatment::Mask(self.masking.mask(kind, self.style, matched)),
            What::Block => Treatment::Block(kind.violation()),
        }
    }
}

impl Shield for Pii {
    fn hold_back(&self) -> u32 {
        self.rules.hold_back()
    }

    fn check(&self, _: Direction, messages: Vec<Message>) -> Result<Verdict> {
        let Some(roles) = &self.roles else { return self.rules.check(messages) };
        let looked_at = |message: &Message| roles.contains(&message.role.into());
        let chosen: Vec<Message> = messages.iter().filter(|m| looked_at(m)).cloned().collect();
        let mut edited = match self.rules.check(chosen)? {
            Verdict::Edit(edited) => edited.into_iter(),
            verdict => return Ok(verdict),
        };
        let merged = messages.into_iter().map(|m| if looked_at(&m) { edited.next().unwrap_or(m) } else { m });
        Ok(Verdict::Edit(merged.collect()))
    }

    fn session(self: Rc<Self>, _: Channel, _: Vec<Message>) -> Result<Box<dyn Session>> {
        Ok(Rules::session(self, |pii| &pii.rules))
    }
}

stockade_guest::export!(Pii as shield);

#[cfg(test)]
mod tests;
