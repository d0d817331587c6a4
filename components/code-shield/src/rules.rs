//! The rules as constant data, made of `rules/` when the component is built.

use crate::expression::{Expression, Need};
use crate::language::Language;
use stockade_guest::prelude::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Advice,
    Warning,
    Error,
}

/// Which list of rules is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UseCase {
    /// What an assistant's answers are held to: stops at the first hits of the cheap rules.
    CodeShield,
    /// What a model is evaluated by: every rule, all hits.
    CyberSecEval,
}

impl UseCase {
    /// Its bit in [`About::use_cases`].
    pub fn bit(self) -> u8 {
        match self {
            UseCase::CodeShield => 1,
            UseCase::CyberSecEval => 2,
        }
    }
}

#[derive(Debug)]
pub struct About {
    /// `None`: every language.
    pub language: Option<Language>,
    pub use_cases: u8,
    pub id: &'static str,
    pub cwe_id: &'static str,
    pub description: &'static str,
    pub severity: Severity,
}

#[derive(Debug)]
pub struct RegexRule {
    pub about: About,
    /// As the rule file has it.
    pub source: &'static str,
    pub expression: Expression,
}

#[derive(Debug)]
pub struct SyntaxRule {
    pub about: About,
    pub body: Body,
}

#[derive(Debug)]
pub enum Body {
    Search(Formula),
    /// A value flows from a source into a sink, and no sanitizer stands between.
    Taint {
        sources: Formula,
        sinks: Formula,
        sanitizers: Formula,
    },
}

/// Semgrep's operators.
#[derive(Debug)]
pub enum Formula {
    /// `words`: names that stand in every match.
    Pattern {
        source: &'static str,
        words: &'static [&'static str],
    },
    Regex(Expression),
    /// Where one inside of the other is: all places of the positive ones that the negative and the conditions leave.
    All(&'static [Formula]),
    Any(&'static [Formula]),
    /// Bounds other places and is none.
    Inside(&'static Formula),
    /// Removes the places that it covers.
    Not(&'static Formula),
    /// Holds at the value's first character.
    MetaRegex(&'static str, Expression),
    MetaPattern(&'static str, &'static Formula),
    LessThan(&'static str, f64),
    OneOf(&'static str, &'static [&'static str]),
    /// Narrows the place to a metavariable's.
    Focus(&'static str),
}

include!(concat!(env!("OUT_DIR"), "/rules.rs"));
