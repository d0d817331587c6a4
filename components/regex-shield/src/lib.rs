//! Masks or blocks personal data and patterns of the tenant's own, in conversations and in streams.
//!
//! Invariant: a reply comes out the same however it was cut. [`scan::Scanner`] decides on one start position after the
//! other, and each decision looks at nothing but the character before it and a bounded window after it.

mod pattern;
mod pii;
mod scan;

use pattern::{Action, Pattern};
use scan::{Found, Scanner};
use std::cell::RefCell;
use std::rc::Rc;
use stockade_guest::prelude::*;
use stockade_guest::shield::texts_mut;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Built-in kinds to look for. Without it and without `patterns`: all.
    pii: Option<Vec<pii::Kind>>,
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
struct RegexShield {
    scanner: RefCell<Scanner>,
}

impl TryFrom<Config> for RegexShield {
    type Error = pattern::Refused;

    fn try_from(config: Config) -> Result<Self, pattern::Refused> {
        // The tenant's own patterns come first: where two match, theirs wins.
        let mut patterns = config.patterns.iter().map(Pattern::new).collect::<Result<Vec<_>, _>>()?;
        let kinds = match config.pii {
            Some(kinds) => kinds,
            None if patterns.is_empty() => pii::Kind::ALL.to_vec(),
            None => Vec::new(),
        };
        for kind in kinds {
            patterns.push(kind.pattern(config.pii_action)?);
        }
        Ok(Self { scanner: RefCell::new(Scanner::new(patterns)?) })
    }
}

impl Shield for RegexShield {
    fn hold_back(&self) -> u32 {
        self.scanner.borrow().window() as u32
    }

    fn check(&self, _: Direction, mut messages: Vec<Message>) -> Result<Verdict> {
        let mut scanner = self.scanner.borrow_mut();
        let mut edited = false;
        for text in texts_mut(&mut messages) {
            let mut masked = String::new();
            let mut at = 0;
            while let (_, Some(found)) = scanner.next(text, at, true) {
                match scanner.pattern(&found).verdict() {
                    Err(violation) => return Ok(Verdict::Block(violation)),
                    Ok(mask) => {
                        masked.push_str(&text[at..found.start]);
                        masked.push_str(mask);
                        at = found.end;
                    }
                }
            }
            if at > 0 {
                masked.push_str(&text[at..]);
                *text = masked;
                edited = true;
            }
        }
        Ok(if edited { Verdict::Edit(messages) } else { Verdict::Pass })
    }

    fn session(self: Rc<Self>, _: Channel) -> Result<Box<dyn Session>> {
        Ok(Box::new(Stream { shield: self, text: String::new(), base: 0, decided: 0 }))
    }
}

/// One channel of a reply.
struct Stream {
    shield: Rc<RegexShield>,
    /// The last decided character, for patterns that look back, and all that is undecided.
    text: String,
    /// The channel's offset of `text`.
    base: u64,
    /// Bytes of `text` that are decided.
    decided: usize,
}

impl Session for Stream {
    fn feed(&mut self, text: &str) -> Result<Ruling> {
        self.text.push_str(text);
        Ok(self.rule(false))
    }
    fn finish(&mut self) -> Result<Ruling> {
        Ok(self.rule(true))
    }
}

impl Stream {
    fn rule(&mut self, complete: bool) -> Ruling {
        let mut scanner = self.shield.scanner.borrow_mut();
        let mut edits = Vec::new();
        let mut violation = None;
        loop {
            let (decided, found) = scanner.next(&self.text, self.decided, complete);
            self.decided = decided;
            let Some(found) = found else { break };
            let Found { start, end, .. } = found;
            match scanner.pattern(&found).verdict() {
                Err(blocked) => {
                    violation = Some(blocked);
                    break;
                }
                Ok(mask) => {
                    edits.push(Edit {
                        start: self.base + start as u64,
                        end: self.base + end as u64,
                        replacement: mask.into(),
                    });
                    self.decided = end;
                }
            }
        }
        let cleared = self.base + self.decided as u64;
        let before = self.text[..self.decided].chars().next_back();
        let unneeded = self.decided - before.map_or(0, char::len_utf8);
        self.text.drain(..unneeded);
        self.base += unneeded as u64;
        self.decided -= unneeded;
        Ruling { cleared, edits, violation }
    }
}

impl Pattern {
    /// The text to put in a match's place, or the violation that it is. Neither holds what was matched.
    fn verdict(&self) -> Result<&str, Violation> {
        match self.action {
            Action::Mask => Ok(&self.mask),
            Action::Block => {
                Err(Violation::new(&*self.name, &*self.message).with_metadata(&json!({ "pattern": self.name })))
            }
        }
    }
}

stockade_guest::export!(RegexShield as shield);

#[cfg(test)]
mod tests;
