//! A template's text and tags, with the whitespace already taken away that belongs to the tags.

use super::Format;
use stockade_guest::{Error, Result};

#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    Text(String),
    Tag(Tag),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Tag {
    pub kind: Kind,
    /// Without delimiters, sigil and surrounding whitespace.
    pub content: String,
    /// Whitespace before a tag that stands alone on its line.
    pub indent: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Value,
    /// A value that is not escaped.
    Raw,
    Open,
    Inverse,
    Close,
    Partial,
    /// A comment or a change of delimiters: nothing but whitespace comes of it.
    Silent,
}

/// Most tags of a template.
const MAX_TAGS: usize = 10_000;
/// Longest delimiter in bytes.
const MAX_DELIMITER_BYTES: usize = 16;

pub fn lex(format: Format, source: &str) -> Result<Vec<Token>> {
    let mut lexer =
        Lexer { format, source, at: 0, open: "{{".into(), close: "}}".into(), tokens: Vec::new(), trim_next: false };
    let mut tags = 0;
    while lexer.step()? {
        tags += 1;
        if tags > MAX_TAGS {
            return Err(Error::TooLarge(format!("{MAX_TAGS} tags a template")));
        }
    }
    Ok(lexer.tokens)
}

struct Lexer<'s> {
    format: Format,
    source: &'s str,
    /// All before this is in `tokens`.
    at: usize,
    open: String,
    close: String,
    tokens: Vec<Token>,
    /// The last tag asked for the whitespace after it to go (`~}}`).
    trim_next: bool,
}

/// A tag's place and parts in the source.
struct Found<'s> {
    kind: Kind,
    content: &'s str,
    start: usize,
    end: usize,
    trim_before: bool,
    trim_after: bool,
}

impl<'s> Lexer<'s> {
    /// Reads up to the next tag and over it; `false` at the end.
    fn step(&mut self) -> Result<bool> {
        let mut from = self.at;
        let start = loop {
            let Some(found) = self.source[from..].find(&self.open) else {
                self.text(self.source.len());
                return Ok(false);
            };
            let start = from + found;
            let after = start + self.open.len();
            match self.format {
                Format::Simple if self.source[after..].starts_with("{{") => {
                    self.text(after);
                    self.at = after + 2;
                    from = self.at;
                }
                Format::Dotprompt if self.source[self.at..start].ends_with('\\') => {
                    self.text(start - 1);
                    // A backslash makes the braces plain text.
                    self.push_text(&self.source[start..after]);
                    self.at = after;
                    from = after;
                }
                _ => break start,
            }
        };
        let found = self.tag(start)?;
        if found.kind == Kind::Silent && found.content.starts_with('=') {
            self.delimiters(found.content)?;
        }
        let mut indent = String::new();
        let (mut before, mut after) = (found.start, found.end);
        if let Some((line_start, line_end)) = self.alone(&found) {
            if found.kind == Kind::Partial {
                indent = self.source[line_start..found.start].into();
            }
            (before, after) = (line_start, line_end);
        }
        if found.trim_before {
            before = self.at + self.source[self.at..found.start].trim_end().len();
        }
        self.text(before);
        self.at = after;
        self.trim_next = found.trim_after;
        let content = found.content.trim().to_string();
        self.tokens.push(Token::Tag(Tag { kind: found.kind, content, indent }));
        Ok(true)
    }

    /// Takes the text up to `end` over.
    fn text(&mut self, end: usize) {
        let text = &self.source[self.at.min(end)..end];
        let text = if std::mem::take(&mut self.trim_next) { text.trim_start() } else { text };
        self.push_text(text);
        self.at = end;
    }

    fn push_text(&mut self, text: &str) {
        match self.tokens.last_mut() {
            _ if text.is_empty() => {}
            Some(Token::Text(before)) => before.push_str(text),
            _ => self.tokens.push(Token::Text(text.into())),
        }
    }

    fn tag(&self, start: usize) -> Result<Found<'s>> {
        let source = self.source;
        let shown = || source[start..].chars().take(32).collect::<String>();
        let unclosed = || Error::Invalid(format!("`{}` is not closed", shown()));
        let mut inside = start + self.open.len();
        let handlebars = self.format == Format::Dotprompt;
        let trim_before = handlebars && source[inside..].starts_with('~');
        inside += usize::from(trim_before);
        let rest = &source[inside..];
        let (kind, skip, close) = match rest.as_bytes().first() {
            _ if self.format == Format::Simple => match rest.trim_start().strip_prefix('>') {
                Some(name) => (Kind::Partial, rest.len() - name.len(), self.close.clone()),
                None => (Kind::Value, 0, self.close.clone()),
            },
            Some(b'!') if handlebars && rest.starts_with("!--") => (Kind::Silent, 3, "--".into()),
            Some(b'!') => (Kind::Silent, 1, self.close.clone()),
            Some(b'=') if self.format == Format::Mustache => (Kind::Silent, 0, format!("={}", self.close)),
            Some(b'{') if self.open == "{{" => (Kind::Raw, 1, "}}}".into()),
            Some(b'&') => (Kind::Raw, 1, self.close.clone()),
            Some(b'#') => (Kind::Open, 1, self.close.clone()),
            Some(b'^') => (Kind::Inverse, 1, self.close.clone()),
            Some(b'/') => (Kind::Close, 1, self.close.clone()),
            Some(b'>') => (Kind::Partial, 1, self.close.clone()),
            _ => (Kind::Value, 0, self.close.clone()),
        };
        inside += skip;
        let length = source[inside..].find(&close).ok_or_else(unclosed)?;
        let mut content = &source[inside..inside + length];
        let mut end = inside + length + close.len();
        if close == "--" {
            // A long comment ends at its own mark and then at the closing braces.
            let more = source[end..].find(&self.close).ok_or_else(unclosed)?;
            if !["", "~"].contains(&source[end..end + more].trim()) {
                return Err(unclosed());
            }
            content = &source[end..end + more];
            end += more + self.close.len();
        }
        let trim_after = handlebars && content.ends_with('~');
        if trim_after {
            content = &content[..content.len() - 1];
        }
        Ok(Found { kind, content, start, end, trim_before, trim_after })
    }

    /// The line of a tag that has it for itself: its start, and the start of the next one. Values never have.
    fn alone(&self, found: &Found<'_>) -> Option<(usize, usize)> {
        let may_be = match (self.format, found.kind) {
            (Format::Simple, _) | (_, Kind::Raw) => false,
            (Format::Dotprompt, Kind::Value) => is_else(found.content),
            (_, Kind::Value) => false,
            _ => true,
        };
        if !may_be {
            return None;
        }
        // What is before `at` is another tag's, unless that tag's line ended there.
        let begun = self.at == 0 || self.source[..self.at].ends_with('\n');
        let line_start = match self.source[self.at..found.start].rfind('\n') {
            Some(newline) => self.at + newline + 1,
            None if begun => self.at,
            None => return None,
        };
        let blanks = [' ', '\t'];
        let after = self.source[found.end..].trim_start_matches(blanks);
        let next = match after.strip_prefix("\r\n").or(after.strip_prefix('\n')) {
            Some(next) => next,
            None if after.is_empty() => after,
            None => return None,
        };
        let is_blank = self.source[line_start..found.start].trim_start_matches(blanks).is_empty();
        is_blank.then_some((line_start, self.source.len() - next.len()))
    }

    /// `{{=<% %>=}}`
    fn delimiters(&mut self, content: &str) -> Result<()> {
        let both: Vec<&str> = content.trim_matches('=').split_whitespace().collect();
        let fine = |d: &str| d.len() <= MAX_DELIMITER_BYTES && !d.contains('=');
        match both.as_slice() {
            [open, close] if fine(open) && fine(close) => {
                (self.open, self.close) = (open.to_string(), close.to_string());
                Ok(())
            }
            _ => Err(Error::Invalid(format!("`{}` names no two delimiters", content.trim_matches('=').trim()))),
        }
    }
}

/// Whether a value tag of dotprompt's is the other branch of a block.
pub fn is_else(content: &str) -> bool {
    let content = content.trim();
    content == "else" || content.strip_prefix("else").is_some_and(|rest| rest.starts_with(char::is_whitespace))
}
