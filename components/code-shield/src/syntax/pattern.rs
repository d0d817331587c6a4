//! Writes a rule's pattern so that the language's own grammar reads it.
//!
//! Metavariables become names and ellipses what may stand in their place. Every replacement has the length of what it
//! replaces: positions in the grammar's tree are positions in the pattern, whose text tells what stood there.

use crate::bindings::is_metavariable;
use crate::language::Language::{self, *};

/// A pattern in disguise, and what has to stand around it.
pub struct Disguise {
    pub before: &'static str,
    /// As long as the pattern.
    pub text: String,
    pub after: &'static str,
}

pub fn disguise(source: &str, language: Language) -> Disguise {
    let mut writer = Writer { source: source.as_bytes(), text: source.as_bytes().to_vec(), language };
    writer.run();
    let (before, after) = around(source, language);
    // Whole characters of ASCII are replaced by such.
    Disguise { before, text: String::from_utf8_lossy(&writer.text).into_owned(), after }
}

/// What makes a statement of a pattern that is none.
fn around(source: &str, language: Language) -> (&'static str, &'static str) {
    let ended = source.ends_with([';', '}']);
    match language {
        Python => ("", ""),
        Php => ("<?php ", if ended { "" } else { ";" }),
        // A method.
        Java if source.starts_with('$') && source.ends_with('}') => ("class _ {", "}"),
        JavaScript if source.starts_with("function(") || source.starts_with('{') => ("(", ")"),
        CSharp if source.starts_with("(...) =>") => ("_ =", ""),
        CSharp if source.starts_with("new ") && !source.contains(['(', '{']) => ("", "();"),
        _ if ended => ("", ""),
        // A value, and no declaration.
        C | Cpp | CSharp if !source.contains('\n') => ("_ =", ";"),
        _ => ("", ";"),
    }
}

/// The type and the metavariable of `($T $X)`.
pub fn typed(text: &str) -> Option<(&str, &str)> {
    let (kind, name) = text.strip_prefix('(')?.strip_suffix(')')?.rsplit_once(' ')?;
    let path = |c: char| c.is_ascii_alphanumeric() || "_.<>$".contains(c);
    (is_metavariable(name) && !kind.is_empty() && kind.chars().all(path)).then_some((kind, name))
}

struct Writer<'a> {
    source: &'a [u8],
    text: Vec<u8>,
    language: Language,
}

impl Writer<'_> {
    fn run(&mut self) {
        let mut at = 0;
        while at < self.source.len() {
            let rest = &self.source[at..];
            at += match rest[0] {
                quote @ (b'"' | b'\'' | b'`') => self.string(at, quote),
                _ if rest.starts_with(b"<...") => self.write(at, b"___("),
                _ if rest.starts_with(b"...>") => self.write(at, b"   )"),
                _ if rest.starts_with(b"...") => self.ellipsis(at),
                b'(' => self.typed(at),
                b'$' if self.language != Php => self.metavariable(at),
                _ => 1,
            };
        }
    }

    fn write(&mut self, at: usize, text: &[u8]) -> usize {
        self.text[at..at + text.len()].copy_from_slice(text);
        text.len()
    }

    /// A string stays as it is, but for JavaScript's `${...}`.
    fn string(&mut self, at: usize, quote: u8) -> usize {
        let length = self.source[at + 1..].iter().position(|&b| b == quote).map_or(self.source.len() - at, |n| n + 2);
        if quote == b'`' && self.language == JavaScript {
            for inner in at..at + length {
                if self.source[inner..].starts_with(b"${...}") {
                    self.write(inner + 2, b"___");
                }
            }
        }
        length
    }

    fn metavariable(&mut self, at: usize) -> usize {
        if !self.source.get(at + 1).is_some_and(u8::is_ascii_uppercase) {
            return 1;
        }
        let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
        let length = 1 + self.source[at + 1..].iter().take_while(|b| word(b)).count();
        if self.source[..at].ends_with(b" from ") && self.language == JavaScript {
            // Only a string may follow.
            self.text[at] = b'"';
            self.text[at + length - 1] = b'"';
        } else {
            self.text[at] = b'_';
        }
        length
    }

    /// `($T $X)` becomes one name in brackets.
    fn typed(&mut self, at: usize) -> usize {
        let called = self.source[..at].last().is_some_and(|&b| b.is_ascii_alphanumeric() || b == b'_');
        let end = self.source[at..].iter().position(|&b| b == b')').map(|n| at + n);
        let Some(end) = end.filter(|_| !called) else { return 1 };
        if typed(&String::from_utf8_lossy(&self.source[at..=end])).is_none() {
            return 1;
        }
        for byte in &mut self.text[at + 1..end] {
            if !byte.is_ascii_alphanumeric() && *byte != b'.' {
                *byte = b'_';
            }
        }
        end - at
    }

    fn ellipsis(&mut self, at: usize) -> usize {
        let before = self.source[..at].iter().rposition(|b| !b.is_ascii_whitespace());
        let previous = before.map(|n| self.source[n]);
        let next = self.source[at + 3..].iter().copied().find(|b| !b.is_ascii_whitespace());
        let first_on_line = self.source[before.map_or(0, |n| n + 1)..at].contains(&b'\n');
        let goes_on = matches!(next, Some(b',' | b')' | b'.' | b']'));
        // C# knows no statement that is a name.
        let statement: &[u8] = if self.language == CSharp { b"{ }" } else { b"__;" };
        let text: &[u8] = match previous {
            _ if self.language == Python => b"___",
            Some(b'=') if self.source.starts_with(b"<") => b"\"_\"",
            Some(b'(' | b',') if self.language == Java && self.declares(at) => b"_ _",
            Some(b'{') if goes_on || self.initializes(before) => b"___",
            None | Some(b'{' | b'}' | b';') => statement,
            // A statement ends before it.
            Some(b) if first_on_line && !b"(,=+[:".contains(&b) && !goes_on => {
                self.text[before.map_or(0, |n| n + 1)] = b';';
                statement
            }
            _ => b"___",
        };
        self.write(at, text)
    }

    /// Whether a place is among the parameters of a function with a body.
    fn declares(&self, at: usize) -> bool {
        let mut after = self.source[at..].iter().skip_while(|&&b| b != b')').skip(1);
        after.find(|b| !b.is_ascii_whitespace()) == Some(&b'{')
    }

    /// Whether a brace follows `new T`.
    fn initializes(&self, brace: Option<usize>) -> bool {
        let head = String::from_utf8_lossy(&self.source[..brace.unwrap_or(0)]).into_owned();
        head.trim_end().rsplit_once(' ').is_some_and(|(before, _)| before.ends_with("new"))
    }
}
