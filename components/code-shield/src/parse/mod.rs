//! A parser that takes any text in six languages and makes of it what a rule can look at.
//!
//! Patterns go through the same parser, so that what it reads in an odd way it reads alike on both sides. It never
//! fails: a statement ends where the next token cannot continue it, and what fits nowhere is an [`Kind::Other`].
//!
//! Invariant: every loop consumes a token or ends, and recursion stops at [`MAX_DEPTH`].

mod closure;
mod declaration;
mod expression;
mod markup;
mod object;
mod python;
mod statement;

use crate::language::Language;
use crate::lexer::{Dialect, Lexeme, Token, is_metavariable, lex};
use crate::tree::{Id, Kind, Node, Tree};

/// Deepest nesting that is read; below it the text is skipped.
const MAX_DEPTH: usize = 128;

pub fn parse(source: &str, language: Language, pattern: bool) -> Tree<'_> {
    let dialect = Dialect { language, pattern };
    let tokens = lex(source, 0..source.len(), dialect);
    let mut parser =
        Parser { source, dialect, mates: mates(source, &tokens), tokens, at: 0, nodes: Vec::new(), depth: 0 };
    let mut statements = Vec::new();
    while !parser.done() {
        parser.statement_into(&mut statements);
    }
    let root = parser.add(Kind::Block, "", 0, statements);
    parser.nodes[root as usize].end = source.len();
    Tree { source, nodes: parser.nodes, root }
}

struct Parser<'s> {
    source: &'s str,
    dialect: Dialect,
    tokens: Vec<Lexeme>,
    /// For each bracket its partner.
    mates: Vec<usize>,
    at: usize,
    nodes: Vec<Node<'s>>,
    depth: usize,
}

const NO_MATE: usize = usize::MAX;

fn mates(source: &str, tokens: &[Lexeme]) -> Vec<usize> {
    let mut mates = vec![NO_MATE; tokens.len()];
    let mut open: Vec<usize> = Vec::new();
    for (i, token) in tokens.iter().enumerate().filter(|(_, t)| t.token == Token::Sign) {
        let sign = &source[token.start..token.end];
        match sign {
            "(" | "[" | "{" => open.push(i),
            ")" | "]" | "}" => {
                let partner = match sign {
                    ")" => "(",
                    "]" => "[",
                    _ => "{",
                };
                // What was opened since and never closed stays without a partner.
                let found = open.iter().rposition(|&o| &source[tokens[o].start..tokens[o].end] == partner);
                if let Some(found) = found {
                    mates[open[found]] = i;
                    mates[i] = open[found];
                    open.truncate(found);
                }
            }
            _ => {}
        }
    }
    mates
}

impl<'s> Parser<'s> {
    fn language(&self) -> Language {
        self.dialect.language
    }
    fn is_any(&self, languages: &[Language]) -> bool {
        languages.contains(&self.dialect.language)
    }
    fn done(&self) -> bool {
        self.at >= self.tokens.len()
    }
    fn text_at(&self, at: usize) -> &'s str {
        self.tokens.get(at).map_or("", |t| &self.source[t.start..t.end])
    }
    fn text(&self) -> &'s str {
        self.text_at(self.at)
    }
    fn token(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|t| &t.token)
    }
    fn sign_at(&self, at: usize, sign: &str) -> bool {
        self.tokens.get(at).is_some_and(|t| t.token == Token::Sign) && self.text_at(at) == sign
    }
    fn sign(&self, sign: &str) -> bool {
        self.sign_at(self.at, sign)
    }
    fn word_at(&self, at: usize) -> Option<&'s str> {
        self.tokens.get(at).filter(|t| t.token == Token::Word).map(|_| self.text_at(at))
    }
    fn word(&self) -> Option<&'s str> {
        self.word_at(self.at)
    }
    fn is_word(&self, word: &str) -> bool {
        self.word() == Some(word)
    }
    fn take_sign(&mut self, sign: &str) -> bool {
        let found = self.sign(sign);
        self.at += usize::from(found);
        found
    }
    fn take_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.at += usize::from(found);
        found
    }
    /// The partner of the bracket at `at`; `None` where it stands open.
    fn mate(&self, at: usize) -> Option<usize> {
        self.mates.get(at).copied().filter(|&m| m != NO_MATE)
    }
    fn first_on_line(&self, at: usize) -> bool {
        self.tokens.get(at).is_some_and(|t| t.first)
    }
    fn start(&self) -> usize {
        self.tokens.get(self.at).map_or(self.source.len(), |t| t.start)
    }
    /// The end of the last token taken.
    fn end(&self) -> usize {
        self.at.checked_sub(1).and_then(|i| self.tokens.get(i)).map_or(0, |t| t.end)
    }
    fn metavariable(&self) -> bool {
        self.dialect.pattern && self.word().is_some_and(is_metavariable)
    }

    /// A node up to the last token taken.
    fn add(&mut self, kind: Kind, atom: &'s str, start: usize, kids: Vec<Id>) -> Id {
        let end = self.end().max(start);
        self.nodes.push(Node { kind, atom, start, end, kids });
        (self.nodes.len() - 1) as Id
    }
    fn missing(&mut self) -> Id {
        let at = self.start();
        self.nodes.push(Node { kind: Kind::Missing, atom: "", start: at, end: at, kids: Vec::new() });
        (self.nodes.len() - 1) as Id
    }
    fn name(&mut self) -> Id {
        let (atom, start) = (self.text(), self.start());
        self.at += 1;
        self.add(Kind::Name, atom, start, Vec::new())
    }
    fn node_start(&self, id: Id) -> usize {
        self.nodes[id as usize].start
    }
    fn kind(&self, id: Id) -> Kind {
        self.nodes[id as usize].kind
    }

    /// Reads with `read` unless the nesting is too deep, where the rest up to the open bracket's end is skipped.
    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Id) -> Id {
        if self.depth >= MAX_DEPTH {
            let start = self.start();
            self.at = self.mate(self.at).unwrap_or(self.at) + 1;
            return self.add(Kind::Other, "", start, Vec::new());
        }
        self.depth += 1;
        let id = read(self);
        self.depth -= 1;
        id
    }

    /// Reads with `read` the tokens of a part of the text, inside a string.
    fn within<T>(&mut self, part: std::ops::Range<usize>, read: impl FnOnce(&mut Self) -> T) -> T {
        let mut tokens = lex(self.source, part, self.dialect);
        tokens.retain(|t| !matches!(t.token, Token::Newline | Token::Indent | Token::Dedent));
        let mates = mates(self.source, &tokens);
        let outer = (std::mem::replace(&mut self.tokens, tokens), std::mem::replace(&mut self.mates, mates), self.at);
        self.at = 0;
        let result = read(self);
        (self.tokens, self.mates, self.at) = outer;
        result
    }
}
