//! Expressions, by precedence climbing.

use super::{Kind, Parser};
use crate::language::Language::*;
use crate::lexer::{Token, is_metavariable};
use crate::tree::Id;

/// Words that begin no operand and continue none.
const STATEMENT_WORDS: [&str; 20] = [
    "if", "else", "elif", "for", "foreach", "while", "do", "switch", "case", "try", "catch", "except", "finally",
    "return", "break", "continue", "throw", "goto", "class", "def",
];

/// Words that begin a statement where another word follows, and are names elsewhere.
const DECLARING_WORDS: [&str; 10] =
    ["import", "using", "package", "namespace", "interface", "enum", "struct", "const", "let", "var"];

/// Operators from the loosest to the tightest, below assignment and the conditional.
const BINARY: [&[&str]; 12] = [
    &["??", "?:"],
    &["||", "or", "xor"],
    &["&&", "and"],
    &["|"],
    &["^"],
    &["&"],
    &["==", "!=", "===", "!==", "<>", "<=>"],
    &["<", ">", "<=", ">=", "instanceof", "in", "is", "as", "not in"],
    &["<<", ">>", ">>>"],
    &["+", "-", "."],
    &["*", "/", "%", "//", "@"],
    &["**"],
];

/// The level below `in`, where a loop's variable ends.
pub(super) const TARGET: usize = 8;

impl<'s> Parser<'s> {
    /// An expression with assignment, but without a comma.
    pub(super) fn expression(&mut self) -> Id {
        self.nested(Self::assignment)
    }

    fn assignment(&mut self) -> Id {
        let start = self.start();
        let target = self.conditional();
        let assigns =
            ["=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", ".=", "<<=", "**=", "??=", "&&=", "||=", ":="];
        if let Some(operator) = assigns.into_iter().find(|&s| self.sign(s)) {
            self.at += 1;
            let value = self.expression();
            return self.add(Kind::Assign, operator, start, vec![target, value]);
        }
        target
    }

    pub(super) fn conditional(&mut self) -> Id {
        let start = self.start();
        let value = self.binary(0);
        if self.language() == Python && self.is_word("if") {
            self.at += 1;
            let condition = self.binary(0);
            let otherwise = if self.take_word("else") { self.expression() } else { self.missing() };
            return self.add(Kind::Conditional, "", start, vec![condition, value, otherwise]);
        }
        if self.language() != Python && self.take_sign("?") {
            let then = if self.sign(":") { self.missing() } else { self.expression() };
            let otherwise = if self.take_sign(":") { self.expression() } else { self.missing() };
            return self.add(Kind::Conditional, "", start, vec![value, then, otherwise]);
        }
        value
    }

    /// The operator here and its tokens, if it belongs to `level`.
    fn operator(&self, level: usize) -> Option<(&'static str, usize)> {
        let text = self.text();
        match self.token()? {
            Token::Sign if text == ">" && self.adjacent(1, ">") => {
                let (operator, length) = if self.adjacent(2, ">") { (">>>", 3) } else { (">>", 2) };
                (BINARY[level].contains(&operator) && !self.sign_at(self.at + length, "="))
                    .then_some((operator, length))
            }
            Token::Sign if text == "." && self.language() != Php => None,
            Token::Sign => BINARY[level].iter().find(|&&o| o == text).map(|&o| (o, 1)),
            Token::Word => {
                let python = self.language() == Python;
                let known = match text {
                    "and" | "or" => self.is_any(&[Python, Php, Cpp]),
                    "in" => self.is_any(&[Python, JavaScript]),
                    "is" | "as" => self.is_any(&[Python, CSharp, JavaScript]),
                    "instanceof" => self.is_any(&[Java, JavaScript, Php]),
                    "not" => {
                        let not_in = python && level == 7 && self.word_at(self.at + 1) == Some("in");
                        return not_in.then_some(("not in", 2));
                    }
                    _ => false,
                };
                BINARY[level].iter().find(|&&o| known && o == text).map(|&o| (o, 1))
            }
            _ => None,
        }
    }

    fn adjacent(&self, ahead: usize, sign: &str) -> bool {
        let at = self.at + ahead;
        self.sign_at(at, sign) && self.tokens[at].start == self.tokens[at - 1].end
    }

    pub(super) fn binary(&mut self, level: usize) -> Id {
        if level == BINARY.len() {
            return self.unary();
        }
        let start = self.start();
        let mut left = self.binary(level + 1);
        while let Some((operator, tokens)) = self.operator(level) {
            self.at += tokens;
            if operator == "is" && self.language() == Python {
                self.take_word("not");
            }
            let right = self.binary(level + 1);
            left = self.add(Kind::Binary, operator, start, vec![left, right]);
        }
        left
    }

    pub(super) fn unary(&mut self) -> Id {
        let (start, text) = (self.start(), self.text());
        let prefix = match self.token() {
            Some(Token::Sign) => {
                ["!", "-", "+", "~", "*", "&", "++", "--", "@", "**", "&&"].contains(&text)
                    || (text == "..." && !self.dialect.pattern)
            }
            Some(Token::Word) => match text {
                "not" => self.is_any(&[Python, Cpp]),
                "await" | "yield" | "delete" => true,
                "typeof" | "void" => self.is_any(&[JavaScript]),
                "sizeof" => self.is_any(&[C, Cpp, CSharp]) && !self.sign_at(self.at + 1, "("),
                "echo" | "print" | "include" | "require" | "include_once" | "require_once" | "clone" => {
                    self.language() == Php && !self.sign_at(self.at + 1, "(")
                }
                "ref" | "out" => self.is_any(&[CSharp]),
                "throw" => true,
                "lambda" if self.language() == Python => return self.nested(Self::python_lambda),
                _ => false,
            },
            _ => false,
        };
        if prefix && self.operand_at(self.at + 1) {
            self.at += 1;
            let operand = self.nested(Self::unary);
            return self.add(Kind::Unary, text, start, vec![operand]);
        }
        let operand = self.operand();
        self.postfix(operand, start)
    }

    /// Whether an operand can begin at a token.
    pub(super) fn operand_at(&self, at: usize) -> bool {
        let Some(token) = self.tokens.get(at) else { return false };
        match token.token {
            Token::Sign => {
                let sign = self.text_at(at);
                ["(", "[", "{", "!", "-", "+", "~", "*", "&", "++", "--", "@", "...", "<..."].contains(&sign)
            }
            Token::Word => !self.begins_statement(at) || self.text_at(at) == "class",
            Token::Newline | Token::Indent | Token::Dedent => false,
            _ => true,
        }
    }

    fn begins_statement(&self, at: usize) -> bool {
        let text = self.text_at(at);
        let python = self.language() == Python;
        match text {
            "elif" | "except" | "def" => python,
            "foreach" | "do" | "switch" | "case" | "catch" | "throw" | "goto" if python => false,
            _ => STATEMENT_WORDS.contains(&text) || (DECLARING_WORDS.contains(&text) && self.word_at(at + 1).is_some()),
        }
    }

    fn operand(&mut self) -> Id {
        let (start, text) = (self.start(), self.text());
        let Some(token) = self.token().cloned() else { return self.missing() };
        match token {
            Token::Number => {
                self.at += 1;
                self.add(Kind::Number, text, start, Vec::new())
            }
            Token::Regex => {
                self.at += 1;
                self.add(Kind::Regex, text, start, Vec::new())
            }
            Token::Text(_) | Token::Template(..) => self.string(),
            Token::Newline | Token::Indent | Token::Dedent => self.missing(),
            Token::Word => self.word_operand(),
            Token::Sign => match text {
                "(" => self.nested(Self::parenthesis),
                "[" if self.language() == Cpp => self.nested(Self::capture_or_list),
                "[" => self.nested(|p| p.sequence(Kind::List)),
                "{" => self.nested(Self::object),
                "..." => {
                    self.at += 1;
                    self.add(if self.dialect.pattern { Kind::Ellipsis } else { Kind::Other }, "", start, Vec::new())
                }
                "<..." => {
                    self.at += 1;
                    let inner = self.expression();
                    self.take_sign("...>");
                    self.add(Kind::Deep, "", start, vec![inner])
                }
                "<" if self.language() == JavaScript
                    && (self.word_at(self.at + 1).is_some() || self.sign_at(self.at + 1, ">")) =>
                {
                    self.nested(Self::element)
                }
                ")" | "]" | "}" | ";" | "," | ":" | "=>" => self.missing(),
                _ => {
                    self.at += 1;
                    self.add(Kind::Other, text, start, Vec::new())
                }
            },
        }
    }

    /// A string, and those that follow it in C and Python.
    fn string(&mut self) -> Id {
        let start = self.start();
        let mut atom = "";
        let mut kids = Vec::new();
        let mut template = false;
        let mut pieces = 0;
        while let Some(token) = self.token().cloned() {
            match token {
                Token::Text(content) => atom = &self.source[content],
                Token::Template(content, parts) => {
                    atom = &self.source[content];
                    template = true;
                    for part in parts.into_iter().filter(|p| !p.is_empty()) {
                        let kid = self.nested(|p| p.within(part, Self::expression));
                        kids.push(kid);
                    }
                    // A shell command without an expression is a template all the same: it is run.
                    if self.dialect.pattern && kids.is_empty() {
                        let any = self.add(Kind::Ellipsis, "", start, Vec::new());
                        kids.push(any);
                    }
                }
                _ => break,
            }
            self.at += 1;
            pieces += 1;
            if !self.is_any(&[C, Cpp, Python]) {
                break;
            }
        }
        if pieces > 1 {
            atom = &self.source[start..self.end()];
        }
        self.add(if template { Kind::Template } else { Kind::Text }, atom, start, kids)
    }

    fn word_operand(&mut self) -> Id {
        let (start, text) = (self.start(), self.text());
        let arrow = |p: &Self, at| p.sign_at(at, "=>") || (p.language() == Java && p.sign_at(at, "->"));
        if self.is_any(&[JavaScript, CSharp, Java]) && arrow(self, self.at + 1) {
            return self.nested(|p| {
                let name = p.text();
                p.at += 1;
                let kids = vec![p.missing(), p.missing()];
                let parameter = p.add(Kind::Parameter, name, start, kids);
                let parameters = p.add(Kind::Parameters, "", start, vec![parameter]);
                p.at += 1;
                p.lambda(start, parameters)
            });
        }
        match text {
            "new" => self.nested(Self::new_object),
            "function" | "fn" | "delegate" if !matches!(self.language(), Python | C | Cpp | Java) => {
                self.nested(Self::function_expression)
            }
            "async" if self.language() != Python && self.operand_at(self.at + 1) => {
                self.at += 1;
                self.nested(Self::unary)
            }
            "static" if self.language() == Php && self.word_at(self.at + 1).is_some() => {
                self.at += 1;
                self.nested(Self::unary)
            }
            "class" if self.language() == JavaScript => {
                let modifiers = self.add(Kind::Modifiers, "", start, Vec::new());
                self.nested(|p| p.class(start, modifiers))
            }
            _ if self.begins_statement(self.at) && !self.dialect.pattern => {
                // This one has no end yet.
                if self.first_on_line(self.at) || self.is_any(&[Python]) { self.missing() } else { self.name() }
            }
            _ => self.name(),
        }
    }

    pub(super) fn postfix(&mut self, mut object: Id, start: usize) -> Id {
        if matches!(self.kind(object), Kind::Missing | Kind::Ellipsis | Kind::Other) && !self.sign(".") {
            return object;
        }
        loop {
            let here = self.at;
            if self.sign("(") {
                // An open call is cut off, not made.
                let Some(close) = self.mate(here) else { return self.broken(start, object) };
                let mut kids = vec![object];
                let arguments = self.arguments(close);
                kids.extend(arguments);
                object = self.add(Kind::Call, "", start, kids);
            } else if self.sign("[") && !(self.first_on_line(here) && self.language() != Php) {
                let Some(close) = self.mate(here) else { return self.broken(start, object) };
                let mut kids = vec![object];
                let arguments = self.arguments(close);
                kids.extend(arguments);
                object = self.add(Kind::Index, "", start, kids);
            } else if self.member_sign() {
                self.at += 1;
                if self.dialect.pattern && self.take_sign("...") {
                    object = self.add(Kind::Member, "...", start, vec![object]);
                } else if let Some(word) = self.word() {
                    self.at += 1;
                    object = self.add(Kind::Member, word, start, vec![object]);
                } else if self.sign("(") || self.sign("[") {
                    // JavaScript's `?.(`.
                } else if self.take_sign("<") {
                    // Java's `this.<T>name`.
                    self.skip_generics(self.at - 1);
                } else if self.sign("{") {
                    let Some(close) = self.mate(self.at) else { return object };
                    self.at = close + 1;
                    object = self.add(Kind::Member, "", start, vec![object]);
                } else {
                    return object;
                }
            } else if (self.sign("++") || self.sign("--")) && !self.first_on_line(here) {
                self.at += 1;
                object = self.add(Kind::Unary, self.text_at(here), start, vec![object]);
            } else if self.sign("!") && self.is_any(&[JavaScript, CSharp]) && !self.operand_at(here + 1) {
                // "Not null."
                self.at += 1;
            } else if self.sign("<") && self.is_any(&[Cpp, CSharp, Java, JavaScript]) && self.skip_generics(here) {
                let goes_on = ["(", "::", ".", "{"].into_iter().any(|s| self.sign(s));
                if !goes_on {
                    self.at = here;
                    return object;
                }
            } else if matches!(self.token(), Some(Token::Template(..))) && self.language() == JavaScript {
                let template = self.string();
                object = self.add(Kind::Call, "", start, vec![object, template]);
            } else {
                return object;
            }
        }
    }

    fn member_sign(&self) -> bool {
        match self.language() {
            Php => self.sign("->") || self.sign("::") || (self.sign("?") && self.adjacent(1, "->")),
            C | Cpp => self.sign(".") || self.sign("->") || self.sign("::"),
            _ => self.sign(".") || self.sign("?.") || self.sign("::"),
        }
    }

    fn broken(&mut self, start: usize, object: Id) -> Id {
        self.at += 1;
        self.add(Kind::Other, "", start, vec![object])
    }

    /// What stands between the bracket here and `close`.
    pub(super) fn arguments(&mut self, close: usize) -> Vec<Id> {
        self.at += 1;
        let mut all = Vec::new();
        while self.at < close {
            let before = self.at;
            let argument = self.argument();
            if self.kind(argument) != Kind::Missing {
                all.push(argument);
            }
            self.take_sign(",");
            if self.at == before {
                self.at += 1;
            }
        }
        self.at = close + 1;
        all
    }

    fn argument(&mut self) -> Id {
        let start = self.start();
        if let Some(word) = self.word() {
            let named = match self.language() {
                Python => self.sign_at(self.at + 1, "="),
                CSharp | Php => self.sign_at(self.at + 1, ":") && !is_metavariable(word),
                _ => false,
            };
            if named {
                self.at += 2;
                let value = self.expression();
                return self.add(Kind::Keyword, word, start, vec![value]);
            }
            // C#'s `out var x` and `out int x`.
            if word == "out" && self.language() == CSharp && self.word_at(self.at + 2).is_some() {
                self.at += 2;
                return self.name();
            }
        }
        let value = self.expression();
        if self.language() == Python && (self.is_word("for") || self.is_word("async")) {
            return self.comprehension(start, value);
        }
        if self.sign(":") && self.language() == Python {
            // A slice.
            let mut kids = vec![value];
            while self.take_sign(":") {
                if !self.sign(":") && !self.sign("]") && !self.sign(",") {
                    let part = self.expression();
                    kids.push(part);
                }
            }
            return self.add(Kind::Other, "", start, kids);
        }
        if self.language() == Php && self.take_sign("=>") {
            let right = self.expression();
            return self.add(Kind::Binary, "=>", start, vec![value, right]);
        }
        value
    }

    /// `value for x in y if z`
    pub(super) fn comprehension(&mut self, start: usize, value: Id) -> Id {
        let mut kids = vec![value];
        while let Some(word) = self.word().filter(|w| ["for", "in", "if", "async"].contains(w)) {
            self.at += 1;
            loop {
                let part = self.binary(if word == "for" { TARGET } else { 1 });
                kids.push(part);
                if !self.take_sign(",") {
                    break;
                }
            }
        }
        self.add(Kind::Other, "", start, kids)
    }

    /// Brackets around values.
    pub(super) fn sequence(&mut self, kind: Kind) -> Id {
        let start = self.start();
        let Some(close) = self.mate(self.at) else {
            self.at += 1;
            return self.add(Kind::Other, "", start, Vec::new());
        };
        let kids = self.arguments(close);
        self.add(kind, "", start, kids)
    }
}
