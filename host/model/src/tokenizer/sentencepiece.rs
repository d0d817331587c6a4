//! SentencePiece BPE as Llama 2 and Mistral use it: characters are merged by the score of what they become, and
//! characters without a token are spelled by byte tokens.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

pub(super) struct SentencePiece {
    /// Mergeable tokens: id and score. Control tokens are not among them.
    vocabulary: HashMap<String, (u32, f32)>,
    byte_ids: Box<[Option<u32>; 256]>,
    unknown: u32,
    /// A space is put before the text.
    add_prefix_space: bool,
}

impl SentencePiece {
    pub(super) fn new(
        vocabulary: HashMap<String, (u32, f32)>,
        byte_ids: Box<[Option<u32>; 256]>,
        unknown: u32,
        add_prefix_space: bool,
    ) -> Self {
        Self { vocabulary, byte_ids, unknown, add_prefix_space }
    }

    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        if text.is_empty() {
            return;
        }
        let space = if self.add_prefix_space { " " } else { "" };
        let text = format!("{space}{text}").replace(' ', "\u{2581}");
        let mut symbols = Symbols::of(&text);
        let mut queue = BinaryHeap::new();
        for right in 1..symbols.0.len() {
            queue.extend(self.merge(&text, &symbols, right - 1, right));
        }
        while let Some(merge) = queue.pop() {
            // A side may have been merged away or have grown since.
            let (left, right) = (symbols.0[merge.left], symbols.0[merge.right]);
            if left.len == 0 || right.len == 0 || left.len + right.len != merge.len {
                continue;
            }
            symbols.join(merge.left, merge.right);
            let joined = symbols.0[merge.left];
            if let Some(previous) = joined.previous {
                queue.extend(self.merge(&text, &symbols, previous, merge.left));
            }
            if let Some(next) = joined.next {
                queue.extend(self.merge(&text, &symbols, merge.left, next));
            }
        }
        for symbol in symbols.0.iter().filter(|symbol| symbol.len > 0) {
            let piece = &text[symbol.start..symbol.start + symbol.len];
            match self.vocabulary.get(piece) {
                Some(&(id, _)) => ids.push(id),
                None => {
                    ids.extend(piece.bytes().map(|b| self.byte_ids[usize::from(b)].unwrap_or(self.unknown)));
                }
            }
        }
    }

    fn merge(&self, text: &str, symbols: &Symbols, left: usize, right: usize) -> Option<Merge> {
        let (l, r) = (symbols.0[left], symbols.0[right]);
        let len = l.len + r.len;
        let &(_, score) = self.vocabulary.get(&text[l.start..l.start + len])?;
        Some(Merge { score, left, right, len })
    }
}

/// A run of the text that is one token so far; `len` 0 once it is merged into its left neighbour.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    start: usize,
    len: usize,
    previous: Option<usize>,
    next: Option<usize>,
}

struct Symbols(Vec<Symbol>);

impl Symbols {
    fn of(text: &str) -> Self {
        let mut symbols: Vec<Symbol> = text
            .char_indices()
            .enumerate()
            .map(|(i, (start, c))| Symbol { start, len: c.len_utf8(), previous: i.checked_sub(1), next: Some(i + 1) })
            .collect();
        if let Some(last) = symbols.last_mut() {
            last.next = None;
        }
        Self(symbols)
    }

    fn join(&mut self, left: usize, right: usize) {
        let (len, next) = (self.0[right].len, self.0[right].next);
        self.0[left].len += len;
        self.0[left].next = next;
        self.0[right].len = 0;
        if let Some(next) = next {
            self.0[next].previous = Some(left);
        }
    }
}

/// Two neighbours that together are a token. Best score first, then leftmost.
struct Merge {
    score: f32,
    left: usize,
    right: usize,
    /// Bytes of both when it was queued.
    len: usize,
}

impl Ord for Merge {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then_with(|| other.left.cmp(&self.left))
    }
}
impl PartialOrd for Merge {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Merge {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Merge {}
