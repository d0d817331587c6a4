//! Scans one piece of code by the rules of its language.

use crate::bindings::Hit;
use crate::expression::Compiled;
use crate::facts::Facts;
use crate::language::Language::{self, *};
use crate::matching::Budget;
use crate::prefilter::Present;
use crate::rules::{About, Body, Formula, REGEX, SYNTAX, Severity, SyntaxRule, UseCase};
use crate::search::{Subject, possible};
use crate::syntax::Reader;
use crate::taint::flows;
use serde::Serialize;
use std::collections::HashSet;
use stockade_guest::{Error, Result};

/// Steps of the matcher for one piece of code in one language; ordinary code takes a thousandth.
const STEPS: u32 = 20_000_000;

/// Which rules run.
pub struct Scanner {
    pub use_case: UseCase,
    /// The only languages that are looked at, where given.
    pub languages: Option<Vec<Language>>,
    /// Ids of rules that run in any use case.
    pub enable: HashSet<String>,
    /// Ids of rules that do not run.
    pub disable: HashSet<String>,
    pub compiled: Compiled,
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Issue {
    pub description: &'static str,
    pub cwe_id: &'static str,
    pub severity: Severity,
    /// The expression of a regex rule, else the rule's id.
    pub rule: &'static str,
    /// From 1, in the code.
    pub line: usize,
    /// Characters from the code's start, from 0.
    pub char: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    pub analyzer: &'static str,
    pub pattern_id: &'static str,
    pub language: &'static str,
}

impl Issue {
    fn same_as(&self, other: &Issue) -> bool {
        (self.analyzer, self.pattern_id, self.char) == (other.analyzer, other.pattern_id, other.char)
    }
}

impl Scanner {
    /// All findings in code of a language, or of any of the usual ones.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when the code is so entangled that the rules cannot be decided within bounds.
    pub fn scan(&self, code: &str, language: Option<Language>) -> Result<Vec<Issue>> {
        let languages = match language {
            Some(language) => vec![language],
            None => Language::DEFAULT.to_vec(),
        };
        let wanted = |l: &Language| self.languages.as_ref().is_none_or(|only| only.contains(l));
        let present = Present::of(code);
        let mut issues: Vec<Issue> = Vec::new();
        for language in languages.into_iter().filter(wanted) {
            // What several languages have in common counts once.
            let mut more = self.scan_as(code, language, &present)?;
            more.retain(|issue| !issues.iter().any(|known| issue.same_as(known)));
            issues.extend(more);
        }
        Ok(issues)
    }

    /// The secrets that every language's rules look for.
    pub fn scan_secrets(&self, code: &str) -> Vec<Issue> {
        let present = Present::of(code);
        self.regex_issues(code, "any", &present, |about| about.language.is_none())
    }

    fn scan_as(&self, code: &str, language: Language, present: &Present) -> Result<Vec<Issue>> {
        let own = |about: &About| match about.language {
            None => true,
            Some(l) => l == language || language.base() == Some(l),
        };
        let mut issues = self.regex_issues(code, language.name(), present, own);
        if self.use_case == UseCase::CodeShield && !issues.is_empty() {
            return Ok(issues);
        }
        let rules: Vec<&SyntaxRule> = SYNTAX
            .iter()
            .filter(|rule| own(&rule.about) && self.runs_syntax(&rule.about) && may_match(rule, present))
            .collect();
        if !rules.is_empty() {
            issues.extend(self.syntax_issues(code, language, present, &rules)?);
        }
        Ok(issues)
    }

    fn runs(&self, about: &About) -> bool {
        let on = about.use_cases & self.use_case.bit() != 0 || self.enable.contains(about.id);
        on && !self.disable.contains(about.id)
    }

    /// The reference has syntax rules for PHP and runs none of them: so they wait to be asked for.
    fn runs_syntax(&self, about: &About) -> bool {
        self.runs(about) && (about.language != Some(Php) || self.enable.contains(about.id))
    }

    fn regex_issues(
        &self,
        code: &str,
        language: &'static str,
        present: &Present,
        own: impl Fn(&About) -> bool,
    ) -> Vec<Issue> {
        let mut issues = Vec::new();
        for rule in REGEX.iter().filter(|r| own(&r.about) && self.runs(&r.about) && r.expression.possible(present)) {
            let matches = self.compiled.find_all(&rule.expression, code);
            if let Some(found) = matches.iter().find(|m| !in_comment(code, m.start)) {
                issues.push(issue(&rule.about, rule.source, "regex", language, code, found.start));
            }
        }
        issues
    }

    fn syntax_issues(
        &self,
        code: &str,
        language: Language,
        present: &Present,
        rules: &[&'static SyntaxRule],
    ) -> Result<Vec<Issue>> {
        let reader = Reader::new(language);
        let tree = reader.code(code)?;
        let facts = Facts::of(&tree, language);
        let budget = Budget::new(STEPS);
        let subject =
            Subject { tree: &tree, facts: &facts, present, reader: &reader, compiled: &self.compiled, budget: &budget };
        let mut issues: Vec<Issue> = Vec::new();
        // Two rules of one id that agree count once.
        let mut seen = HashSet::new();
        for rule in rules {
            let hits = match &rule.body {
                Body::Search(formula) => subject.search(formula),
                Body::Taint { sources, sinks, sanitizers } => flows(&subject, sources, sinks, sanitizers),
            };
            if budget.is_spent() {
                return Err(Error::TooLarge("the code is too entangled to be judged".into()));
            }
            for Hit { span, .. } in hits {
                if seen.insert((rule.about.id, span.start, span.end)) {
                    issues.push(issue(&rule.about, rule.about.id, "semgrep", language.name(), code, span.start));
                }
            }
        }
        Ok(issues)
    }
}

fn may_match(rule: &SyntaxRule, present: &Present) -> bool {
    let can = |formula: &'static Formula| possible(formula, present);
    // The rules are constants, so their parts are.
    match SYNTAX.iter().find(|r| std::ptr::eq(*r, rule)).map(|r| &r.body) {
        Some(Body::Search(formula)) => can(formula),
        Some(Body::Taint { sources, sinks, .. }) => can(sources) && can(sinks),
        None => false,
    }
}

/// Whether the line, up to a place in it, is a comment.
fn in_comment(code: &str, at: usize) -> bool {
    let start = code.as_bytes()[..at].iter().rposition(|&b| b == b'\n').map_or(0, |n| n + 1);
    let before = String::from_utf8_lossy(&code.as_bytes()[start..at]);
    let before = before.trim();
    ["#", "//", "/*"].iter().any(|mark| before.starts_with(mark)) || before.ends_with("*/")
}

fn issue(
    about: &About,
    rule: &'static str,
    analyzer: &'static str,
    language: &'static str,
    code: &str,
    at: usize,
) -> Issue {
    let before = &code.as_bytes()[..at];
    Issue {
        description: about.description,
        cwe_id: about.cwe_id,
        severity: about.severity,
        rule,
        line: before.iter().filter(|&&b| b == b'\n').count() + 1,
        // Bytes that begin a character.
        char: before.iter().filter(|&&b| b & 0xC0 != 0x80).count(),
        path: None,
        analyzer,
        pattern_id: about.id,
        language,
    }
}
