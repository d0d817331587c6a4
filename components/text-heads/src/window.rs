//! Cuts a text into segments that end with sentences; a window is a segment with the one before it.
//!
//! So an instruction is seen with what leads to it, wherever it stands, and a text of any length is judged evenly.
//! Invariant: where a segment ends depends on its own bytes and the one behind it, not on how a stream was cut.

use std::ops::Range;

/// Least bytes before a sentence's end ends a segment: shorter sentences say too little on their own.
const SEGMENT_MIN: usize = 100;
/// Most bytes of a segment. A window of two is at most some 130 tokens of English; embedders cut at 256.
pub const SEGMENT_MAX: usize = 240;
/// Most bytes that a stream leaves unjudged: a segment, the byte behind it, and a character cut short.
pub const HOLD_BACK: u32 = SEGMENT_MAX as u32 + 4;

/// The end of the segment that begins at `start`; `None` when more text may decide it. `complete`: no text follows.
pub fn segment_end(text: &str, start: usize, complete: bool) -> Option<usize> {
    let bytes = text.as_bytes();
    let rest = bytes.len() - start;
    for end in start + SEGMENT_MIN..=start + rest.min(SEGMENT_MAX) {
        let sentence = match bytes[end - 1] {
            b'\n' => true,
            b'.' | b'!' | b'?' => bytes.get(end).is_some_and(|next| b" \t\r\n".contains(next)),
            _ => false,
        };
        if sentence {
            return Some(end);
        }
    }
    if rest <= SEGMENT_MAX {
        return complete.then_some(bytes.len());
    }
    let blank = (start + SEGMENT_MIN + 1..=start + SEGMENT_MAX).rev().find(|&end| bytes[end - 1] == b' ');
    Some(blank.unwrap_or_else(|| text.floor_char_boundary(start + SEGMENT_MAX)))
}

/// The windows of a whole text, as ranges of bytes, without those whose segment is blank.
pub fn windows(text: &str) -> Vec<Range<usize>> {
    let (mut before, mut start, mut found) = (0, 0, Vec::new());
    while let Some(end) = segment_end(text, start, true).filter(|_| start < text.len()) {
        if !is_blank(&text[start..end]) {
            found.push(before..end);
        }
        (before, start) = (start, end);
    }
    found
}

/// Whether there is nothing to judge. ASCII only, as the twin has it.
pub fn is_blank(text: &str) -> bool {
    text.bytes().all(|b| b" \t\n\r\x0b\x0c".contains(&b))
}
