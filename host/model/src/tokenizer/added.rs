//! Control tokens in text: where they are, by their exact spelling.

use std::collections::HashMap;

/// Control tokens by their text.
#[derive(Debug, Default)]
pub(crate) struct AddedTokens {
    tokens: Vec<AddedToken>,
    /// Indices into `tokens` by first byte, longest text first.
    by_first_byte: HashMap<u8, Vec<usize>>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct AddedToken {
    pub(crate) id: u32,
    pub(crate) text: String,
    /// Takes the white space before it along.
    pub(crate) strip_left: bool,
    pub(crate) strip_right: bool,
    /// Matches only where no letter or digit is beside it.
    pub(crate) single_word: bool,
}

pub(crate) enum Part<'t> {
    Text(&'t str),
    Token(u32),
}

impl AddedTokens {
    pub(crate) fn new(tokens: impl IntoIterator<Item = AddedToken>) -> Self {
        let tokens: Vec<_> = tokens
            .into_iter()
            .filter(|token| !token.text.is_empty())
            .collect();
        let mut by_first_byte: HashMap<u8, Vec<usize>> = HashMap::new();
        for (i, token) in tokens.iter().enumerate() {
            by_first_byte
                .entry(token.text.as_bytes()[0])
                .or_default()
                .push(i);
        }
        for candidates in by_first_byte.values_mut() {
            candidates.sort_by_key(|&i| std::cmp::Reverse(tokens[i].text.len()));
        }
        Self {
            tokens,
            by_first_byte,
        }
    }

    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.tokens.iter().map(|token| token.text.as_str())
    }

    pub(crate) fn id(&self, text: &str) -> Option<u32> {
        self.tokens
            .iter()
            .find(|token| token.text == text)
            .map(|token| token.id)
    }

    /// Text and control tokens in order, leftmost and longest first.
    pub(crate) fn split<'t>(&self, text: &'t str) -> Vec<Part<'t>> {
        let mut parts = Vec::new();
        let mut done = 0;
        let mut at = 0;
        while at < text.len() {
            let Some(token) = self.token_at(text, at) else {
                at += 1;
                continue;
            };
            let before = &text[done..at];
            let before = if token.strip_left {
                before.trim_end()
            } else {
                before
            };
            if !before.is_empty() {
                parts.push(Part::Text(before));
            }
            parts.push(Part::Token(token.id));
            at += token.text.len();
            if token.strip_right {
                at = text.len() - text[at..].trim_start().len();
            }
            done = at;
        }
        if done < text.len() {
            parts.push(Part::Text(&text[done..]));
        }
        parts
    }

    /// Where to cut `text` so that no control token is whole in any piece: after the first character of each one it
    /// spells, and of one that its end (white space aside) only begins, `<|eot` before somebody's `_id|>`.
    pub(crate) fn cuts(&self, text: &str) -> Vec<usize> {
        let end = text.trim_end().len();
        let after_first = |at: usize| at + text[at..].chars().next().map_or(1, char::len_utf8);
        let begins = |at: usize| {
            let rest = text.as_bytes().get(at..end).unwrap_or_default();
            !rest.is_empty()
                && self
                    .starting_with(rest[0])
                    .any(|token| token.text.as_bytes().starts_with(rest))
        };
        (0..text.len())
            .filter(|&at| self.candidates(text, at).next().is_some() || begins(at))
            .map(after_first)
            .collect()
    }

    fn token_at<'s>(&'s self, text: &'s str, at: usize) -> Option<&'s AddedToken> {
        self.candidates(text, at).find(|token| {
            let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            let alone = || {
                !word(text[..at].chars().next_back())
                    && !word(text[at + token.text.len()..].chars().next())
            };
            !token.single_word || alone()
        })
    }

    /// Tokens whose text starts at byte `at`, longest first. A match starts and ends on character boundaries because
    /// both texts are UTF-8.
    fn candidates<'s>(&'s self, text: &'s str, at: usize) -> impl Iterator<Item = &'s AddedToken> {
        let rest = &text.as_bytes()[at..];
        self.starting_with(rest[0])
            .filter(move |token| rest.starts_with(token.text.as_bytes()))
    }

    fn starting_with(&self, byte: u8) -> impl Iterator<Item = &AddedToken> {
        self.by_first_byte
            .get(&byte)
            .map_or(&[][..], Vec::as_slice)
            .iter()
            .map(|&i| &self.tokens[i])
    }
}
