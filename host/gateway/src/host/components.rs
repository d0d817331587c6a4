//! Component versions: uploaded, listed, granted, invoked.

use super::{component_name, component_version};
use crate::app::App;
use crate::auth::Caller;
use crate::body::{self, JsonBody};
use crate::error::{ApiError, Code};
use crate::fields::Fields;
use crate::layers::RequestInfo;
use crate::reply::{self, Page};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use stockade_core::Digest;
use stockade_core::limits::CallUsage;
use stockade_core::plugin::{AdmitError, Call, CallError, Grants, Pinned, PluginKind, Reason, Role, TraceLog};
use stockade_core::registry::{PutVersion, RegistryError, Scope, VersionRecord};

/// Seconds that a client should give an upload beyond the JSON bound: uploads are large.
const UPLOAD_TIMEOUTS: u32 = 10;

pub async fn put(
    State(app): State<App>,
    caller: Caller,
    Path((name, version)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    caller.need(Scope::Components)?;
    let (name, version) = (component_name(&name)?, component_version(&version)?);
    let settings = &app.settings;
    let timeout = settings.body_timeout * UPLOAD_TIMEOUTS;
    let bytes = body::collect(request, settings.max_component_bytes, timeout).await?;
    if bytes.is_empty() {
        let reasons = vec![Reason {
            at: "byte 0".into(),
            found: "an empty body".into(),
            expected: "a WebAssembly component".into(),
        }];
        return Err(AdmitError::Invalid { reasons }.into());
    }
    let digest = Digest(Sha256::digest(&bytes).into());
    // What is there already costs no compilation.
    if let Some(found) = app.registry.version(&caller.tenant, &name, &version)? {
        if found.admitted.digest == digest {
            return Ok(reply::json(&shown(&found)));
        }
        return Err(RegistryError::VersionExists { component: name.to_string(), version: version.to_string() }.into());
    }
    let admitted = app.plugins.admit(&caller.tenant, bytes.clone()).await?;
    let put = app.registry.put_version(&caller.tenant, &name, &version, admitted, bytes).await?;
    Ok(match put {
        PutVersion::Created(record) => {
            tracing::info!(tenant = %caller.tenant, component = %record.component(), "component stored");
            reply::json_as(StatusCode::CREATED, &shown(&record))
        }
        PutVersion::Unchanged(record) => reply::json(&shown(&record)),
    })
}

pub async fn list(State(app): State<App>, caller: Caller, page: Page) -> Result<Response, ApiError> {
    caller.need(Scope::Components)?;
    let components = app.registry.components(&caller.tenant, page.after(), page.limit)?;
    Ok(page.reply(&components, |c| c.name.to_string()))
}

pub async fn get(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    page: Page,
) -> Result<Response, ApiError> {
    caller.need(Scope::Components)?;
    let name = component_name(&name)?;
    let found = app.registry.component(&caller.tenant, &name)?;
    let found = found.ok_or_else(|| ApiError::not_found("component", name.as_str()))?;
    let versions = app.registry.versions(&caller.tenant, &name, page.after(), page.limit)?;
    let next = versions.last().filter(|_| versions.len() == page.limit).map(|v| v.version.clone());
    let versions: Vec<Value> = versions.iter().map(shown).collect();
    Ok(reply::json(&json!({
        "name": name,
        "latest": found.latest,
        "versions": found.versions,
        "data": versions,
        "next": next,
    })))
}

pub async fn get_version(
    State(app): State<App>,
    caller: Caller,
    Path((name, version)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    caller.need(Scope::Components)?;
    Ok(reply::json(&shown(&find(&app, &caller, &name, &version)?)))
}

pub async fn delete_version(
    State(app): State<App>,
    caller: Caller,
    Path((name, version)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    caller.need(Scope::Components)?;
    let (name, version) = (component_name(&name)?, component_version(&version)?);
    app.registry.delete_version(&caller.tenant, &name, &version).await?;
    app.plugins.sweep().await;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub async fn get_grants(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    caller.need(Scope::Components)?;
    let name = component_name(&name)?;
    let grants = app.registry.grants(&caller.tenant, &name)?;
    if grants.revision == 0 && app.registry.component(&caller.tenant, &name)?.is_none() {
        return Err(ApiError::not_found("component", name.as_str()));
    }
    Ok(reply::tagged(reply::json(&with_revision(json!(grants.value), grants.revision)), grants.revision))
}

pub async fn put_grants(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    JsonBody(mut body): JsonBody,
) -> Result<Response, ApiError> {
    caller.need(Scope::Components)?;
    let name = component_name(&name)?;
    if let Value::Object(map) = &mut body {
        // What GET has shown may come back as it was.
        map.remove("revision");
    }
    let grants: Grants = JsonBody(body).read()?;
    // A directory of the host is nothing that a tenant can give away.
    if !grants.directories.is_empty() {
        let operator = caller.need_operator();
        operator.map_err(|_| ApiError::new(Code::Forbidden, "only an admin key of the host may grant directories"))?;
    }
    // An origin opens the host's own networks.
    if grants.http.iter().any(|g| g.contains("://")) {
        let operator = caller.need_operator();
        operator.map_err(|_| ApiError::new(Code::Forbidden, "only an admin key of the host may grant an origin"))?;
    }
    let expect = reply::precondition(&headers)?;
    let revision = app.registry.set_grants(&caller.tenant, &name, &grants, expect).await?;
    Ok(reply::tagged(reply::json(&with_revision(json!(grants), revision)), revision))
}

pub async fn invoke(
    State(app): State<App>,
    caller: Caller,
    info: RequestInfo,
    Path((name, version)): Path<(String, String)>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    caller.need(Scope::Components)?;
    let record = find(&app, &caller, &name, &version)?;
    let f = Fields::root(&body)?;
    let function = f.need_str("function")?.to_owned();
    let args = f.array("args")?.cloned().unwrap_or_default();
    let pins = app.registry.pins(&caller.tenant)?;
    let grants = app.registry.grants(&caller.tenant, &record.name)?.value;
    let trace = Arc::new(TraceLog::default());
    // A bound version is called as it is bound; any other without configuration.
    let component = record.component();
    let bound = pins.entries.values().flatten();
    let bound = bound.into_iter().find(|p| p.component == component).cloned();
    let target = bound.unwrap_or_else(|| {
        let config = f.value("config").cloned().unwrap_or(Value::Null);
        Arc::new(Pinned::new(unbound_role(&record), component, config, grants))
    });
    let call = Call { tenant: caller.tenant.clone(), request: info.id, target, pins, trace: trace.clone(), depth: 0 };
    let done = app.plugins.invoke(call, function, args).await;
    let calls = trace.snapshot();
    for call in &calls {
        let name = call.component.as_str();
        app.metrics.component_call(name, &call.decision);
    }
    match done {
        Ok(done) => Ok(reply::json(&json!({"result": done.result, "usage": usage(&done.usage)}))),
        Err(CallError::Component { code, message, .. }) => {
            let last = calls.last().map(|c| c.usage).unwrap_or_default();
            Ok(reply::json(&json!({
                "error": {"code": code, "message": message},
                "usage": usage(&last),
            })))
        }
        Err(e) => {
            let error = ApiError::from(e);
            Err(match error.code {
                Code::ComponentFailed => error.with("version", record.version.as_str()),
                _ => error,
            })
        }
    }
}

fn usage(u: &CallUsage) -> Value {
    json!(u)
}

fn find(app: &App, caller: &Caller, name: &str, version: &str) -> Result<VersionRecord, ApiError> {
    let (name, version) = (component_name(name)?, component_version(version)?);
    let found = app.registry.version(&caller.tenant, &name, &version)?;
    found.ok_or_else(|| ApiError::not_found("component version", &format!("{name}@{version}")))
}

/// The role that an unbound version would fill, for its trace.
fn unbound_role(record: &VersionRecord) -> Role {
    let name = record.name.clone();
    match record.admitted.roles.first() {
        Some(PluginKind::Shield) => Role::ShieldInput,
        Some(PluginKind::Orchestrator) => Role::Orchestrator,
        Some(PluginKind::PromptStore) => Role::PromptStore,
        Some(PluginKind::Memory) => Role::Memory,
        Some(PluginKind::Evaluator) => Role::Evaluator(name),
        Some(PluginKind::RewardScorer) => Role::Reward(name),
        Some(PluginKind::Generator) => Role::Generator(name),
        Some(PluginKind::Tool | PluginKind::Toolset) | None => Role::Tool(name),
    }
}

fn shown(record: &VersionRecord) -> Value {
    let mut out = json!({"name": record.name, "version": record.version});
    if let (Value::Object(out), Value::Object(admitted)) = (&mut out, json!(record.admitted)) {
        out.extend(admitted);
        out.insert("created_at".into(), record.created_at.into());
    }
    out
}

fn with_revision(mut value: Value, revision: u64) -> Value {
    value["revision"] = revision.into();
    value
}
