//! The specifications' own test data. What is out of scope stands in the README.
//!
//! Without the data (`../shared/data`) the tests say so and pass, unless `STOCKADE_REQUIRE_REFERENCE=1`.

use crate::messages::{self, Draft, DraftPart};
use crate::template::{Format, Inclusion, Inclusions, Inputs, Limits, Piece, evaluate, parse};
use crate::{dotprompt, schema, yaml};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use stockade_guest::types::{Part, Role};

/// Files of a folder of the reference data, with their names. `None`: the data is not there.
fn files(folder: &str, names: &[&str]) -> Option<Vec<(String, String)>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(folder);
    if !root.is_dir() {
        assert!(std::env::var_os("STOCKADE_REQUIRE_REFERENCE").is_none(), "{} is missing", root.display());
        eprintln!("skipped: {} is missing", root.display());
        return None;
    }
    let read = |name: &&str| (name.to_string(), std::fs::read_to_string(root.join(name)).unwrap());
    Some(names.iter().map(read).collect())
}

fn inclusions(partials: &Value) -> (BTreeMap<String, String>, Inclusions) {
    let texts: Vec<(String, String)> = partials
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, text)| (name.clone(), text.as_str().unwrap().into()))
        .collect();
    let names: BTreeMap<_, _> = texts.iter().map(|(name, _)| (name.clone(), name.clone())).collect();
    let inclusion = |(name, text)| (name, Inclusion { text, partials: names.clone() });
    let inclusions = texts.into_iter().map(inclusion).collect();
    (names, inclusions)
}

#[test]
fn mustache_templates_do_what_the_specification_says() {
    let modules =
        ["comments.json", "delimiters.json", "interpolation.json", "inverted.json", "partials.json", "sections.json"];
    let Some(files) = files("mustache-spec", &modules) else { return };
    let mut passed = 0;
    for (module, text) in files {
        let module_tests: Value = serde_json::from_str(&text).unwrap();
        for test in module_tests["tests"].as_array().unwrap() {
            let at = format!("{module}: {}", test["name"]);
            let (partials, inclusions) = inclusions(&test["partials"]);
            let inputs = Inputs {
                format: Format::Mustache,
                values: &test["data"],
                context: &Map::new(),
                images: &BTreeSet::new(),
                partials: &partials,
                inclusions: &inclusions,
            };
            let template =
                parse(Format::Mustache, test["template"].as_str().unwrap()).unwrap_or_else(|e| panic!("{at}: {e}"));
            let pieces = evaluate(&template, &inputs, Limits::default()).unwrap_or_else(|e| panic!("{at}: {e}"));
            let text = match pieces.as_slice() {
                [] => "",
                [Piece::Text(text)] => text,
                other => panic!("{at}: {other:?}"),
            };
            assert_eq!(text, test["expected"].as_str().unwrap(), "{at}: {}", test["desc"]);
            passed += 1;
        }
    }
    assert_eq!(passed, 136);
}

#[test]
fn dotprompt_templates_do_what_the_specification_says() {
    let names = [
        "metadata.yaml",
        "partials.yaml",
        "picoschema.yaml",
        "variables.yaml",
        "helpers/history.yaml",
        "helpers/ifEquals.yaml",
        "helpers/json.yaml",
        "helpers/media.yaml",
        "helpers/role.yaml",
        "helpers/unlessEquals.yaml",
    ];
    let Some(files) = files("dotprompt-spec", &names) else { return };
    let mut passed = 0;
    for (file, text) in files {
        for suite in yaml::read(&text).unwrap().as_array().unwrap() {
            for test in suite["tests"].as_array().unwrap() {
                dotprompt_test(&format!("{file} {}: {}", suite["name"], test["desc"]), suite, test);
                passed += 1;
            }
        }
    }
    assert_eq!(passed, 68);
}

fn dotprompt_test(at: &str, suite: &Value, test: &Value) {
    let document = dotprompt::parse(suite["template"].as_str().unwrap()).unwrap();
    let front = &document.front;
    let data = |name: &str| test["data"].get(name).or(suite["data"].get(name)).cloned();
    let partials = [&suite["partials"], &suite["resolverPartials"]];
    let partials = partials.into_iter().find(|p| p.is_object()).unwrap_or(&Value::Null);
    let (names, inclusions) = inclusions(partials);
    // The caller's default wins over the file's.
    let default = test["options"]["input"]["default"].as_object();
    let default = default.or(front.get("input").and_then(|i| i["default"].as_object()));
    let mut values = default.cloned().unwrap_or_default();
    values.extend(data("input").and_then(|i| i.as_object().cloned()).unwrap_or_default());
    let context = data("context").and_then(|c| c.as_object().cloned()).unwrap_or_default();
    let inputs = Inputs {
        format: Format::Dotprompt,
        values: &Value::Object(values),
        context: &context,
        images: &BTreeSet::new(),
        partials: &names,
        inclusions: &inclusions,
    };
    let template = parse(Format::Dotprompt, &document.template).unwrap_or_else(|e| panic!("{at}: {e}"));
    let pieces = evaluate(&template, &inputs, Limits::default()).unwrap_or_else(|e| panic!("{at}: {e}"));
    let history = data("messages").map(|m| messages::read("history", &m).unwrap());
    let found: Vec<Value> = messages::drafts(pieces, history.as_deref()).into_iter().map(as_json).collect();

    for (name, want) in test["expect"].as_object().unwrap() {
        let named = suite["schemas"].as_object().cloned().unwrap_or_default();
        let found = match name.as_str() {
            "messages" => json!(found),
            "config" | "model" => front[name].clone(),
            "raw" => json!(front),
            "ext" => json!(dotprompt::extensions(front)),
            side @ ("input" | "output") => {
                let mut found = json!({});
                if let Some(schema) = dotprompt::schema_of(front, side, &named).unwrap() {
                    found["schema"] = schema;
                }
                if let Some(default) = test["options"].get(side).and_then(|s| s.get("default")) {
                    found["default"] = default.clone();
                }
                found
            }
            other => panic!("{at}: the test expects something of `{other}`"),
        };
        assert_eq!(&found, want, "{at}: {name}");
    }
}

fn as_json(draft: Draft) -> Value {
    let part = |part| match part {
        DraftPart::Text(text) | DraftPart::Given(Part::Text(text)) => json!({"text": text}),
        DraftPart::Media(media) => match media.content_type {
            Some(ty) => json!({"media": {"url": media.source, "contentType": ty}}),
            None => json!({"media": {"url": media.source}}),
        },
        DraftPart::Given(other) => panic!("{other:?}"),
    };
    let role = match draft.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "model",
        Role::Tool => "tool",
    };
    let mut message = json!({"role": role, "content": draft.parts.into_iter().map(part).collect::<Vec<_>>()});
    if draft.is_history {
        message["metadata"] = json!({"purpose": "history"});
    }
    message
}

#[test]
fn schemas_are_kept_as_json_schema_says_or_refused() {
    let names = [
        "additionalProperties",
        "allOf",
        "anyOf",
        "boolean_schema",
        "const",
        "enum",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "items",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "multipleOf",
        "not",
        "oneOf",
        "pattern",
        "prefixItems",
        "properties",
        "ref",
        "required",
        "type",
        "uniqueItems",
    ];
    let names: Vec<String> = names.iter().map(|n| format!("draft2020-12/{n}.json")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let Some(files) = files("json-schema-tests", &names) else { return };
    let (mut kept, mut refused) = (0, 0);
    for (file, text) in files {
        let groups: Value = serde_json::from_str(&text).unwrap();
        for group in groups.as_array().unwrap() {
            if schema::validate(&group["schema"]).is_err() {
                refused += 1;
                continue;
            }
            for test in group["tests"].as_array().unwrap() {
                let holds = schema::check(&group["schema"], &test["data"]);
                let at = format!("{file} {}: {}: {holds:?}", group["description"], test["description"]);
                assert_eq!(holds.is_ok(), test["valid"].as_bool().unwrap(), "{at}");
                kept += 1;
            }
        }
    }
    println!("{kept} tests kept, {refused} schemas refused");
    assert!(kept > 400, "{kept} tests, {refused} schemas refused");
}
