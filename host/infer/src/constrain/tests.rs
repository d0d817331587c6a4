//! Grammars over a vocabulary of single bytes: what is kept, and what the JSON Schema test suite says.

use super::*;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc;

const END: u32 = 256;

fn grammars(settings: GrammarSettings) -> Grammars {
    let bytes = (0..=255u8).map(|b| (vec![b], false));
    let vocabulary = Vocabulary::new(bytes.chain([(b"<end>".to_vec(), true)]), vec![END]);
    Grammars::new(&vocabulary, settings).unwrap()
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn compile(grammars: &Grammars, tenant: &TenantId, constraint: &Constraint) -> Result<Grammar, InferError> {
    match grammars.prepare(tenant, constraint)? {
        Prepared::Ready(grammar) => Ok(grammar),
        Prepared::Job(job) => {
            let (send, receive) = mpsc::channel();
            grammars.start(job, Box::new(move |grammar| send.send(grammar).unwrap()));
            receive.recv().unwrap()
        }
    }
}

/// Whether `text` is a whole reply under the grammar, mask by mask.
fn accepts(mut grammar: Grammar, text: &str) -> bool {
    for byte in text.bytes() {
        let mask = grammar.mask().unwrap();
        if !mask.allows(u32::from(byte)) {
            return false;
        }
        grammar.accept(u32::from(byte)).unwrap();
    }
    grammar.mask().unwrap().allows(END)
}

#[test]
fn a_grammar_is_kept_for_its_tenant_bounded_and_least_recently_used_first_out() {
    let grammars = grammars(GrammarSettings { cached_per_tenant: 2, cached: 3, ..GrammarSettings::default() });
    let regex = |n: u32| Constraint::Regex(format!("a{{{n}}}"));
    let ready = |tenant: &TenantId, n| matches!(grammars.prepare(tenant, &regex(n)).unwrap(), Prepared::Ready(_));
    let (a, b) = (tenant("a"), tenant("b"));
    for n in 1..=2 {
        compile(&grammars, &a, &regex(n)).unwrap();
    }
    assert!(ready(&a, 1) && !ready(&b, 1), "another tenant cannot tell what was compiled");
    compile(&grammars, &a, &regex(3)).unwrap();
    assert!(ready(&a, 1) && !ready(&a, 2) && ready(&a, 3));
    for n in 1..=2 {
        compile(&grammars, &b, &regex(n)).unwrap();
    }
    assert_eq!(grammars.kept(), 3);
}

#[test]
fn a_kept_grammar_starts_afresh_each_time() {
    let grammars = grammars(GrammarSettings::default());
    let schema = Constraint::JsonSchema(json!({"type": "integer"}));
    for _ in 0..3 {
        assert!(accepts(compile(&grammars, &tenant("a"), &schema).unwrap(), "12"));
        assert!(!accepts(compile(&grammars, &tenant("a"), &schema).unwrap(), "1x"));
    }
}

#[test]
fn white_space_is_bounded_and_control_tokens_never_match_text() {
    let grammars = grammars(GrammarSettings::default());
    let object = || compile(&grammars, &tenant("a"), &Constraint::JsonObject).unwrap();
    assert!(accepts(object(), "{\n  \"a\": [1,\n  2]}"));
    assert!(!accepts(object(), &format!("{{{}\"a\": 1}}", " ".repeat(60))));
    assert!(!accepts(object(), "[]"));
    let regex = Constraint::Regex("<end>".into());
    let mut grammar = compile(&grammars, &tenant("a"), &regex).unwrap();
    assert!(!grammar.mask().unwrap().allows(END));
    assert!(accepts(grammar, "<end>"));
}

/// Cases where the compiler admits an instance that the suite calls invalid. Each is a hole in "always valid", known and
/// looked at; a new one fails the test.
const HOLES: &[&str] = &[];

#[test]
fn no_instance_that_the_json_schema_suite_calls_invalid_gets_through() {
    let root = std::env::var_os("STOCKADE_REFERENCE")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")), PathBuf::from);
    let folder = root.join("data/json-schema-tests/draft2020-12");
    if !folder.exists() {
        assert!(std::env::var_os("STOCKADE_REQUIRE_REFERENCE").is_none(), "{} is missing", folder.display());
        eprintln!("skipped: {} is missing", folder.display());
        return;
    }
    let grammars = grammars(GrammarSettings { cached: 0, ..GrammarSettings::default() });
    let (mut enforced, mut invalid, mut valid, mut valid_all) = (0, 0, 0, 0);
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    let mut holes = Vec::new();
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "json")) {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let groups: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        for group in groups {
            let constraint = Constraint::JsonSchema(group["schema"].clone());
            let Ok(grammar) = compile(&grammars, &tenant("a"), &constraint) else {
                *refused.entry(name.clone()).or_default() += 1;
                continue;
            };
            enforced += 1;
            for test in group["tests"].as_array().unwrap() {
                let accepted = accepts(Grammar(Box::new(grammar.0.deep_clone())), &test["data"].to_string());
                if test["valid"] == true {
                    valid_all += 1;
                    valid += usize::from(accepted);
                } else {
                    invalid += 1;
                    if accepted {
                        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
                        holes.push(format!("{name}: {}: {}", text(&group["description"]), text(&test["description"])));
                    }
                }
            }
        }
    }
    eprintln!(
        "{enforced} schemas enforced, {invalid} invalid instances kept out, {valid} of {valid_all} valid ones let through"
    );
    eprintln!("refused schemas by file: {refused:?}");
    assert!(enforced > 100, "{enforced}");
    assert_eq!(holes, HOLES);
}

#[test]
fn numbers_that_the_compiler_cannot_negate_are_refused() {
    let grammars = grammars(GrammarSettings::default());
    let schema = |text: &str| Constraint::JsonSchema(serde_json::from_str(text).unwrap());
    let lark = |schema: &str| Constraint::Lark(format!("start: \"x\" %json {schema}\n"));
    for text in [
        r#"{"const": -9223372036854775808}"#,
        r#"{"enum": ["x", -9223372036854775807]}"#,
        r#"{"type": "integer", "minimum": -1e19, "maximum": -1e19}"#,
        r#"{"items": {"anyOf": [{"const": {"a": [-9.3e18]}}]}}"#,
    ] {
        for constraint in [schema(text), lark(text)] {
            let refused = compile(&grammars, &tenant("a"), &constraint).unwrap_err().to_string();
            assert!(refused.contains("-2^63"), "{text}: {refused}");
        }
    }
    for text in [r#"{"const": -9223372036854774784}"#, r#"{"type": "integer", "maximum": 9223372036854775807}"#] {
        for constraint in [schema(text), lark(text)] {
            compile(&grammars, &tenant("a"), &constraint).unwrap();
        }
    }
}
