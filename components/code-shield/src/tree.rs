//! Syntax trees, one form for all languages: what a rule tells apart has a kind of its own, the rest is `Other`.

/// A node by its place in [`Tree::nodes`]. Children come before their parents.
pub type Id = u32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Stands where an optional part is not.
    Missing,
    /// A name, or a literal word such as `true`.
    Name,
    Number,
    /// A string without expressions. The atom is its content.
    Text,
    /// A string with expressions, which are its children.
    Template,
    Regex,
    /// `[callee, arguments..]`
    Call,
    /// `[object]`; the atom is the member.
    Member,
    /// `[object, index..]`
    Index,
    /// `[operand]`; the atom is the operator, as in the following two.
    Unary,
    /// `[left, right]`
    Binary,
    /// `[target, value]`
    Assign,
    /// `[type, Arguments, Object | Missing]`
    New,
    Arguments,
    /// `[value]`, in arguments; the atom is the name.
    Keyword,
    /// `[value]`, in objects; the atom is the key.
    Pair,
    Object,
    List,
    Tuple,
    Conditional,
    /// `[Missing | Type, target, value | Missing]`
    Let,
    /// The atom is the type as it stands in the text.
    Type,
    /// `[Modifiers, Type | Missing, Parameters, Block | Missing]`; the atom is the name, empty for a lambda.
    Function,
    Modifiers,
    /// `[argument..]`; the atom is the name.
    Attribute,
    Parameters,
    /// `[Type | Missing, default | Missing]`; the atom is the name.
    Parameter,
    /// `[Modifiers, Bases, Block]`; the atom is the name.
    Class,
    Bases,
    Block,
    /// `[condition, Block, Block | Missing]`
    If,
    /// `[part.., Block]`
    Loop,
    /// `[value]` or nothing.
    Return,
    /// `[Name, Text]` where a module gets one name; else the atom is the path.
    Import,
    /// `[attribute..]`; the atom is the element.
    Element,
    /// Other statements and what cannot be read, with the parts that can.
    Other,
    /// Patterns: `...`
    Ellipsis,
    /// Patterns: `<... [expression] ...>`
    Deep,
    /// Patterns: `($T $X)`: `[Type, Name]`
    Typed,
}

#[derive(Debug, Clone)]
pub struct Node<'s> {
    pub kind: Kind,
    pub atom: &'s str,
    pub start: usize,
    pub end: usize,
    pub kids: Vec<Id>,
}

#[derive(Debug)]
pub struct Tree<'s> {
    pub source: &'s str,
    pub nodes: Vec<Node<'s>>,
    /// A block with all statements.
    pub root: Id,
}

impl<'s> Tree<'s> {
    pub fn node(&self, id: Id) -> &Node<'s> {
        &self.nodes[id as usize]
    }
    pub fn kind(&self, id: Id) -> Kind {
        self.node(id).kind
    }
    pub fn text(&self, id: Id) -> &'s str {
        let node = self.node(id);
        &self.source[node.start..node.end]
    }
    pub fn ids(&self) -> std::ops::Range<Id> {
        0..self.nodes.len() as Id
    }
    /// The nodes below and at `id`, parents first.
    pub fn below(&self, id: Id) -> Vec<Id> {
        let mut all = vec![id];
        let mut next = 0;
        while next < all.len() {
            let id = all[next];
            all.extend(&self.node(id).kids);
            next += 1;
        }
        all
    }
    /// `a.b.c` as its names; `None` for anything else.
    pub fn path(&self, id: Id) -> Option<Vec<&'s str>> {
        let mut path = Vec::new();
        let mut node = self.node(id);
        while node.kind == Kind::Member {
            path.push(node.atom);
            node = self.node(node.kids[0]);
        }
        path.push(node.atom);
        path.reverse();
        (node.kind == Kind::Name).then_some(path)
    }
}
