//! Overlapping windows of a text that each fit the classifier.
//!
//! Windows are stretches of the original text, found by counting tokens. Cutting the tokens of the whole text and
//! decoding each piece, as the reference tools do, would judge another text: what the vocabulary does not have is lost in
//! decoding, and so are places.

use std::ops::Range;
use stockade_guest::prelude::*;

/// Tries at a window that is nearly full before a shorter one is taken.
const TRIES: usize = 6;

/// How a text is cut, in tokens without the classifier's own frame.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    pub size: usize,
    pub stride: usize,
    /// Most windows of a text.
    pub most: usize,
}

impl Cut {
    /// Byte ranges of at most `size` tokens each that cover `text`; `count` tells how many tokens a text has.
    pub fn windows(self, text: &str, mut count: impl FnMut(&str) -> Result<usize>) -> Result<Vec<Range<usize>>> {
        let whole = Range { start: 0, end: text.len() };
        let tokens = count(text)?;
        if tokens <= self.size {
            return Ok(vec![whole]);
        }
        let too_many = || Error::TooLarge(format!("more than {} windows of {} tokens", self.most, self.size));
        if (tokens - self.size).div_ceil(self.stride) > 2 * self.most {
            return Err(too_many());
        }
        // Bytes of a full window, were tokens spread evenly; each window corrects it for the next.
        let mut bytes = (text.len() * self.size / tokens).max(1);
        let mut windows = Vec::new();
        let mut start = 0;
        loop {
            let end = self.end(text, start, bytes, &mut count)?;
            // Where tokens crowd, the next window may reach no further than the last one did.
            if windows.last().is_none_or(|last: &Range<usize>| end > last.end) {
                windows.push(start..end);
            }
            if end == text.len() {
                return Ok(windows);
            }
            if windows.len() == self.most {
                return Err(too_many());
            }
            bytes = end - start;
            let next = text.floor_char_boundary(start + bytes * self.stride / self.size);
            start = if next > start { next } else { after_first(text, start) };
        }
    }

    /// The end of a window from `start` on that fits and, within a few tries, is nine tenths full.
    fn end(
        self,
        text: &str,
        start: usize,
        bytes: usize,
        count: &mut impl FnMut(&str) -> Result<usize>,
    ) -> Result<usize> {
        let shortest = after_first(text, start);
        let clamp = |end: usize| text.floor_char_boundary(end.min(text.len())).max(shortest);
        let (mut fits, mut too_long) = (None, text.len() + 1);
        let mut end = clamp(start + bytes);
        for attempt in 0.. {
            let tokens = count(&text[start..end])?;
            let full = tokens * 10 >= self.size * 9 || end == text.len();
            if tokens <= self.size {
                fits = Some(end);
                if full {
                    break;
                }
            } else if end == shortest {
                return Err(Error::Other("one character takes more tokens than a window has".into()));
            } else {
                too_long = end;
            }
            if attempt >= TRIES && fits.is_some() {
                break;
            }
            // In proportion, a little short of the mark; kept between what fits and what does not.
            let low = fits.unwrap_or(start);
            let aim = start + (end - start) * self.size * 19 / (tokens.max(1) * 20);
            let aim = if aim <= low || aim >= too_long { low + (too_long - low) / 2 } else { aim };
            let next = clamp(aim);
            if next >= too_long || Some(next) == fits {
                match fits {
                    Some(_) => break,
                    None => end = clamp(start + (end - start) / 2),
                }
            } else {
                end = next;
            }
        }
        Ok(fits.unwrap_or(shortest))
    }
}

/// Where the character at `start` ends.
fn after_first(text: &str, start: usize) -> usize {
    start + text[start..].chars().next().map_or(0, char::len_utf8)
}
