//! A shield from a scanner: conversations as a whole, replies as a stream.
//!
//! Invariant: a reply comes out the same however it was cut. A decision on a start position looks at nothing but
//! [`LOOK_BACK`] bytes before it and a bounded window after it.

use crate::reader::LOOK_BACK;
use crate::scan::{Found, Matcher, Scanner};
use std::cell::RefCell;
use std::rc::Rc;
use stockade_guest::prelude::*;
use stockade_guest::shield::texts_mut;

/// What becomes of a match.
pub enum Treatment {
    /// It stays, whatever else could begin inside of it.
    Keep,
    Mask(String),
    Block(Violation),
}

/// Decides what becomes of what it matches.
pub trait Rule: Matcher + 'static {
    fn treatment(&self, matched: &str) -> Treatment;
}

/// Rules that hold together.
pub struct Rules<R>(RefCell<Scanner<R>>);

impl<R: Rule> Rules<R> {
    pub fn new(scanner: Scanner<R>) -> Self {
        Self(RefCell::new(scanner))
    }

    /// What a shield of these rules holds back at most, in bytes.
    pub fn hold_back(&self) -> u32 {
        u32::try_from(self.0.borrow().window()).unwrap_or(u32::MAX)
    }

    pub fn check(&self, mut messages: Vec<Message>) -> Result<Verdict> {
        let mut edited = false;
        for text in texts_mut(&mut messages) {
            match self.judge(text) {
                Ok(None) => {}
                Ok(Some(masked)) => {
                    *text = masked;
                    edited = true;
                }
                Err(violation) => return Ok(Verdict::Block(violation)),
            }
        }
        Ok(if edited { Verdict::Edit(messages) } else { Verdict::Pass })
    }

    /// The text with its masks, where it has any.
    fn judge(&self, text: &str) -> Result<Option<String>, Violation> {
        let mut scanner = self.0.borrow_mut();
        let (mut masked, mut copied, mut at) = (String::new(), 0, 0);
        while let (_, Some(found)) = scanner.next(text, at, true) {
            at = found.end;
            match scanner.matcher(&found).treatment(&text[found.start..found.end]) {
                Treatment::Keep => {}
                Treatment::Mask(mask) => {
                    masked.push_str(&text[copied..found.start]);
                    masked.push_str(&mask);
                    copied = found.end;
                }
                Treatment::Block(violation) => return Err(violation),
            }
        }
        if copied == 0 {
            return Ok(None);
        }
        masked.push_str(&text[copied..]);
        Ok(Some(masked))
    }

    /// `rules` picks them out of the shield that the session belongs to.
    pub fn session<S: 'static>(shield: Rc<S>, rules: fn(&S) -> &Self) -> Box<dyn Session> {
        Box::new(Stream { shield, rules, text: String::new(), base: 0, decided: 0 })
    }
}

/// One channel of a reply.
struct Stream<S, R> {
    shield: Rc<S>,
    rules: fn(&S) -> &Rules<R>,
    /// As much decided text as a decision may look back on, and all that is undecided.
    text: String,
    /// The channel's offset of `text`.
    base: u64,
    /// Bytes of `text` that are decided.
    decided: usize,
}

impl<S, R: Rule> Session for Stream<S, R> {
    fn feed(&mut self, text: &str) -> Result<Ruling> {
        self.text.push_str(text);
        Ok(self.rule(false))
    }
    fn finish(&mut self) -> Result<Ruling> {
        Ok(self.rule(true))
    }
}

impl<S, R: Rule> Stream<S, R> {
    fn rule(&mut self, complete: bool) -> Ruling {
        let mut scanner = (self.rules)(&self.shield).0.borrow_mut();
        let mut edits = Vec::new();
        let mut violation = None;
        loop {
            let (decided, found) = scanner.next(&self.text, self.decided, complete);
            self.decided = decided;
            let Some(found) = found else { break };
            let Found { start, end, .. } = found;
            match scanner.matcher(&found).treatment(&self.text[start..end]) {
                Treatment::Keep => {}
                Treatment::Mask(replacement) => {
                    let (start, end) = (self.base + start as u64, self.base + end as u64);
                    edits.push(Edit { start, end, replacement });
                }
                Treatment::Block(blocked) => {
                    violation = Some(blocked);
                    break;
                }
            }
            self.decided = end;
        }
        let cleared = self.base + self.decided as u64;
        let unneeded = self.text.floor_char_boundary(self.decided.saturating_sub(LOOK_BACK));
        self.text.drain(..unneeded);
        self.base += unneeded as u64;
        self.decided -= unneeded;
        Ruling { cleared, edits, violation }
    }
}
