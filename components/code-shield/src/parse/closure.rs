//! What a bracket or a keyword in the place of a value may begin: lambdas, functions, casts.

use super::{Kind, Parser};
use crate::language::Language::*;
use crate::lexer::Token;
use crate::tree::Id;

impl<'s> Parser<'s> {
    pub(super) fn capture_or_list(&mut self) -> Id {
        let start = self.start();
        match self.mate(self.at).filter(|&close| self.sign_at(close + 1, "(") || self.sign_at(close + 1, "{")) {
            Some(close) => {
                self.at = close + 1;
                let parameters = self.parameters_or_none();
                while !self.done() && !self.sign("{") && !self.sign(";") && !self.sign(")") {
                    self.at += 1;
                }
                self.lambda(start, parameters)
            }
            None => self.sequence(Kind::List),
        }
    }

    /// A lambda, a cast, a typed metavariable, or an expression in brackets.
    pub(super) fn parenthesis(&mut self) -> Id {
        let (start, open) = (self.start(), self.at);
        let Some(close) = self.mate(open) else {
            self.at += 1;
            return self.add(Kind::Other, "", start, Vec::new());
        };
        let arrow = match self.language() {
            JavaScript | CSharp => self.sign_at(close + 1, "=>"),
            Java => self.sign_at(close + 1, "->"),
            _ => false,
        };
        if arrow {
            let parameters = self.parameters();
            self.at += 1;
            return self.lambda(start, parameters);
        }
        if self.language() == JavaScript && self.sign_at(close + 1, ":") {
            // TypeScript's `(a): T => b`.
            let arrow = (close + 2..close + 12).find(|&at| self.sign_at(at, "=>"));
            let plain =
                |at: usize| self.word_at(at).is_some() || [".", "<", ">", "[", "]", "|"].contains(&self.text_at(at));
            if let Some(arrow) = arrow.filter(|&a| (close + 2..a).all(plain)) {
                let parameters = self.parameters();
                self.at = arrow + 1;
                return self.lambda(start, parameters);
            }
        }
        if self.is_any(&[C, Cpp, CSharp, Java, Php]) || self.dialect.pattern {
            self.at += 1;
            let type_start = self.start();
            if self.skip_type(self.dialect.pattern) {
                let text = &self.source[type_start..self.end()];
                if self.dialect.pattern && self.metavariable() && self.at + 1 == close {
                    let kind = self.add(Kind::Type, text, type_start, Vec::new());
                    let name = self.name();
                    self.at = close + 1;
                    return self.add(Kind::Typed, "", start, vec![kind, name]);
                }
                if self.at == close && self.cast(text, close) {
                    self.at = close + 1;
                    return self.nested(Self::unary);
                }
            }
            self.at = open;
        }
        let kids = self.arguments(close);
        match kids.as_slice() {
            // Brackets only group.
            [one] if !(self.language() == Python && self.sign_at(close - 1, ",")) => *one,
            _ => self.add(Kind::Tuple, "", start, kids),
        }
    }

    /// Whether `(text)` before the token after `close` turns a value into a type.
    fn cast(&self, text: &str, close: usize) -> bool {
        let certain = text.ends_with(['*', ']', '>', '&'])
            || [
                "int", "char", "float", "double", "long", "short", "byte", "string", "bool", "boolean", "array",
                "object",
            ]
            .iter()
            .any(|t| text.split_whitespace().any(|word| word == *t));
        let next = close + 1;
        let value = match self.tokens.get(next).map(|t| &t.token) {
            Some(Token::Sign) => {
                self.sign_at(next, "!") || self.sign_at(next, "~") || (certain && self.operand_at(next))
            }
            Some(Token::Word) => self.operator_word(next).is_none() && self.operand_at(next),
            Some(Token::Newline | Token::Indent | Token::Dedent) | None => false,
            Some(_) => true,
        };
        value && !text.starts_with('$')
    }

    fn operator_word(&self, at: usize) -> Option<&'s str> {
        self.word_at(at).filter(|w| ["instanceof", "is", "as", "in", "and", "or"].contains(w))
    }

    /// What follows a lambda's arrow, or its parameters.
    pub(super) fn lambda(&mut self, start: usize, parameters: Id) -> Id {
        let modifiers = self.add(Kind::Modifiers, "", start, Vec::new());
        let none = self.missing();
        let body = if self.sign("{") {
            self.block()
        } else {
            let at = self.start();
            let value = self.expression();
            let result = self.add(Kind::Return, "", at, vec![value]);
            self.add(Kind::Block, "", at, vec![result])
        };
        self.add(Kind::Function, "", start, vec![modifiers, none, parameters, body])
    }

    /// `function name(..) { .. }` and C#'s `delegate (..) { .. }`
    pub(super) fn function_expression(&mut self) -> Id {
        let start = self.start();
        self.at += 1;
        self.take_sign("*");
        self.take_sign("&");
        let name = match self.word() {
            Some(word) => {
                self.at += 1;
                word
            }
            None => "",
        };
        let parameters = self.parameters_or_none();
        if self.language() == Php && self.take_word("use") && self.sign("(") {
            self.at = self.mate(self.at).map_or(self.at, |m| m) + 1;
        }
        self.skip_result_type();
        let function = match self.take_sign("=>") {
            true => self.lambda(start, parameters),
            false if self.sign("{") => self.lambda(start, parameters),
            false => {
                let modifiers = self.add(Kind::Modifiers, "", start, Vec::new());
                let kids = vec![modifiers, self.missing(), parameters, self.missing()];
                self.add(Kind::Function, "", start, kids)
            }
        };
        self.nodes[function as usize].atom = name;
        function
    }

    /// `: Type` or `-> Type` before a body.
    pub(super) fn skip_result_type(&mut self) {
        let before = self.at;
        if (self.take_sign(":") || self.take_sign("->")) && !(self.take_sign("?"), self.skip_type(true)).1 {
            self.at = before;
        }
    }
}
