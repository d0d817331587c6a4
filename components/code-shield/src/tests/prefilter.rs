//! What is skipped for speed must not hide anything.

use super::rules::TABLES;
use crate::expression::{Compiled, Expression};
use crate::facts::Facts;
use crate::language::Language;
use crate::matching::Budget;
use crate::prefilter::Present;
use crate::rules::{Body, Formula, REGEX, SYNTAX};
use crate::search::{Subject, possible};
use crate::syntax::Reader;

fn expressions(formula: &'static Formula, out: &mut Vec<&'static Expression>) {
    match formula {
        Formula::Regex(expression) | Formula::MetaRegex(_, expression) => out.push(expression),
        Formula::All(parts) | Formula::Any(parts) => parts.iter().for_each(|part| expressions(part, out)),
        Formula::Inside(part) | Formula::Not(part) | Formula::MetaPattern(_, part) => expressions(part, out),
        _ => {}
    }
}

pub(super) fn formulas(body: &'static Body) -> Vec<&'static Formula> {
    match body {
        Body::Search(formula) => vec![formula],
        Body::Taint { sources, sinks, sanitizers } => vec![sources, sinks, sanitizers],
    }
}

/// Matches of regex rules that no reference case has, the ones with look-ahead among them.
const REGEX_ROWS: [(&str, &str, bool); 12] = [
    ("SWIFT-R-008", "a\nsettings[kCFStreamSSLAllowsAnyRoot] = NSNumber(value: true)\n", true),
    ("SWIFT-R-008", "settings[kCFStreamSSLAllowsAnyRoot] = x\nNSNumber(value: true)", false),
    ("SWIFT-R-009", "x[kCFStreamSSLValidatesCertificateChain] = NSNumber(value: false)", true),
    ("SWIFT-R-006", "class A : NSObject, NSCoding {", true),
    ("ALL-R-009", "-----BEGIN RSA PRIVATE KEY-----\nabc\nd\n-----END RSA PRIVATE KEY-----", true),
    ("ALL-R-012", "t = 'ya29.a0AfH6SMB'", true),
    ("ALL-R-014", "SK0123456789abcdef0123456789abcdef", true),
    ("fixed-seed-prng-usage", "std::mt19937 gen{42};", false),
    ("fixed-seed-prng-usage", "std::mt19937{42}", true),
    ("missing-secure-cookie", "setcookie('a', $b, 0, '', false, false)", true),
    ("bugprone-scanf", "scanf(\"%d %s\", &a, b)", true),
    ("bugprone-scanf", "scanf(\"%d\", &a)", false),
];

#[test]
fn every_expression_compiles_and_those_with_look_ahead_look() {
    let compiled = Compiled::default();
    let mut all: Vec<&Expression> = REGEX.iter().map(|rule| &rule.expression).collect();
    SYNTAX.iter().flat_map(|rule| formulas(&rule.body)).for_each(|formula| expressions(formula, &mut all));
    for expression in all {
        compiled.find_all(expression, "");
        compiled.begins(expression, "");
    }
    for (id, code, want) in REGEX_ROWS {
        let rule = REGEX.iter().find(|rule| rule.about.id == id).unwrap();
        assert_eq!(!compiled.find_all(&rule.expression, code).is_empty(), want, "{id}: {code}");
    }
}

#[test]
fn a_rule_that_matches_was_possible() {
    let compiled = Compiled::default();
    let rows = TABLES.iter().flat_map(|(language, rows)| rows.iter().map(|row| (*language, row.1)));
    let rows = rows.chain(REGEX_ROWS.iter().map(|row| (Language::C, row.1)));
    let mut found = 0;
    for (language, code) in rows {
        let present = Present::of(code);
        for rule in REGEX {
            if !compiled.find_all(&rule.expression, code).is_empty() {
                assert!(rule.expression.possible(&present), "{}: {code}", rule.about.id);
                found += 1;
            }
        }
        let reader = Reader::new(language);
        let tree = reader.code(code).unwrap();
        let facts = Facts::of(&tree, language);
        let budget = Budget::new(u32::MAX);
        let subject = Subject {
            tree: &tree,
            facts: &facts,
            present: &present,
            reader: &reader,
            compiled: &compiled,
            budget: &budget,
        };
        for rule in SYNTAX.iter().filter(|rule| rule.about.language == Some(language)) {
            for formula in formulas(&rule.body) {
                if !subject.search(formula).is_empty() {
                    assert!(possible(formula, &present), "{}: {code}", rule.about.id);
                    found += 1;
                }
            }
        }
    }
    assert!(found > 200, "only {found} matches");
}
