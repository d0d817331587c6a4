//! Cutting a text into chunks of so many tokens that overlap.
//!
//! A text is first cut into units, sentences as a rule, whose tokens are counted once; chunks are runs of units. So a
//! chunk ends where a sentence does, and is at most as large as asked for.

use crate::bank::invalid;
use std::ops::Range;
use stockade_guest::prelude::*;

/// OpenAI's `auto`.
const DEFAULT_SIZE: u32 = 800;
const DEFAULT_OVERLAP: u32 = 400;
const MIN_SIZE: u32 = 20;
const MAX_SIZE: u32 = 4096;
/// Share of a chunk that one unit of the strategy `tokens` may take.
const UNITS_A_CHUNK: u32 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// As full as possible: long sentences are cut.
    Tokens,
    /// Whole sentences, if they fit.
    Sentences,
    /// Chunks end where a new heading (`# `) begins as well.
    Headings,
}

/// How a text is cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Given")]
pub struct Chunking {
    pub strategy: Strategy,
    #[serde(rename = "max_chunk_size_tokens")]
    pub size: u32,
    #[serde(rename = "chunk_overlap_tokens")]
    pub overlap: u32,
}

/// Ours, or OpenAI's.
#[derive(Deserialize)]
#[serde(untagged)]
enum Given {
    OpenAi(OpenAi),
    Ours(Ours),
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum OpenAi {
    Auto,
    Static { r#static: Sizes },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sizes {
    max_chunk_size_tokens: u32,
    chunk_overlap_tokens: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ours {
    strategy: Option<Strategy>,
    max_chunk_size_tokens: Option<u32>,
    chunk_overlap_tokens: Option<u32>,
}

impl Default for Chunking {
    fn default() -> Self {
        Self { strategy: Strategy::Tokens, size: DEFAULT_SIZE, overlap: DEFAULT_OVERLAP }
    }
}

impl From<Given> for Chunking {
    fn from(given: Given) -> Self {
        match given {
            Given::OpenAi(OpenAi::Auto) => Self::default(),
            Given::OpenAi(OpenAi::Static { r#static: sizes }) => Self {
                strategy: Strategy::Tokens,
                size: sizes.max_chunk_size_tokens,
                overlap: sizes.chunk_overlap_tokens,
            },
            Given::Ours(ours) => {
                let size = ours.max_chunk_size_tokens.unwrap_or(DEFAULT_SIZE);
                Self {
                    strategy: ours.strategy.unwrap_or(Strategy::Tokens),
                    size,
                    overlap: ours.chunk_overlap_tokens.unwrap_or(DEFAULT_OVERLAP.min(size / 2)),
                }
            }
        }
    }
}

impl Chunking {
    pub fn read(text: &str) -> Result<Self> {
        let chunking: Self = serde_json::from_str(text).map_err(|e| invalid("chunking", e))?;
        chunking.checked()
    }

    pub fn checked(self) -> Result<Self> {
        if !(MIN_SIZE..=MAX_SIZE).contains(&self.size) {
            return Err(invalid("chunking.max_chunk_size_tokens", format!("{MIN_SIZE} to {MAX_SIZE}")));
        }
        if self.overlap > self.size / 2 {
            return Err(invalid("chunking.chunk_overlap_tokens", "at most half of the chunk"));
        }
        Ok(self)
    }
}

/// A piece of the text and its tokens.
#[derive(Debug, Clone, PartialEq)]
struct Unit {
    range: Range<usize>,
    tokens: u32,
}

/// Ranges of chunks, in order. `count` counts the tokens of a piece.
pub fn split(text: &str, chunking: &Chunking, count: impl Fn(&str) -> Result<u32>) -> Result<Vec<Range<usize>>> {
    let largest = match chunking.strategy {
        Strategy::Tokens => (chunking.size / UNITS_A_CHUNK).max(1),
        Strategy::Sentences | Strategy::Headings => chunking.size,
    };
    let sections = match chunking.strategy {
        Strategy::Headings => sections(text),
        Strategy::Tokens | Strategy::Sentences => std::iter::once(0..text.len()).collect(),
    };
    let mut chunks = Vec::new();
    for section in sections {
        let units = units(text, section, largest, &count)?;
        chunks.extend(runs(&units, chunking).into_iter().map(|run| trimmed(text, run)));
    }
    chunks.retain(|chunk| !chunk.is_empty());
    Ok(chunks)
}

/// Ranges of at most `size` tokens that follow each other.
pub fn windows(text: &str, size: u32, count: impl Fn(&str) -> Result<u32>) -> Result<Vec<Range<usize>>> {
    split(text, &Chunking { strategy: Strategy::Tokens, size, overlap: 0 }, count)
}

/// About how many tokens a text has: four bytes each, as is usual for English, and one at least for each word.
pub fn estimate(text: &str) -> u32 {
    text.split_whitespace().map(|word| word.len().div_ceil(4) as u32).sum()
}

/// Greedy runs of units; the next one begins with what overlaps.
fn runs(units: &[Unit], chunking: &Chunking) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let mut start = 0;
    while start < units.len() {
        let mut end = start;
        let mut tokens = 0;
        while end < units.len() && (end == start || tokens + units[end].tokens <= chunking.size) {
            tokens += units[end].tokens;
            end += 1;
        }
        runs.push(units[start].range.start..units[end - 1].range.end);
        if end == units.len() {
            break;
        }
        let mut next = end;
        let mut shared = 0;
        while next > start + 1 && shared + units[next - 1].tokens <= chunking.overlap {
            next -= 1;
            shared += units[next].tokens;
        }
        start = next;
    }
    runs
}

/// Sentences with their tokens; those of more than `largest` in pieces.
fn units(text: &str, section: Range<usize>, largest: u32, count: &impl Fn(&str) -> Result<u32>) -> Result<Vec<Unit>> {
    let mut units = Vec::new();
    for sentence in sentences(text, section) {
        cut(text, sentence, largest, count, &mut units)?;
    }
    Ok(units)
}

/// A piece as it is, or its halves while it is too large: at a blank near the middle, else at a character.
fn cut(
    text: &str,
    piece: Range<usize>,
    largest: u32,
    count: &impl Fn(&str) -> Result<u32>,
    units: &mut Vec<Unit>,
) -> Result<()> {
    let inside = &text[piece.clone()];
    if inside.trim().is_empty() {
        return Ok(());
    }
    // What is very long is cut before it is counted: counting is not free.
    let tokens = if inside.len() > 16 * MAX_SIZE as usize { u32::MAX } else { count(inside)? };
    let middle = middle(inside);
    if tokens <= largest || middle == 0 {
        units.push(Unit { range: piece, tokens });
        return Ok(());
    }
    let middle = piece.start + middle;
    cut(text, piece.start..middle, largest, count, units)?;
    cut(text, middle..piece.end, largest, count, units)
}

/// Where to cut: after the blank that is nearest to the middle, else at the middle; 0 where there is nothing to cut.
fn middle(text: &str) -> usize {
    let half = text.len() / 2;
    let blanks = text.char_indices().filter(|(_, c)| c.is_whitespace()).map(|(at, c)| at + c.len_utf8());
    let blank =
        blanks.filter(|at| *at < text.len() && !text[..*at].trim().is_empty()).min_by_key(|at| at.abs_diff(half));
    let near = blank.filter(|at| at.abs_diff(half) < text.len() / 2 - text.len() / 8);
    near.unwrap_or_else(|| (0..=half).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0))
}

/// Ranges that end after `.`, `!`, `?` and their like before a blank, and after lines.
fn sentences(text: &str, section: Range<usize>) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut start = section.start;
    let mut chars = text[section.clone()].char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|(_, c)| *c);
        let end = match c {
            '\n' => true,
            '.' | '!' | '?' | '…' => next.is_some_and(char::is_whitespace),
            '。' | '！' | '？' => true,
            _ => false,
        };
        if end {
            let end = section.start + at + c.len_utf8();
            found.push(start..end);
            start = end;
        }
    }
    found.push(start..section.end);
    found.retain(|range| !range.is_empty());
    found
}

/// Ranges that begin with a heading, and what comes before the first.
fn sections(text: &str) -> Vec<Range<usize>> {
    let mut starts = vec![0];
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let marks = line.bytes().take_while(|b| *b == b'#').count();
        if (1..=6).contains(&marks) && line[marks..].starts_with(' ') && at > 0 {
            starts.push(at);
        }
        at += line.len();
    }
    starts.push(text.len());
    starts.windows(2).map(|pair| pair[0]..pair[1]).collect()
}

fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let inside = &text[range.clone()];
    let start = range.start + (inside.len() - inside.trim_start().len());
    start..(start + inside.trim().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<u32> {
        Ok(text.split_whitespace().count() as u32)
    }

    fn chunks<'a>(text: &'a str, chunking: &str) -> Vec<&'a str> {
        let chunking = Chunking::read(chunking).unwrap();
        split(text, &chunking, words).unwrap().into_iter().map(|range| &text[range]).collect()
    }

    /// Sentences of ten words.
    fn prose(sentences: usize) -> String {
        (0..sentences).map(|i| format!("s{i} a b c d e f g h end{i}. ")).collect()
    }

    #[test]
    fn chunks_are_full_and_overlap_by_whole_sentences() {
        let text = prose(10);
        let found = chunks(&text, r#"{"strategy":"sentences","max_chunk_size_tokens":40,"chunk_overlap_tokens":20}"#);
        assert_eq!(found.len(), 4);
        assert!(found[0].starts_with("s0 ") && found[0].ends_with("end3."));
        assert!(found[1].starts_with("s2 ") && found[1].ends_with("end5."));
        assert!(found[3].starts_with("s6 ") && found[3].ends_with("end9."));
    }

    #[test]
    fn no_chunk_is_larger_than_asked_for_and_nothing_is_lost() {
        let long = "word ".repeat(500);
        let unbroken = "x".repeat(700);
        for text in [prose(30), long, format!("{} {unbroken}", prose(3)), "日本語。テスト！".repeat(50)] {
            for strategy in ["tokens", "sentences", "headings"] {
                let chunking =
                    Chunking { strategy: serde_json::from_value(json!(strategy)).unwrap(), size: 40, overlap: 0 };
                let count = |text: &str| Ok(text.split_whitespace().map(|w| w.len().div_ceil(5) as u32).sum());
                let ranges = split(&text, &chunking, count).unwrap();
                assert!(ranges.iter().all(|r| count(&text[r.clone()]).unwrap() <= 40), "{strategy}");
                let kept: String = ranges.iter().map(|r| &text[r.clone()]).collect();
                let plain = |text: &str| text.split_whitespace().collect::<String>();
                assert_eq!(plain(&kept), plain(&text), "{strategy}");
            }
        }
    }

    #[test]
    fn headings_begin_chunks_and_only_they_do() {
        let text = "intro\n# One\nfirst\n## Two\nsecond #no\n#no either\n";
        let found = chunks(text, r#"{"strategy":"headings"}"#);
        assert_eq!(found, ["intro", "# One\nfirst", "## Two\nsecond #no\n#no either"]);
    }

    #[test]
    fn openais_forms_are_read_and_bounds_are_kept() {
        assert_eq!(Chunking::read(r#"{"type":"auto"}"#), Ok(Chunking::default()));
        let text = r#"{"type":"static","static":{"max_chunk_size_tokens":100,"chunk_overlap_tokens":50}}"#;
        assert_eq!(Chunking::read(text), Ok(Chunking { strategy: Strategy::Tokens, size: 100, overlap: 50 }));
        for bad in [
            r#"{"max_chunk_size_tokens":19}"#,
            r#"{"max_chunk_size_tokens":4097}"#,
            r#"{"max_chunk_size_tokens":100,"chunk_overlap_tokens":51}"#,
            r#"{"strategy":"pages"}"#,
            r#"{"size":100}"#,
            "7",
        ] {
            assert!(Chunking::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_empty_text_has_no_chunks() {
        assert!(chunks(" \n\n ", "{}").is_empty());
        assert!(chunks("", "{}").is_empty());
    }
}
