//! Python's statements, whose blocks are lines further to the right.

use super::expression::TARGET;
use super::{Kind, Parser};
use crate::lexer::Token;
use crate::tree::Id;

impl<'s> Parser<'s> {
    pub(super) fn python_statement(&mut self, out: &mut Vec<Id>) {
        let start = self.start();
        match self.token() {
            Some(Token::Newline | Token::Indent | Token::Dedent) => {
                self.at += 1;
                return;
            }
            Some(Token::Sign) if self.sign(";") => {
                self.at += 1;
                return;
            }
            Some(Token::Sign) if self.dialect.pattern && self.sign("...") => {
                self.at += 1;
                let any = self.add(Kind::Ellipsis, "", start, Vec::new());
                out.push(any);
                return;
            }
            Some(Token::Sign) if self.sign("@") => {
                // A decorator.
                self.at += 1;
                let decorator = self.expression();
                out.push(decorator);
                return;
            }
            _ => {}
        }
        while self.is_word("async") && self.word_at(self.at + 1).is_some() {
            self.at += 1;
        }
        let word = self.word().filter(|_| !["=", ".", ":", ","].contains(&self.text_at(self.at + 1)));
        match word {
            Some("def") if self.word_at(self.at + 1).is_some() => {
                self.at += 1;
                let name = self.text();
                self.at += 1;
                let parameters = self.parameters_or_none();
                let function = self.nested(|p| {
                    p.skip_to_colon();
                    let body = p.suite();
                    let modifiers = p.add(Kind::Modifiers, "", start, Vec::new());
                    let kids = vec![modifiers, p.missing(), parameters, body];
                    p.add(Kind::Function, name, start, kids)
                });
                out.push(function);
            }
            Some("class") if self.word_at(self.at + 1).is_some() => {
                self.at += 1;
                let name = self.text();
                self.at += 1;
                let class = self.nested(|p| {
                    let at = p.start();
                    let bases =
                        if p.sign("(") { p.sequence(Kind::Bases) } else { p.add(Kind::Bases, "", at, Vec::new()) };
                    p.skip_to_colon();
                    let body = p.suite();
                    let modifiers = p.add(Kind::Modifiers, "", start, Vec::new());
                    p.add(Kind::Class, name, start, vec![modifiers, bases, body])
                });
                out.push(class);
            }
            Some("if" | "elif") => {
                let node = self.nested(Self::python_if);
                out.push(node);
            }
            Some(word @ ("for" | "while" | "with" | "try" | "except" | "finally" | "else" | "match" | "case"))
                if !self.sign_at(self.at + 1, "(") || !matches!(word, "match" | "case") =>
            {
                let node = self.nested(|p| {
                    p.at += 1;
                    let mut kids = Vec::new();
                    while !p.done() && !p.sign(":") && !matches!(p.token(), Some(Token::Newline)) {
                        let before = p.at;
                        if !(p.take_word("in") || p.take_word("as") || p.take_sign(",")) {
                            // Of `x in y` the operator is the statement's own.
                            let part = if word == "for" && kids.is_empty() { p.binary(TARGET) } else { p.expression() };
                            kids.push(part);
                        }
                        if p.at == before {
                            p.at += 1;
                        }
                    }
                    let body = p.suite();
                    kids.push(body);
                    p.add(Kind::Loop, word, start, kids)
                });
                out.push(node);
            }
            Some("return") => {
                self.at += 1;
                let mut kids = Vec::new();
                if self.operand_at(self.at) {
                    let value = self.tuple();
                    kids.push(value);
                }
                let node = self.add(Kind::Return, "", start, kids);
                out.push(node);
            }
            Some("import" | "from") => {
                self.at += 1;
                let at = self.start();
                let mut end = at;
                while !self.done() && !self.sign(";") && !matches!(self.token(), Some(Token::Newline)) {
                    self.at += 1;
                    end = self.end();
                }
                let from = &self.source[start..end.max(start)];
                let node = self.add(Kind::Import, from, start, Vec::new());
                out.push(node);
            }
            Some(word @ ("raise" | "assert" | "del" | "global" | "nonlocal" | "pass" | "break" | "continue")) => {
                self.at += 1;
                let mut kids = Vec::new();
                while self.operand_at(self.at) {
                    let value = self.tuple();
                    kids.push(value);
                    self.take_word("from");
                }
                let node = self.add(Kind::Other, word, start, kids);
                out.push(node);
            }
            // Python 2.
            Some(word @ ("print" | "exec")) if self.operand_at(self.at + 1) && !self.sign_at(self.at + 1, "(") => {
                self.at += 1;
                let value = self.tuple();
                let name = self.add(Kind::Name, word, start, Vec::new());
                let node = self.add(Kind::Call, "", start, vec![name, value]);
                out.push(node);
            }
            _ => self.python_expression(start, out),
        }
    }

    fn python_expression(&mut self, start: usize, out: &mut Vec<Id>) {
        let value = self.tuple();
        if self.kind(value) == Kind::Missing {
            return;
        }
        if self.take_sign(":") {
            // An annotation, with or without a value.
            let at = self.start();
            let before = self.at;
            self.conditional();
            let text = &self.source[at..if self.at > before { self.end() } else { at }];
            let kind = self.add(Kind::Type, text, at, Vec::new());
            let initial = if self.take_sign("=") { self.tuple() } else { self.missing() };
            let node = self.add(Kind::Let, "", start, vec![kind, value, initial]);
            out.push(node);
            return;
        }
        if self.sign("=") {
            // `a, b = c`
            self.at += 1;
            let right = self.tuple();
            let node = self.add(Kind::Assign, "=", start, vec![value, right]);
            out.push(node);
            return;
        }
        out.push(value);
    }

    /// `a, b`
    fn tuple(&mut self) -> Id {
        let start = self.start();
        let first = self.expression();
        if !self.sign(",") {
            return first;
        }
        let mut kids = vec![first];
        while self.take_sign(",") {
            if self.operand_at(self.at) {
                let next = self.expression();
                kids.push(next);
            }
        }
        self.add(Kind::Tuple, "", start, kids)
    }

    fn skip_to_colon(&mut self) {
        while !self.done() && !self.sign(":") && !matches!(self.token(), Some(Token::Newline)) {
            self.at =
                if self.sign("(") || self.sign("[") { self.mate(self.at).unwrap_or(self.at) } else { self.at } + 1;
        }
    }

    /// What a colon opens: the rest of the line, or the deeper lines.
    fn suite(&mut self) -> Id {
        let start = self.start();
        let mut statements = Vec::new();
        if !self.take_sign(":") {
            return self.add(Kind::Block, "", start, statements);
        }
        if !matches!(self.token(), Some(Token::Newline)) {
            while !self.done() && !matches!(self.token(), Some(Token::Newline | Token::Dedent)) {
                self.statement_into(&mut statements);
            }
            return self.add(Kind::Block, "", start, statements);
        }
        self.at += 1;
        if !matches!(self.token(), Some(Token::Indent)) {
            return self.add(Kind::Block, "", start, statements);
        }
        self.at += 1;
        let mut depth = 1;
        while !self.done() {
            match self.token() {
                Some(Token::Indent) => depth += 1,
                Some(Token::Dedent) => depth -= 1,
                _ => {
                    self.statement_into(&mut statements);
                    continue;
                }
            }
            self.at += 1;
            if depth == 0 {
                break;
            }
        }
        let block = self.add(Kind::Block, "", start, statements);
        // The line ends after the block belong to nobody.
        let last = self.nodes[block as usize].kids.last().map(|&id| self.nodes[id as usize].end);
        self.nodes[block as usize].end = last.unwrap_or(start);
        block
    }

    fn python_if(&mut self) -> Id {
        let start = self.start();
        self.at += 1;
        let condition = self.expression();
        self.skip_to_colon();
        let then = self.suite();
        let before = self.at;
        if matches!(self.token(), Some(Token::Newline)) {
            self.at += 1;
        }
        let otherwise = if self.is_word("elif") {
            self.nested(Self::python_if)
        } else if self.is_word("else") && self.sign_at(self.at + 1, ":") {
            self.at += 1;
            self.suite()
        } else {
            self.at = before;
            self.missing()
        };
        self.add(Kind::If, "", start, vec![condition, then, otherwise])
    }

    /// `lambda a, b: value`
    pub(super) fn python_lambda(&mut self) -> Id {
        let start = self.start();
        self.at += 1;
        let mut names = Vec::new();
        while !self.done() && !self.sign(":") && !matches!(self.token(), Some(Token::Newline)) {
            if let Some(name) = self.word() {
                let at = self.start();
                let kids = vec![self.missing(), self.missing()];
                let parameter = self.add(Kind::Parameter, name, at, kids);
                names.push(parameter);
            }
            self.at += 1;
        }
        let parameters = self.add(Kind::Parameters, "", start, names);
        self.take_sign(":");
        self.lambda(start, parameters)
    }
}
