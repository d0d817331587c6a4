//! Looks for all patterns at once, position by position.

use crate::pattern::{At, Pattern, Refused};

/// Most patterns together, built-in ones included: one bit each in [`Scanner::starts`].
pub const MAX_PATTERNS: usize = 64;

pub struct Scanner {
    patterns: Vec<Pattern>,
    /// For each byte, the patterns that a match can begin with there, a bit each: most positions cost one look-up.
    starts: [u64; 256],
    window: usize,
}

/// A match, by bytes of the text that was scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub start: usize,
    pub end: usize,
    pattern: usize,
}

impl Scanner {
    pub fn new(patterns: Vec<Pattern>) -> Result<Self, Refused> {
        if patterns.len() > MAX_PATTERNS {
            return Err(Refused(format!("at most {MAX_PATTERNS} patterns")));
        }
        let mut starts = [0; 256];
        for (i, pattern) in patterns.iter().enumerate() {
            for (byte, bits) in starts.iter_mut().enumerate() {
                *bits |= u64::from(pattern.first[byte]) << i;
            }
        }
        let window = patterns.iter().map(|p| p.window).max().unwrap_or(0);
        Ok(Self { patterns, starts, window })
    }

    /// Most bytes that [`Scanner::next`] leaves open.
    pub fn window(&self) -> usize {
        self.window
    }

    pub fn pattern(&self, found: &Found) -> &Pattern {
        &self.patterns[found.pattern]
    }

    /// The first match that begins at `from` or later, with its start; without one, the first position that more
    /// text could still make a match begin at, which is the text's end when it is `complete`.
    ///
    /// Of two matches that begin together the earlier pattern's counts. Text before `from` is looked back on only.
    pub fn next(&mut self, text: &str, from: usize, complete: bool) -> (usize, Option<Found>) {
        let bytes = text.as_bytes();
        for start in from..bytes.len() {
            let mut candidates = self.starts[usize::from(bytes[start])];
            if candidates == 0 || !text.is_char_boundary(start) {
                continue;
            }
            while candidates != 0 {
                let pattern = candidates.trailing_zeros() as usize;
                candidates &= candidates - 1;
                match self.patterns[pattern].at(bytes, start, complete) {
                    At::NoMatch => {}
                    At::Open => return (start, None),
                    At::Match(end) => {
                        return (start, Some(Found { start, end, pattern }));
                    }
                }
            }
        }
        (bytes.len(), None)
    }
}
