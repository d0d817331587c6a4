//! What a completion's final answer is.

use crate::value::numbers;
use stockade_guest::prelude::*;

/// Where to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Find {
    /// Marked; else the last number where the reference is a number, else the last line.
    Auto,
    /// After the last `\boxed{`, `####`, or `answer is` and the like.
    Marked,
    /// The last number.
    Number,
    /// The last line with text.
    Line,
    /// All of it.
    Whole,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'a> {
    pub text: &'a str,
    pub marked: bool,
}

/// Words before an answer, in small letters.
const PHRASES: [&str; 6] = ["answer is", "answer:", "answer =", "answer equals", "result is", "solution is"];
/// Longest answer that is looked at, in bytes; more is no final answer.
const MAX_ANSWER_BYTES: usize = 1_000;

/// `numeric`: the reference is a number. `None` where there is no answer of the kind.
pub fn find(text: &str, how: Find, numeric: bool) -> Option<Found<'_>> {
    let plain = |text| Found { text, marked: false };
    match how {
        Find::Marked => marked(text),
        Find::Number => numbers(text).last().map(plain),
        Find::Line => last_line(text).map(plain),
        Find::Whole => Some(plain(text.trim())).filter(|f| !f.text.is_empty()),
        Find::Auto => marked(text).or_else(|| find(text, if numeric { Find::Number } else { Find::Line }, numeric)),
    }
}

/// The mark that stands last wins: a completion may correct itself.
fn marked(text: &str) -> Option<Found<'_>> {
    let boxed = text.rfind("\\boxed{").and_then(|at| Some((at, braced(&text[at + "\\boxed{".len()..])?)));
    let hashes = text.rfind("####").map(|at| (at, first_line(&text[at + "####".len()..])));
    // Small letters of ASCII alone keep every offset where it is.
    let small = text.to_ascii_lowercase();
    let phrases = PHRASES.iter().filter_map(|phrase| {
        // As words of their own: `points/answer = 3` marks nothing.
        let begins =
            |at: &usize| small[..*at].chars().next_back().is_none_or(|c| c.is_whitespace() || "*_(\"".contains(c));
        let at = small.rmatch_indices(phrase).map(|(at, _)| at).find(begins)?;
        Some((at, sentence(&text[at + phrase.len()..])))
    });
    let all = boxed.into_iter().chain(hashes).chain(phrases);
    let (_, text) = all.filter(|(_, answer)| !answer.is_empty()).max_by_key(|(at, _)| *at)?;
    Some(Found { text, marked: true }).filter(|f| f.text.len() <= MAX_ANSWER_BYTES)
}

/// Up to the brace that closes it.
fn braced(text: &str) -> Option<&str> {
    let mut depth = 1usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(text[..at].trim());
        }
    }
    None
}

/// Up to the end of the sentence: a full stop that no digit follows, or the line's end.
fn sentence(text: &str) -> &str {
    let line = first_line(text.trim_start_matches([':', '=', ' ', '*']));
    let bytes = line.as_bytes();
    let ends = |at: &usize| match bytes[*at] {
        b'.' | b'!' | b'?' | b';' => bytes.get(at + 1).is_none_or(|next| !next.is_ascii_alphanumeric()),
        _ => false,
    };
    let end = (0..bytes.len()).find(ends).unwrap_or(bytes.len());
    line[..end].trim()
}

/// The first line that has text, or what there is.
fn first_line(text: &str) -> &str {
    text.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or_default()
}

fn last_line(text: &str) -> Option<&str> {
    text.lines().rev().map(str::trim).find(|l| !l.is_empty()).filter(|l| l.len() <= MAX_ANSWER_BYTES)
}
