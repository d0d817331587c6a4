//! Objects: `new T(..) {..}` and `{key: value}`.

use super::{Kind, Parser};
use crate::language::Language::*;
use crate::lexer::Token;
use crate::tree::Id;

impl<'s> Parser<'s> {
    pub(super) fn new_object(&mut self) -> Id {
        let start = self.start();
        self.at += 1;
        let type_start = self.start();
        // An array's brackets belong to its size, an anonymous object has no type.
        let named = self.word().is_some();
        let kind = if named {
            self.at += 1;
            while (self.sign(".") || self.sign("::")) && self.word_at(self.at + 1).is_some() {
                self.at += 2;
            }
            if self.sign("<") {
                self.skip_generics(self.at);
            }
            let text = &self.source[type_start..self.end()];
            self.add(Kind::Type, text, type_start, Vec::new())
        } else {
            self.missing()
        };
        let arguments = match self.mate(self.at).filter(|_| self.sign("(") || self.sign("[")) {
            Some(close) => {
                let at = self.start();
                let kids = self.arguments(close);
                self.add(Kind::Arguments, "", at, kids)
            }
            None => self.missing(),
        };
        let body = match self.language() {
            _ if !self.sign("{") => self.missing(),
            CSharp => self.object(),
            Java => self.class_body_or_object(),
            Cpp => self.object(),
            _ => self.missing(),
        };
        self.add(Kind::New, "", start, vec![kind, arguments, body])
    }

    fn class_body_or_object(&mut self) -> Id {
        // `new T[] {..}` holds values, `new T() {..}` members.
        if self.at > 0 && self.sign_at(self.at - 1, "]") { self.object() } else { self.block() }
    }

    /// `{key: value, ..}` and C#'s `{Key = value, ..}`
    pub(super) fn object(&mut self) -> Id {
        let start = self.start();
        let Some(close) = self.mate(self.at) else {
            self.at += 1;
            return self.add(Kind::Other, "", start, Vec::new());
        };
        self.at += 1;
        let mut kids = Vec::new();
        while self.at < close {
            let before = self.at;
            let pair = self.pair();
            if self.kind(pair) != Kind::Missing {
                kids.push(pair);
            }
            self.take_sign(",");
            if self.at == before {
                self.at += 1;
            }
        }
        self.at = close + 1;
        self.add(Kind::Object, "", start, kids)
    }

    fn pair(&mut self) -> Id {
        let start = self.start();
        let key = match self.token() {
            Some(Token::Text(content)) => Some(&self.source[content.clone()]),
            Some(Token::Word) => Some(self.text()),
            _ => None,
        };
        if let Some(key) = key {
            let equals = self.sign_at(self.at + 1, "=") && self.language() == CSharp;
            if equals || self.sign_at(self.at + 1, ":") {
                self.at += 2;
                let value = self.expression();
                return self.add(Kind::Pair, key, start, vec![value]);
            }
            // A method.
            let method = self.language() == JavaScript && self.sign_at(self.at + 1, "(");
            if method && self.mate(self.at + 1).is_some_and(|close| self.sign_at(close + 1, "{")) {
                self.at += 1;
                let parameters = self.parameters();
                let function = self.lambda(start, parameters);
                return self.add(Kind::Pair, key, start, vec![function]);
            }
        }
        let value = self.expression();
        if self.take_sign(":") {
            let right = self.expression();
            return self.add(Kind::Pair, "", start, vec![value, right]);
        }
        if self.language() == Python && self.is_word("for") {
            return self.comprehension(start, value);
        }
        value
    }
}
