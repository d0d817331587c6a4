//! The session of a shield that judges whole windows of text, because it asks a model or another shield.
//!
//! Invariant: where a window begins and ends depends on the text alone, so the outcome does not depend on how it was cut.

use super::shield::{Edit, Ruling, Session};
use crate::Result;
use crate::types::Violation;

/// What a window is found to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Judgement {
    Clear,
    /// Put this in the place of the window's fresh part.
    Replace(String),
    Block(Violation),
}

/// Judges a window: its text, and the byte from which on it is fresh. What stands before was judged and has left.
pub trait Judge {
    fn judge(&mut self, window: &str, fresh: usize) -> Result<Judgement>;
}

impl<F: FnMut(&str, usize) -> Result<Judgement>> Judge for F {
    fn judge(&mut self, window: &str, fresh: usize) -> Result<Judgement> {
        self(window, fresh)
    }
}

/// Windows of `bytes` that overlap by `overlap` bytes. A shield with such sessions declares `bytes` as its
/// [`hold_back`](super::shield::Shield::hold_back).
pub struct Windowed<J> {
    judge: J,
    bytes: usize,
    overlap: usize,
    /// The present window's text so far.
    text: String,
    /// The channel's offset of `text`.
    base: u64,
    /// Bytes of `text` that have left.
    decided: usize,
}

impl<J: Judge> Windowed<J> {
    /// `overlap` is made at most half of `bytes`, and `bytes` at least 16.
    pub fn new(bytes: usize, overlap: usize, judge: J) -> Self {
        let bytes = bytes.max(16);
        Self { judge, bytes, overlap: overlap.min(bytes / 2), text: String::new(), base: 0, decided: 0 }
    }

    /// Judges the window that ends at `end`; `true` when the text may go on.
    fn rule(&mut self, end: usize, ruling: &mut Ruling) -> Result<bool> {
        match self.judge.judge(&self.text[..end], self.decided)? {
            Judgement::Clear => {}
            Judgement::Replace(replacement) => {
                let start = self.base + self.decided as u64;
                ruling.edits.push(Edit { start, end: self.base + end as u64, replacement });
            }
            Judgement::Block(violation) => {
                ruling.violation = Some(violation);
                return Ok(false);
            }
        }
        let next = self.text.floor_char_boundary(end.saturating_sub(self.overlap));
        self.text.drain(..next);
        self.base += next as u64;
        self.decided = end - next;
        Ok(true)
    }

    fn cleared(&self) -> u64 {
        self.base + self.decided as u64
    }
}

impl<J: Judge> Session for Windowed<J> {
    fn feed(&mut self, text: &str) -> Result<Ruling> {
        self.text.push_str(text);
        let mut ruling = Ruling { cleared: 0, edits: Vec::new(), violation: None };
        while self.text.len() >= self.bytes {
            let end = self.text.floor_char_boundary(self.bytes);
            if !self.rule(end, &mut ruling)? {
                break;
            }
        }
        ruling.cleared = self.cleared();
        Ok(ruling)
    }

    fn finish(&mut self) -> Result<Ruling> {
        let mut ruling = Ruling { cleared: 0, edits: Vec::new(), violation: None };
        if self.decided < self.text.len() {
            self.rule(self.text.len(), &mut ruling)?;
        }
        ruling.cleared = self.cleared();
        Ok(ruling)
    }
}
