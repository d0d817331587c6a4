//! Metavariables and their values.

use crate::tree::Id;
use std::ops::Range;

/// What a metavariable stands for.
#[derive(Debug, Clone, Copy)]
pub struct Value<'s> {
    pub text: &'s str,
    pub node: Option<Id>,
}

/// Metavariables and their values.
pub type Bindings<'s> = Vec<(&'static str, Value<'s>)>;

/// A place that a pattern lies over.
#[derive(Debug, Clone)]
pub struct Hit<'s> {
    pub span: Range<usize>,
    pub bindings: Bindings<'s>,
}

/// Adds a value; `None` when the metavariable stands for something else already.
pub fn bind<'s>(bindings: &Bindings<'s>, name: &'static str, value: Value<'s>) -> Option<Bindings<'s>> {
    if let Some((_, bound)) = bindings.iter().find(|(n, _)| *n == name) {
        return same_text(bound.text, value.text).then(|| bindings.clone());
    }
    let mut more = bindings.clone();
    more.push((name, value));
    Some(more)
}

/// Both, unless they contradict each other.
pub fn join<'s>(a: &Bindings<'s>, b: &Bindings<'s>) -> Option<Bindings<'s>> {
    b.iter().try_fold(a.clone(), |all, (name, value)| bind(&all, name, *value))
}

pub fn same_text(a: &str, b: &str) -> bool {
    let solid = |text: &'_ str| text.bytes().filter(|b| !b.is_ascii_whitespace()).collect::<Vec<_>>();
    a == b || solid(a) == solid(b)
}

/// `$NAME`, in capitals.
pub fn is_metavariable(word: &str) -> bool {
    let name = word.strip_prefix('$').unwrap_or_default();
    let capital = name.bytes().next().is_some_and(|b| b.is_ascii_uppercase());
    capital && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}
