//! Control tokens in text: where they are, by their exact spelling.
//!
//! A byte trie, because content is foreign: the time for a text is its length times the few bytes that a token's
//! start is long, however many tokens begin alike.

/// Control tokens by their text.
#[derive(Debug)]
pub(crate) struct AddedTokens {
    tokens: Vec<AddedToken>,
    /// The trie; node 0 is the root.
    nodes: Vec<Node>,
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

#[derive(Debug, Default)]
struct Node {
    children: Vec<(u8, usize)>,
    /// The token that ends here.
    token: Option<usize>,
}

pub(crate) enum Part<'t> {
    Text(&'t str),
    Token(u32),
}

impl AddedTokens {
    pub(crate) fn new(tokens: impl IntoIterator<Item = AddedToken>) -> Self {
        let tokens: Vec<_> = tokens.into_iter().filter(|token| !token.text.is_empty()).collect();
        let mut nodes = vec![Node::default()];
        for (i, token) in tokens.iter().enumerate() {
            let mut at = 0;
            for byte in token.text.bytes() {
                at = match child(&nodes[at], byte) {
                    Some(next) => next,
                    None => {
                        nodes.push(Node::default());
                        let next = nodes.len() - 1;
                        nodes[at].children.push((byte, next));
                        next
                    }
                };
            }
            nodes[at].token.get_or_insert(i);
        }
        Self { tokens, nodes }
    }

    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.tokens.iter().map(|token| token.text.as_str())
    }

    pub(crate) fn id(&self, text: &str) -> Option<u32> {
        self.tokens.iter().find(|token| token.text == text).map(|token| token.id)
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
            let before = if token.strip_left { before.trim_end() } else { before };
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
        let spells_or_begins = |at: usize| {
            let rest = &text.as_bytes()[at..];
            let mut depth = 0;
            let mut whole = false;
            for node in self.path(rest) {
                depth += 1;
                whole |= node.token.is_some();
            }
            whole || (depth > 0 && at + depth >= end)
        };
        let after_first = |at: usize| at + text[at..].chars().next().map_or(1, char::len_utf8);
        (0..text.len()).filter(|&at| spells_or_begins(at)).map(after_first).collect()
    }

    /// The longest token at byte `at`. It starts and ends on character boundaries because both texts are UTF-8.
    fn token_at(&self, text: &str, at: usize) -> Option<&AddedToken> {
        let found = self.path(&text.as_bytes()[at..]).filter_map(|node| node.token.map(|i| &self.tokens[i]));
        let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let alone = |token: &AddedToken| {
            !word(text[..at].chars().next_back()) && !word(text[at + token.text.len()..].chars().next())
        };
        found.filter(|token| !token.single_word || alone(token)).last()
    }

    /// The nodes that `rest` leads through, as far as any token goes on.
    fn path<'s>(&'s self, rest: &'s [u8]) -> impl Iterator<Item = &'s Node> {
        rest.iter().scan(0, |at, &byte| {
            *at = child(&self.nodes[*at], byte)?;
            Some(&self.nodes[*at])
        })
    }
}

fn child(node: &Node, byte: u8) -> Option<usize> {
    node.children.iter().find(|(b, _)| *b == byte).map(|&(_, next)| next)
}
