//! Regular expressions of the rules, compiled when a text has what a match needs.
//!
//! They look at bytes: `\w` and `\b` mean ASCII, `^` and `$` lines.

use crate::prefilter::Present;
use regex_automata::meta::Regex;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

#[derive(Debug)]
pub struct Expression {
    /// Without its look-ahead.
    pub main: &'static str,
    /// What must match, or must not, where `main` does.
    pub looks: &'static [(bool, &'static str)],
    /// All hold of a text with a match.
    pub needs: &'static [Need],
}

#[derive(Debug)]
pub enum Need {
    AnyOf(&'static [&'static str]),
    /// So many letters, digits, `_` and `-` in a row.
    Run(usize),
}

impl Expression {
    /// Whether a text can have a match at all.
    pub fn possible(&self, present: &Present) -> bool {
        self.needs.iter().all(|need| match need {
            Need::AnyOf(literals) => literals.iter().any(|l| present.has(l)),
            Need::Run(length) => present.longest_run() >= *length,
        })
    }
}

/// Compiled expressions, for as long as the instance lives.
#[derive(Default)]
pub struct Compiled {
    regexes: RefCell<HashMap<&'static str, Rc<Regex>>>,
}

impl Compiled {
    /// The matches in `text`, from the first on.
    pub fn find_all(&self, expression: &'static Expression, text: &str) -> Vec<Range<usize>> {
        let regex = self.regex(expression.main);
        let matches = regex.find_iter(text.as_bytes()).map(|m| m.range());
        matches.filter(|m| self.looks(expression, text, m.start)).collect()
    }

    /// Whether a match begins with the text, as Python's `re.match` asks.
    pub fn begins(&self, expression: &'static Expression, text: &str) -> bool {
        self.anchored(expression.main, text, 0) && self.looks(expression, text, 0)
    }

    fn looks(&self, expression: &'static Expression, text: &str, at: usize) -> bool {
        expression.looks.iter().all(|(positive, look)| self.anchored(look, text, at) == *positive)
    }

    fn anchored(&self, source: &'static str, text: &str, at: usize) -> bool {
        let input = Input::new(text.as_bytes()).range(at..).anchored(Anchored::Yes);
        self.regex(source).is_match(input)
    }

    fn regex(&self, source: &'static str) -> Rc<Regex> {
        let compile = || {
            let syntax = syntax::Config::new().unicode(false).utf8(false).multi_line(true);
            Rc::new(Regex::builder().syntax(syntax).build(source).expect("the build has parsed every expression"))
        };
        self.regexes.borrow_mut().entry(source).or_insert_with(compile).clone()
    }
}
