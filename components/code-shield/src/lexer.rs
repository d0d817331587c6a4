//! Cuts source text into tokens, for six languages and for patterns over them.
//!
//! It takes any text: what it cannot read becomes a one-character token, an open quote at a line's end among them.

use crate::language::Language::{self, *};
use std::ops::Range;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    Word,
    Number,
    /// A literal string; the range is its content.
    Text(Range<usize>),
    /// A string with expressions in it, by their ranges. A pattern's has one empty range.
    Template(Range<usize>, Vec<Range<usize>>),
    /// JavaScript's `/../`.
    Regex,
    /// Operators and brackets, `...` included.
    Sign,
    /// Python's line end, deeper and shallower lines.
    Newline,
    Indent,
    Dedent,
}

#[derive(Debug, Clone)]
pub struct Lexeme {
    pub token: Token,
    pub start: usize,
    pub end: usize,
    /// The first on its line.
    pub first: bool,
}

/// What is read, and how.
#[derive(Debug, Clone, Copy)]
pub struct Dialect {
    pub language: Language,
    /// Metavariables, `...` and `<... ...>` are read.
    pub pattern: bool,
}

const SIGNS: [&str; 39] = [
    "===", "!==", "**=", "<<=", "...", "<=>", "??=", "&&=", "||=", "=>", "->", "::", "?.", "==", "!=", "<=", ">=",
    "&&", "||", "??", "++", "--", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", ".=", "<<", "**", "//", ":=", "<>",
    "|>", "##", "@@",
];

pub fn lex(source: &str, range: Range<usize>, dialect: Dialect) -> Vec<Lexeme> {
    let mut lexer = Lexer {
        source,
        bytes: source.as_bytes(),
        at: range.start,
        end: range.end,
        dialect,
        out: Vec::with_capacity((range.end - range.start) / 4),
        depth: 0,
        indents: vec![],
        first: true,
    };
    lexer.run();
    lexer.out
}

struct Lexer<'s> {
    source: &'s str,
    bytes: &'s [u8],
    at: usize,
    end: usize,
    dialect: Dialect,
    out: Vec<Lexeme>,
    /// Open brackets; inside of them Python's line ends mean nothing.
    depth: usize,
    indents: Vec<usize>,
    first: bool,
}

impl Lexer<'_> {
    fn is(&self, language: Language) -> bool {
        self.dialect.language == language
    }
    fn peek(&self, ahead: usize) -> u8 {
        let at = self.at + ahead;
        if at < self.end { self.bytes[at] } else { 0 }
    }
    fn sees(&self, text: &str) -> bool {
        self.bytes[self.at..self.end].starts_with(text.as_bytes())
    }
    fn find(&self, text: &str) -> Option<usize> {
        self.source.get(self.at..self.end)?.find(text).map(|n| self.at + n)
    }
    fn push(&mut self, token: Token, start: usize) {
        self.out.push(Lexeme { token, start, end: self.at, first: self.first });
        self.first = false;
    }
    fn skip_to(&mut self, end: Option<usize>, after: usize) {
        self.at = end.map_or(self.end, |e| e + after);
    }

    fn run(&mut self) {
        if self.is(Php) && self.source[self.at..self.end].contains("<?") && !self.dialect.pattern {
            self.skip_markup();
        }
        if self.is(Python) {
            self.layout();
        }
        while self.at < self.end {
            let start = self.at;
            let byte = self.bytes[self.at];
            match byte {
                b'\n' => {
                    self.at += 1;
                    self.first = true;
                    if self.is(Python) && self.depth == 0 {
                        self.layout();
                    }
                }
                b' ' | b'\t' | b'\r' | 0x0c => self.at += 1,
                b'\\' if self.peek(1) == b'\n' => self.at += 2,
                _ if self.comment() => {}
                b'?' if self.is(Php) && self.sees("?>") => self.skip_markup(),
                _ if self.string(start) => {}
                b'0'..=b'9' => self.number(start),
                b if is_word(b) || (b == b'$' && self.dollar_word()) => {
                    self.at += 1;
                    while self.at < self.end && (is_word(self.bytes[self.at]) || self.bytes[self.at] == b'$') {
                        self.at += 1;
                    }
                    self.push(Token::Word, start);
                }
                b'/' if self.is(JavaScript) && self.regex_may_begin() => self.regex(start),
                _ => self.sign(start),
            }
        }
        if self.is(Python) {
            self.first = true;
            self.push(Token::Newline, self.at);
            for _ in 0..self.indents.len() {
                self.push(Token::Dedent, self.at);
            }
        }
    }

    /// A `$` begins a name in PHP and JavaScript, and a metavariable in patterns.
    fn dollar_word(&self) -> bool {
        let next = self.peek(1);
        (self.dialect.pattern && (next.is_ascii_uppercase() || next == b'_'))
            || (matches!(self.dialect.language, Php | JavaScript) && is_word(next))
            || (self.is(JavaScript) && matches!(next, b'(' | b'.'))
    }

    /// PHP's text outside of its tags.
    fn skip_markup(&mut self) {
        let open = self.find("<?");
        self.skip_to(open, 2);
        if self.sees("php") {
            self.at += 3;
        }
        // A tag ends a statement.
        self.out.push(Lexeme { token: Token::Sign, start: self.at, end: self.at, first: true });
    }

    /// At a line's start: opens and closes Python's blocks.
    fn layout(&mut self) {
        let mut width = 0;
        loop {
            match self.peek(0) {
                b' ' => width += 1,
                b'\t' => width = width / 8 * 8 + 8,
                b'\r' => {}
                // Lines without code have no say.
                b'\n' => width = 0,
                b'#' => {
                    let end = self.find("\n");
                    self.skip_to(end, 0);
                    continue;
                }
                _ => break,
            }
            self.at += 1;
        }
        if self.at >= self.end {
            return;
        }
        if !self.out.is_empty() {
            self.push(Token::Newline, self.at);
        }
        self.first = true;
        let current = self.indents.last().copied().unwrap_or(0);
        if self.out.is_empty() {
            // The first line sets the margin.
            self.indents = if width > 0 { vec![width] } else { vec![] };
        } else if width > current {
            self.indents.push(width);
            self.push(Token::Indent, self.at);
        } else {
            while self.indents.last().is_some_and(|&open| open > width) {
                self.indents.pop();
                self.push(Token::Dedent, self.at);
            }
        }
        self.first = true;
    }

    fn comment(&mut self) -> bool {
        let line = match self.dialect.language {
            Python => self.peek(0) == b'#',
            Php => (self.peek(0) == b'#' && self.peek(1) != b'[') || self.sees("//"),
            C | Cpp | CSharp => self.sees("//") || (self.peek(0) == b'#' && self.first),
            _ => self.sees("//"),
        };
        if line {
            // A preprocessor's line may go on.
            loop {
                let end = self.find("\n");
                self.skip_to(end, 0);
                if self.at >= self.end || self.bytes[self.at - 1] != b'\\' {
                    return true;
                }
                self.at += 1;
            }
        }
        if !self.is(Python) && self.sees("/*") {
            self.at += 2;
            let end = self.find("*/");
            self.skip_to(end, 2);
            return true;
        }
        false
    }

    fn number(&mut self, start: usize) {
        while self.at < self.end {
            let b = self.bytes[self.at];
            let exponent = matches!(b, b'+' | b'-') && matches!(self.bytes[self.at - 1], b'e' | b'E');
            let fraction = b == b'.' && self.peek(1).is_ascii_digit();
            if !(is_word(b) || fraction || (exponent && !self.source[start..].starts_with("0x"))) {
                break;
            }
            self.at += 1;
        }
        self.push(Token::Number, start);
    }

    fn sign(&mut self, start: usize) {
        let rest = &self.bytes[self.at..self.end];
        let deep = ["<...", "...>"].into_iter().find(|s| self.dialect.pattern && rest.starts_with(s.as_bytes()));
        let sign = deep.or_else(|| {
            SIGNS.into_iter().find(|s| rest.starts_with(s.as_bytes())).filter(|s| match *s {
                "//" => self.is(Python),
                ".=" | "<>" => self.is(Php),
                "->" => !self.is(JavaScript),
                "**" => matches!(self.dialect.language, Python | JavaScript | Php),
                "?." => !self.peek(2).is_ascii_digit(),
                _ => true,
            })
        });
        let length = sign.map_or_else(|| self.source[start..].chars().next().map_or(1, char::len_utf8), str::len);
        match rest[0] {
            b'(' | b'[' | b'{' => self.depth += 1,
            b')' | b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.at = (self.at + length).min(self.end);
        self.push(Token::Sign, start);
    }

    /// Whether a `/` here begins a regular expression: it does where a value is expected.
    fn regex_may_begin(&self) -> bool {
        let Some(last) = self.out.last() else { return true };
        let text = &self.source[last.start..last.end];
        match last.token {
            Token::Sign => !matches!(text, ")" | "]" | "}" | "++" | "--"),
            Token::Word => matches!(text, "return" | "typeof" | "case" | "in" | "of" | "delete" | "void" | "throw"),
            _ => false,
        }
    }

    fn regex(&mut self, start: usize) {
        let mut class = false;
        let mut at = self.at + 1;
        while at < self.end && self.bytes[at] != b'\n' {
            match self.bytes[at] {
                b'\\' => at += 1,
                b'[' => class = true,
                b']' => class = false,
                b'/' if !class => {
                    at += 1;
                    while at < self.end && self.bytes[at].is_ascii_alphabetic() {
                        at += 1;
                    }
                    self.at = at;
                    return self.push(Token::Regex, start);
                }
                _ => {}
            }
            at += 1;
        }
        self.sign(start);
    }

    /// Reads a string with its prefix. `false`: there is none here.
    fn string(&mut self, start: usize) -> bool {
        let rest = &self.source.as_bytes()[self.at..self.end];
        let prefix = rest.iter().take(4).position(|b| matches!(b, b'"' | b'\'' | b'`'));
        let Some(prefix) = prefix else { return false };
        let letters = rest[..prefix].to_ascii_lowercase();
        let quote = rest[prefix];
        let (raw, interpolated) = match (self.dialect.language, letters.as_slice()) {
            (_, b"") => (false, false),
            (Python, b"f") => (false, true),
            (Python, b"r" | b"br" | b"rb") => (true, false),
            (Python, b"fr" | b"rf") => (true, true),
            (Python, b"b" | b"u") => (false, false),
            (CSharp, b"$") => (false, true),
            (CSharp, b"@") => (true, false),
            (CSharp, b"$@" | b"@$") => (true, true),
            (Cpp, b"r") if quote == b'"' => return self.raw_cpp(start, prefix),
            (C | Cpp, b"l" | b"u" | b"u8") => (false, false),
            _ => return false,
        };
        let interpolated = interpolated
            || match self.dialect.language {
                JavaScript => quote == b'`',
                Php => quote != b'\'',
                _ => false,
            };
        if quote == b'`' && !matches!(self.dialect.language, JavaScript | Php) {
            return false;
        }
        let open = self.at + prefix;
        let triple = [quote; 3];
        let long = quote == b'"' && matches!(self.dialect.language, Java | CSharp) || self.is(Python);
        let fence = if long && self.bytes[open..self.end].starts_with(&triple) { 3 } else { 1 };
        let many_lines = fence == 3 || raw && self.is(CSharp) || quote == b'`' || self.is(Php);
        let content = open + fence;
        let mut at = content;
        loop {
            if at >= self.end || (self.bytes[at] == b'\n' && !many_lines) {
                return false;
            }
            if self.bytes[at] == b'\\' && !(raw && self.is(CSharp)) {
                at += 2;
            } else if self.bytes[at..self.end].starts_with(&triple[..fence]) {
                // C# doubles the quote of a raw string.
                if raw && self.is(CSharp) && fence == 1 && self.bytes.get(at + 1) == Some(&quote) {
                    at += 2;
                    continue;
                }
                break;
            } else {
                at += 1;
            }
        }
        let content = content..at;
        self.at = at + fence;
        let parts = if interpolated { self.interpolations(content.clone()) } else { Vec::new() };
        let token = match parts.is_empty() && !(self.is(Php) && quote == b'`') {
            true => Token::Text(content),
            false => Token::Template(content, parts),
        };
        self.push(token, start);
        true
    }

    /// `R"name( .. )name"`.
    fn raw_cpp(&mut self, start: usize, prefix: usize) -> bool {
        let name = self.at + prefix + 1;
        let Some(open) = self.source[name..self.end].find('(').map(|n| name + n).filter(|&n| n - name <= 16) else {
            return false;
        };
        let close = format!("){}\"", &self.source[name..open]);
        let Some(end) = self.source[open + 1..self.end].find(&close).map(|n| open + 1 + n) else { return false };
        self.at = end + close.len();
        self.push(Token::Text(open + 1..end), start);
        true
    }

    /// The expressions in a string's content.
    fn interpolations(&self, content: Range<usize>) -> Vec<Range<usize>> {
        let text = &self.bytes[content.clone()];
        if self.dialect.pattern {
            // `...${...}...`, `...{...}...` and `...$VAR...`: any expression.
            let any = self.source[content.clone()].contains("{...}") || self.source[content].starts_with("...$");
            return if any { std::iter::once(0..0).collect() } else { Vec::new() };
        }
        let mut parts = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let next = text.get(at + 1).copied().unwrap_or(0);
            match (self.dialect.language, text[at]) {
                (_, b'\\') => at += 1,
                (Python | CSharp, b'{') if next == b'{' => at += 1,
                (Python | CSharp, b'{') | (Php, b'{') if self.dialect.language != Php || next == b'$' => {
                    let end = closing_brace(text, at);
                    // A format follows a colon.
                    let colon = text[at..end].iter().position(|&b| b == b':').filter(|_| !self.is(Php));
                    parts.push(content.start + at + 1..content.start + colon.map_or(end, |n| at + n));
                    at = end;
                }
                (JavaScript, b'$') if next == b'{' => {
                    let end = closing_brace(text, at + 1);
                    parts.push(content.start + at + 2..content.start + end);
                    at = end;
                }
                (Php, b'$') if is_word(next) && !next.is_ascii_digit() => {
                    let end = text[at + 1..].iter().position(|&b| !is_word(b)).map_or(text.len(), |n| at + 1 + n);
                    parts.push(content.start + at..content.start + end);
                    at = end;
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
        parts
    }
}

/// The brace that closes the one at `open`, else the end.
fn closing_brace(text: &[u8], open: usize) -> usize {
    let mut depth = 0;
    for (at, b) in text.iter().enumerate().skip(open) {
        match b {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    text.len()
}

pub fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80
}

/// `$` and capitals, digits or underscores, and no superglobal of PHP.
pub fn is_metavariable(word: &str) -> bool {
    let name = word.strip_prefix('$').unwrap_or_default();
    let capital = name.bytes().next().is_some_and(|b| b.is_ascii_uppercase());
    capital && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}
