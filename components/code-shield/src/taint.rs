//! Values that flow from a source into a sink: an approximation of Semgrep's taint mode.
//!
//! Within one function, in the order of the text: a variable that is given a tainted value is tainted until, in a block
//! around the use, it is given another one. Calls of the code's own functions, fields and aliases are not followed; a
//! lambda belongs to the function around it.

use crate::bindings::Hit;
use crate::facts::variable;
use crate::rules::Formula;
use crate::search::Subject;
use crate::tree::{Id, Kind};
use std::ops::Range;

/// A variable's taint changes.
struct Change<'s> {
    name: &'s str,
    tainted: bool,
    /// From here on, within the block.
    at: usize,
    block: Range<usize>,
}

struct Flow<'a, 'b, 's> {
    subject: &'a Subject<'b, 's>,
    sources: Vec<Hit<'s>>,
    sanitizers: Vec<Hit<'s>>,
    changes: Vec<Change<'s>>,
}

/// The sinks that something tainted reaches.
pub fn flows<'s>(
    subject: &Subject<'_, 's>,
    sources: &'static Formula,
    sinks: &'static Formula,
    sanitizers: &'static Formula,
) -> Vec<Hit<'s>> {
    let (sources, sinks) = (subject.search(sources), subject.search(sinks));
    if sources.is_empty() || sinks.is_empty() {
        return Vec::new();
    }
    let mut flow = Flow { subject, sources, sanitizers: subject.search(sanitizers), changes: Vec::new() };
    let scopes = flow.scopes();
    let mut found = Vec::new();
    for scope in scopes {
        flow.changes.clear();
        // Values are computed before they are assigned, so order is that of the ends.
        let mut assignments: Vec<Id> = scope.iter().copied().filter(|&id| flow.assigns(id)).collect();
        assignments.sort_by_key(|&id| subject.tree.node(id).end);
        for id in assignments {
            flow.assign(id);
        }
        let inside = |hit: &&Hit<'s>| {
            scope.iter().any(|&id| {
                let node = subject.tree.node(id);
                node.start == hit.span.start && node.end == hit.span.end
            })
        };
        found.extend(sinks.iter().filter(inside).filter(|sink| flow.tainted(&sink.span, &scope)).cloned());
    }
    found
}

impl<'s> Flow<'_, '_, 's> {
    /// The nodes of each function, and of what stands outside of all.
    fn scopes(&self) -> Vec<Vec<Id>> {
        let tree = self.subject.tree;
        let mut scopes = Vec::new();
        let mut roots = vec![tree.root];
        while let Some(root) = roots.pop() {
            let mut scope = vec![root];
            let mut next = 0;
            while next < scope.len() {
                for &kid in &tree.node(scope[next]).kids {
                    let node = tree.node(kid);
                    match node.kind == Kind::Function && !node.atom.is_empty() {
                        true => roots.extend(&node.kids),
                        false => scope.push(kid),
                    }
                }
                next += 1;
            }
            scopes.push(scope);
        }
        scopes
    }

    fn assigns(&self, id: Id) -> bool {
        matches!(self.subject.tree.kind(id), Kind::Assign | Kind::Let)
    }

    fn assign(&mut self, id: Id) {
        let tree = self.subject.tree;
        let node = tree.node(id);
        let (target, value) = match node.kind {
            Kind::Let => (node.kids[1], node.kids[2]),
            _ => (node.kids[0], node.kids[1]),
        };
        let span = node.start..node.end;
        let is = |hits: &[Hit<'s>]| hits.iter().any(|hit| hit.span == span);
        let block = tree
            .ids()
            .filter(|&b| tree.kind(b) == Kind::Block)
            .map(|b| tree.node(b))
            .filter(|b| b.start <= span.start && span.end <= b.end);
        let block = block.min_by_key(|b| b.end - b.start).map_or(0..tree.source.len(), |b| b.start..b.end);
        // `settings.DtdProcessing = ..` makes `settings` safe.
        if is(&self.sanitizers) {
            let mut base = target;
            while matches!(tree.kind(base), Kind::Member | Kind::Index) {
                base = tree.node(base).kids[0];
            }
            if let Some(name) = variable(tree, base) {
                self.changes.push(Change { name, tainted: false, at: span.end, block });
            }
            return;
        }
        let Some(name) = variable(tree, target) else { return };
        let value_span = tree.node(value).start..tree.node(value).end;
        let tainted = is(&self.sources) || self.tainted(&value_span, &tree.below(value));
        let adds = node.atom != "=" && node.kind == Kind::Assign || tree.kind(target) == Kind::Index;
        if tainted || !adds {
            self.changes.push(Change { name, tainted, at: span.end, block });
        }
    }

    /// Whether anything in a place is tainted and not sanitized there. `nodes` has all nodes of the place.
    fn tainted(&self, span: &Range<usize>, nodes: &[Id]) -> bool {
        let lies = |inner: &Range<usize>, outer: &Range<usize>| outer.start <= inner.start && inner.end <= outer.end;
        let clean = |inner: &Range<usize>| self.sanitizers.iter().any(|s| lies(inner, &s.span) && lies(&s.span, span));
        let source = self.sources.iter().any(|hit| lies(&hit.span, span) && !clean(&hit.span));
        let tree = self.subject.tree;
        source
            || nodes.iter().any(|&id| {
                let node = tree.node(id);
                let here = node.start..node.end;
                node.kind == Kind::Name && lies(&here, span) && !clean(&here) && self.holds(node.atom, node.start)
            })
    }

    /// Whether a variable is tainted at a place.
    fn holds(&self, name: &str, at: usize) -> bool {
        let before = self.changes.iter().rev().filter(|change| change.name == name && change.at <= at);
        for change in before {
            if change.tainted || change.block.contains(&at) {
                return change.tainted;
            }
        }
        false
    }
}
