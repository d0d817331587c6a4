//! Picoschema, dotprompt's short way to write a JSON Schema.
//!
//! Source: <https://google.github.io/dotprompt/reference/picoschema/>, with a `?` at a property's name for an optional one.

use serde_json::{Map, Value, json};
use stockade_guest::{Error, Result};

const SCALARS: [&str; 6] = ["string", "boolean", "null", "number", "integer", "any"];
/// Most schemas inside of each other.
const MAX_DEPTH: usize = 16;

/// A schema of either form as a JSON Schema; `named` are schemas that can be referred to.
pub fn schema(source: &Value, named: &Map<String, Value>) -> Result<Value> {
    match source {
        Value::String(_) => pico(source, named, 0),
        Value::Object(fields) => {
            let ty = fields.get("type").and_then(Value::as_str);
            if ty.is_some_and(|t| SCALARS.contains(&t) || t == "object" || t == "array") {
                return Ok(source.clone());
            }
            if fields.get("properties").is_some_and(Value::is_object) {
                let mut fields = fields.clone();
                fields.insert("type".into(), "object".into());
                return Ok(Value::Object(fields));
            }
            pico(source, named, 0)
        }
        _ => Err(Error::Invalid("schema: neither a type nor an object".into())),
    }
}

fn pico(source: &Value, named: &Map<String, Value>, depth: usize) -> Result<Value> {
    if depth > MAX_DEPTH {
        return Err(Error::TooLarge(format!("{MAX_DEPTH} schemas inside of each other")));
    }
    let fields = match source {
        Value::String(text) => return scalar(text, named),
        Value::Object(fields) => fields,
        _ => return Err(Error::Invalid("schema: neither a type nor an object".into())),
    };
    let (mut properties, mut required) = (Map::new(), Vec::new());
    let mut more = Value::Bool(false);
    for (key, value) in fields {
        if key == "(*)" {
            more = pico(value, named, depth + 1)?;
            continue;
        }
        let (name, info) = key.split_once('(').map_or((key.as_str(), None), |(n, i)| (n, Some(i)));
        let is_optional = name.ends_with('?');
        let name = name.strip_suffix('?').unwrap_or(name).trim_end();
        if !is_optional {
            required.push(json!(name));
        }
        let info = info.map(|i| described(i.strip_suffix(')').unwrap_or(i)));
        let mut property = match info.map(|(ty, _)| ty) {
            None | Some("object") => pico(value, named, depth + 1)?,
            Some("array") => json!({"type": "array", "items": pico(value, named, depth + 1)?}),
            Some("enum") => json!({"enum": values(value)?}),
            Some(other) => {
                return Err(Error::Invalid(format!("schema: `{name}`: `{other}` is none of object, array, enum")));
            }
        };
        if is_optional {
            nullable(&mut property);
        }
        if let Some((_, Some(description))) = info {
            property["description"] = description.into();
        }
        properties.insert(name.into(), property);
    }
    let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": more});
    if !required.is_empty() {
        schema["required"] = Value::Array(required);
    }
    Ok(schema)
}

fn scalar(text: &str, named: &Map<String, Value>) -> Result<Value> {
    let (ty, description) = described(text);
    let mut schema = match ty {
        "any" => json!({}),
        _ if SCALARS.contains(&ty) => json!({"type": ty}),
        _ => {
            let found = named.get(ty).filter(|s| s.is_object()).cloned();
            found.ok_or_else(|| Error::Invalid(format!("schema: there is no type `{ty}`")))?
        }
    };
    if let Some(description) = description {
        schema["description"] = description.into();
    }
    Ok(schema)
}

/// `TYPE, DESCRIPTION`
fn described(text: &str) -> (&str, Option<&str>) {
    match text.split_once(',') {
        Some((ty, description)) => (ty.trim(), Some(description.trim())),
        None => (text.trim(), None),
    }
}

fn values(value: &Value) -> Result<Vec<Value>> {
    value.as_array().cloned().ok_or_else(|| Error::Invalid("schema: an enum needs a list of values".into()))
}

/// An optional property may be `null`.
fn nullable(property: &mut Value) {
    if let Some(Value::Array(values)) = property.get_mut("enum") {
        if !values.contains(&Value::Null) {
            values.push(Value::Null);
        }
    } else if let Some(Value::String(ty)) = property.get("type") {
        property["type"] = json!([ty, "null"]);
    }
}
