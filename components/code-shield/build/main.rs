//! Turns `rules/` into constant data: a call starts in a fresh instance, so nothing may be parsed that is not needed.

mod expression;
mod formula;

use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=rules");
    println!("cargo::rerun-if-changed=build");
    let enabled = read("rules/enabled.json");
    let mut out = String::new();

    out.push_str("pub static REGEX: &[RegexRule] = &[\n");
    for (file, language) in [
        ("c", "Some(Language::C)"),
        ("cpp", "Some(Language::Cpp)"),
        ("csharp", "Some(Language::CSharp)"),
        ("java", "Some(Language::Java)"),
        ("javascript", "Some(Language::JavaScript)"),
        ("language_agnostic", "None"),
        ("objective_c", "Some(Language::ObjectiveC)"),
        ("php", "Some(Language::Php)"),
        ("python", "Some(Language::Python)"),
        ("ruby", "Some(Language::Ruby)"),
        ("rust", "Some(Language::Rust)"),
        ("swift", "Some(Language::Swift)"),
        ("xml", "Some(Language::Xml)"),
    ] {
        for rule in list(&read(&format!("rules/regex/{file}.json"))) {
            let id = text(rule, "pattern_id");
            let about = about(id, text(rule, "cwe_id"), text(rule, "description"), text(rule, "severity"));
            let expression = expression::emit(text(rule, "rule"));
            let use_cases = use_cases(&enabled, file, "regex", id);
            let source = text(rule, "rule");
            writeln!(
                out,
                "RegexRule {{ about: About {{ language: {language}, use_cases: {use_cases}, {about} }}, \
                 source: {source:?}, expression: {expression} }},"
            )
            .expect("a string takes everything");
        }
    }
    out.push_str("];\npub static SYNTAX: &[SyntaxRule] = &[\n");
    for (file, config, language) in [
        ("c", "c", "Some(Language::C)"),
        ("csharp-gitlab", "csharp", "Some(Language::CSharp)"),
        ("java", "java", "Some(Language::Java)"),
        ("java-gitlab", "java", "Some(Language::Java)"),
        ("javascript", "javascript", "Some(Language::JavaScript)"),
        ("javascript-gitlab", "javascript", "Some(Language::JavaScript)"),
        ("php", "php", "Some(Language::Php)"),
        ("python", "python", "Some(Language::Python)"),
        ("stockade", "python", "Some(Language::Python)"),
    ] {
        for rule in list(&read(&format!("rules/semgrep/{file}.json"))) {
            let id = text(rule, "id");
            let cwe = rule["metadata"]["cwe_id"].as_str().or(rule["metadata"]["cwe"].as_str()).unwrap_or("CWE-unknown");
            let about = about(id, cwe, text(rule, "message").trim(), text(rule, "severity"));
            let use_cases = use_cases(&enabled, config, "semgrep", id);
            let body = formula::rule(rule);
            writeln!(
                out,
                "SyntaxRule {{ about: About {{ language: {language}, use_cases: {use_cases}, {about} }}, {body} }},"
            )
            .expect("a string takes everything");
        }
    }
    out.push_str("];\n");
    let path = Path::new(&env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("rules.rs");
    fs::write(path, out).expect("OUT_DIR is writable");
}

fn about(id: &str, cwe: &str, description: &str, severity: &str) -> String {
    let severity = match severity {
        "Error" | "ERROR" => "Error",
        "Warning" | "WARNING" => "Warning",
        "Advice" | "INFO" => "Advice",
        other => panic!("{id}: severity {other}"),
    };
    format!("id: {id:?}, cwe_id: {cwe:?}, description: {description:?}, severity: Severity::{severity}")
}

/// One bit for each use case whose list has the rule: 1 for `codeshield`, 2 for `cyberseceval`.
fn use_cases(enabled: &Value, language: &str, analyzer: &str, id: &str) -> u8 {
    let in_list = |use_case: &str| {
        let rules = enabled[use_case][language][analyzer]["rules"].as_array();
        u8::from(rules.is_some_and(|rules| rules.iter().any(|r| r == id)))
    };
    in_list("codeshield") | in_list("cyberseceval") << 1
}

fn read(path: &str) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list")
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} is missing in {value}"))
}
