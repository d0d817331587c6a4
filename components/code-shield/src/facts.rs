//! What a rule may ask about names: their types, whether they only ever hold a literal, and what imports call them.
//!
//! One table for the whole text: two variables of one name count as one.

use crate::language::Language;
use crate::tree::{Id, Kind, Tree};
use std::collections::HashMap;

#[derive(Debug, Default)]
pub struct Facts<'s> {
    types: HashMap<&'s str, Vec<&'s str>>,
    /// Names that are given values, and whether all of these are literal strings.
    literal: HashMap<&'s str, bool>,
    /// Local names and the paths they stand for.
    aliases: HashMap<&'s str, Vec<&'s str>>,
    /// Paths whose names may be written without them.
    open: Vec<Vec<&'s str>>,
}

impl<'s> Facts<'s> {
    pub fn of(tree: &Tree<'s>, language: Language) -> Self {
        let mut facts = Self::default();
        for id in tree.ids() {
            let node = tree.node(id);
            match node.kind {
                Kind::Let => {
                    let (kind, target, value) = (node.kids[0], node.kids[1], node.kids[2]);
                    if let Some(name) = variable(tree, target) {
                        if tree.kind(kind) == Kind::Type {
                            facts.types.entry(name).or_default().push(tree.text(kind));
                        }
                        if tree.kind(value) != Kind::Missing || tree.kind(target) == Kind::Index {
                            facts.assigned(tree, target, name, value);
                        }
                    }
                }
                Kind::Assign => {
                    if let Some(name) = variable(tree, node.kids[0]) {
                        match node.atom {
                            "=" | ":=" => facts.assigned(tree, node.kids[0], name, node.kids[1]),
                            _ => facts.changes(name),
                        }
                    }
                }
                Kind::Parameter => {
                    facts.changes(node.atom);
                    if tree.kind(node.kids[0]) == Kind::Type {
                        facts.types.entry(node.atom).or_default().push(tree.text(node.kids[0]));
                    }
                }
                Kind::Unary if matches!(node.atom, "&" | "++" | "--" | "out" | "ref") => {
                    if let Some(name) = variable(tree, node.kids[0]) {
                        facts.changes(name);
                    }
                }
                Kind::Loop => {
                    for name in node.kids.iter().filter_map(|&kid| variable(tree, kid)) {
                        facts.changes(name);
                    }
                }
                Kind::Import => facts.import(node.atom, language),
                _ => {}
            }
        }
        facts
    }

    fn changes(&mut self, name: &'s str) {
        self.literal.insert(name, false);
    }

    fn assigned(&mut self, tree: &Tree<'s>, target: Id, name: &'s str, value: Id) {
        let literal = tree.kind(target) == Kind::Name && self.is_literal(tree, value);
        let all = self.literal.entry(name).or_insert(literal);
        *all &= literal;
        let value = tree.node(value);
        if value.kind == Kind::New && tree.kind(value.kids[0]) == Kind::Type {
            self.types.entry(name).or_default().push(tree.text(value.kids[0]));
        }
    }

    fn import(&mut self, statement: &'s str, language: Language) {
        let path = |text: &'s str| text.trim().split('.').map(str::trim).collect::<Vec<_>>();
        let alias = |part: &'s str| match part.split_once(" as ") {
            Some((name, alias)) => (name.trim(), alias.trim()),
            None => (part.trim(), part.trim()),
        };
        match language {
            Language::Python => {
                if let Some((module, names)) = statement.strip_prefix("from ").and_then(|s| s.split_once(" import ")) {
                    for part in names.trim_matches(['(', ')', ' ']).split(',') {
                        let (name, local) = alias(part);
                        match name {
                            "*" => self.open.push(path(module)),
                            _ => {
                                let full = path(module).into_iter().chain([name]).collect();
                                self.aliases.insert(local, full);
                            }
                        }
                    }
                } else if let Some(modules) = statement.strip_prefix("import ") {
                    for part in modules.split(',') {
                        let (name, local) = alias(part);
                        if name != local {
                            self.aliases.insert(local, path(name));
                        }
                    }
                }
            }
            Language::Java => match statement.strip_suffix(".*") {
                Some(package) => self.open.push(path(package)),
                None => {
                    let full = path(statement);
                    self.aliases.insert(full.last().copied().unwrap_or_default(), full);
                }
            },
            Language::CSharp => match statement.split_once('=') {
                Some((name, target)) => {
                    self.aliases.insert(name.trim(), path(target));
                }
                None => self.open.push(path(statement)),
            },
            _ => {}
        }
    }

    /// Whether a value is a string that stands in the text: a literal, a name that only holds such, or a sum of them.
    pub fn is_literal(&self, tree: &Tree<'s>, id: Id) -> bool {
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            let node = tree.node(id);
            match node.kind {
                Kind::Text => {}
                Kind::Name if self.literal.get(node.atom) == Some(&true) => {}
                Kind::Binary if matches!(node.atom, "+" | ".") => open.extend(&node.kids),
                _ => return false,
            }
        }
        true
    }

    /// The types that a value may have, as they are written.
    pub fn types_of(&self, tree: &Tree<'s>, id: Id) -> Vec<&'s str> {
        let node = tree.node(id);
        match node.kind {
            Kind::Name => self.types.get(node.atom).cloned().unwrap_or_default(),
            Kind::New if tree.kind(node.kids[0]) == Kind::Type => vec![tree.text(node.kids[0])],
            Kind::Member if matches!(tree.node(node.kids[0]).atom, "this" | "self") => {
                self.types.get(node.atom).cloned().unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    /// Whether a type of the text may be the one that a rule names, with or without its path.
    pub fn same_type(&self, wanted: &str, written: &str) -> bool {
        let (wanted, written) = (plain(wanted), plain(written));
        let last = |path: &str| path.rsplit(['.', ':']).next().unwrap_or_default().to_string();
        if last(wanted) != last(written) {
            return false;
        }
        match self.aliases.get(written) {
            Some(full) if wanted.contains('.') => full.join(".") == wanted,
            _ => !written.contains('.') || !wanted.contains('.') || written == wanted,
        }
    }

    /// The path that an import gave a name to.
    pub fn imported(&self, name: &str) -> Option<&[&'s str]> {
        self.aliases.get(name).map(Vec::as_slice)
    }

    /// Whether a path of the text stands for another.
    pub fn same_path(&self, wanted: &[&str], written: &[&'s str]) -> bool {
        if wanted == written {
            return true;
        }
        let Some((head, rest)) = written.split_first() else { return false };
        let joins = |prefix: &[&'s str], rest: &[&'s str]| {
            prefix.len() + rest.len() == wanted.len() && wanted.starts_with(prefix) && wanted.ends_with(rest)
        };
        self.aliases.get(head).is_some_and(|full| joins(full, rest))
            || self.open.iter().any(|package| joins(package, written))
    }
}

/// The name that a target gives a value to.
pub fn variable<'s>(tree: &Tree<'s>, target: Id) -> Option<&'s str> {
    let mut node = tree.node(target);
    while node.kind == Kind::Index {
        node = tree.node(node.kids[0]);
    }
    (node.kind == Kind::Name).then_some(node.atom)
}

/// A type without what surrounds its name.
pub fn plain(kind: &str) -> &str {
    let kind = kind.trim().trim_start_matches("const ");
    let end = kind.find(['<', '[', '*', '&', '?', ' ']).unwrap_or(kind.len());
    &kind[..end]
}
