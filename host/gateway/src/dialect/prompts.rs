//! `/v1/prompts`: the Llama Stack's prompts, kept in the tenant's bound prompt store.
//!
//! A prompt of this dialect is a stored prompt whose name is `pmpt_` and 48 hexadecimal digits: a text with `{{ name }}`
//! for each of its variables. Its default version is the one that the label [`DEFAULT`] points at. Prompts of other
//! names are not the dialect's.

use crate::body::JsonBody;
use crate::error::{ApiError, Code};
use crate::fields::Fields;
use crate::prompt_store::{MAX_VERSION, PromptStore};
use crate::reply::{self, Asked};
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

/// What the default orchestrator takes a prompt by that is named without a version.
const DEFAULT: &str = "production";
const PREFIX: &str = "pmpt_";
/// Hexadecimal digits after the prefix.
const DIGITS: usize = 48;
/// Prompts and versions by call of the store.
const PAGE: u32 = 1000;
/// Most prompts of a list, which this dialect has in one piece.
const MAX_LISTED: usize = 1000;

pub async fn create(store: PromptStore, JsonBody(body): JsonBody) -> Result<Response, ApiError> {
    let definition = definition(&Fields::root(&body)?)?;
    let mut random = [0u8; DIGITS / 2];
    getrandom::fill(&mut random).map_err(|e| {
        tracing::error!(error = %e, "no random bytes for a prompt's id");
        ApiError::internal()
    })?;
    let id: String = random.iter().fold(PREFIX.into(), |id, byte| format!("{id}{byte:02x}"));
    put(&store, &id, definition, 0).await?;
    set_default(&store, &id, 1).await?;
    Ok(reply::json(&get_version(&store, &id, Some(1)).await?))
}

/// The default version of each prompt.
pub async fn list(store: PromptStore) -> Result<Response, ApiError> {
    let mut data = Vec::new();
    let mut after = Some(PREFIX.to_string());
    'pages: while let Some(from) = after.take() {
        let filter = json!({"text": null, "tag": null});
        let page = store.call("find", vec![filter, json!(from), json!(PAGE)]).await?;
        for summary in page.as_array().into_iter().flatten() {
            let name = summary["name"].as_str().unwrap_or_default();
            if !name.starts_with(PREFIX) || data.len() == MAX_LISTED {
                break 'pages;
            }
            after = Some(name.into());
            if is_id(name) {
                data.push(get_version(&store, name, None).await?);
            }
        }
    }
    Ok(reply::json(&json!({"data": data})))
}

#[derive(Deserialize)]
pub struct Which {
    version: Option<u32>,
}

pub async fn get(store: PromptStore, Path(id): Path<String>, Asked(which): Asked<Which>) -> Result<Response, ApiError> {
    Ok(reply::json(&get_version(&store, known(&id)?, which.version).await?))
}

pub async fn versions(store: PromptStore, Path(id): Path<String>) -> Result<Response, ApiError> {
    let found = store.call("versions", vec![json!(known(&id)?), Value::Null, json!(PAGE)]).await?;
    let mut data = Vec::new();
    for version in found.as_array().into_iter().flatten() {
        let number = version["number"].as_u64().and_then(|n| u32::try_from(n).ok());
        data.push(get_version(&store, &id, number).await?);
    }
    Ok(reply::json(&json!({"data": data})))
}

pub async fn update(
    store: PromptStore,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let f = Fields::root(&body)?;
    let definition = definition(&f)?;
    let version = f.integer("version", 1..=MAX_VERSION)?.ok_or_else(|| f.wrong("version", "is required"))?;
    let is_default = f.bool("set_as_default")?.unwrap_or(true);
    // A prompt that is not there is not found, whatever version was named.
    get_version(&store, known(&id)?, None).await?;
    let made = put(&store, &id, definition, version).await.map_err(|e| match e.code {
        // As the Llama Stack answers.
        Code::Conflict => f.wrong("version", format!("`{version}` is not the latest: {}", e.detail)),
        _ => e,
    })?;
    if is_default {
        set_default(&store, &id, made).await?;
    }
    Ok(reply::json(&get_version(&store, &id, Some(made)).await?))
}

pub async fn set_default_version(
    store: PromptStore,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let f = Fields::root(&body)?;
    let version = f.integer("version", 1..=MAX_VERSION)?.and_then(|v| u32::try_from(v).ok());
    let version = version.ok_or_else(|| f.wrong("version", "is required"))?;
    set_default(&store, known(&id)?, version).await?;
    Ok(reply::json(&get_version(&store, &id, Some(version)).await?))
}

/// With `?version=` that version alone, else the prompt.
pub async fn delete(
    store: PromptStore,
    Path(id): Path<String>,
    Asked(which): Asked<Which>,
) -> Result<Response, ApiError> {
    store.call("delete", vec![json!(known(&id)?), json!(which.version), json!(false)]).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn is_id(name: &str) -> bool {
    let digits = name.strip_prefix(PREFIX);
    digits.is_some_and(|d| d.len() == DIGITS && d.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

fn known(id: &str) -> Result<&str, ApiError> {
    if is_id(id) { Ok(id) } else { Err(ApiError::not_found("prompt", id)) }
}

fn definition(f: &Fields<'_>) -> Result<Value, ApiError> {
    let text = f.need_str("prompt")?;
    let names = f.array("variables")?.map_or(&[][..], Vec::as_slice);
    let variable = |name: &Value| match name.as_str() {
        Some(name) => Ok(json!({"name": name, "kind": "text", "required": true, "description": ""})),
        None => Err(f.wrong("variables", "must be strings")),
    };
    Ok(json!({
        "format": "simple",
        "template": {"text": text},
        "variables": names.iter().map(variable).collect::<Result<Vec<_>, _>>()?,
        "partials": [],
        "strict": true,
        "model-config": "{}",
        "description": "",
        "tags": [],
        "metadata": "{}",
    }))
}

/// Adds a version after `latest` and returns its number.
async fn put(store: &PromptStore, id: &str, definition: Value, latest: i64) -> Result<u32, ApiError> {
    let change = json!({"author": store.author(), "message": "", "parent": null, "expected-latest": latest});
    let made = store.call("put", vec![json!(id), definition, change]).await?;
    made["number"].as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(ApiError::internal)
}

/// Moves the label from wherever it is: the last one wins, as the dialect has no way to say what was expected.
async fn set_default(store: &PromptStore, id: &str, version: u32) -> Result<(), ApiError> {
    let now = match store.call("get", vec![json!(id), json!({"label": DEFAULT})]).await {
        Ok(found) => {
            let mut labels = found["labels"].as_array().into_iter().flatten();
            labels.find(|l| l["name"] == DEFAULT).map(|l| l["revision"].clone())
        }
        Err(e) if e.code == Code::NotFound => None,
        Err(e) => return Err(e),
    };
    let change = json!({
        "shares": [{"version": version, "weight": 1}],
        "protected": false,
        "expected": now,
        "force": false,
        "author": store.author(),
        "message": "",
    });
    store.call("set-label", vec![json!(id), json!(DEFAULT), change]).await.map(drop)
}

/// A version as the dialect shows it; `None`: the default one, or the latest where a label was taken away.
async fn get_version(store: &PromptStore, id: &str, version: Option<u32>) -> Result<Value, ApiError> {
    let selector = version.map_or_else(|| json!({"label": DEFAULT}), |v| json!({"version": v}));
    let found = match store.call("get", vec![json!(id), selector]).await {
        Err(e) if e.code == Code::NotFound && version.is_none() => {
            store.call("get", vec![json!(id), json!("latest")]).await?
        }
        found => found?,
    };
    let (definition, labels) = (&found["definition"], &found["labels"]);
    let names = definition["variables"].as_array().into_iter().flatten().map(|v| v["name"].clone());
    Ok(json!({
        "prompt_id": id,
        "prompt": definition["template"]["text"],
        "version": found["version"]["number"],
        "variables": names.collect::<Vec<_>>(),
        "is_default": labels.as_array().into_iter().flatten().any(|l| l["name"] == DEFAULT),
    }))
}
