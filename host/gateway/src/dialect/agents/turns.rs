//! Turns of an agent's session: run, resumed, read.

use super::compose::{Awaiting, Composer, Turn, step_id};
use super::time::rfc3339;
use super::{Agent, MAX_TURNS, config, find, find_session, messages, turns, unknown};
use crate::app::App;
use crate::auth::Caller;
use crate::body::LateBody;
use crate::chain::{self, Ask};
use crate::dialect::openai::chat_request::{MAX_MESSAGES, check_choice, check_pictures};
use crate::dialect::openai::{now, sampling};
use crate::error::{ApiError, Code};
use crate::fields::Fields;
use crate::inference::{self, gather};
use crate::interruption::{self, Resumed};
use crate::layers::RequestInfo;
use crate::run::Run;
use crate::sse::Encode;
use crate::target::{Overlay, Target};
use crate::{reply, sse};
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use stockade_core::chat::{Message, ToolChoice};
use stockade_core::infer::{ChatPrompt, Prompt};
use stockade_core::registry::{Dialect, Party, new_document_id};
use stockade_core::store::{Expect, Revision};

/// Where a turn stands.
#[derive(Debug, Clone)]
struct Place {
    agent: String,
    session: String,
    turn: String,
}

impl Place {
    fn dialect(&self) -> Dialect {
        Dialect::Agents(json!({"agent": self.agent, "session": self.session, "turn": self.turn}))
    }
}

/// `{messages, documents?, toolgroups?, tool_config?, stream?}`.
pub async fn create(
    State(app): State<App>,
    caller: Caller,
    info: RequestInfo,
    Path((agent, session)): Path<(String, String)>,
    body: LateBody,
) -> Result<Response, ApiError> {
    let route = "POST /v1/agents/{agent}/session/{session}/turn";
    inference::run(&app, &caller, info, route, async |run| {
        let body = body.read(&app).await?;
        let f = Fields::root(&body)?;
        find_session(&app, &caller.tenant, &agent, &session)?;
        let agent = find(&app, &caller.tenant, &agent)?;
        let stream = f.bool("stream")?.unwrap_or(false);
        let turn = Turn {
            id: new_document_id("turn", getrandom::u32().unwrap_or_default()),
            session: session.clone(),
            input: f.array("messages")?.cloned().unwrap_or_default(),
            steps: Vec::new(),
            output: Value::Null,
            messages: messages::read(&f)?,
            awaiting: None,
            started_at: now(),
            completed_at: None,
        };
        let before = history(&app, &run, &session, None)?;
        let ask = ask(&app, &run, &caller, &agent, &f, before, &turn).await?;
        answer(&run, ask, turn, None, stream).await
    })
    .await
}

/// `{tool_responses, stream?}`: what the client's tools have answered, or an answer to an interruption.
pub async fn resume_turn(
    State(app): State<App>,
    caller: Caller,
    info: RequestInfo,
    Path((agent, session, id)): Path<(String, String, String)>,
    body: LateBody,
) -> Result<Response, ApiError> {
    let route = "POST /v1/agents/{agent}/session/{session}/turn/{turn}/resume";
    inference::run(&app, &caller, info, route, async |run| {
        let body = body.read(&app).await?;
        let f = Fields::root(&body)?;
        find_session(&app, &caller.tenant, &agent, &session)?;
        let agent = find(&app, &caller.tenant, &agent)?;
        let stream = f.bool("stream")?.unwrap_or(false);
        let (mut turn, revision) = read(&run, &session, &id)?;
        let responses = f.array("tool_responses")?.map_or(&[][..], Vec::as_slice);
        if responses.is_empty() || responses.len() > MAX_MESSAGES {
            return Err(f.wrong("tool_responses", format!("1 to {MAX_MESSAGES} responses")));
        }
        let one =
            |(i, value): (usize, &Value)| messages::tool_response(&Fields::of(value, format!("tool_responses[{i}]"))?);
        let results: Vec<Message> = responses.iter().enumerate().map(one).collect::<Result<_, _>>()?;
        match turn.awaiting.clone() {
            None => Err(ApiError::new(Code::Conflict, "the turn waits for nothing")),
            Some(Awaiting::Interruption { id, .. }) => {
                let text = responses[0]["content"].as_str().unwrap_or_default();
                let given = serde_json::from_str(text).unwrap_or_else(|_| responses[0]["content"].clone());
                let resumed = interruption::take(&run, &id, given).await?;
                turn.awaiting = None;
                answer(&run, resumed.ask, turn, Some(revision), stream).await
            }
            Some(Awaiting::Tools) => {
                let step = step_id();
                turn.steps.push(json!({
                    "step_type": "tool_execution", "step_id": step, "turn_id": turn.id,
                    "started_at": rfc3339(now()), "completed_at": rfc3339(now()),
                    "tool_calls": turn.output["tool_calls"], "tool_responses": responses,
                }));
                turn.messages.extend(results);
                turn.awaiting = None;
                let before = history(&app, &run, &session, Some(&turn.id))?;
                let config = json!({});
                let ask = ask(&app, &run, &caller, &agent, &Fields::root(&config)?, before, &turn).await?;
                answer(&run, ask, turn, Some(revision), stream).await
            }
        }
    })
    .await
}

/// An interrupted turn goes on through the interruption's own route.
pub async fn resume(run: &Arc<Run>, resumed: Resumed, context: Value, stream: bool) -> Result<Response, ApiError> {
    let text = |field: &str| context[field].as_str().unwrap_or_default();
    let (mut turn, revision) = read(run, text("session"), text("turn"))?;
    turn.awaiting = None;
    answer(run, resumed.ask, turn, Some(revision), stream).await
}

pub async fn get(
    State(app): State<App>,
    caller: Caller,
    Path((agent, session, id)): Path<(String, String, String)>,
) -> Result<Response, ApiError> {
    Ok(reply::json(&find_turn(&app, &caller, &agent, &session, &id)?.shown()))
}

pub async fn step(
    State(app): State<App>,
    caller: Caller,
    Path((agent, session, id, step)): Path<(String, String, String, String)>,
) -> Result<Response, ApiError> {
    let turn = find_turn(&app, &caller, &agent, &session, &id)?;
    let found = turn.steps.iter().find(|s| s["step_id"] == step.as_str());
    Ok(reply::json(&json!({"step": found.ok_or_else(|| unknown("step", &step))?})))
}

fn find_turn(app: &App, caller: &Caller, agent: &str, session: &str, id: &str) -> Result<Turn, ApiError> {
    caller.need(stockade_core::registry::Scope::Inference)?;
    find_session(app, &caller.tenant, agent, session)?;
    let found = turns(app, &caller.tenant, session).get::<Turn>(id)?;
    Ok(found.ok_or_else(|| unknown("turn", id))?.value)
}

fn read(run: &Run, session: &str, id: &str) -> Result<(Turn, Revision), ApiError> {
    let found = turns(&run.app, &run.tenant, session).get::<Turn>(id)?;
    let found = found.ok_or_else(|| unknown("turn", id))?;
    Ok((found.value, found.revision))
}

/// What was said in the session before the turn `until`.
fn history(app: &App, run: &Run, session: &str, until: Option<&str>) -> Result<Vec<Message>, ApiError> {
    let earlier = turns(app, &run.tenant, session).list::<Turn>(None, MAX_TURNS)?;
    let earlier = earlier.into_iter().take_while(|t| until != Some(t.id.as_str()));
    Ok(earlier.flat_map(|t| t.value.messages).collect())
}

/// The request to the agent's orchestrator; `f` is a turn's body.
async fn ask(
    app: &App,
    run: &Arc<Run>,
    caller: &Caller,
    agent: &Agent,
    f: &Fields<'_>,
    before: Vec<Message>,
    turn: &Turn,
) -> Result<Ask, ApiError> {
    let target = Target::of(app, &caller.tenant, agent.assistant.clone())?;
    run.uses(&target.model);
    let own_tools = f.value("toolgroups").map(|_| config::tools(f, "toolgroups")).transpose()?;
    let party = Party { user: caller.key.id.clone(), session: Some(turn.session.clone()) };
    target.cast(run, party, Overlay { tools: own_tools, ..Overlay::default() }).await?;
    let mut defaults = json!({});
    target.fill_in(&mut defaults, "max_tokens");
    let defaults = Fields::root(&defaults)?;
    let mut sampling = sampling::read(&defaults)?;
    sampling.max_tokens = sampling::max_tokens(&defaults, "max_tokens", 1)?;
    let config = Fields::of(&agent.record.config, "agent_config")?;
    let mut messages = before;
    messages.extend(turn.messages.iter().cloned());
    if messages.len() > MAX_MESSAGES {
        return Err(ApiError::invalid("messages", format!("at most {MAX_MESSAGES} in a session")));
    }
    check_pictures(&messages, &target.model, "messages")?;
    let tool_choice = match f.value("tool_config") {
        Some(_) => config::tool_choice(f)?,
        // A call that had to be made has been made once the turn goes on.
        None if turn.steps.is_empty() => config::tool_choice(&config)?,
        None => ToolChoice::Auto,
    };
    let chat = ChatPrompt { messages, tools: config::client_tools(&config)?, tool_choice, template_args: Map::new() };
    check_choice(&chat, run.pins())?;
    Ok(target.bounded(Ask {
        model: target.model.id.clone(),
        prompt: Prompt::Chat(chat),
        sampling,
        constraint: config::constraint(&config)?,
        metadata: BTreeMap::new(),
        resume: None,
        dialect: Place { agent: agent.id.clone(), session: turn.session.clone(), turn: turn.id.clone() }.dialect(),
        parallel_calls: true,
    }))
}

/// Runs the turn on; `resumes`: the revision of the turn as it was read.
async fn answer(
    run: &Arc<Run>,
    ask: Ask,
    turn: Turn,
    resumes: Option<Revision>,
    stream: bool,
) -> Result<Response, ApiError> {
    let all = turns(&run.app, &run.tenant, &turn.session);
    let keep = async move |turn: Turn| {
        match resumes {
            None => all.add(&turn.id, &turn).await?,
            Some(revision) => all.replace(&turn.id, &turn, Expect::Revision(revision)).await?,
        };
        Ok(())
    };
    let choices = chain::start(run, ask, 1).await?;
    if stream {
        let keep: super::compose::Keep = Box::new(move |turn| Box::pin(async move { keep(turn).await }));
        return sse::reply(run, choices, Composer::new(run.clone(), turn, resumes.is_some(), Some(keep))).await;
    }
    let new = || Composer::new(run.clone(), turn.clone(), resumes.is_some(), None);
    let composed = gather(choices, new, |c, event| c.event(0, event, &mut String::new())).await?;
    let turn = composed.first().map_or(turn.clone(), |c| c.turn().clone());
    keep(turn.clone()).await?;
    Ok(reply::json(&turn.shown()))
}
