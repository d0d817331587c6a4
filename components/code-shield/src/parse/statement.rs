//! Statements.

use super::{Kind, Parser};
use crate::language::Language::*;
use crate::lexer::Token;
use crate::tree::Id;

impl<'s> Parser<'s> {
    /// Reads one statement; a declaration of several names counts as several. At least one token is taken.
    pub(super) fn statement_into(&mut self, out: &mut Vec<Id>) {
        let before = self.at;
        if self.depth >= super::MAX_DEPTH {
            self.at = self.mate(self.at).unwrap_or(self.at) + 1;
            return;
        }
        self.depth += 1;
        if self.language() == Python {
            self.python_statement(out);
        } else {
            self.braces_statement(out);
        }
        self.depth -= 1;
        if self.at == before {
            self.at += 1;
        }
    }

    /// `{ .. }`; one that never closes goes to the end.
    pub(super) fn block(&mut self) -> Id {
        self.nested(|p| {
            let start = p.start();
            let close = p.mate(p.at).unwrap_or(p.tokens.len());
            p.at += 1;
            let mut statements = Vec::new();
            while p.at < close {
                p.statement_into(&mut statements);
            }
            p.at = (close + 1).min(p.tokens.len());
            p.add(Kind::Block, "", start, statements)
        })
    }

    /// A statement as a block, where a rule expects one.
    fn body(&mut self) -> Id {
        if self.sign("{") {
            return self.block();
        }
        self.nested(|p| {
            let start = p.start();
            let mut statements = Vec::new();
            if !p.done() && !p.sign("}") {
                p.statement_into(&mut statements);
            }
            p.add(Kind::Block, "", start, statements)
        })
    }

    fn braces_statement(&mut self, out: &mut Vec<Id>) {
        let start = self.start();
        if self.sign(";") || self.sign("}") {
            self.at += 1;
            return;
        }
        if self.dialect.pattern && self.sign("...") {
            self.at += 1;
            self.take_sign(";");
            let any = self.add(Kind::Ellipsis, "", start, Vec::new());
            out.push(any);
            return;
        }
        if self.sign("{")
            && !(self.dialect.pattern && self.word_at(self.at + 1).is_some() && self.sign_at(self.at + 2, ":"))
        {
            let block = self.block();
            out.push(block);
            return;
        }
        if let Some(word) = self.word()
            && !self.sign_at(self.at + 1, ":")
            && !self.sign_at(self.at + 1, "=")
            && self.keyword_statement(word, start, out)
        {
            return;
        }
        let modifiers = self.modifiers();
        let declares = self.word().filter(|_| !self.sign_at(self.at + 1, "=") && !self.sign_at(self.at + 1, "."));
        if let Some(word) = declares {
            match word {
                "class" | "interface" | "enum" | "struct" | "record" | "trait" | "union" | "namespace"
                    if self.word_at(self.at + 1).is_some() && !self.struct_variable() =>
                {
                    let class = self.nested(|p| p.class(start, modifiers));
                    out.push(class);
                    return;
                }
                "function" if self.is_any(&[JavaScript, Php]) && self.word_at(self.at + 1).is_some() => {
                    self.at += 1;
                    let name = self.text();
                    self.at += 1;
                    let none = self.missing();
                    let function = self.nested(|p| p.function(start, modifiers, none, name));
                    out.push(function);
                    return;
                }
                "let" | "var" | "const" if self.word_at(self.at + 1).is_some() || self.language() == JavaScript => {
                    self.at += 1;
                    let none = self.missing();
                    self.variables(start, none, out);
                    self.end_statement();
                    return;
                }
                _ => {}
            }
            // `const x = ..`: the modifier was the declaration's word.
            if self.language() == JavaScript && self.text_at(self.at.wrapping_sub(1)) == "const" {
                let none = self.missing();
                self.variables(start, none, out);
                self.end_statement();
                return;
            }
            if self.declaration(modifiers, out) {
                self.end_statement();
                return;
            }
        }
        let value = self.expression();
        if self.kind(value) != Kind::Missing {
            let value = self.comma(start, value);
            out.push(value);
        }
        self.end_statement();
    }

    /// C's `struct name variable`.
    fn struct_variable(&self) -> bool {
        self.language() == C && (self.word_at(self.at + 2).is_some() || self.sign_at(self.at + 2, "*"))
    }

    /// `a, b`
    fn comma(&mut self, start: usize, first: Id) -> Id {
        if !self.sign(",") || !self.operand_at(self.at + 1) {
            return first;
        }
        let mut kids = vec![first];
        while self.take_sign(",") {
            let next = self.expression();
            kids.push(next);
        }
        self.add(Kind::Tuple, "", start, kids)
    }

    fn end_statement(&mut self) {
        self.take_sign(";");
    }

    /// `( .. )` after `if` and its kin, as its parts between semicolons.
    fn header(&mut self, out: &mut Vec<Id>) {
        let Some(close) = self.mate(self.at).filter(|_| self.sign("(")) else { return };
        self.at += 1;
        while self.at < close {
            self.statement_into(out);
            // `for (x in y)`, `for (T x : y)`, `foreach ($a as $b => $c)`
            if self.sign(":") || self.sign("=>") || self.is_word("of") || self.is_word("in") || self.is_word("as") {
                self.at += 1;
            }
        }
        self.at = close + 1;
    }

    fn condition(&mut self) -> Id {
        let start = self.start();
        let mut parts = Vec::new();
        self.header(&mut parts);
        match parts.as_slice() {
            [one] => *one,
            _ => self.add(Kind::Tuple, "", start, parts),
        }
    }

    /// A statement that begins with a keyword. `false`, and nothing taken, when this is none.
    fn keyword_statement(&mut self, word: &'s str, start: usize, out: &mut Vec<Id>) -> bool {
        let bracket = self.sign_at(self.at + 1, "(") && self.mate(self.at + 1).is_some();
        match word {
            "if" | "elseif" if bracket => {
                self.at += 1;
                let condition = self.condition();
                let then = self.body();
                let otherwise = match self.take_word("else") || self.is_word("elseif") {
                    true => self.body(),
                    false => self.missing(),
                };
                let node = self.add(Kind::If, "", start, vec![condition, then, otherwise]);
                out.push(node);
            }
            "while" | "for" | "foreach" | "switch" | "using" | "lock" | "synchronized" | "with" | "fixed"
                if bracket =>
            {
                self.at += 1;
                let mut kids = Vec::new();
                self.header(&mut kids);
                if !self.take_sign(";") {
                    let body = self.body();
                    kids.push(body);
                }
                let node = self.add(Kind::Loop, word, start, kids);
                out.push(node);
            }
            "do" | "else" => {
                self.at += 1;
                let body = self.body();
                let mut kids = vec![body];
                if word == "do" && self.take_word("while") {
                    self.header(&mut kids);
                }
                let node = self.add(Kind::Loop, word, start, kids);
                out.push(node);
            }
            "try" => {
                self.at += 1;
                let mut kids = Vec::new();
                // Java's resources.
                self.header(&mut kids);
                let body = self.body();
                kids.push(body);
                while self.is_word("catch") || self.is_word("finally") {
                    self.at += 1;
                    if self.sign("(") {
                        let parameters = self.parameters();
                        kids.push(parameters);
                    }
                    let body = self.body();
                    kids.push(body);
                }
                let node = self.add(Kind::Other, word, start, kids);
                out.push(node);
            }
            "return" => {
                self.at += 1;
                let mut kids = Vec::new();
                if !self.first_on_line(self.at) || self.sign("(") || self.dialect.pattern {
                    let at = self.start();
                    let value = self.expression();
                    if self.kind(value) != Kind::Missing {
                        let value = self.comma(at, value);
                        kids.push(value);
                    }
                }
                let node = self.add(Kind::Return, "", start, kids);
                out.push(node);
                self.end_statement();
            }
            "break" | "continue" | "goto" => {
                self.at += 1;
                if self.word().is_some() && !self.first_on_line(self.at) {
                    self.at += 1;
                }
                let node = self.add(Kind::Other, word, start, Vec::new());
                out.push(node);
                self.end_statement();
            }
            "case" | "default" if word == "case" => {
                self.at += 1;
                let value = self.expression();
                self.take_sign(":");
                let node = self.add(Kind::Other, word, start, vec![value]);
                out.push(node);
            }
            "import" | "package" if self.is_any(&[Java, JavaScript]) && !bracket && !self.sign_at(self.at + 1, ".") => {
                let node = self.import(start);
                out.push(node);
            }
            "using" | "use" if self.is_any(&[CSharp, Cpp, Php]) && self.directive() => {
                let node = self.import(start);
                out.push(node);
            }
            "namespace" if !bracket => {
                self.at += 1;
                while self.word().is_some() || self.sign(".") || self.sign("\\") || self.sign("::") {
                    self.at += 1;
                }
                if self.sign("{") {
                    // What is in it counts as if it stood outside.
                    let close = self.mate(self.at).unwrap_or(self.tokens.len());
                    self.at += 1;
                    while self.at < close {
                        self.statement_into(out);
                    }
                    self.at = (close + 1).min(self.tokens.len());
                }
                self.take_sign(";");
            }
            "template" if self.language() == Cpp && self.sign_at(self.at + 1, "<") => {
                self.at += 1;
                if !self.skip_generics(self.at) {
                    return true;
                }
                self.statement_into(out);
            }
            "typedef" => {
                self.at += 1;
                self.statement_into(out);
            }
            _ => return false,
        }
        true
    }

    /// Whether `using` here is a directive and no statement with a resource.
    fn directive(&self) -> bool {
        let static_import = self.word_at(self.at + 1) == Some("static");
        let mut at = self.at + 1 + usize::from(static_import);
        while self.word_at(at).is_some() && [".", "\\", "::"].contains(&self.text_at(at + 1)) {
            at += 2;
        }
        self.word_at(at).is_some()
            && (self.sign_at(at + 1, ";") || self.first_on_line(at + 1) || self.text_at(at + 1).is_empty())
    }

    /// `import a.b.*;`, `using A.B;`, `import x from "y"`, `import {a} from "y"`, `import "y"`
    fn import(&mut self, start: usize) -> Id {
        self.at += 1;
        if self.language() == JavaScript {
            let mut name = None;
            let names_start = self.start();
            let mut names_end = names_start;
            let from = self.at;
            while !self.done()
                && !self.sign(";")
                && !matches!(self.token(), Some(Token::Text(_)))
                && self.at < from + 64
            {
                let more =
                    self.at == from || !self.first_on_line(self.at) || self.sign("}") || self.sign_at(self.at - 1, ",");
                let inside = self.tokens[from..self.at].iter().any(|t| &self.source[t.start..t.end] == "{");
                if !more && !inside {
                    break;
                }
                if self.is_word("from") && self.at > from {
                    self.at += 1;
                    if self.metavariable() {
                        break;
                    }
                    continue;
                }
                // `import x from` and `import * as x from`
                let default = self.at == from || self.text_at(self.at - 1) == "as";
                if default && self.word().is_some_and(|w| w != "type") {
                    name = Some(self.at);
                }
                self.at += 1;
                names_end = self.end();
            }
            let here = self.at;
            let value = if matches!(self.token(), Some(Token::Text(_))) || self.metavariable() {
                let at = self.start();
                match self.token() {
                    Some(Token::Text(content)) => {
                        let content = &self.source[content.clone()];
                        self.at += 1;
                        self.add(Kind::Text, content, at, Vec::new())
                    }
                    _ => self.name(),
                }
            } else {
                self.missing()
            };
            let after = self.at;
            let kids = match name.filter(|&n| n < here) {
                Some(name) => {
                    self.at = name;
                    let name = self.name();
                    self.at = after;
                    vec![name, value]
                }
                None => vec![self.missing(), value],
            };
            let names = &self.source[names_start..names_end.max(names_start)];
            self.take_sign(";");
            return self.add(Kind::Import, names, start, kids);
        }
        self.take_word("static");
        let path_start = self.start();
        while self.word().is_some() || [".", "*", "\\", "::", "="].into_iter().any(|s| self.sign(s)) {
            if self.first_on_line(self.at) && self.start() > path_start {
                break;
            }
            self.at += 1;
        }
        let path = &self.source[path_start..self.end().max(path_start)];
        self.take_sign(";");
        self.add(Kind::Import, path, start, Vec::new())
    }
}
