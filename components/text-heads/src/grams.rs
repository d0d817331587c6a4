//! What words and marks a window has, alone and in pairs, hashed: the embedding tells the subject, these tell the wording.

/// Buckets that they are hashed into.
pub const BUCKETS: usize = 4096;

/// The buckets of all words, marks and neighbouring pairs, ASCII letters lowered; each once, in order.
pub fn buckets(window: &str) -> Vec<usize> {
    let lower = window.to_ascii_lowercase();
    let mut found = Vec::new();
    let mut before: Option<&[u8]> = None;
    for word in Words(lower.as_bytes()) {
        found.push(hash(&[word]));
        if let Some(before) = before {
            found.push(hash(&[before, b" ", word]));
        }
        before = Some(word);
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// FNV-1a, 32 bits.
fn hash(parts: &[&[u8]]) -> usize {
    let step = |hash: u32, &byte: &u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    parts.iter().copied().flatten().fold(0x811C_9DC5, step) as usize % BUCKETS
}

/// Runs of letters, digits and apostrophes, and single other marks.
struct Words<'a>(&'a [u8]);

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let blanks = self.0.iter().take_while(|b| b" \t\n\r\x0b\x0c".contains(b)).count();
        let rest = &self.0[blanks..];
        let letters = rest.iter().take_while(|&&b| b.is_ascii_alphanumeric() || b == b'\'' || b >= 0x80).count();
        let (word, after) = rest.split_at(letters.max(1).min(rest.len()));
        self.0 = after;
        (!word.is_empty()).then_some(word)
    }
}
