//! Assistants: stored, versioned records that requests name in place of a model.

use super::name_error;
use crate::app::App;
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::dialect::openai::sampling;
use crate::error::{ApiError, Code};
use crate::fields::Fields;
use crate::jobs;
use crate::reply::{self, Page};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use stockade_core::TenantId;
use stockade_core::id::AssistantName;
use stockade_core::infer::ModelKind;
use stockade_core::registry::{Assistant, AssistantVersion, Party, Scope};
use stockade_core::store::Expect;

/// Sampling fields that an assistant may give.
const SAMPLING: &[&str] = &[
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "seed",
    "stop",
    "ignore_eos",
    "max_tokens",
];

pub async fn create(State(app): State<App>, caller: Caller, body: JsonBody) -> Result<Response, ApiError> {
    caller.need(Scope::Components)?;
    let mut body = body.0;
    let name = Fields::root(&body)?.need_str("name")?;
    let name = AssistantName::new(name).map_err(name_error)?;
    if let Value::Object(body) = &mut body {
        body.shift_remove("name");
    }
    let made = put_version(&app, &caller.tenant, &name, JsonBody(body).read()?, Some(Expect::Absent)).await;
    match made {
        Err(e) if e.code == Code::RevisionMismatch => {
            Err(ApiError::new(Code::Conflict, format!("assistant `{name}` exists already")))
        }
        made => Ok(reply::json_as(StatusCode::CREATED, &made?)),
    }
}

pub async fn put(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    body: JsonBody,
) -> Result<Response, ApiError> {
    caller.need(Scope::Components)?;
    let name = AssistantName::new(&name).map_err(name_error)?;
    let made = put_version(&app, &caller.tenant, &name, body.read()?, None).await?;
    Ok(reply::json_as(if made.version == 1 { StatusCode::CREATED } else { StatusCode::OK }, &made))
}

/// Stores a definition whose references all hold now.
pub async fn put_version(
    app: &App,
    tenant: &TenantId,
    name: &AssistantName,
    definition: Assistant,
    expect: Option<Expect>,
) -> Result<AssistantVersion, ApiError> {
    if app.model(tenant, name.as_str()).is_ok() {
        return Err(ApiError::new(Code::Conflict, format!("`{name}` is a served model")));
    }
    jobs::serve_named(app, tenant, &definition.model).await?;
    app.model_of(tenant, &definition.model, ModelKind::Generator)?;
    let defaults = Value::Object(definition.sampling.clone());
    let fields = Fields::of(&defaults, "sampling")?;
    if let Some((unknown, _)) = fields.iter().find(|(field, _)| !SAMPLING.contains(&field.as_str())) {
        return Err(fields.wrong(unknown, format!("is none of {}", SAMPLING.join(", "))));
    }
    sampling::read(&fields)?;
    sampling::max_tokens(&fields, "max_tokens", 1)?;
    let trial = AssistantVersion { name: name.clone(), version: 0, definition: definition.clone(), created_at: 0 };
    app.registry.pins_of(tenant, &trial, &Party::default())?;
    Ok(app.registry.put_assistant(tenant, name, definition, expect).await?)
}

pub async fn list(State(app): State<App>, caller: Caller, page: Page) -> Result<Response, ApiError> {
    caller.need_any(&[Scope::Components, Scope::Inference])?;
    let found = app.registry.assistants(&caller.tenant, page.after(), page.limit)?;
    Ok(page.reply(&found, |a| a.name.to_string()))
}

pub async fn get(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Result<Response, ApiError> {
    caller.need_any(&[Scope::Components, Scope::Inference])?;
    let found = AssistantName::new(&name).ok();
    let found = found.map(|name| app.registry.assistant(&caller.tenant, &name)).transpose()?.flatten();
    Ok(reply::json(&found.ok_or_else(|| unknown(&name))?))
}

pub async fn versions(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    page: Page,
) -> Result<Response, ApiError> {
    caller.need_any(&[Scope::Components, Scope::Inference])?;
    let known = AssistantName::new(&name).map_err(|_| unknown(&name))?;
    if app.registry.assistant(&caller.tenant, &known)?.is_none() {
        return Err(unknown(&name));
    }
    let after = page.after().map(|a| a.parse().map_err(|_| ApiError::invalid("after", "is no cursor")));
    let found = app.registry.assistant_versions(&caller.tenant, &known, after.transpose()?.unwrap_or(0), page.limit)?;
    Ok(page.reply(&found, |a| a.version.to_string()))
}

pub async fn get_version(
    State(app): State<App>,
    caller: Caller,
    Path((name, version)): Path<(String, u32)>,
) -> Result<Response, ApiError> {
    caller.need_any(&[Scope::Components, Scope::Inference])?;
    let known = AssistantName::new(&name).ok();
    let found = known.map(|n| app.registry.assistant_version(&caller.tenant, &n, version)).transpose()?.flatten();
    Ok(reply::json(&found.ok_or_else(|| unknown(&format!("{name}@{version}")))?))
}

pub async fn delete(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Result<Response, ApiError> {
    caller.need(Scope::Components)?;
    let known = AssistantName::new(&name).map_err(|_| unknown(&name))?;
    match app.registry.delete_assistant(&caller.tenant, &known).await? {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(unknown(&name)),
    }
}

fn unknown(name: &str) -> ApiError {
    ApiError::not_found("assistant", name)
}
