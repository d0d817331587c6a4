//! Tells in nearly no time which words a text lacks: most code has none that a rule asks for.

use std::cell::Cell;

/// Bits of the table: a text of a few kilobytes sets few of them.
const BITS: usize = 1 << 15;

/// A text and its trigrams.
pub struct Present<'s> {
    text: &'s str,
    trigrams: Vec<u64>,
    longest_run: Cell<Option<usize>>,
}

fn slot(window: &[u8]) -> usize {
    let value = u32::from(window[0]) | u32::from(window[1]) << 8 | u32::from(window[2]) << 16;
    (value.wrapping_mul(0x9E37_79B1) >> 17) as usize % BITS
}

impl<'s> Present<'s> {
    pub fn of(text: &'s str) -> Self {
        let mut trigrams = vec![0u64; BITS / 64];
        for window in text.as_bytes().windows(3) {
            let slot = slot(window);
            trigrams[slot / 64] |= 1 << (slot % 64);
        }
        Self { text, trigrams, longest_run: Cell::new(None) }
    }

    /// Whether the word stands in the text.
    pub fn has(&self, word: &str) -> bool {
        let maybe = word.as_bytes().windows(3).all(|window| {
            let slot = slot(window);
            self.trigrams[slot / 64] >> (slot % 64) & 1 == 1
        });
        maybe && self.text.contains(word)
    }

    /// The longest row of letters, digits, `_` and `-`.
    pub fn longest_run(&self) -> usize {
        if let Some(known) = self.longest_run.get() {
            return known;
        }
        let runs = self.text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'));
        let longest = runs.map(str::len).max().unwrap_or(0);
        self.longest_run.set(Some(longest));
        longest
    }
}
