//! Turns that wait for an answer: listed, and resumed in the dialect in which they began.

use crate::app::App;
use crate::auth::Caller;
use crate::body::LateBody;
use crate::dialect::{agents, openai::chat, responses};
use crate::error::ApiError;
use crate::fields::Fields;
use crate::layers::RequestInfo;
use crate::reply::{self, Page};
use crate::{inference, interruption};
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};
use stockade_core::registry::{Dialect, Scope, Waiting};

pub async fn list(State(app): State<App>, caller: Caller, page: Page) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let found = app.registry.interruptions(&caller.tenant, page.after(), page.limit)?;
    let data: Vec<Value> = found.iter().map(|(id, waiting)| shown(id, waiting)).collect();
    Ok(page.reply(&data, |i| i["id"].as_str().unwrap_or_default().to_owned()))
}

pub async fn get(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let found = app.registry.interruption(&caller.tenant, &id)?;
    let unknown = || ApiError::not_found("interruption", &id);
    Ok(reply::json(&shown(&id, &found.ok_or_else(unknown)?)))
}

/// `{answer, stream?}`: the turn goes on with `answer`.
pub async fn resume(
    State(app): State<App>,
    caller: Caller,
    info: RequestInfo,
    Path(id): Path<String>,
    body: LateBody,
) -> Result<Response, ApiError> {
    let route = "POST /stockade/v1/interruptions/{id}/resume";
    inference::run(&app, &caller, info, route, async |run| {
        let body = body.read(&app).await?;
        let f = Fields::root(&body)?;
        let answer = f.need("answer")?.clone();
        let stream = f.bool("stream")?.unwrap_or(false);
        let resumed = interruption::take(&run, &id, answer).await?;
        match resumed.waiting.dialect.clone() {
            Dialect::Chat => chat::resume(&run, resumed, stream).await,
            Dialect::Responses(context) => responses::resume(&run, resumed, context, stream).await,
            Dialect::Agents(context) => agents::resume(&run, resumed, context, stream).await,
        }
    })
    .await
}

fn shown(id: &str, waiting: &Waiting) -> Value {
    json!({
        "id": id,
        "question": waiting.interruption.question,
        "request": waiting.interruption.request,
        "model": waiting.turn.model,
        "assistant": waiting.assistant.as_ref().map(|a| format!("{}@{}", a.name, a.version)),
        "orchestrator": waiting.orchestrator.to_string(),
        "created_at": waiting.created_at,
        "expires_at": waiting.expires_at,
    })
}
