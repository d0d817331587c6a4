//! Semgrep's rule objects as constants of `Formula`, and the words that code must contain to match a pattern.

use crate::expression;
use serde_json::Value;

/// The fields of `SyntaxRule` below `about`.
pub fn rule(rule: &Value) -> String {
    let body = if rule["mode"] == "taint" {
        let any = |key: &str| match rule[key].as_array() {
            Some(list) => format!("Formula::Any(&[{}])", joined(list)),
            None => "Formula::Any(&[])".into(),
        };
        let (sources, sinks, sanitizers) = (any("pattern-sources"), any("pattern-sinks"), any("pattern-sanitizers"));
        format!("Body::Taint {{ sources: {sources}, sinks: {sinks}, sanitizers: {sanitizers} }}")
    } else {
        let keys = ["pattern", "patterns", "pattern-either", "pattern-regex"];
        let key = keys.into_iter().find(|k| rule.get(k).is_some()).expect("a rule has a pattern");
        format!("Body::Search({})", formula(key, &rule[key]))
    };
    format!("body: {body}")
}

/// Each object of the list is one operator, or several that all hold.
fn joined(list: &[Value]) -> String {
    list.iter().map(object).collect::<Vec<_>>().join(", ")
}

fn object(value: &Value) -> String {
    let fields = value.as_object().expect("an operator is an object");
    if let Some(variable) = fields.get("metavariable") {
        return condition(variable, value);
    }
    match fields.len() {
        1 => {
            let (key, value) = fields.iter().next().expect("one field");
            formula(key, value)
        }
        _ => {
            let all: Vec<String> = fields.iter().map(|(key, value)| formula(key, value)).collect();
            format!("Formula::All(&[{}])", all.join(", "))
        }
    }
}

fn formula(key: &str, value: &Value) -> String {
    let list = || value.as_array().expect("a list of operators");
    match key {
        "pattern" => pattern(value),
        "pattern-regex" => format!("Formula::Regex({})", expression::emit(text(value))),
        "patterns" => format!("Formula::All(&[{}])", joined(list())),
        "pattern-either" => format!("Formula::Any(&[{}])", joined(list())),
        "pattern-inside" => format!("Formula::Inside(&{})", pattern(value)),
        "pattern-not" => format!("Formula::Not(&{})", pattern(value)),
        "pattern-not-inside" => format!("Formula::Not(&{})", pattern(value)),
        "focus-metavariable" => format!("Formula::Focus({:?})", text(value)),
        "metavariable-regex" | "metavariable-pattern" | "metavariable-comparison" => {
            condition(&value["metavariable"], value)
        }
        other => panic!("operator {other}"),
    }
}

fn condition(variable: &Value, value: &Value) -> String {
    let variable = text(variable);
    if let Some(regex) = value.get("regex") {
        return format!("Formula::MetaRegex({variable:?}, {})", expression::emit(text(regex)));
    }
    if let Some(comparison) = value.get("comparison") {
        let comparison = text(comparison).strip_prefix(variable).expect("`VARIABLE OPERATOR ..`").trim();
        return match comparison.split_once(' ').expect("an operator") {
            ("<", limit) => format!("Formula::LessThan({variable:?}, {limit}.0)"),
            ("in", values) => format!("Formula::OneOf({variable:?}, &{})", values.replace('\'', "\"")),
            other => panic!("comparison {other:?}"),
        };
    }
    let key = ["pattern", "patterns", "pattern-either"].into_iter().find(|k| value.get(k).is_some());
    let key = key.expect("metavariable-pattern has a pattern");
    format!("Formula::MetaPattern({variable:?}, &{})", formula(key, &value[key]))
}

fn pattern(value: &Value) -> String {
    let source = text(value).trim();
    format!("Formula::Pattern {{ source: {source:?}, words: &{:?} }}", words(source))
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

/// Names that stand in every match: of a dotted path the last, since imports may shorten it.
fn words(source: &str) -> Vec<String> {
    /// A match may write these otherwise, or they are everywhere.
    const COMMON: &[&str] =
        &["function", "var", "import", "using", "new", "if", "public", "return", "class", "def", "from", "int", "ctor"];
    let bytes = source.as_bytes();
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut words = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'"' | b'\'' | b'`') => {
                let length = bytes[at + 1..].iter().position(|&b| b == quote).unwrap_or(0);
                at += length + 2;
            }
            first if is_word(first) => {
                let end = bytes[at..].iter().position(|&b| !is_word(b)).map_or(bytes.len(), |n| at + n);
                let before = at.checked_sub(1).map(|i| bytes[i]);
                let prefix = bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(|&b| is_word(b));
                let word = &source[at..end];
                let free = !matches!(before, Some(b'$' | b'<'));
                if free && !prefix && word.len() > 2 && !first.is_ascii_digit() && !COMMON.contains(&word) {
                    words.push(word.to_string());
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    words.sort();
    words.dedup();
    words
}
