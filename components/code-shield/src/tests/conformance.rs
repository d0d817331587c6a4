//! The reference's own cases: every snippet of its unit tests and every annotated line of its fixtures.

use super::scanner;
use crate::language::Language;
use crate::rules::{REGEX, SYNTAX, UseCase};
use crate::scan::Issue;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// A file of the reference data, or nothing where it is not there; `STOCKADE_REQUIRE_REFERENCE=1` makes that a failure.
fn reference(file: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/codeshield-rules").join(file);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("STOCKADE_REQUIRE_REFERENCE").is_none(), "{} is missing", path.display());
    eprintln!("skipped: {} is missing", path.display());
    None
}

fn rows<T: serde::de::DeserializeOwned>(file: &str) -> Vec<T> {
    let Some(path) = reference(file) else { return Vec::new() };
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn shown(issues: &[Issue]) -> Vec<(&str, &str, usize)> {
    issues.iter().map(|i| (i.analyzer, i.pattern_id, i.line)).collect()
}

#[derive(Deserialize)]
struct Case {
    language: Language,
    usecase: UseCase,
    code: String,
    expected_issue_count: usize,
}

#[test]
fn every_case_of_the_reference_has_as_many_issues() {
    let mut wrong = Vec::new();
    for case in rows::<Case>("cases.jsonl") {
        let issues = scanner(case.usecase, &[]).scan(&case.code, Some(case.language)).unwrap();
        if issues.len() != case.expected_issue_count {
            wrong.push(format!(
                "{:?} {:?}: {} expected, {:?}",
                case.language,
                case.code,
                case.expected_issue_count,
                shown(&issues)
            ));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[derive(Deserialize)]
struct Fixture {
    fixture: String,
    language: Language,
    code: String,
    expect_match: Vec<Expected>,
    expect_no_match: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    rules: Vec<String>,
    line: usize,
}

#[test]
fn every_annotated_line_of_the_fixtures_is_found_or_not() {
    let mut wrong = Vec::new();
    for fixture in rows::<Fixture>("semgrep_fixtures.jsonl") {
        let rules: Vec<&str> = fixture.expect_match.iter().flat_map(|e| e.rules.iter().map(String::as_str)).collect();
        let issues = scanner(UseCase::CyberSecEval, &rules).scan(&fixture.code, Some(fixture.language)).unwrap();
        let found = |e: &Expected| {
            issues
                .iter()
                .any(|i| i.analyzer == "semgrep" && i.line == e.line && e.rules.iter().any(|r| r == i.pattern_id))
        };
        let all =
            fixture.expect_match.iter().map(|e| (e, true)).chain(fixture.expect_no_match.iter().map(|e| (e, false)));
        for (expected, want) in all {
            if found(expected) != want {
                wrong.push(format!("{} line {}: {want} expected", fixture.fixture, expected.line));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn no_rule_is_missing() {
    assert_eq!(REGEX.len(), 113);
    // One is our own.
    assert_eq!(SYNTAX.len(), 88 + 1);
}
