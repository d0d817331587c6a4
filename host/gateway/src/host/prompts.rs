//! `/stockade/v1/prompts`: the bound prompt store's own abilities. The Llama Stack's simpler prompts are
//! [`crate::dialect::prompts`].

use crate::body::JsonBody;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::prompt_store::{MAX_VERSION, PromptStore, content, definition, selector, shown};
use crate::reply::{self, Asked, Page};
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use stockade_core::registry::Scope;

#[derive(Deserialize)]
pub struct Filter {
    text: Option<String>,
    tag: Option<String>,
}

pub async fn find(store: PromptStore, page: Page, Asked(filter): Asked<Filter>) -> Result<Response, ApiError> {
    let filter = json!({"text": filter.text, "tag": filter.tag});
    let found = store.call("find", vec![filter, json!(page.after()), json!(page.limit)]).await?;
    let data: Vec<Value> = items(shown(found));
    Ok(page.reply(&data, |p| p["name"].as_str().unwrap_or_default().to_owned()))
}

#[derive(Deserialize)]
pub struct Which {
    version: Option<u32>,
    label: Option<String>,
}

impl Which {
    fn selector(&self) -> Result<Value, ApiError> {
        let fields = json!({"version": self.version, "label": self.label});
        selector(&Fields::root(&fields)?)
    }
}

pub async fn get(
    store: PromptStore,
    Path(name): Path<String>,
    Asked(which): Asked<Which>,
) -> Result<Response, ApiError> {
    let found = store.call("get", vec![json!(name), which.selector()?]).await?;
    Ok(reply::json(&prompt(shown(found))))
}

/// The version's fields beside the prompt's.
fn prompt(mut found: Value) -> Value {
    if let Value::Object(fields) = &mut found
        && let Some(Value::Object(version)) = fields.remove("version")
    {
        fields.extend(version);
    }
    found
}

pub async fn put(store: PromptStore, Path(name): Path<String>, JsonBody(body): JsonBody) -> Result<Response, ApiError> {
    store.caller.need(Scope::Components)?;
    let f = Fields::root(&body)?;
    let version = store.call("put", vec![json!(name), definition(&f)?, store.change(&f)?]).await?;
    Ok(reply::json(&shown(version)))
}

#[derive(Deserialize)]
pub struct Deletion {
    version: Option<u32>,
    #[serde(default)]
    force: bool,
}

pub async fn delete(
    store: PromptStore,
    Path(name): Path<String>,
    Asked(asked): Asked<Deletion>,
) -> Result<Response, ApiError> {
    store.caller.need(Scope::Components)?;
    let force = forced(&store, asked.force)?;
    store.call("delete", vec![json!(name), json!(asked.version), json!(force)]).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub async fn versions(store: PromptStore, Path(name): Path<String>, page: Page) -> Result<Response, ApiError> {
    let after = page.after().map(|a| a.parse::<u32>().map_err(|_| ApiError::invalid("after", "is no version")));
    let found = store.call("versions", vec![json!(name), json!(after.transpose()?), json!(page.limit)]).await?;
    Ok(page.reply(&items(shown(found)), |v| v["version"].to_string()))
}

pub async fn put_label(
    store: PromptStore,
    Path((name, label)): Path<(String, String)>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    store.caller.need(Scope::Components)?;
    let f = Fields::root(&body)?;
    let shares = match (f.integer("version", 1..=MAX_VERSION)?, f.array("shares")?) {
        (Some(version), None) => json!([{"version": version, "weight": 1}]),
        (None, Some(shares)) => json!(shares),
        _ => return Err(f.wrong("version", "or `shares` is required")),
    };
    let change = json!({
        "shares": shares,
        "protected": f.bool("protected")?.unwrap_or_default(),
        "expected": f.integer("expected", 1..=MAX_VERSION)?,
        "force": forced(&store, f.bool("force")?.unwrap_or_default())?,
        "author": store.author(),
        "message": f.str("message")?.unwrap_or_default(),
    });
    let set = store.call("set-label", vec![json!(name), json!(label), change]).await?;
    Ok(reply::json(&shown(set)))
}

#[derive(Deserialize)]
pub struct LabelDeletion {
    expected: Option<u32>,
    #[serde(default)]
    force: bool,
}

pub async fn delete_label(
    store: PromptStore,
    Path((name, label)): Path<(String, String)>,
    Asked(asked): Asked<LabelDeletion>,
) -> Result<Response, ApiError> {
    store.caller.need(Scope::Components)?;
    let change = json!({
        "shares": [],
        "protected": false,
        "expected": asked.expected,
        "force": forced(&store, asked.force)?,
        "author": store.author(),
        "message": "",
    });
    store.call("delete-label", vec![json!(name), json!(label), change]).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// A protected label is an administrator's to move.
fn forced(store: &PromptStore, force: bool) -> Result<bool, ApiError> {
    if force {
        store.caller.need(Scope::Admin)?;
    }
    Ok(force)
}

/// The labels' newest moves.
pub async fn moves(store: PromptStore, Path(name): Path<String>) -> Result<Response, ApiError> {
    let moves = store.call("label-moves", vec![json!(name)]).await?;
    Ok(reply::json(&json!({"data": shown(moves)})))
}

#[derive(Deserialize)]
pub struct Sides {
    /// A version's number or a label.
    before: String,
    /// The latest without one.
    after: Option<String>,
    #[serde(default = "line")]
    unit: String,
}

fn line() -> String {
    "line".into()
}

pub async fn diff(
    store: PromptStore,
    Path(name): Path<String>,
    Asked(sides): Asked<Sides>,
) -> Result<Response, ApiError> {
    let side = |text: &str| match text.parse::<u32>() {
        Ok(version) => json!({"version": version}),
        Err(_) if text == "latest" => json!("latest"),
        Err(_) => json!({"label": text}),
    };
    let (before, after) = (side(&sides.before), sides.after.as_deref().map_or_else(|| json!("latest"), side));
    let pieces = store.call("diff", vec![json!(name), before, after, json!(sides.unit)]).await?;
    Ok(reply::json(&json!({"data": pieces})))
}

#[derive(Deserialize)]
pub struct File {
    #[serde(default = "json_lines")]
    form: String,
    version: Option<u32>,
    label: Option<String>,
}

fn json_lines() -> String {
    "json-lines".into()
}

pub async fn export(
    store: PromptStore,
    Path(name): Path<String>,
    Asked(file): Asked<File>,
) -> Result<Response, ApiError> {
    let which = Which { version: file.version, label: file.label }.selector()?;
    let text = store.call("dump", vec![json!(name), which, json!(file.form)]).await?;
    Ok(reply::json(&json!({"form": file.form, "text": text})))
}

pub async fn import(store: PromptStore, JsonBody(body): JsonBody) -> Result<Response, ApiError> {
    store.caller.need(Scope::Components)?;
    let f = Fields::root(&body)?;
    let form = f.str("form")?.unwrap_or("json-lines");
    let args = vec![json!(f.str("name")?), json!(f.need_str("text")?), json!(form), store.change(&f)?];
    Ok(reply::json(&json!({"data": shown(store.call("load", args).await?)})))
}

/// A stored prompt by `name`, or a `template` or whole `definition` that is not stored.
pub async fn render(store: PromptStore, JsonBody(body): JsonBody) -> Result<Response, ApiError> {
    let f = Fields::root(&body)?;
    // The store's interface takes variables as JSON text.
    let variables = f.object("variables")?.map_or_else(|| json!({}), |v| Value::Object(v.map().clone())).to_string();
    let inline = match (f.object("definition")?, f.value("template")) {
        (Some(f), _) => Some(definition(&f)?),
        (None, Some(_)) => {
            let mut fields = f.map().clone();
            fields.remove("variables");
            Some(definition(&Fields::root(&Value::Object(fields))?)?)
        }
        (None, None) => None,
    };
    if let Some(definition) = inline {
        if f.value("name").is_some() {
            return Err(f.wrong("name", "and a template exclude each other"));
        }
        let found = store.call("render-inline", vec![definition, json!(variables)]).await?;
        return Ok(reply::json(&content(&found)));
    }
    let args = vec![json!(f.need_str("name")?), selector(&f)?, json!(variables)];
    let rendered = store.call("render", args).await?;
    let mut out = content(&rendered["content"]);
    let Value::Object(fields) = shown(rendered) else { return Err(ApiError::internal()) };
    let told = fields.into_iter().filter(|(name, value)| name != "content" && !value.is_null());
    out.extend(told.collect::<Map<_, _>>());
    Ok(reply::json(&out))
}

fn items(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}
