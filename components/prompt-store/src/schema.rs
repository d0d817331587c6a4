//! A variable's JSON Schema (2020-12). What is checked is all that is accepted: a schema with another keyword is refused
//! when it is stored, so that no rule is believed in that nobody keeps.

use serde_json::Value;
use stockade_guest::{Error, Result};

/// Keywords that only tell something.
const ANNOTATIONS: [&str; 11] = [
    "$schema",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "format",
    "deprecated",
    "readOnly",
    "writeOnly",
    "contentMediaType",
];
const TYPES: [&str; 7] = ["null", "boolean", "object", "array", "number", "integer", "string"];
/// Most schemas inside of each other.
const MAX_DEPTH: usize = 32;

/// Refuses a schema that [`check`] could not keep.
pub fn validate(schema: &Value) -> Result<()> {
    supported(schema, 0)
}

/// Why `value` does not fulfil `schema`, with its place.
pub fn check(schema: &Value, value: &Value) -> Result<(), String> {
    fulfils(schema, value, "")
}

fn supported(schema: &Value, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::TooLarge(format!("{MAX_DEPTH} schemas inside of each other")));
    }
    let fields = match schema {
        Value::Bool(_) => return Ok(()),
        Value::Object(fields) => fields,
        _ => return Err(Error::Invalid("schema: neither an object nor a boolean".into())),
    };
    for (keyword, value) in fields {
        let all = |values: &Value| -> Result<()> {
            let values = values.as_array().filter(|v| !v.is_empty()).ok_or_else(|| wrong(keyword))?;
            values.iter().try_for_each(|s| supported(s, depth + 1))
        };
        match keyword.as_str() {
            "type" => {
                let types = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
                if types.is_empty() || !types.iter().all(|t| t.as_str().is_some_and(|t| TYPES.contains(&t))) {
                    return Err(wrong(keyword));
                }
            }
            "const" => {}
            "enum" if value.is_array() => {}
            "required" if value.as_array().is_some_and(|v| v.iter().all(Value::is_string)) => {}
            "properties" => {
                let properties = value.as_object().ok_or_else(|| wrong(keyword))?;
                properties.values().try_for_each(|s| supported(s, depth + 1))?;
            }
            "additionalProperties" | "items" | "not" => supported(value, depth + 1)?,
            "allOf" | "anyOf" | "oneOf" => all(value)?,
            "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties"
                if count(value).is_some() => {}
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" if value.is_number() => {}
            "uniqueItems" if value.is_boolean() => {}
            known if ANNOTATIONS.contains(&known) => {}
            "enum" | "required" | "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties"
            | "maxProperties" | "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "uniqueItems" => {
                return Err(wrong(keyword));
            }
            _ => return Err(Error::Invalid(format!("schema: the keyword `{keyword}` is not served"))),
        }
    }
    Ok(())
}

fn wrong(keyword: &str) -> Error {
    Error::Invalid(format!("schema: `{keyword}` has a value that it cannot have"))
}

fn count(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_f64().filter(|n| n.fract() == 0.0 && *n >= 0.0).map(|n| n as u64))
}

fn fulfils(schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let fields = match schema {
        Value::Bool(true) => return Ok(()),
        Value::Object(fields) => fields,
        _ => return Err(format!("{at}: nothing may stand here")),
    };
    for (keyword, rule) in fields {
        let holds = match keyword.as_str() {
            "type" => rule.as_array().map_or(std::slice::from_ref(rule), Vec::as_slice).iter().any(|t| is_of(t, value)),
            "const" => same(rule, value),
            "enum" => rule.as_array().is_some_and(|v| v.iter().any(|v| same(v, value))),
            "allOf" => {
                each(rule).try_for_each(|s| fulfils(s, value, at))?;
                true
            }
            "anyOf" => each(rule).any(|s| fulfils(s, value, at).is_ok()),
            "oneOf" => each(rule).filter(|s| fulfils(s, value, at).is_ok()).count() == 1,
            "not" => fulfils(rule, value, at).is_err(),
            _ => match value {
                Value::Object(found) => {
                    members(fields, keyword, rule, found, at)?;
                    bounds(keyword, rule, "Properties", found.len())
                }
                Value::Array(items) => {
                    if keyword == "items" {
                        for (i, item) in items.iter().enumerate() {
                            fulfils(rule, item, &format!("{at}[{i}]"))?;
                        }
                    }
                    let unique = keyword != "uniqueItems" || rule == &Value::Bool(false) || all_different(items);
                    unique && bounds(keyword, rule, "Items", items.len())
                }
                Value::String(text) => bounds(keyword, rule, "Length", text.chars().count()),
                Value::Number(number) => in_range(keyword, rule, number.as_f64().unwrap_or(f64::NAN)),
                _ => true,
            },
        };
        if !holds {
            let rule: String = rule.to_string().chars().take(100).collect();
            return Err(format!("{at}: breaks `{keyword}`: {rule}"));
        }
    }
    Ok(())
}

fn each(rule: &Value) -> impl Iterator<Item = &Value> {
    rule.as_array().into_iter().flatten()
}

fn members(
    schema: &serde_json::Map<String, Value>,
    keyword: &str,
    rule: &Value,
    found: &serde_json::Map<String, Value>,
    at: &str,
) -> Result<(), String> {
    match keyword {
        "required" => {
            let missing = each(rule).filter_map(Value::as_str).find(|name| !found.contains_key(*name));
            missing.map_or(Ok(()), |name| Err(format!("{at}.{name} is missing")))
        }
        "properties" => rule.as_object().into_iter().flatten().try_for_each(|(name, schema)| {
            found.get(name).map_or(Ok(()), |value| fulfils(schema, value, &format!("{at}.{name}")))
        }),
        "additionalProperties" => {
            let declared = schema.get("properties").and_then(Value::as_object);
            let more = found.iter().filter(|(name, _)| declared.is_none_or(|d| !d.contains_key(*name)));
            more.into_iter().try_for_each(|(name, value)| fulfils(rule, value, &format!("{at}.{name}")))
        }
        _ => Ok(()),
    }
}

fn bounds(keyword: &str, rule: &Value, of: &str, size: usize) -> bool {
    let limit = count(rule).unwrap_or_default();
    match keyword.strip_suffix(of) {
        Some("min") => size as u64 >= limit,
        Some("max") => size as u64 <= limit,
        _ => true,
    }
}

fn in_range(keyword: &str, rule: &Value, number: f64) -> bool {
    let limit = rule.as_f64().unwrap_or(f64::NAN);
    match keyword {
        "minimum" => number >= limit,
        "maximum" => number <= limit,
        "exclusiveMinimum" => number > limit,
        "exclusiveMaximum" => number < limit,
        _ => true,
    }
}

fn is_of(ty: &Value, value: &Value) -> bool {
    match ty.as_str() {
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("number") => value.is_number(),
        Some("integer") => value.as_f64().is_some_and(|n| n.fract() == 0.0),
        _ => false,
    }
}

/// Equal as JSON Schema has it: `1` is `1.0`.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

fn all_different(items: &[Value]) -> bool {
    items.iter().enumerate().all(|(i, a)| items[..i].iter().all(|b| !same(a, b)))
}
