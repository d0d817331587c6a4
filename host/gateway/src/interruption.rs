//! Turns that wait for an answer: kept when an orchestrator stops, taken once when somebody answers.
//!
//! A resumed turn runs in the exact component version that it was interrupted in, with the request as it was; grants,
//! shields and the other bindings are today's, so what a tenant has revoked meanwhile stays revoked.

use crate::chain::Ask;
use crate::error::ApiError;
use crate::run::{Cast, Run};
use crate::target::Bound;
use serde_json::Value;
use std::sync::Arc;
use stockade_core::event::Interruption;
use stockade_core::infer::{ChatPrompt, ModelInfo, ModelKind, Prompt};
use stockade_core::plugin::{Pinned, Resumption, Turn};
use stockade_core::registry::{Dialect, Waiting};

/// Keeps a turn durably and answers with its id.
pub async fn keep(
    run: &Arc<Run>,
    target: &Arc<Pinned>,
    turn: Turn,
    dialect: Dialect,
    told: &Interruption,
) -> Result<String, ApiError> {
    let created_at = crate::dialect::openai::now();
    let waiting = Waiting {
        interruption: told.clone(),
        turn: Turn { resume: None, ..turn },
        orchestrator: target.component.clone(),
        config: target.config.clone(),
        assistant: run.assistant().cloned(),
        party: run.party(),
        dialect,
        created_at,
        expires_at: created_at + run.app.settings.interruption.as_secs(),
    };
    let random = getrandom::u32().unwrap_or_default();
    let id = run.app.registry.keep_interruption(&run.tenant, random, &waiting).await?;
    run.note(format!("interrupted as {id}"));
    Ok(id)
}

/// A turn that goes on.
pub struct Resumed {
    pub model: ModelInfo,
    pub ask: Ask,
    pub waiting: Waiting,
}

/// Takes the interruption `id`, pins what it ran in and makes the ask that goes on with it. Whatever can be wrong with
/// the request is found before the interruption is taken.
pub async fn take(run: &Arc<Run>, id: &str, answer: Value) -> Result<Resumed, ApiError> {
    let (app, tenant) = (&run.app, &run.tenant);
    let unknown = || ApiError::not_found("interruption", id);
    let waiting = app.registry.interruption(tenant, id)?.ok_or_else(unknown)?;
    let model = app.model_of(tenant, &waiting.turn.model, ModelKind::Generator)?;
    let pins = match &waiting.assistant {
        Some(assistant) => app.registry.pins_of(tenant, assistant, &waiting.party)?,
        None => app.registry.pins(tenant)?,
    };
    let pins = app.registry.pins_with(tenant, &pins, &waiting.orchestrator, waiting.config.clone())?;
    let mut waiting = app.registry.take_interruption(tenant, id).await?.ok_or_else(unknown)?;
    waiting.interruption.id = Some(id.into());
    run.uses(&model);
    run.note(format!("goes on from {id}"));
    run.cast(Cast { assistant: waiting.assistant.clone(), party: waiting.party.clone(), pins });
    let Turn { messages, tools, tool_choice, sampling, constraint, metadata, template_args, .. } = waiting.turn.clone();
    let ask = Ask {
        model: model.id.clone(),
        prompt: Prompt::Chat(ChatPrompt { messages, tools, tool_choice, template_args }),
        sampling,
        constraint,
        metadata,
        resume: Some(Resumption { state: waiting.interruption.state.clone(), answer }),
        dialect: waiting.dialect.clone(),
        parallel_calls: Bound::of_calls_at_once(&waiting.config) != Some(1),
    };
    Ok(Resumed { model, ask, waiting })
}
