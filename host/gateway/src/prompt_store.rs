//! The tenant's bound prompt store, as the gateway's own routes call it, and its values in the API's JSON.
//!
//! The plugin's values have kebab-case names and JSON as text; the API's have snake_case and JSON in place.

use crate::app::App;
use crate::auth::Caller;
use crate::bound::Bound;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::layers::RequestInfo;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use stockade_core::plugin::Role;
use stockade_core::registry::Scope;

/// A caller's way into the store.
pub struct PromptStore {
    pub caller: Caller,
    bound: Bound,
}

impl FromRequestParts<App> for PromptStore {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, app).await?;
        caller.need_any(&[Scope::Inference, Scope::Components])?;
        let Ok(info) = RequestInfo::from_request_parts(parts, app).await;
        let bound = Bound::new(app, &caller.tenant, info.id, &Role::PromptStore, "prompt store")?;
        Ok(Self { caller, bound })
    }
}

impl PromptStore {
    pub async fn call(&self, function: &str, args: Vec<Value>) -> Result<Value, ApiError> {
        self.bound.call(function, args).await
    }

    /// Who changes something, and why.
    pub fn change(&self, f: &Fields<'_>) -> Result<Value, ApiError> {
        Ok(json!({
            "author": self.author(),
            "message": f.str("message")?.unwrap_or_default(),
            "parent": f.integer("parent", 1..=MAX_VERSION)?,
            "expected-latest": f.integer("expected_latest", 0..=MAX_VERSION)?,
        }))
    }

    /// The key's name, or its id.
    pub fn author(&self) -> &str {
        let key = &self.caller.key;
        if key.name.is_empty() { &key.id } else { &key.name }
    }
}

pub const MAX_VERSION: i64 = u32::MAX as i64;

/// `{version | label, key?}`; none of them: the latest version.
pub fn selector(f: &Fields<'_>) -> Result<Value, ApiError> {
    Ok(match (f.integer("version", 1..=MAX_VERSION)?, f.str("label")?, f.str("key")?) {
        (Some(_), Some(_), _) => return Err(f.wrong("label", "and `version` exclude each other")),
        (None, Some(label), Some(key)) => json!({"sticky": {"label": label, "key": key}}),
        (_, None, Some(_)) => return Err(f.wrong("key", "needs a `label`")),
        (Some(version), ..) => json!({"version": version}),
        (None, Some(label), None) => json!({"label": label}),
        (None, None, None) => json!("latest"),
    })
}

/// A definition out of a request's fields.
pub fn definition(f: &Fields<'_>) -> Result<Value, ApiError> {
    let variables = f.array("variables")?.map_or(&[][..], Vec::as_slice);
    let variables = variables.iter().enumerate().map(|(i, v)| variable(v, &f.at(&format!("variables[{i}]"))));
    let variables = variables.collect::<Result<Vec<_>, _>>()?;
    let partials = f.object("partials")?;
    let partials = partials.iter().flat_map(Fields::iter).map(|(name, target)| {
        let target = target.as_str().and_then(|t| t.rsplit_once('@'));
        match target.and_then(|(prompt, version)| Some((prompt, version.parse::<u32>().ok()?))) {
            Some((prompt, version)) => Ok(json!({"name": name, "prompt": prompt, "version": version})),
            None => Err(f.wrong("partials", "must name each prompt as NAME@VERSION")),
        }
    });
    let partials = partials.collect::<Result<Vec<_>, _>>()?;
    let object = |name: &str| -> Result<String, ApiError> {
        Ok(f.object(name)?.map_or_else(|| "{}".into(), |o| Value::Object(o.map().clone()).to_string()))
    };
    Ok(json!({
        "format": f.str("format")?.unwrap_or("simple"),
        "template": template(f)?,
        "strict": f.bool("strict")?.unwrap_or(!variables.is_empty()),
        "variables": variables,
        "partials": partials,
        "model-config": object("model_config")?,
        "description": f.str("description")?.unwrap_or_default(),
        "tags": f.array("tags")?.cloned().unwrap_or_default(),
        "metadata": object("metadata")?,
    }))
}

/// A text, or a list of `{role, content}` and `{placeholder}`.
fn template(f: &Fields<'_>) -> Result<Value, ApiError> {
    match f.need("template")? {
        Value::String(text) => Ok(json!({"text": text})),
        Value::Array(items) => {
            let item = |(i, item): (usize, &Value)| {
                let f = Fields::of(item, f.at(&format!("template[{i}]")))?;
                if let Some(name) = f.str("placeholder")? {
                    return Ok(json!({"placeholder": name}));
                }
                Ok(json!({"message": {"role": f.need_str("role")?, "content": f.need_str("content")?}}))
            };
            let items: Vec<Value> = items.iter().enumerate().map(item).collect::<Result<_, ApiError>>()?;
            Ok(json!({"chat": items}))
        }
        _ => Err(f.wrong("template", "must be a string or an array")),
    }
}

/// `{name, kind?, required?, default?, schema?, description?}`, or a name alone.
fn variable(value: &Value, at: &str) -> Result<Value, ApiError> {
    if let Value::String(name) = value {
        return Ok(json!({"name": name, "kind": "text", "required": true, "description": ""}));
    }
    let f = Fields::of(value, at)?;
    // `null` is a default as well, where it is given.
    let default = f.map().get("default").map(Value::to_string);
    Ok(json!({
        "name": f.need_str("name")?,
        "kind": f.str("kind")?.unwrap_or("text"),
        "required": f.bool("required")?.unwrap_or(default.is_none()),
        "default": default,
        "schema": f.value("schema").map(Value::to_string),
        "description": f.str("description")?.unwrap_or_default(),
    }))
}

/// A plugin's value in the API's names: snake_case, JSON in place, `number` as `version`, `created` with its unit.
pub fn shown(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(shown).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| field(&name, value)).collect::<Map<_, _>>().into()
        }
        other => other,
    }
}

fn field(name: &str, value: Value) -> (String, Value) {
    let text = |value: &Value| value.as_str().and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default();
    match name {
        "model-config" | "metadata" | "default" | "schema" => (name.replace('-', "_"), text(&value)),
        "number" => ("version".into(), value),
        "created" => ("created_ms".into(), value),
        "partials" => {
            let target = |p: &Value| {
                let name = p["name"].as_str().unwrap_or_default().to_string();
                (name, json!(format!("{}@{}", p["prompt"].as_str().unwrap_or_default(), p["version"])))
            };
            (name.into(), value.as_array().into_iter().flatten().map(target).collect::<Map<_, _>>().into())
        }
        "template" => (name.into(), shown_template(value)),
        _ => (name.replace('-', "_"), shown(value)),
    }
}

fn shown_template(value: Value) -> Value {
    let Value::Object(mut template) = value else { return value };
    match (template.remove("text"), template.remove("chat")) {
        (Some(text), _) => text,
        (None, Some(Value::Array(items))) => {
            let item = |item: Value| match item {
                Value::Object(mut fields) if fields.contains_key("message") => fields.remove("message"),
                other => Some(other),
            };
            items.into_iter().filter_map(item).collect()
        }
        _ => Value::Null,
    }
}

/// `{text}` or `{messages}`, messages as chat completions take them.
pub fn content(value: &Value) -> Map<String, Value> {
    let mut out = Map::new();
    if let Some(text) = value.get("text") {
        out.insert("text".into(), text.clone());
    }
    if let Some(Value::Array(messages)) = value.get("messages") {
        let message = |m: &Value| {
            let parts = m["parts"].as_array().map_or(&[][..], Vec::as_slice);
            let content = match parts {
                [one] if one.get("text").is_some() => one["text"].clone(),
                parts => parts.iter().map(part).collect(),
            };
            json!({"role": m["role"], "content": content})
        };
        out.insert("messages".into(), messages.iter().map(message).collect());
    }
    out
}

fn part(part: &Value) -> Value {
    let Some(image) = part.get("image") else {
        return json!({"type": "text", "text": part["text"]});
    };
    let data = image["data"].as_array().into_iter().flatten();
    let data: Vec<u8> = data.filter_map(|b| u8::try_from(b.as_u64()?).ok()).collect();
    let media_type = image["media-type"].as_str().unwrap_or_default();
    let url = format!("data:{media_type};base64,{}", STANDARD.encode(data));
    json!({"type": "image_url", "image_url": {"url": url}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_come_back_as_they_went_in() {
        let given = json!({
            "format": "simple", "strict": true, "description": "d", "tags": ["t"],
            "template": [{"role": "system", "content": "Hi {{a}}"}, {"placeholder": "h"}],
            "variables": [
                {"name": "a", "kind": "json", "required": false, "default": null, "schema": {"type": "null"}, "description": ""},
                {"name": "h", "kind": "messages", "required": true, "default": null, "schema": null, "description": "x"},
            ],
            "partials": {"p": "p@3"}, "model_config": {"model": "m"}, "metadata": {"k": [1]},
        });
        let made = definition(&Fields::root(&given).unwrap()).unwrap();
        assert_eq!(made["variables"][0]["default"], "null");
        assert_eq!(made["model-config"], r#"{"model":"m"}"#);
        assert_eq!(shown(made), given);
        for bad in [
            json!({}),
            json!({"template": 1}),
            json!({"template": [{}]}),
            json!({"template": "", "partials": {"a": "b"}}),
        ] {
            assert!(definition(&Fields::root(&bad).unwrap()).is_err(), "{bad}");
        }
    }

    #[test]
    fn rendered_images_are_data_urls() {
        let image = json!({"image": {"media-type": "image/png", "data": [1, 2, 3]}});
        let found = content(&json!({"messages": [{"role": "user", "parts": [{"text": "x"}, image]}]}));
        assert_eq!(found["messages"][0]["content"][1]["image_url"]["url"], "data:image/png;base64,AQID");
        assert_eq!(found["messages"][0]["content"][0], json!({"type": "text", "text": "x"}));
    }
}
