//! The easy shield: finds spans of bounded length, and is right across any split of a stream.
//!
//! A session keeps back the last [`Finder::longest`] bytes: a span that could begin there is not whole yet.
//! Invariant: whether a span is found is decided once, when all the bytes that it may cover are there, so the outcome
//! does not depend on how the text was cut.

use super::shield::{Channel, Direction, Edit, Ruling, Session, Shield, Verdict, texts_mut};
use crate::types::{Message, Violation};
use crate::{Error, Result};
use serde::de::DeserializeOwned;
use std::ops::Range;
use std::rc::Rc;

/// Finds spans in text. Every finder is a [`Shield`].
pub trait Finder: DeserializeOwned + 'static {
    /// Most bytes from a span's first byte on that decide whether it is one: its length, and what must follow it.
    /// At most 65532.
    fn longest(&self) -> usize;

    /// All spans in `text`, in any order; of two that overlap the earlier one counts. Besides the bytes that
    /// [`Finder::longest`] counts, a span may depend on as many before it, and on nothing else.
    fn find(&self, text: &str) -> Result<Vec<Finding>>;
}

/// A span and what shall happen to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Bytes, on character boundaries.
    pub span: Range<usize>,
    pub action: Action,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Put this text in its place.
    Mask(String),
    /// Refuse the request, or end the reply before the span.
    Block(Violation),
}

impl Finding {
    pub fn mask(span: Range<usize>, replacement: impl Into<String>) -> Self {
        Self { span, action: Action::Mask(replacement.into()) }
    }
    pub fn block(span: Range<usize>, violation: Violation) -> Self {
        Self { span, action: Action::Block(violation) }
    }
}

impl<T: Finder> Shield for T {
    fn hold_back(&self) -> u32 {
        // Up to three bytes more, to end on a character.
        u32::try_from(self.longest().saturating_add(3)).unwrap_or(u32::MAX)
    }

    fn check(&self, _: Direction, mut messages: Vec<Message>) -> Result<Verdict> {
        let mut edited = false;
        for text in texts_mut(&mut messages) {
            match judge(self, text)? {
                Judged::Clean => {}
                Judged::Masked(masked) => {
                    *text = masked;
                    edited = true;
                }
                Judged::Blocked(violation) => return Ok(Verdict::Block(violation)),
            }
        }
        Ok(if edited { Verdict::Edit(messages) } else { Verdict::Pass })
    }

    fn session(self: Rc<Self>, _: Channel, _: Vec<Message>) -> Result<Box<dyn Session>> {
        Ok(Box::new(Window { finder: self, text: String::new(), base: 0, decided: 0 }))
    }
}

enum Judged {
    Clean,
    Masked(String),
    Blocked(Violation),
}

/// One whole text: a session that is fed once.
fn judge<T: Finder>(finder: &T, text: &str) -> Result<Judged> {
    let found = ordered(finder, text)?;
    let mut masked = String::new();
    let mut at = 0;
    for finding in found {
        if finding.span.start < at {
            continue;
        }
        match finding.action {
            Action::Block(violation) => return Ok(Judged::Blocked(violation)),
            Action::Mask(replacement) => {
                masked.push_str(&text[at..finding.span.start]);
                masked.push_str(&replacement);
                at = finding.span.end;
            }
        }
    }
    if at == 0 {
        return Ok(Judged::Clean);
    }
    masked.push_str(&text[at..]);
    Ok(Judged::Masked(masked))
}

fn ordered<T: Finder>(finder: &T, text: &str) -> Result<Vec<Finding>> {
    let mut found = finder.find(text)?;
    found.sort_by_key(|f| (f.span.start, std::cmp::Reverse(f.span.end)));
    let longest = finder.longest();
    for Finding { span, .. } in &found {
        if span.is_empty() || text.get(span.clone()).is_none() || span.len() > longest {
            return Err(Error::Other(format!("a finding at {span:?} is empty, cuts a character or exceeds longest()")));
        }
    }
    Ok(found)
}

struct Window<T> {
    finder: Rc<T>,
    /// What is not decided, after as much decided text as a span may look back on.
    text: String,
    /// The channel's offset of `text`.
    base: u64,
    /// Bytes of `text` that are decided.
    decided: usize,
}

impl<T: Finder> Session for Window<T> {
    fn feed(&mut self, text: &str) -> Result<Ruling> {
        self.text.push_str(text);
        let whole = self.text.len().saturating_sub(self.finder.longest());
        self.rule(self.text.floor_char_boundary(whole))
    }
    fn finish(&mut self) -> Result<Ruling> {
        self.rule(self.text.len())
    }
}

impl<T: Finder> Window<T> {
    /// Decides on every span that begins before `limit`.
    fn rule(&mut self, limit: usize) -> Result<Ruling> {
        let mut edits = Vec::new();
        let mut violation = None;
        if self.decided < limit {
            for finding in ordered(&*self.finder, &self.text)? {
                let Range { start, end } = finding.span;
                if start < self.decided {
                    continue;
                }
                if start >= limit {
                    break;
                }
                match finding.action {
                    Action::Mask(replacement) => {
                        let (start, end_offset) = (self.base + start as u64, self.base + end as u64);
                        edits.push(Edit { start, end: end_offset, replacement });
                        self.decided = end;
                    }
                    Action::Block(found) => {
                        violation = Some(found);
                        self.decided = start;
                        break;
                    }
                }
            }
            if violation.is_none() {
                self.decided = self.decided.max(limit);
            }
        }
        let cleared = self.base + self.decided as u64;
        let unneeded = self.text.floor_char_boundary(self.decided.saturating_sub(self.finder.longest()));
        self.text.drain(..unneeded);
        self.base += unneeded as u64;
        self.decided -= unneeded;
        Ok(Ruling { cleared, edits, violation })
    }
}
