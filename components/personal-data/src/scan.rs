//! Looks for all that is wanted at once, position by position.

use crate::reader::is_word;

/// Most matchers together: one bit each in [`Scanner::starts`].
pub const MAX_MATCHERS: usize = 64;

/// What is known of a start position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// A match ends here.
    Match(usize),
    NoMatch,
    /// More text decides.
    Open,
}

/// Recognises one sort of span.
pub trait Matcher {
    /// Whether a match can begin with this byte.
    fn begins(&self, byte: u8) -> bool;

    /// Whether matches begin only where no letter, digit or `_` stands before.
    fn begins_words(&self) -> bool {
        false
    }

    /// Most bytes from a start on that [`Matcher::at`] looks at.
    fn window(&self) -> usize;

    /// Whether a match begins at `start`. May look at [`crate::LOOK_BACK`] bytes before it. `complete`: no text follows.
    fn at(&mut self, text: &[u8], start: usize, complete: bool) -> At;
}

pub struct Scanner<M> {
    matchers: Vec<M>,
    /// For each byte, the matchers whose matches can begin with it, a bit each: most positions cost one look-up.
    starts: [u64; 256],
    /// Those of them that begin inside of words too.
    anywhere: u64,
    window: usize,
}

/// A match, by bytes of the text that was scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub start: usize,
    pub end: usize,
    matcher: usize,
}

impl<M: Matcher> Scanner<M> {
    /// `None` for more than [`MAX_MATCHERS`].
    pub fn new(matchers: Vec<M>) -> Option<Self> {
        if matchers.len() > MAX_MATCHERS {
            return None;
        }
        let (mut starts, mut anywhere) = ([0; 256], 0);
        for (i, matcher) in matchers.iter().enumerate() {
            for byte in 0..=u8::MAX {
                starts[usize::from(byte)] |= u64::from(matcher.begins(byte)) << i;
            }
            anywhere |= u64::from(!matcher.begins_words()) << i;
        }
        let window = matchers.iter().map(M::window).max().unwrap_or(0);
        Some(Self { matchers, starts, anywhere, window })
    }

    /// Most bytes that [`Scanner::next`] leaves open.
    pub fn window(&self) -> usize {
        self.window
    }

    pub fn matcher(&self, found: &Found) -> &M {
        &self.matchers[found.matcher]
    }

    /// The first match that begins at `from` or later, with its start; without one, the first position that more
    /// text could still make a match begin at, which is the text's end when it is `complete`.
    ///
    /// Of two matches that begin together the earlier matcher's counts. Text before `from` is looked back on only.
    pub fn next(&mut self, text: &str, from: usize, complete: bool) -> (usize, Option<Found>) {
        let bytes = text.as_bytes();
        for start in from..bytes.len() {
            let mut candidates = self.starts[usize::from(bytes[start])];
            if candidates != 0 && inside_word(bytes, start) {
                candidates &= self.anywhere;
            }
            if candidates == 0 || !text.is_char_boundary(start) {
                continue;
            }
            while candidates != 0 {
                let matcher = candidates.trailing_zeros() as usize;
                candidates &= candidates - 1;
                match self.matchers[matcher].at(bytes, start, complete) {
                    At::NoMatch => {}
                    At::Open => return (start, None),
                    At::Match(end) => return (start, Some(Found { start, end, matcher })),
                }
            }
        }
        (bytes.len(), None)
    }
}

/// Whether a word goes on at `start`. The letter of an escape (`\n` in a tool's JSON) is no part of the word behind it, so
/// that what is masked there leaves valid JSON.
fn inside_word(bytes: &[u8], start: usize) -> bool {
    let escape = |at: usize| at > 0 && bytes[at - 1] == b'\\' && b"nrtbf".contains(&bytes[at]);
    start > 0 && (escape(start) || is_word(bytes[start - 1]) && !escape(start - 1))
}
