//! JSX: elements as JavaScript's values.

use super::{Kind, Parser};
use crate::lexer::Token;
use crate::tree::Id;

impl<'s> Parser<'s> {
    /// `<name attribute=value ..> .. </name>` or `<name .. />`
    pub(super) fn element(&mut self) -> Id {
        let start = self.start();
        self.at += 1;
        let name = self.word().unwrap_or_default();
        self.at += usize::from(!name.is_empty());
        while self.sign(".") && self.word_at(self.at + 1).is_some() {
            self.at += 2;
        }
        let mut kids = Vec::new();
        loop {
            if self.done() {
                return self.add(Kind::Element, name, start, kids);
            }
            if self.take_sign("/") {
                self.take_sign(">");
                return self.add(Kind::Element, name, start, kids);
            }
            if self.take_sign(">") {
                break;
            }
            match self.word() {
                Some(attribute) => {
                    let at = self.start();
                    self.at += 1;
                    while self.sign("-") || self.sign(":") {
                        self.at += 2;
                    }
                    let mut value = Vec::new();
                    if self.take_sign("=") {
                        let kid = self.element_value();
                        value.push(kid);
                    }
                    let pair = self.add(Kind::Pair, attribute, at, value);
                    kids.push(pair);
                }
                None if self.sign("{") => {
                    let kid = self.element_value();
                    kids.push(kid);
                }
                None => self.at += 1,
            }
        }
        self.element_content(&mut kids);
        self.add(Kind::Element, name, start, kids)
    }

    /// `"text"`, `{expression}` or `...`
    fn element_value(&mut self) -> Id {
        let start = self.start();
        let Some(close) = self.mate(self.at).filter(|_| self.sign("{")) else {
            if self.dialect.pattern && self.take_sign("...") {
                return self.add(Kind::Ellipsis, "", start, Vec::new());
            }
            let at = self.at;
            let token = self.token().cloned();
            self.at = at + 1;
            return match token {
                Some(Token::Text(content)) => {
                    let content = &self.source[content];
                    self.add(Kind::Text, content, start, Vec::new())
                }
                _ => self.add(Kind::Other, "", start, Vec::new()),
            };
        };
        let kids = self.arguments(close);
        match kids.as_slice() {
            [one] => *one,
            _ => self.add(Kind::Other, "", start, kids),
        }
    }

    /// Up to the closing tag: further elements and values; the rest is text.
    fn element_content(&mut self, kids: &mut Vec<Id>) {
        while !self.done() {
            if self.sign("<") && self.sign_at(self.at + 1, "/") {
                while !self.done() && !self.take_sign(">") {
                    self.at += 1;
                }
                return;
            }
            if self.sign("<") {
                let kid = self.nested(Self::element);
                kids.push(kid);
            } else if self.sign("{") && self.mate(self.at).is_some() {
                let kid = self.nested(Self::element_value);
                kids.push(kid);
            } else {
                self.at += 1;
            }
        }
    }
}
