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

/// Judges a window: its text, and the byte from which on it is fresh. What stands before was judged in the window before.
pub trait Judge {
    fn judge(&mut self, window: &str, fresh: usize) -> Result<Judgement>;
}

impl<F: FnMut(&str, usize) -> Result<Judgement>> Judge for F {
    fn judge(&mut self, window: &str, fresh: usize) -> Result<Judgement> {
        self(window, fresh)
    }
}

/// Windows of `bytes` that overlap by `overlap` bytes. The overlap waits for the next window's judgement, so that nothing
/// of a span up to that long leaves before all of it has been seen. A shield with such sessions declares `bytes` as its
/// [`hold_back`](super::shield::Shield::hold_back).
pub struct Windowed<J> {
    judge: J,
    bytes: usize,
    overlap: usize,
    /// The present window's text so far.
    text: String,
    /// The channel's offset of `text`.
    base: u64,
    /// Bytes of `text` that were judged with the window before.
    judged: usize,
    /// Bytes of `text` that may leave; at most `judged`.
    left: usize,
}

impl<J: Judge> Windowed<J> {
    /// `overlap` is made at most half of `bytes`, and `bytes` at least 16.
    pub fn new(bytes: usize, overlap: usize, judge: J) -> Self {
        let bytes = bytes.max(16);
        Self { judge, bytes, overlap: overlap.min(bytes / 2), text: String::new(), base: 0, judged: 0, left: 0 }
    }

    /// Judges the window that ends at `end`; `true` when the text may go on. Nothing follows the `last` one.
    fn rule(&mut self, end: usize, last: bool, ruling: &mut Ruling) -> Result<bool> {
        let replaced = match self.judge.judge(&self.text[..end], self.judged)? {
            Judgement::Clear => false,
            Judgement::Replace(replacement) => {
                let start = self.base + self.judged as u64;
                ruling.edits.push(Edit { start, end: self.base + end as u64, replacement });
                true
            }
            Judgement::Block(violation) => {
                ruling.violation = Some(violation);
                return Ok(false);
            }
        };
        let next = if last { end } else { self.text.floor_char_boundary(end.saturating_sub(self.overlap)) };
        // A replacement covers the overlap as well: it cannot wait.
        let left = if replaced { end } else { next.max(self.left) };
        self.text.drain(..next);
        self.base += next as u64;
        self.judged = end - next;
        self.left = left - next;
        Ok(true)
    }

    fn cleared(&self) -> u64 {
        self.base + self.left as u64
    }
}

impl<J: Judge> Session for Windowed<J> {
    fn feed(&mut self, text: &str) -> Result<Ruling> {
        self.text.push_str(text);
        let mut ruling = Ruling { cleared: 0, edits: Vec::new(), violation: None };
        while self.text.len() >= self.bytes {
            let end = self.text.floor_char_boundary(self.bytes);
            if !self.rule(end, false, &mut ruling)? {
                break;
            }
        }
        ruling.cleared = self.cleared();
        Ok(ruling)
    }

    fn finish(&mut self) -> Result<Ruling> {
        let mut ruling = Ruling { cleared: 0, edits: Vec::new(), violation: None };
        if self.judged < self.text.len() {
            self.rule(self.text.len(), true, &mut ruling)?;
        } else {
            self.left = self.text.len();
        }
        ruling.cleared = self.cleared();
        Ok(ruling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows with their offsets, while the session is held to its bound.
    fn windows(pieces: &[&str]) -> Vec<(String, u64)> {
        let (mut seen, mut judged) = (Vec::new(), 0);
        let mut session = Windowed::new(16, 8, |window: &str, fresh: usize| {
            assert!(window.len() <= 16);
            seen.push((window.to_string(), judged - fresh as u64));
            judged += (window.len() - fresh) as u64;
            Ok(Judgement::Clear)
        });
        let mut fed = 0;
        for piece in pieces {
            fed += piece.len() as u64;
            let ruling = session.feed(piece).unwrap();
            assert!(fed - ruling.cleared <= 16);
        }
        assert_eq!(session.finish().unwrap().cleared, fed);
        seen
    }

    #[test]
    fn the_same_windows_are_judged_however_the_text_was_cut() {
        let text = "ab€def😀😀hijklmnop€€€€€€€qrstu😀vw";
        let whole = windows(&[text]);
        assert!(whole.len() > 3);
        assert!(whole.iter().all(|(window, start)| text[*start as usize..].starts_with(window.as_str())));
        let cuts: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        for (i, &a) in cuts.iter().enumerate() {
            for &b in &cuts[i..] {
                assert_eq!(windows(&[&text[..a], &text[a..b], &text[b..]]), whole, "{a} {b}");
            }
        }
        assert_eq!(windows(&[]), []);
    }

    #[test]
    fn of_a_span_up_to_the_overlap_nothing_leaves() {
        let judge = |text: &str, _: usize| {
            Ok(if text.contains("bad") { Judgement::Block(Violation::new("bad", "")) } else { Judgement::Clear })
        };
        for at in 0..40 {
            let mut session = Windowed::new(16, 8, judge);
            let text = format!("{}bad{}", "x".repeat(at), "y".repeat(30));
            let blocked = text.chars().map(|c| session.feed(c.encode_utf8(&mut [0; 4])).unwrap());
            let ruling = blocked.into_iter().find(|ruling| ruling.violation.is_some()).expect("it is found");
            assert!(ruling.cleared <= at as u64, "{at}: {}", ruling.cleared);
        }
    }
}
