//! Reads code with tree-sitter's grammars and makes one tree of all languages from theirs.
//!
//! - this file feeds the parser and walks its tree; `pattern` makes a rule's pattern fit for it;
//! - `expression`, `declaration` and `statement` say what becomes of the grammars' nodes.
//!
//! A rule's pattern goes the same way, so that what a grammar reads in an odd way is read alike on both sides. Any text has
//! a tree: of a part that the grammar cannot read, what it can read of it counts.
//!
//! Invariant: nothing here recurses, so that nesting costs memory of the heap alone; the parser's steps are bounded.

mod declaration;
mod expression;
mod pattern;
mod statement;

use crate::bindings::is_metavariable;
use crate::language::Language;
use crate::tree::{Id, Kind, Node, Tree};
use pattern::Disguise;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::{ControlFlow, Range};
use std::rc::Rc;
use stockade_guest::{Error, Result};
use tree_sitter::{ParseOptions, Parser};

/// Bytes for which the parser may ask once whether to go on, every hundred steps. Code and prose take 50 to 100; what is
/// made to be hard takes 8. Some texts (`a<a<a<..` in C#) are read in so many ways at once that their memory grows with the
/// square of their length, between two questions: there the host's limit ends the call.
const BYTES_PER_QUESTION: usize = 4;
/// Questions that any text may take besides.
const MORE_QUESTIONS: usize = 1_000;

/// The parser of one language.
pub struct Reader {
    language: Language,
    parser: RefCell<Parser>,
    patterns: RefCell<HashMap<&'static str, Rc<Tree<'static>>>>,
}

impl Reader {
    pub fn new(language: Language) -> Self {
        let mut parser = Parser::new();
        parser.set_language(&grammar(language)).expect("the grammars are of versions that the parser knows");
        Self { language, parser: RefCell::new(parser), patterns: RefCell::default() }
    }

    /// # Errors
    /// [`Error::TooLarge`] when the parser needs more steps than code of this size should take.
    pub fn code<'s>(&self, source: &'s str) -> Result<Tree<'s>> {
        let open = if self.language == Language::Php && !source.contains("<?") { "<?php " } else { "" };
        self.read(source, [open, source, ""], false)
    }

    /// The tree of a rule's pattern; its metavariables are names, its ellipses nodes of their own.
    pub fn pattern(&self, source: &'static str) -> Rc<Tree<'static>> {
        if let Some(known) = self.patterns.borrow().get(source) {
            return known.clone();
        }
        let Disguise { before, text, after } = pattern::disguise(source, self.language);
        let tree = self.read(source, [before, &text, after], true).expect("a pattern is a few words");
        let tree = Rc::new(tree);
        self.patterns.borrow_mut().insert(source, tree.clone());
        tree
    }

    /// Reads the three pieces as one text. The middle one stands for `source` and is as long.
    fn read<'s>(&self, source: &'s str, pieces: [&str; 3], pattern: bool) -> Result<Tree<'s>> {
        let mut questions = MORE_QUESTIONS + source.len() / BYTES_PER_QUESTION;
        let mut go_on = |_: &tree_sitter::ParseState| {
            questions = questions.saturating_sub(1);
            match questions > 0 {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        };
        let mut piece = |at: usize, _| -> &[u8] {
            let mut at = at;
            for piece in pieces {
                match piece.as_bytes().get(at..) {
                    Some(rest) if !rest.is_empty() => return rest,
                    _ => at -= piece.len().min(at),
                }
            }
            &[]
        };
        let options = ParseOptions::new().progress_callback(&mut go_on);
        let read = self.parser.borrow_mut().parse_with_options(&mut piece, None, Some(options));
        let Some(read) = read else {
            self.parser.borrow_mut().reset();
            return Err(Error::TooLarge("the code is too entangled to be read".into()));
        };
        let shift = pieces[0].len();
        let mut lowering = Lowering { source, shift, pattern, language: self.language, nodes: Vec::new() };
        let statements = lowering.walk(&read);
        let root = lowering.add(Kind::Block, "", 0..source.len(), statements);
        Ok(Tree { source, nodes: lowering.nodes, root })
    }
}

fn grammar(language: Language) -> tree_sitter::Language {
    match language {
        Language::CSharp => tree_sitter_c_sharp::LANGUAGE,
        Language::Java => tree_sitter_java::LANGUAGE,
        Language::JavaScript => tree_sitter_typescript::LANGUAGE_TSX,
        Language::Php => tree_sitter_php::LANGUAGE_PHP,
        Language::Python => tree_sitter_python::LANGUAGE,
        // C's rules, the only others with patterns, also hold for C++ and Objective-C.
        _ => tree_sitter_cpp::LANGUAGE,
    }
    .into()
}

/// What a node of the grammar's tree has become.
struct Part<'t> {
    /// The role that the grammar gives it, or nothing.
    field: &'t str,
    /// Its kind in the grammar.
    kind: &'t str,
    id: Id,
}

/// What a node's children have become.
struct Parts<'t, 's> {
    list: Vec<Part<'t>>,
    /// Its operators and keywords.
    signs: Vec<&'s str>,
    /// How many nodes there were before it.
    first: usize,
}

impl<'s> Parts<'_, 's> {
    fn ids(&self) -> Vec<Id> {
        self.list.iter().map(|part| part.id).collect()
    }
    fn first(&self) -> Option<Id> {
        self.list.first().map(|part| part.id)
    }
    fn last(&self) -> Option<Id> {
        self.list.last().map(|part| part.id)
    }
    /// The first with the first of these roles that any has.
    fn field(&self, names: &[&str]) -> Option<Id> {
        names.iter().find_map(|name| self.list.iter().find(|part| part.field == *name)).map(|part| part.id)
    }
    fn fields(&self, name: &str) -> Vec<Id> {
        self.list.iter().filter(|part| part.field == name).map(|part| part.id).collect()
    }
    /// Those without one of these roles.
    fn without(&self, names: &[&str]) -> Vec<Id> {
        self.list.iter().filter(|part| !names.contains(&part.field)).map(|part| part.id).collect()
    }
    fn kind(&self, kinds: &[&str]) -> Option<Id> {
        self.list.iter().find(|part| kinds.contains(&part.kind)).map(|part| part.id)
    }
    fn sign(&self) -> &'s str {
        self.signs.first().copied().unwrap_or_default()
    }
}

struct Lowering<'s> {
    source: &'s str,
    /// Bytes before the source in what the parser reads.
    shift: usize,
    pattern: bool,
    language: Language,
    nodes: Vec<Node<'s>>,
}

impl<'s> Lowering<'s> {
    /// The statements of the text, children before parents.
    fn walk(&mut self, read: &tree_sitter::Tree) -> Vec<Id> {
        let mut cursor = read.walk();
        let mut open: Vec<Parts<'_, 's>> = Vec::new();
        loop {
            open.push(Parts { list: Vec::new(), signs: Vec::new(), first: self.nodes.len() });
            if cursor.goto_first_child() {
                continue;
            }
            loop {
                let Some(parts) = open.pop() else { return Vec::new() };
                let (node, field) = (cursor.node(), cursor.field_name().unwrap_or_default());
                let at = node.start_byte()..node.end_byte();
                match open.last_mut() {
                    None => return parts.ids(),
                    // A comment.
                    Some(_) if node.is_extra() && !node.is_error() => self.nodes.truncate(parts.first),
                    Some(outer) if !node.is_named() => {
                        let at = at.start.saturating_sub(self.shift)..at.end.saturating_sub(self.shift);
                        outer.signs.push(self.source.get(at).unwrap_or_default());
                    }
                    Some(outer) => {
                        let kind = node.kind();
                        let made = self.leave(kind, at, parts);
                        outer.list.extend(made.into_iter().map(|id| Part { field, kind, id }));
                    }
                }
                if cursor.goto_next_sibling() {
                    break;
                }
                cursor.goto_parent();
            }
        }
    }

    /// What becomes of a node, its children's nodes being made.
    fn leave(&mut self, kind: &str, read: Range<usize>, parts: Parts<'_, 's>) -> Vec<Id> {
        let (first, end) = (self.shift, self.shift + self.source.len());
        if read.start < first || read.start >= end || read.is_empty() {
            // What was put around the text, or what the parser misses.
            return parts.ids();
        }
        let at = read.start - first..read.end.min(end) - first;
        if self.pattern
            && let Some(id) = self.of_pattern(kind, &at, &parts)
        {
            return vec![id];
        }
        if let Some(id) = self.expression(kind, &at, &parts) {
            return vec![id];
        }
        if let Some(ids) = self.declaration(kind, &at, &parts).or_else(|| self.statement(kind, &at, &parts)) {
            return ids;
        }
        vec![match parts.list.is_empty() {
            true => self.add(Kind::Name, &self.source[at.clone()], at, Vec::new()),
            false => self.add(Kind::Other, "", at, parts.ids()),
        }]
    }

    /// Ellipses, metavariables and `($T $X)`, whatever the grammar takes them for.
    fn of_pattern(&mut self, kind: &str, at: &Range<usize>, parts: &Parts<'_, 's>) -> Option<Id> {
        let text = self.source[at.clone()].trim();
        if text == "..." || text == ".." {
            let body = kind == "block" && self.language == Language::Python;
            return (!body).then(|| self.leaf(Kind::Ellipsis, "", at, parts));
        }
        if is_metavariable(text) && kind != "attribute" {
            return Some(self.leaf(Kind::Name, text, at, parts));
        }
        let (wanted, name) = pattern::typed(text).filter(|_| kind == "parenthesized_expression")?;
        let wanted = self.leaf(Kind::Type, wanted, at, parts);
        let name = self.add(Kind::Name, name, at.clone(), Vec::new());
        Some(self.add(Kind::Typed, "", at.clone(), vec![wanted, name]))
    }

    fn add(&mut self, kind: Kind, atom: &'s str, at: Range<usize>, kids: Vec<Id>) -> Id {
        self.nodes.push(Node { kind, atom, start: at.start, end: at.end, kids });
        (self.nodes.len() - 1) as Id
    }
    /// A node without children in the place of all that was made of its parts.
    fn leaf(&mut self, kind: Kind, atom: &'s str, at: &Range<usize>, parts: &Parts<'_, 's>) -> Id {
        self.nodes.truncate(parts.first);
        self.add(kind, atom, at.clone(), Vec::new())
    }
    fn missing(&mut self, at: usize) -> Id {
        self.add(Kind::Missing, "", at..at, Vec::new())
    }
    fn or_missing(&mut self, id: Option<Id>, at: &Range<usize>) -> Id {
        match id {
            Some(id) => id,
            None => self.missing(at.start),
        }
    }
    fn node(&self, id: Id) -> &Node<'s> {
        &self.nodes[id as usize]
    }
    fn is(&self, id: Id, kind: Kind) -> bool {
        self.node(id).kind == kind
    }
    fn text(&self, id: Id) -> &'s str {
        let node = self.node(id);
        &self.source[node.start..node.end]
    }

    /// Takes a node out of the tree, with what is in it.
    fn remove(&mut self, id: Id) {
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            let node = &mut self.nodes[id as usize];
            node.kind = Kind::Missing;
            open.append(&mut node.kids);
        }
    }
    /// The children of a node that was only there to hold them.
    fn contents(&mut self, id: Id) -> Vec<Id> {
        let node = &mut self.nodes[id as usize];
        node.kind = Kind::Missing;
        std::mem::take(&mut node.kids)
    }
    /// A name that becomes part of another node.
    fn word(&mut self, id: Id) -> &'s str {
        let word = match self.node(id).kind {
            Kind::Name | Kind::Member | Kind::Text | Kind::Function | Kind::Type => self.node(id).atom,
            _ => self.text(id),
        };
        self.remove(id);
        word
    }
    /// Makes a type of what was read as a name, a path or an expression; `None` for a word that leaves the type open.
    fn kind_of_value(&mut self, id: Id) -> Option<Id> {
        if self.is(id, Kind::Missing) || matches!(self.text(id), "var" | "auto") {
            self.remove(id);
            return None;
        }
        let text = self.text(id);
        self.remove(id);
        let node = &mut self.nodes[id as usize];
        (node.kind, node.atom) = (Kind::Type, text);
        Some(id)
    }
}
