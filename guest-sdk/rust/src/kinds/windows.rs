//! Sessions of shields that judge a stretch of text at a time: a model's verdict costs too much for every piece.
//!
//! Invariant: which stretches are judged depends on the text alone, never on how it was cut into pieces.

use super::shield::{Edit, Ruling, Session};
use crate::Result;
use crate::types::Violation;
use std::ops::Range;

/// How a channel is cut into stretches, in bytes. Each begins `size - overlap` after the one before it, so that whatever
/// is at most `overlap` long is whole in one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    size: usize,
    overlap: usize,
}

impl Window {
    /// `size` is at least 16 and `overlap` at most half of it; what is beyond is set to that. A session holds back no more
    /// than `size`.
    pub fn new(size: usize, overlap: usize) -> Self {
        let size = size.max(16);
        Self { size, overlap: overlap.min(size / 2) }
    }

    /// The stretches of a whole text, in order; one at least.
    pub fn ranges(self, text: &str) -> Vec<Range<usize>> {
        let mut ranges = Vec::new();
        let mut start = 0;
        while text.len() - start > self.size {
            let end = text.floor_char_boundary(start + self.size);
            ranges.push(start..end);
            start = text.floor_char_boundary(end - self.overlap);
        }
        ranges.push(start..text.len());
        ranges
    }
}

/// What a stretch is found to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Judged {
    Clear,
    /// Put these texts in the place of these bytes of the stretch, in order and apart.
    Mask(Vec<(Range<usize>, String)>),
    Block(Violation),
}

impl From<Option<Violation>> for Judged {
    fn from(found: Option<Violation>) -> Self {
        found.map_or(Self::Clear, Self::Block)
    }
}

/// A session over stretches of its channel. `judge` gets one and the offset at which it begins.
pub struct Windows<J> {
    window: Window,
    judge: J,
    /// What has not been cleared.
    text: String,
    /// The channel's offset of `text`.
    base: u64,
}

impl<R: Into<Judged>, J: FnMut(&str, u64) -> Result<R>> Windows<J> {
    pub fn new(window: Window, judge: J) -> Self {
        Self { window, judge, text: String::new(), base: 0 }
    }

    /// Judges the stretch that ends at `end` and clears it up to `clear`, or around a mask that lies across that.
    fn stretch(&mut self, end: usize, mut clear: usize, ruling: &mut Ruling) -> Result<bool> {
        let masks = match (self.judge)(&self.text[..end], self.base)?.into() {
            Judged::Clear => Vec::new(),
            Judged::Mask(masks) => masks,
            Judged::Block(violation) => {
                ruling.violation = Some(violation);
                return Ok(false);
            }
        };
        for (span, replacement) in masks {
            if span.end > clear {
                // The next stretch has it whole, unless it fills this one.
                clear = if span.start == 0 { span.end } else { clear.min(span.start) };
                if span.start > 0 {
                    break;
                }
            }
            let at = |offset: usize| self.base + offset as u64;
            ruling.edits.push(Edit { start: at(span.start), end: at(span.end), replacement });
        }
        self.text.drain(..clear);
        self.base += clear as u64;
        Ok(true)
    }
}

impl<R: Into<Judged>, J: FnMut(&str, u64) -> Result<R>> Session for Windows<J> {
    fn feed(&mut self, text: &str) -> Result<Ruling> {
        self.text.push_str(text);
        let mut ruling = Ruling { cleared: 0, edits: Vec::new(), violation: None };
        // Only what has more text after it: the last stretch is judged when the channel ends.
        while self.text.len() > self.window.size {
            let end = self.text.floor_char_boundary(self.window.size);
            let clear = self.text.floor_char_boundary(end - self.window.overlap);
            if !self.stretch(end, clear, &mut ruling)? {
                break;
            }
        }
        ruling.cleared = self.base;
        Ok(ruling)
    }

    fn finish(&mut self) -> Result<Ruling> {
        let mut ruling = Ruling { cleared: 0, edits: Vec::new(), violation: None };
        if !self.text.is_empty() {
            self.stretch(self.text.len(), self.text.len(), &mut ruling)?;
        }
        ruling.cleared = self.base;
        Ok(ruling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window { size: 16, overlap: 8 };

    fn stretches(pieces: &[&str]) -> Vec<(String, u64)> {
        let mut seen = Vec::new();
        let mut session = Windows::new(WINDOW, |text: &str, at: u64| {
            assert!(text.len() <= 16);
            seen.push((text.to_string(), at));
            Ok(Judged::Clear)
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
    fn the_same_stretches_are_judged_however_the_text_was_cut() {
        let text = "ab€def😀😀hijklmnop€€€€€€€qrstu😀vw";
        let whole: Vec<(String, u64)> =
            WINDOW.ranges(text).into_iter().map(|r| (text[r.clone()].to_string(), r.start as u64)).collect();
        assert!(whole.len() > 3);
        let cuts: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        for (i, &a) in cuts.iter().enumerate() {
            for &b in &cuts[i..] {
                assert_eq!(stretches(&[&text[..a], &text[a..b], &text[b..]]), whole, "{a} {b}");
            }
        }
    }

    #[test]
    fn nothing_from_a_violating_stretch_on_is_cleared() {
        let judge = |text: &str, _: u64| Ok(text.contains("bad").then(|| Violation::new("bad", "")));
        let mut session = Windows::new(WINDOW, judge);
        assert_eq!(session.feed("0123456789abcdefg").unwrap().cleared, 8);
        let ruling = session.feed("hijklmbad 01234567").unwrap();
        assert_eq!((ruling.cleared, ruling.violation.is_some()), (16, true));
    }

    #[test]
    fn masks_come_out_the_same_however_the_text_was_cut() {
        let judge = |text: &str, _: u64| {
            let hits = text.match_indices("secret").map(|(at, word)| (at..at + word.len(), "***".to_string()));
            Ok(Judged::Mask(hits.collect()))
        };
        let text = "a secret here, another secret there and a secretsecret end";
        let sent = |pieces: &[&str]| {
            let mut session = Windows::new(WINDOW, judge);
            let mut edits = Vec::new();
            for piece in pieces {
                edits.extend(session.feed(piece).unwrap().edits);
            }
            edits.extend(session.finish().unwrap().edits);
            let mut out = text.to_string();
            for edit in edits.iter().rev() {
                out.replace_range(edit.start as usize..edit.end as usize, &edit.replacement);
            }
            out
        };
        for cut in 0..=text.len() {
            assert_eq!(sent(&[&text[..cut], &text[cut..]]), text.replace("secret", "***"), "{cut}");
        }
    }

    #[test]
    fn a_short_text_is_one_stretch_and_an_empty_channel_is_not_judged() {
        assert_eq!(stretches(&["0123456789abcdef"]), [("0123456789abcdef".to_string(), 0)]);
        assert_eq!(stretches(&[]), []);
        assert_eq!(WINDOW.ranges(""), [0..0]);
    }
}
