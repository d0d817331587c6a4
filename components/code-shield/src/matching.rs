//! Lays a pattern over code: both are trees of the same grammar.
//!
//! Invariant: the work of one block is bounded by [`Budget`], whatever the code looks like.

use crate::bindings::{Bindings, Hit, Value, bind, is_metavariable, same_text};
use crate::facts::{Facts, plain};
use crate::tree::{Id, Kind, Tree};
use std::cell::Cell;

/// Most ways in which a pattern may lie over one place.
const MAX_WAYS: usize = 32;

/// Steps that may still be taken.
pub struct Budget(Cell<u32>);

impl Budget {
    pub fn new(steps: u32) -> Self {
        Self(Cell::new(steps))
    }
    pub fn is_spent(&self) -> bool {
        self.0.get() == 0
    }
    /// `false` once all are taken.
    pub fn step(&self) -> bool {
        let left = self.0.get();
        self.0.set(left.saturating_sub(1));
        left > 0
    }
}

#[derive(Clone, Copy)]
pub struct Matcher<'a, 's> {
    pub pattern: &'a Tree<'static>,
    pub code: &'a Tree<'s>,
    pub facts: &'a Facts<'s>,
    pub budget: &'a Budget,
}

type Ways<'s> = Vec<Bindings<'s>>;

impl<'s> Matcher<'_, 's> {
    /// Everywhere that the pattern lies.
    pub fn search(&self) -> Vec<Hit<'s>> {
        let statements = &self.pattern.node(self.pattern.root).kids;
        match statements.as_slice() {
            [] => Vec::new(),
            [one] => {
                let mut hits = Vec::new();
                for id in self.code.ids() {
                    let node = self.code.node(id);
                    for bindings in self.unify(*one, id, &Vec::new()) {
                        hits.push(Hit { span: node.start..node.end, bindings });
                    }
                }
                hits
            }
            several => self.sequences(several),
        }
    }

    /// The ways in which the pattern, one statement, lies over a node.
    pub fn at(&self, id: Id, bindings: &Bindings<'s>) -> Ways<'s> {
        match self.pattern.node(self.pattern.root).kids.as_slice() {
            [one] => self.unify(*one, id, bindings),
            _ => Vec::new(),
        }
    }

    /// Statements one after the other, at any place of any block; `...` also skips into deeper blocks.
    fn sequences(&self, pattern: &[Id]) -> Vec<Hit<'s>> {
        let mut hits = Vec::new();
        for block in self.code.ids().filter(|&id| self.code.kind(id) == Kind::Block) {
            let kids = &self.code.node(block).kids;
            for (i, &first) in kids.iter().enumerate() {
                if !self.may_begin(pattern[0], first) {
                    continue;
                }
                let mut flat = Vec::new();
                kids[i..].iter().for_each(|&kid| self.flatten(kid, &mut flat));
                let block_end = kids.last().map_or(0, |&last| self.code.node(last).end);
                let mut found = Vec::new();
                self.follow(pattern, &flat, 0, &Vec::new(), block_end, &mut found);
                let start = self.code.node(first).start;
                hits.extend(found.into_iter().map(|(end, bindings)| Hit { span: start..end, bindings }));
            }
        }
        hits
    }

    fn may_begin(&self, pattern: Id, statement: Id) -> bool {
        !self.statement(pattern, statement, &Vec::new()).is_empty()
    }

    /// A statement and those in it, in order.
    fn flatten(&self, statement: Id, out: &mut Vec<Id>) {
        // With whether it is a statement of a block.
        let mut open = vec![(statement, true)];
        while let Some((id, stands)) = open.pop() {
            if !self.budget.step() {
                return;
            }
            if stands {
                out.push(id);
            }
            let node = self.code.node(id);
            match node.kind {
                Kind::Block => open.extend(node.kids.iter().rev().map(|&kid| (kid, true))),
                Kind::If | Kind::Loop | Kind::Function | Kind::Class | Kind::Other => {
                    let inner =
                        node.kids.iter().rev().filter(|&&kid| matches!(self.code.kind(kid), Kind::Block | Kind::If));
                    open.extend(inner.map(|&kid| (kid, false)));
                }
                _ => {}
            }
        }
    }

    /// Continues at `flat[at]`; adds where it ends and what is bound then.
    fn follow(
        &self,
        pattern: &[Id],
        flat: &[Id],
        at: usize,
        bindings: &Bindings<'s>,
        block_end: usize,
        found: &mut Vec<(usize, Bindings<'s>)>,
    ) {
        if found.len() >= MAX_WAYS || !self.budget.step() {
            return;
        }
        match pattern {
            [] => found.push((self.code.node(flat[at - 1]).end, bindings.clone())),
            [any] if self.pattern.kind(*any) == Kind::Ellipsis => found.push((block_end, bindings.clone())),
            [any, rest @ ..] if self.pattern.kind(*any) == Kind::Ellipsis => {
                for next in at..flat.len() {
                    for bindings in self.statement(rest[0], flat[next], bindings) {
                        self.follow(&rest[1..], flat, next + 1, &bindings, block_end, found);
                    }
                }
            }
            [one, rest @ ..] => {
                let Some(&statement) = flat.get(at) else { return };
                for bindings in self.statement(*one, statement, bindings) {
                    self.follow(rest, flat, at + 1, &bindings, block_end, found);
                }
            }
        }
    }

    /// One statement of a sequence. An expression may stand anywhere in it, but not in a block of it.
    fn statement(&self, pattern: Id, statement: Id, bindings: &Bindings<'s>) -> Ways<'s> {
        let direct = self.unify(pattern, statement, bindings);
        let expression = matches!(self.pattern.kind(pattern), Kind::Call | Kind::Assign | Kind::Member | Kind::New);
        if !direct.is_empty() || !expression {
            return direct;
        }
        let mut ways = Vec::new();
        let mut pending = self.code.node(statement).kids.clone();
        while let Some(id) = pending.pop() {
            if self.code.kind(id) == Kind::Block || !self.budget.step() {
                continue;
            }
            ways.extend(self.unify(pattern, id, bindings));
            pending.extend(&self.code.node(id).kids);
        }
        ways.truncate(MAX_WAYS);
        ways
    }

    fn unify(&self, pattern: Id, code: Id, bindings: &Bindings<'s>) -> Ways<'s> {
        if !self.budget.step() {
            return Vec::new();
        }
        let (p, c) = (self.pattern.node(pattern), self.code.node(code));
        let yes = |holds: bool| if holds { vec![bindings.clone()] } else { Vec::new() };
        match p.kind {
            Kind::Missing => yes(true),
            Kind::Ellipsis => yes(c.kind != Kind::Missing),
            Kind::Name if is_metavariable(p.atom) => match is_value(c.kind) {
                true => self.bound(bindings, p.atom, self.code.text(code), Some(code)),
                false => Vec::new(),
            },
            Kind::Name if c.kind == Kind::Name && p.atom == c.atom => yes(true),
            Kind::Text => self.string(p.atom, code, bindings),
            Kind::Template => {
                // A shell command of PHP is no string.
                let shell = |text: &str| text.starts_with('`');
                let alike = shell(self.pattern.text(pattern)) == shell(self.code.text(code));
                yes(alike && c.kind == Kind::Template && !c.kids.is_empty())
            }
            Kind::Regex => yes(c.kind == Kind::Regex),
            Kind::Deep => {
                let mut ways = Vec::new();
                for inner in self.code.below(code) {
                    ways.extend(self.unify(p.kids[0], inner, bindings));
                    if ways.len() >= MAX_WAYS {
                        break;
                    }
                }
                ways
            }
            Kind::Typed => self.typed(p.kids[0], p.kids[1], code, bindings),
            Kind::Member if p.atom == "..." => {
                // Any calls and members in between.
                let mut here = code;
                loop {
                    let ways = self.unify(p.kids[0], here, bindings);
                    let node = self.code.node(here);
                    if !ways.is_empty() || !matches!(node.kind, Kind::Call | Kind::Member | Kind::Index) {
                        return ways;
                    }
                    here = node.kids[0];
                }
            }
            Kind::Name | Kind::Member if self.path(pattern, code) => yes(true),
            Kind::Assign if c.kind == Kind::Let && p.atom == "=" && self.code.kind(c.kids[2]) != Kind::Missing => {
                self.all(&[(p.kids[0], c.kids[1]), (p.kids[1], c.kids[2])], bindings)
            }
            // `from a import b` makes `b` an `a.$X`.
            Kind::Member if c.kind == Kind::Name && is_metavariable(p.atom) => {
                let imported = self.facts.imported(c.atom).and_then(|path| path.split_last());
                match (imported, self.pattern.path(p.kids[0])) {
                    (Some((name, module)), Some(wanted)) if wanted == module => self.word(p.atom, name, bindings),
                    _ => Vec::new(),
                }
            }
            _ if p.kind != c.kind => Vec::new(),
            Kind::Member => self.then(self.word(p.atom, c.atom, bindings), p.kids[0], c.kids[0]),
            Kind::Call | Kind::Index => {
                let callee = self.unify(p.kids[0], c.kids[0], bindings);
                callee.iter().flat_map(|b| self.arguments(&p.kids[1..], &c.kids[1..], b)).take(MAX_WAYS).collect()
            }
            Kind::Arguments | Kind::List | Kind::Tuple | Kind::Parameters => self.arguments(&p.kids, &c.kids, bindings),
            Kind::Object | Kind::Modifiers | Kind::Bases => self.some(&p.kids, &c.kids, bindings),
            Kind::Element => {
                let named = self.word(p.atom, c.atom, bindings);
                named.iter().flat_map(|b| self.some(&p.kids, &c.kids, b)).take(MAX_WAYS).collect()
            }
            Kind::Type => match is_metavariable(p.atom) {
                true => self.bound(bindings, p.atom, plain(c.atom), None),
                false => yes(self.facts.same_type(p.atom, c.atom)),
            },
            Kind::Let => {
                // A metavariable also takes the name of an array.
                let target = match self.code.node(c.kids[1]) {
                    array if array.kind == Kind::Index && self.pattern.kind(p.kids[1]) == Kind::Name => array.kids[0],
                    _ => c.kids[1],
                };
                self.all(&[(p.kids[0], c.kids[0]), (p.kids[1], target), (p.kids[2], c.kids[2])], bindings)
            }
            Kind::New => {
                let unspecified = self.pattern.kind(p.kids[1]) == Kind::Arguments
                    && self.code.kind(c.kids[1]) == Kind::Missing
                    && self.pattern.node(p.kids[1]).kids.iter().all(|&k| self.pattern.kind(k) == Kind::Ellipsis);
                let mut pairs = vec![(p.kids[0], c.kids[0]), (p.kids[2], c.kids[2])];
                if !unspecified {
                    pairs.push((p.kids[1], c.kids[1]));
                }
                self.all(&pairs, bindings)
            }
            Kind::Function | Kind::Class => {
                let named = if p.atom.is_empty() { yes(true) } else { self.word(p.atom, c.atom, bindings) };
                let pairs: Vec<(Id, Id)> = p.kids.iter().copied().zip(c.kids.iter().copied()).collect();
                named.iter().flat_map(|b| self.all(&pairs, b)).take(MAX_WAYS).collect()
            }
            Kind::Parameter | Kind::Attribute | Kind::Pair | Kind::Keyword => {
                let named = self.word(p.atom, c.atom, bindings);
                if p.kind == Kind::Attribute && p.kids.is_empty() {
                    return named;
                }
                named.iter().flat_map(|b| self.arguments(&p.kids, &c.kids, b)).take(MAX_WAYS).collect()
            }
            Kind::Block => self.body(&p.kids, &c.kids, bindings),
            Kind::Return => match (p.kids.first(), c.kids.first()) {
                (Some(&p), Some(&c)) => self.unify(p, c, bindings),
                (Some(&p), None) => yes(self.pattern.kind(p) == Kind::Ellipsis),
                (None, c) => yes(c.is_none()),
            },
            Kind::Import => match (p.kids.as_slice(), c.kids.as_slice()) {
                ([p_name, p_value], [c_name, c_value]) if self.pattern.kind(*p_name) == Kind::Name => {
                    self.all(&[(*p_name, *c_name), (*p_value, *c_value)], bindings)
                }
                ([_, p_value], [_, c_value]) if same_text(p.atom, c.atom) => self.unify(*p_value, *c_value, bindings),
                ([], []) => yes(same_text(p.atom, c.atom)),
                _ => Vec::new(),
            },
            Kind::Binary if p.atom == c.atom => {
                // `"..." + ...` also is the begin of a longer sum.
                let open = self.pattern.kind(p.kids[0]) == Kind::Text && self.pattern.kind(p.kids[1]) == Kind::Ellipsis;
                let mut sum = c;
                loop {
                    let ways = self.all(&[(p.kids[0], sum.kids[0]), (p.kids[1], sum.kids[1])], bindings);
                    let left = self.code.node(sum.kids[0]);
                    if !ways.is_empty() || !open || left.kind != Kind::Binary || left.atom != p.atom {
                        return ways;
                    }
                    sum = left;
                }
            }
            _ if p.atom == c.atom && p.kids.len() == c.kids.len() => {
                let pairs: Vec<(Id, Id)> = p.kids.iter().copied().zip(c.kids.iter().copied()).collect();
                self.all(&pairs, bindings)
            }
            _ => Vec::new(),
        }
    }

    fn bound(&self, bindings: &Bindings<'s>, name: &'static str, text: &'s str, node: Option<Id>) -> Ways<'s> {
        bind(bindings, name, Value { text, node }).into_iter().collect()
    }

    /// A name that is part of another node.
    fn word(&self, pattern: &'static str, code: &'s str, bindings: &Bindings<'s>) -> Ways<'s> {
        match is_metavariable(pattern) {
            true => self.bound(bindings, pattern, code, None),
            false if pattern == code => vec![bindings.clone()],
            false => Vec::new(),
        }
    }

    fn string(&self, content: &'static str, code: Id, bindings: &Bindings<'s>) -> Ways<'s> {
        let node = self.code.node(code);
        if content == "..." {
            return if self.facts.is_literal(self.code, code) { vec![bindings.clone()] } else { Vec::new() };
        }
        if node.kind != Kind::Text {
            return Vec::new();
        }
        if is_metavariable(content) {
            return self.bound(bindings, content, node.atom, Some(code));
        }
        if content == node.atom { vec![bindings.clone()] } else { Vec::new() }
    }

    /// A path of plain names, as it stands or as imports make it.
    fn path(&self, pattern: Id, code: Id) -> bool {
        let Some(wanted) = self.pattern.path(pattern) else { return false };
        if wanted.iter().any(|name| is_metavariable(name) || *name == "...") {
            return false;
        }
        self.code.path(code).is_some_and(|written| self.facts.same_path(&wanted, &written))
    }

    fn typed(&self, kind: Id, name: Id, code: Id, bindings: &Bindings<'s>) -> Ways<'s> {
        let wanted = self.pattern.node(kind).atom;
        let node = self.code.node(code);
        let literal = match node.kind {
            Kind::Number => wanted == "int" && !node.atom.contains('.'),
            Kind::Text => wanted.eq_ignore_ascii_case("string"),
            _ => false,
        };
        let mut ways = Vec::new();
        if literal {
            ways.push(bindings.clone());
        }
        for written in self.facts.types_of(self.code, code) {
            if is_metavariable(wanted) {
                ways.extend(self.bound(bindings, wanted, plain(written), None));
            } else if self.facts.same_type(wanted, written) {
                ways.push(bindings.clone());
                break;
            }
        }
        ways.iter().flat_map(|b| self.unify(name, code, b)).collect()
    }

    fn then(&self, ways: Ways<'s>, pattern: Id, code: Id) -> Ways<'s> {
        ways.iter().flat_map(|b| self.unify(pattern, code, b)).take(MAX_WAYS).collect()
    }

    fn all(&self, pairs: &[(Id, Id)], bindings: &Bindings<'s>) -> Ways<'s> {
        pairs.iter().fold(
            vec![bindings.clone()],
            |ways, &(pattern, code)| {
                if ways.is_empty() { ways } else { self.then(ways, pattern, code) }
            },
        )
    }

    /// Each of the pattern's, in any order, among the code's.
    fn some(&self, pattern: &[Id], code: &[Id], bindings: &Bindings<'s>) -> Ways<'s> {
        let wanted = pattern.iter().filter(|&&p| self.pattern.kind(p) != Kind::Ellipsis);
        wanted.fold(vec![bindings.clone()], |ways, &one| {
            let found = ways.iter().flat_map(|b| code.iter().flat_map(move |&c| self.unify(one, c, b)));
            found.take(MAX_WAYS).collect()
        })
    }

    /// In order, with `...` for any number; named arguments at any place.
    fn arguments(&self, pattern: &[Id], code: &[Id], bindings: &Bindings<'s>) -> Ways<'s> {
        let named = |&&id: &&Id| self.pattern.kind(id) == Kind::Keyword;
        if pattern.iter().any(|id| named(&id)) {
            let keywords: Vec<Id> = pattern.iter().filter(named).copied().collect();
            let places: Vec<Id> = pattern.iter().filter(|id| !named(id)).copied().collect();
            let rest: Vec<Id> = code
                .iter()
                .copied()
                .filter(|&c| {
                    let node = self.code.node(c);
                    node.kind != Kind::Keyword || keywords.iter().all(|&k| self.pattern.node(k).atom != node.atom)
                })
                .collect();
            let ways = self.some(&keywords, code, bindings);
            return ways.iter().flat_map(|b| self.in_order(&places, &rest, b)).take(MAX_WAYS).collect();
        }
        self.in_order(pattern, code, bindings)
    }

    fn in_order(&self, pattern: &[Id], code: &[Id], bindings: &Bindings<'s>) -> Ways<'s> {
        if !self.budget.step() {
            return Vec::new();
        }
        match (pattern, code) {
            ([], []) => vec![bindings.clone()],
            ([], _) => Vec::new(),
            ([any, rest @ ..], _) if self.pattern.kind(*any) == Kind::Ellipsis => {
                if rest.is_empty() {
                    return vec![bindings.clone()];
                }
                let tails = (0..=code.len()).flat_map(|skip| self.in_order(rest, &code[skip..], bindings));
                tails.take(MAX_WAYS).collect()
            }
            ([_, ..], []) => Vec::new(),
            ([first, rest @ ..], [one, others @ ..]) => {
                let ways = self.unify(*first, *one, bindings);
                ways.iter().flat_map(|b| self.in_order(rest, others, b)).take(MAX_WAYS).collect()
            }
        }
    }

    /// A whole block, from its first to its last statement.
    fn body(&self, pattern: &[Id], code: &[Id], bindings: &Bindings<'s>) -> Ways<'s> {
        if !self.budget.step() {
            return Vec::new();
        }
        match pattern {
            [] => {
                if code.is_empty() {
                    vec![bindings.clone()]
                } else {
                    Vec::new()
                }
            }
            [any] if self.pattern.kind(*any) == Kind::Ellipsis => vec![bindings.clone()],
            // `{ <... x ...> }`: somewhere in it.
            [deep] if self.pattern.kind(*deep) == Kind::Deep => {
                let ways = code.iter().flat_map(|&c| self.unify(*deep, c, bindings));
                ways.take(MAX_WAYS).collect()
            }
            [any, rest @ ..] if self.pattern.kind(*any) == Kind::Ellipsis => {
                let mut flat = Vec::new();
                code.iter().for_each(|&c| self.flatten(c, &mut flat));
                let mut found = Vec::new();
                let whole: Vec<Id> = std::iter::once(*any).chain(rest.iter().copied()).collect();
                self.follow(&whole, &flat, 0, bindings, 0, &mut found);
                found.into_iter().map(|(_, bindings)| bindings).collect()
            }
            _ => self.in_order(pattern, code, bindings),
        }
    }
}

/// Whether a metavariable may stand for a node of this kind.
fn is_value(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::Missing
            | Kind::Arguments
            | Kind::Keyword
            | Kind::Pair
            | Kind::Let
            | Kind::Type
            | Kind::Modifiers
            | Kind::Attribute
            | Kind::Parameters
            | Kind::Parameter
            | Kind::Class
            | Kind::Bases
            | Kind::Block
            | Kind::If
            | Kind::Loop
            | Kind::Return
            | Kind::Import
            | Kind::Ellipsis
    )
}
