//! Evaluates a rule's formula over one parsed text.
//!
//! As in Semgrep: the positive operators' places are intersected, the inner place counts; a negative one removes the
//! places that lie within its own; conditions come last.

use crate::bindings::{Bindings, Hit, Value, join};
use crate::expression::Compiled;
use crate::facts::Facts;
use crate::matching::{Budget, Matcher};
use crate::prefilter::Present;
use crate::rules::Formula;
use crate::syntax::Reader;
use crate::tree::Tree;

/// Most places that one operator may have.
const MAX_PLACES: usize = 4096;

/// A text and what is known of it.
pub struct Subject<'a, 's> {
    pub tree: &'a Tree<'s>,
    pub facts: &'a Facts<'s>,
    pub present: &'a Present<'s>,
    pub reader: &'a Reader,
    pub compiled: &'a Compiled,
    pub budget: &'a Budget,
}

#[derive(Clone)]
pub struct Place<'s> {
    pub hit: Hit<'s>,
    /// From `pattern-inside`: bounds others and is no result.
    inside: bool,
}

/// Whether a text has the words that a match needs.
pub fn possible(formula: &'static Formula, present: &Present) -> bool {
    match formula {
        Formula::Pattern { words, .. } => words.iter().all(|word| present.has(word)),
        Formula::Regex(expression) => expression.possible(present),
        Formula::All(parts) => parts.iter().all(|part| match part {
            Formula::MetaRegex(name, expression) => {
                expression.possible(present) || !parts.iter().any(|part| always_binds(part, name))
            }
            part => possible(part, present),
        }),
        Formula::Any(parts) => parts.is_empty() || parts.iter().any(|part| possible(part, present)),
        Formula::Inside(part) => possible(part, present),
        _ => true,
    }
}

/// Whether each of a formula's places gives the metavariable a value.
fn always_binds(formula: &Formula, name: &str) -> bool {
    match formula {
        Formula::Pattern { source, .. } => source.contains(name),
        Formula::All(parts) => parts.iter().any(|part| always_binds(part, name)),
        Formula::Any(parts) => parts.iter().all(|part| always_binds(part, name)),
        Formula::Inside(part) => always_binds(part, name),
        _ => false,
    }
}

impl<'s> Subject<'_, 's> {
    pub fn search(&self, formula: &'static Formula) -> Vec<Hit<'s>> {
        self.places(formula).into_iter().filter(|p| !p.inside).map(|p| p.hit).collect()
    }

    fn places(&self, formula: &'static Formula) -> Vec<Place<'s>> {
        let mut places = match formula {
            Formula::Pattern { source, words } => {
                if !words.iter().all(|word| self.present.has(word)) {
                    return Vec::new();
                }
                self.with_pattern(source, |matcher| matcher.search()).into_iter().map(result).collect()
            }
            Formula::Regex(expression) => {
                if !expression.possible(self.present) {
                    return Vec::new();
                }
                let spans = self.compiled.find_all(expression, self.tree.source);
                spans.into_iter().map(|span| result(Hit { span, bindings: Vec::new() })).collect()
            }
            Formula::Any(parts) => parts.iter().flat_map(|part| self.places(part)).collect(),
            Formula::All(parts) => self.all(parts),
            Formula::Inside(part) => {
                self.places(part).into_iter().map(|place| Place { inside: true, ..place }).collect()
            }
            _ => Vec::new(),
        };
        places.truncate(MAX_PLACES);
        places
    }

    fn all(&self, parts: &'static [Formula]) -> Vec<Place<'s>> {
        let mut places: Option<Vec<Place<'s>>> = None;
        let positive = |part: &&Formula| {
            matches!(
                part,
                Formula::Pattern { .. } | Formula::Regex(_) | Formula::Any(_) | Formula::All(_) | Formula::Inside(_)
            )
        };
        for part in parts.iter().filter(positive) {
            if !possible(part, self.present) {
                return Vec::new();
            }
        }
        for part in parts.iter().filter(positive) {
            let found = self.places(part);
            let both = match places {
                None => found,
                Some(places) => self.intersect(&places, &found),
            };
            if both.is_empty() {
                return both;
            }
            places = Some(both);
        }
        let mut places = places.unwrap_or_default();
        for part in parts {
            if places.is_empty() {
                break;
            }
            match part {
                Formula::Not(negative) => {
                    let removed = self.places(negative);
                    places.retain(|place| !removed.iter().any(|r| within(&place.hit, &r.hit).is_some()));
                }
                Formula::Focus(name) => {
                    for place in &mut places {
                        if let Some(id) = value(&place.hit.bindings, name).and_then(|v| v.node) {
                            let node = self.tree.node(id);
                            place.hit.span = node.start..node.end;
                        }
                    }
                }
                Formula::MetaRegex(..) | Formula::MetaPattern(..) | Formula::LessThan(..) | Formula::OneOf(..) => {
                    places.retain(|place| self.condition(part, &place.hit.bindings));
                }
                _ => {}
            }
        }
        places
    }

    fn intersect(&self, a: &[Place<'s>], b: &[Place<'s>]) -> Vec<Place<'s>> {
        let mut both: Vec<Place<'s>> = Vec::new();
        for x in a {
            for y in b {
                if both.len() >= MAX_PLACES || !self.budget.step() {
                    return both;
                }
                let x_in_y = within(&x.hit, &y.hit).filter(|_| !x.inside || y.inside);
                let found = match x_in_y {
                    Some(bindings) => Some((x, bindings)),
                    None => within(&y.hit, &x.hit).filter(|_| !y.inside || x.inside).map(|bindings| (y, bindings)),
                };
                if let Some((inner, bindings)) = found {
                    let hit = Hit { span: inner.hit.span.clone(), bindings };
                    both.push(Place { hit, inside: x.inside && y.inside });
                }
            }
        }
        both
    }

    /// A condition on a metavariable that this alternative does not have leaves it alone; the reference drops it then,
    /// and with it what two of its rules are there to find.
    fn condition(&self, condition: &'static Formula, bindings: &Bindings<'s>) -> bool {
        let of = |name: &str| value(bindings, name);
        match condition {
            Formula::MetaRegex(name, expression) => {
                of(name).is_none_or(|value| self.compiled.begins(expression, value.text))
            }
            Formula::MetaPattern(name, formula) => of(name).is_none_or(|value| self.value_is(value, formula)),
            Formula::LessThan(name, limit) => {
                of(name).is_none_or(|value| value.text.parse::<f64>().is_ok_and(|number| number < *limit))
            }
            Formula::OneOf(name, texts) => of(name).is_none_or(|value| {
                let text = value.node.map_or(value.text, |id| self.tree.node(id).atom);
                texts.contains(&text)
            }),
            _ => true,
        }
    }

    /// Whether a metavariable's value is, as a whole, what the formula describes.
    fn value_is(&self, value: Value<'s>, formula: &'static Formula) -> bool {
        match formula {
            Formula::Pattern { source, .. } => match value.node {
                Some(id) => self.with_pattern(source, |matcher| !matcher.at(id, &Vec::new()).is_empty()),
                None => *source == value.text,
            },
            Formula::Any(parts) => parts.iter().any(|part| self.value_is(value, part)),
            Formula::All(parts) => parts.iter().all(|part| self.value_is(value, part)),
            Formula::Not(part) => !self.value_is(value, part),
            _ => true,
        }
    }

    fn with_pattern<T>(&self, source: &'static str, use_it: impl FnOnce(Matcher<'_, 's>) -> T) -> T {
        let pattern = self.reader.pattern(source);
        use_it(Matcher { pattern: &pattern, code: self.tree, facts: self.facts, budget: self.budget })
    }
}

fn result(hit: Hit<'_>) -> Place<'_> {
    Place { hit, inside: false }
}

fn value<'s>(bindings: &Bindings<'s>, name: &str) -> Option<Value<'s>> {
    bindings.iter().find(|(n, _)| *n == name).map(|(_, value)| *value)
}

/// What is bound in both when `inner` lies in `outer`.
fn within<'s>(inner: &Hit<'s>, outer: &Hit<'s>) -> Option<Bindings<'s>> {
    let contained = outer.span.start <= inner.span.start && inner.span.end <= outer.span.end;
    contained.then(|| join(&inner.bindings, &outer.bindings)).flatten()
}
