//! Types, variables, functions and classes of the languages with braces.

use super::{Kind, Parser};
use crate::language::Language::*;
use crate::lexer::Token;
use crate::tree::Id;

/// Words before a declaration.
pub(super) const MODIFIERS: [&str; 33] = [
    "public",
    "private",
    "protected",
    "internal",
    "static",
    "final",
    "abstract",
    "const",
    "readonly",
    "override",
    "virtual",
    "sealed",
    "async",
    "extern",
    "inline",
    "volatile",
    "synchronized",
    "native",
    "transient",
    "unsafe",
    "partial",
    "export",
    "default",
    "explicit",
    "constexpr",
    "mutable",
    "register",
    "typename",
    "friend",
    "required",
    "declare",
    "get",
    "set",
];

/// Words of a type's name in several parts.
const TYPE_WORDS: [&str; 9] = ["unsigned", "signed", "long", "short", "struct", "enum", "union", "const", "volatile"];

/// Words that look like a type before a name and are none.
const NO_TYPES: [&str; 26] = [
    "return",
    "else",
    "new",
    "delete",
    "throw",
    "case",
    "goto",
    "await",
    "yield",
    "typeof",
    "instanceof",
    "in",
    "of",
    "is",
    "as",
    "do",
    "import",
    "using",
    "package",
    "echo",
    "print",
    "extends",
    "implements",
    "function",
    "delegate",
    "fn",
];

impl<'s> Parser<'s> {
    /// Skips `<..>` at `at` if nothing but types stands in it, and stands behind it.
    pub(super) fn skip_generics(&mut self, at: usize) -> bool {
        const LONGEST: usize = 64;
        let mut depth = 0;
        for here in at..self.tokens.len().min(at + LONGEST) {
            match self.text_at(here) {
                "<" => depth += 1,
                ">" => {
                    depth -= 1;
                    if depth == 0 {
                        self.at = here + 1;
                        return true;
                    }
                }
                "," | "." | "::" | "?" | "[" | "]" | "*" | "&" | "|" | "(" | ")" => {}
                _ if matches!(self.tokens[here].token, Token::Word | Token::Number) => {}
                _ => return false,
            }
        }
        false
    }

    /// Skips a type. With `metavariables`, a metavariable is one.
    pub(super) fn skip_type(&mut self, metavariables: bool) -> bool {
        while self.word().is_some_and(|w| w == "const" || w == "struct" || w == "typename") {
            self.at += 1;
        }
        let Some(word) = self.word().filter(|w| !NO_TYPES.contains(w)) else { return false };
        if word.starts_with('$') && !(metavariables && self.metavariable()) {
            return false;
        }
        self.at += 1;
        if TYPE_WORDS.contains(&word) {
            while self.word().is_some_and(|w| TYPE_WORDS.contains(&w) || ["int", "char", "double"].contains(&w)) {
                self.at += 1;
            }
        }
        loop {
            if (self.sign(".") || self.sign("::")) && self.word_at(self.at + 1).is_some() {
                self.at += 2;
            } else if !(self.sign("<") && self.skip_generics(self.at)) {
                break;
            }
        }
        loop {
            let array = self.sign("[") && (self.sign_at(self.at + 1, "]") || self.sign_at(self.at + 1, ","));
            if array {
                self.at = self.mate(self.at).map_or(self.at, |m| m) + 1;
                continue;
            }
            let optional = self.sign("?") && self.language() != C && self.word_at(self.at + 1).is_some();
            let pointer = ["*", "&", "&&"].into_iter().any(|s| self.sign(s)) && self.is_any(&[C, Cpp, CSharp]);
            let constant = ["const", "restrict"].into_iter().any(|w| self.is_word(w)) && self.is_any(&[C, Cpp]);
            if optional || pointer || constant {
                self.at += 1;
            } else {
                return true;
            }
        }
    }

    fn type_node(&mut self, start: usize) -> Id {
        let text = &self.source[start..self.end()];
        self.add(Kind::Type, text, start, Vec::new())
    }

    /// Annotations, attributes and modifiers.
    pub(super) fn modifiers(&mut self) -> Id {
        let start = self.start();
        let mut kids = Vec::new();
        loop {
            if self.sign("@") && self.is_any(&[Java, JavaScript]) && self.word_at(self.at + 1).is_some() {
                if self.word_at(self.at + 1) == Some("interface") {
                    break;
                }
                self.at += 1;
                let attribute = self.attribute();
                kids.push(attribute);
            } else if self.sign("[") && self.language() == CSharp && self.word_at(self.at + 1).is_some() {
                let Some(close) = self.mate(self.at) else { break };
                self.at += 1;
                while self.at < close {
                    if self.word().is_some() {
                        let attribute = self.attribute();
                        kids.push(attribute);
                    } else {
                        self.at += 1;
                    }
                }
                self.at = close + 1;
            } else if self.word().is_some_and(|w| MODIFIERS.contains(&w)) && self.modifier_here() {
                let name = self.name();
                kids.push(name);
            } else {
                break;
            }
        }
        self.add(Kind::Modifiers, "", start, kids)
    }

    /// A modifier stands before more of a declaration; else it is a name of its own.
    fn modifier_here(&self) -> bool {
        let next = self.at + 1;
        self.word_at(next).is_some_and(|w| w != "instanceof")
            || (self.sign_at(next, "[") && self.language() == CSharp)
            || (self.sign_at(next, "{") && self.is_word("static"))
    }

    fn attribute(&mut self) -> Id {
        let start = self.start();
        let mut name = self.text();
        self.at += 1;
        while self.sign(".") && self.word_at(self.at + 1).is_some() {
            name = self.text_at(self.at + 1);
            self.at += 2;
        }
        let kids = match self.mate(self.at).filter(|_| self.sign("(")) {
            Some(close) => self.arguments(close),
            None => Vec::new(),
        };
        self.add(Kind::Attribute, name, start, kids)
    }

    /// Reads a declaration with a type into `out`, or takes nothing.
    pub(super) fn declaration(&mut self, modifiers: Id, out: &mut Vec<Id>) -> bool {
        let (start, before) = (self.node_start(modifiers), self.at);
        // `$FUNC(..) {..}`, constructors, and methods of JavaScript.
        if self.word().is_some_and(|w| !NO_TYPES.contains(&w))
            && self.sign_at(self.at + 1, "(")
            && self.body_follows(self.at + 1)
        {
            let name = self.text();
            self.at += 1;
            let none = self.missing();
            out.push(self.nested_function(start, modifiers, none, name));
            return true;
        }
        let type_start = self.start();
        if self.language() == Php || !self.skip_type(true) {
            self.at = before;
            return false;
        }
        let is_name = self.word().is_some_and(|w| !["instanceof", "in", "of", "is", "as"].contains(&w));
        if !is_name || (self.first_on_line(self.at) && self.at > before + 1 && self.sign_at(self.at - 1, "*")) {
            self.at = before;
            return false;
        }
        let mut name = self.at;
        while (self.sign_at(name + 1, "::") || self.sign_at(name + 1, ".")) && self.word_at(name + 2).is_some() {
            name += 2;
        }
        let after = self.text_at(name + 1);
        let function = after == "(" && (self.body_follows(name + 1) || !self.is_any(&[C, Cpp]));
        let fits = matches!(after, "=" | ";" | "," | "[" | "{" | ":" | "(" | "=>" | ")" | "")
            || (after == "<" && self.language() != JavaScript)
            || self.first_on_line(name + 1)
            || (after == "..." && self.dialect.pattern);
        let block_after = after == "{" && !self.is_any(&[C, Cpp, CSharp]);
        if !fits || block_after || self.language() == JavaScript {
            self.at = before;
            return false;
        }
        let kind = self.type_node(type_start);
        self.at = name;
        if function || (after == "<" && self.generic_function(name)) {
            let atom = self.text();
            self.at += 1;
            if self.sign("<") {
                self.skip_generics(self.at);
            }
            out.push(self.nested_function(start, modifiers, kind, atom));
        } else {
            self.variables(start, kind, out);
        }
        true
    }

    fn generic_function(&mut self, name: usize) -> bool {
        let before = self.at;
        let found = self.skip_generics(name + 1) && self.sign("(");
        self.at = before;
        found
    }

    /// Whether a function's body follows the parameters at `open`.
    fn body_follows(&self, open: usize) -> bool {
        const LONGEST: usize = 24;
        let Some(close) = self.mate(open) else { return false };
        let mut at = close + 1;
        if self.sign_at(at, "{") {
            return true;
        }
        if self.sign_at(at, "=>") {
            return self.language() == CSharp;
        }
        // `throws A`, `const`, `: base(..)`, `where T : U`, a result type.
        let begins =
            self.word_at(at).is_some_and(|w| ["throws", "const", "noexcept", "override", "where"].contains(&w))
                || (self.sign_at(at, ":") && self.is_any(&[Cpp, CSharp, JavaScript, Php]));
        let end = at + LONGEST;
        while begins && at < end.min(self.tokens.len()) {
            match self.text_at(at) {
                "{" => return true,
                ";" | "}" | ")" | "=" => return false,
                "(" => at = self.mate(at).unwrap_or(end),
                _ => {}
            }
            at += 1;
        }
        false
    }

    fn nested_function(&mut self, start: usize, modifiers: Id, kind: Id, name: &'s str) -> Id {
        self.nested(|p| p.function(start, modifiers, kind, name))
    }

    /// From the parameters on.
    pub(super) fn function(&mut self, start: usize, modifiers: Id, kind: Id, name: &'s str) -> Id {
        let parameters = self.parameters_or_none();
        if self.language() == JavaScript || self.language() == Php {
            self.skip_result_type();
        }
        while !self.done() && !["{", ";", "}", "=>", "="].into_iter().any(|s| self.sign(s)) && !self.statement_sign() {
            self.at = if self.sign("(") { self.mate(self.at).unwrap_or(self.at) } else { self.at } + 1;
        }
        let body = if self.sign("{") {
            self.block()
        } else if self.take_sign("=>") {
            let at = self.start();
            let value = self.expression();
            let result = self.add(Kind::Return, "", at, vec![value]);
            self.add(Kind::Block, "", at, vec![result])
        } else {
            self.missing()
        };
        self.add(Kind::Function, name, start, vec![modifiers, kind, parameters, body])
    }

    fn statement_sign(&self) -> bool {
        self.dialect.pattern && self.sign("...")
    }

    pub(super) fn parameters_or_none(&mut self) -> Id {
        if self.sign("(") {
            self.parameters()
        } else {
            let start = self.start();
            self.add(Kind::Parameters, "", start, Vec::new())
        }
    }

    pub(super) fn parameters(&mut self) -> Id {
        let start = self.start();
        let Some(close) = self.mate(self.at) else {
            self.at += 1;
            return self.add(Kind::Parameters, "", start, Vec::new());
        };
        self.at += 1;
        let mut kids = Vec::new();
        while self.at < close {
            let before = self.at;
            if self.dialect.pattern && self.sign("...") {
                let at = self.start();
                self.at += 1;
                let any = self.add(Kind::Ellipsis, "", at, Vec::new());
                kids.push(any);
            } else {
                let parameter = self.parameter(close);
                kids.push(parameter);
            }
            while self.at < close && !self.take_sign(",") {
                self.at =
                    if self.sign("{") || self.sign("(") { self.mate(self.at).unwrap_or(self.at) } else { self.at } + 1;
            }
            if self.at == before {
                self.at += 1;
            }
        }
        self.at = close + 1;
        self.add(Kind::Parameters, "", start, kids)
    }

    /// One parameter: the name is the last word before its default.
    fn parameter(&mut self, close: usize) -> Id {
        let start = self.start();
        self.modifiers();
        let type_start = self.start();
        let from = self.at;
        let mut name = None;
        let mut kind = None;
        if !matches!(self.language(), Python | JavaScript) && self.skip_type(true) {
            if let Some(word) = self.word().filter(|_| self.at < close) {
                kind = Some(self.type_node(type_start));
                name = Some(word);
                self.at += 1;
            } else {
                self.at = from;
            }
        }
        if name.is_none() {
            self.at = from;
            while self.take_sign("*") || self.take_sign("**") || self.take_sign("...") || self.take_sign("&") {}
            name = self.word().filter(|_| self.at < close);
            self.at += usize::from(name.is_some());
            if matches!(self.language(), Python | JavaScript) && (self.take_sign("?"), self.take_sign(":")).1 {
                let at = self.start();
                while self.at < close && !self.sign(",") && !self.sign("=") {
                    let bracket = self.sign("[") || self.sign("(") || self.sign("{");
                    self.at = if bracket { self.mate(self.at).unwrap_or(self.at) } else { self.at } + 1;
                }
                kind = Some(self.type_node(at));
            }
        }
        let kind = match kind {
            Some(kind) => kind,
            None => self.missing(),
        };
        let default = if self.at < close && self.take_sign("=") { self.expression() } else { self.missing() };
        self.add(Kind::Parameter, name.unwrap_or_default(), start, vec![kind, default])
    }

    /// `name = value, name[size], name(arguments);` after the type.
    pub(super) fn variables(&mut self, start: usize, kind: Id, out: &mut Vec<Id>) {
        loop {
            while self.take_sign("*") || self.take_sign("&") {}
            let target_start = self.start();
            let target = match self.token() {
                Some(Token::Word) => self.name(),
                Some(Token::Sign) if self.sign("{") || self.sign("[") => self.expression_operand(),
                _ => return,
            };
            if self.language() == JavaScript && self.take_sign(":") {
                self.skip_type(true);
            }
            let mut target = target;
            while let Some(close) = self.mate(self.at).filter(|_| self.sign("[")) {
                let mut kids = vec![target];
                let sizes = self.arguments(close);
                kids.extend(sizes);
                target = self.add(Kind::Index, "", target_start, kids);
            }
            let value = if self.take_sign("=") {
                self.expression()
            } else if let Some(close) = self.mate(self.at).filter(|_| self.sign("(") && self.is_any(&[C, Cpp])) {
                let at = self.start();
                let kids = self.arguments(close);
                self.add(Kind::Arguments, "", at, kids)
            } else if self.sign("{") && self.language() == CSharp {
                // A property with its accessors.
                self.block()
            } else if self.sign("{") && self.language() == Cpp {
                self.expression_operand()
            } else {
                self.missing()
            };
            let variable = self.add(Kind::Let, "", start, vec![kind, target, value]);
            out.push(variable);
            if !self.take_sign(",") {
                return;
            }
        }
    }

    fn expression_operand(&mut self) -> Id {
        // A value without an assignment behind it.
        let start = self.start();
        match self.sign("[") {
            true => self.sequence(Kind::List),
            false => {
                let Some(close) = self.mate(self.at) else {
                    self.at += 1;
                    return self.add(Kind::Other, "", start, Vec::new());
                };
                let kids = self.arguments(close);
                self.add(Kind::Object, "", start, kids)
            }
        }
    }

    /// From `class` or one of its kin on.
    pub(super) fn class(&mut self, start: usize, modifiers: Id) -> Id {
        self.at += 1;
        let name = match self.word().filter(|w| !["extends", "implements"].contains(w)) {
            Some(word) => {
                self.at += 1;
                word
            }
            None => "",
        };
        let bases_start = self.start();
        let mut bases = Vec::new();
        while !self.done() && !self.sign("{") && !self.sign(";") && !self.sign("}") {
            if self.sign("<") && self.skip_generics(self.at) {
                continue;
            }
            match self.word() {
                Some(
                    "extends" | "implements" | "where" | "public" | "private" | "protected" | "virtual" | "permits",
                )
                | None => {
                    self.at = if self.sign("(") { self.mate(self.at).unwrap_or(self.at) } else { self.at } + 1;
                }
                Some(_) => {
                    let at = self.start();
                    self.at += 1;
                    while (self.sign(".") || self.sign("::")) && self.word_at(self.at + 1).is_some() {
                        self.at += 2;
                    }
                    let base = self.type_node(at);
                    bases.push(base);
                }
            }
        }
        let bases = self.add(Kind::Bases, "", bases_start, bases);
        let body = if self.sign("{") { self.block() } else { self.missing() };
        self.add(Kind::Class, name, start, vec![modifiers, bases, body])
    }
}
