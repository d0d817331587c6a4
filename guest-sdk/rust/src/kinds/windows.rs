//! Sessions of shields that judge a stretch of text at a time: a model's verdict costs too much for every piece.
//!
//! Invariant: which stretches are judged depends on the text alone, never on how it was cut into pieces.

use super::shield::{Ruling, Session};
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

/// A session over stretches of its channel. `judge` gets one and the offset at which it begins.
pub struct Windows<J> {
    window: Window,
    judge: J,
    /// What has not been cleared.
    text: String,
    /// The channel's offset of `text`.
    base: u64,
}

impl<J: FnMut(&str, u64) -> Result<Option<Violation>>> Windows<J> {
    pub fn new(window: Window, judge: J) -> Self {
        Self { window, judge, text: String::new(), base: 0 }
    }

    fn ruling(&self, violation: Option<Violation>) -> Ruling {
        Ruling { cleared: self.base, edits: Vec::new(), violation }
    }

    fn clear(&mut self, bytes: usize) {
        self.text.drain(..bytes);
        self.base += bytes as u64;
    }
}

impl<J: FnMut(&str, u64) -> Result<Option<Violation>>> Session for Windows<J> {
    fn feed(&mut self, text: &str) -> Result<Ruling> {
        self.text.push_str(text);
        // Only what has more text after it: the last stretch is judged when the channel ends.
        while self.text.len() > self.window.size {
            let end = self.text.floor_char_boundary(self.window.size);
            if let Some(violation) = (self.judge)(&self.text[..end], self.base)? {
                return Ok(self.ruling(Some(violation)));
            }
            self.clear(self.text.floor_char_boundary(end - self.window.overlap));
        }
        Ok(self.ruling(None))
    }

    fn finish(&mut self) -> Result<Ruling> {
        let violation = if self.text.is_empty() { None } else { (self.judge)(&self.text, self.base)? };
        if violation.is_none() {
            self.clear(self.text.len());
        }
        Ok(self.ruling(violation))
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
            Ok(None)
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
    fn a_short_text_is_one_stretch_and_an_empty_channel_is_not_judged() {
        assert_eq!(stretches(&["0123456789abcdef"]), [("0123456789abcdef".to_string(), 0)]);
        assert_eq!(stretches(&[]), []);
        assert_eq!(WINDOW.ranges(""), [0..0]);
    }
}
