//! `/v1/agents` in the last shape of Llama Stack 0.2: an agent is an assistant, its sessions hold turns, turns hold
//! steps.

mod compose;
mod config;
mod messages;
pub mod time;
mod turns;

pub use turns::{create as create_turn, get as get_turn, resume, resume_turn, step as get_step};

use crate::app::App;
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::dialect::openai::now;
use crate::error::{ApiError, Code};
use crate::fields::Fields;
use crate::host::assistants::put_version;
use crate::reply;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use compose::Turn;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stockade_core::TenantId;
use stockade_core::id::AssistantName;
use stockade_core::registry::{AssistantVersion, Collection, Full, Scope, new_document_id};
use stockade_core::store::Expect;
use time::rfc3339;

/// Most agents of a tenant, sessions of an agent, turns of a session.
const MAX_AGENTS: usize = 1_000;
const MAX_SESSIONS: usize = 10_000;
const MAX_TURNS: usize = 1_000;
const TURNS: &str = "turns";

/// An agent's configuration as its client gave it; the assistant of the same name is what runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    config: Value,
    created_at: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Session {
    name: String,
    started_at: u64,
}

/// An agent with what it runs.
struct Agent {
    id: String,
    record: Record,
    assistant: AssistantVersion,
}

#[derive(Deserialize)]
pub struct Range {
    start_index: Option<usize>,
    limit: Option<usize>,
}

fn agents(app: &App, tenant: &TenantId) -> Collection {
    app.registry.collection(tenant, "agents", MAX_AGENTS, Full::Refuse)
}

fn sessions(app: &App, tenant: &TenantId, agent: &str) -> Collection {
    app.registry.collection(tenant, format!("sessions/{agent}"), MAX_SESSIONS, Full::Refuse).with_below(TURNS)
}

fn turns(app: &App, tenant: &TenantId, session: &str) -> Collection {
    app.registry.collection(tenant, format!("{TURNS}/{session}"), MAX_TURNS, Full::Refuse)
}

fn unknown(what: &str, id: &str) -> ApiError {
    ApiError::not_found(what, id)
}

/// An agent, or any assistant by its name.
fn find(app: &App, tenant: &TenantId, id: &str) -> Result<Agent, ApiError> {
    let name = AssistantName::new(id).map_err(|_| unknown("agent", id))?;
    let assistant = app.registry.assistant(tenant, &name)?.ok_or_else(|| unknown("agent", id))?;
    let record = match agents(app, tenant).get::<Record>(id)? {
        Some(record) => record.value,
        None => Record { config: config::of_assistant(&assistant), created_at: assistant.created_at },
    };
    Ok(Agent { id: id.into(), record, assistant })
}

fn find_session(app: &App, tenant: &TenantId, agent: &str, session: &str) -> Result<Session, ApiError> {
    find(app, tenant, agent)?;
    let found = sessions(app, tenant, agent).get::<Session>(session)?;
    Ok(found.ok_or_else(|| unknown("session", session))?.value)
}

/// `{agent_config}`.
pub async fn create(State(app): State<App>, caller: Caller, JsonBody(body): JsonBody) -> Result<Response, ApiError> {
    caller.need_any(&[Scope::Inference, Scope::Components])?;
    let f = Fields::root(&body)?;
    let given = f.object("agent_config")?.ok_or_else(|| f.wrong("agent_config", "is required"))?;
    let definition = config::assistant(&given)?;
    let id = new_document_id("agent", getrandom::u32().unwrap_or_default());
    let name = AssistantName::new(&id).map_err(|e| ApiError::new(Code::InvalidRequest, e.to_string()))?;
    put_version(&app, &caller.tenant, &name, definition, Some(Expect::Absent)).await?;
    let record = Record { config: Value::Object(given.map().clone()), created_at: now() };
    if let Err(e) = agents(&app, &caller.tenant).add(&id, &record).await {
        app.registry.delete_assistant(&caller.tenant, &name).await?;
        return Err(e.into());
    }
    Ok(reply::json(&json!({"agent_id": id})))
}

pub async fn list(State(app): State<App>, caller: Caller, Query(range): Query<Range>) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let all = app.registry.assistants(&caller.tenant, None, MAX_AGENTS)?;
    let mut data = Vec::new();
    for assistant in page(&range, &all).0 {
        data.push(shown(&find(&app, &caller.tenant, assistant.name.as_str())?));
    }
    Ok(reply::json(&json!({"data": data, "has_more": page(&range, &all).1, "url": "/v1/agents"})))
}

/// The part of a list that was asked for, and whether more follows.
fn page<'a, T>(range: &Range, all: &'a [T]) -> (&'a [T], bool) {
    let start = range.start_index.unwrap_or(0).min(all.len());
    let end = start.saturating_add(range.limit.unwrap_or(100).min(1000)).min(all.len());
    (&all[start..end], end < all.len())
}

pub async fn get(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    Ok(reply::json(&shown(&find(&app, &caller.tenant, &id)?)))
}

fn shown(agent: &Agent) -> Value {
    json!({"agent_id": agent.id, "agent_config": agent.record.config, "created_at": rfc3339(agent.record.created_at)})
}

/// Deletes an agent with its sessions; an assistant that was not made here stays the components scope's to delete.
pub async fn delete(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    caller.need_any(&[Scope::Inference, Scope::Components])?;
    let tenant = &caller.tenant;
    let agent = find(&app, tenant, &id)?;
    if !agents(&app, tenant).delete(&id, Expect::Present).await? {
        caller.need(Scope::Components)?;
    }
    let all = sessions(&app, tenant, &id);
    loop {
        let some = all.list::<Session>(None, 256)?;
        if some.is_empty() {
            break;
        }
        for session in some {
            all.delete(&session.id, Expect::Present).await?;
        }
    }
    app.registry.delete_assistant(tenant, &agent.assistant.name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `{session_name}`.
pub async fn create_session(
    State(app): State<App>,
    caller: Caller,
    Path(agent): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let f = Fields::root(&body)?;
    let name = f.need_str("session_name")?;
    if name.len() > 1024 {
        return Err(f.wrong("session_name", "at most 1024 bytes"));
    }
    find(&app, &caller.tenant, &agent)?;
    let id = new_document_id("session", getrandom::u32().unwrap_or_default());
    let session = Session { name: name.into(), started_at: now() };
    sessions(&app, &caller.tenant, &agent).add(&id, &session).await?;
    Ok(reply::json(&json!({"session_id": id})))
}

pub async fn list_sessions(
    State(app): State<App>,
    caller: Caller,
    Path(agent): Path<String>,
    Query(range): Query<Range>,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    find(&app, &caller.tenant, &agent)?;
    let all = sessions(&app, &caller.tenant, &agent).list::<Session>(None, MAX_SESSIONS)?;
    let (some, has_more) = page(&range, &all);
    let data: Vec<Value> = some.iter().map(|s| session_shown(&s.id, &s.value, Vec::new())).collect();
    Ok(reply::json(&json!({"data": data, "has_more": has_more, "url": format!("/v1/agents/{agent}/sessions")})))
}

pub async fn get_session(
    State(app): State<App>,
    caller: Caller,
    Path((agent, id)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let session = find_session(&app, &caller.tenant, &agent, &id)?;
    let turns = turns(&app, &caller.tenant, &id).list::<Turn>(None, MAX_TURNS)?;
    Ok(reply::json(&session_shown(&id, &session, turns.iter().map(|t| t.value.shown()).collect())))
}

pub async fn delete_session(
    State(app): State<App>,
    caller: Caller,
    Path((agent, id)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    find_session(&app, &caller.tenant, &agent, &id)?;
    sessions(&app, &caller.tenant, &agent).delete(&id, Expect::Present).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn session_shown(id: &str, session: &Session, turns: Vec<Value>) -> Value {
    json!({"session_id": id, "session_name": session.name, "started_at": rfc3339(session.started_at), "turns": turns})
}
