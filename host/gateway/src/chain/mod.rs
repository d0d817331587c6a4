//! The chain of a model request: mandatory input shields, orchestrator or model, mandatory output shields.
//!
//! Whatever the dialect, a conversation goes in as [`Ask`] and a reply comes out as [`Event`]s that every bound output
//! shield has cleared. No dialect reaches a model past this module.
//!
//! Invariants:
//! - a blocked input costs no model token
//! - a choice's stream ends with one [`Event::End`] or one error, and its task ends when its receiver is dropped

mod gate;
mod input;
mod output;
mod pump;
mod sheet;
mod tool_calls;

pub use input::InputVerdict;
pub use output::shield_failed;
pub use pump::Choice;

use crate::error::ApiError;
use crate::run::{Run, Status};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use stockade_core::ModelId;
use stockade_core::chat::Message;
use stockade_core::event::{End, Event, FinishReason, Usage};
use stockade_core::infer::{ChatPrompt, Constraint, GenerateRequest, Prompt, Sampling};
use stockade_core::plugin::{Pinned, Pins, Resumption, Role, Turn, Violation};
use stockade_core::registry::Dialect;
use tokio::sync::mpsc;

/// The host's own text for a block.
const REFUSED: &str = "The request was blocked by a policy.";

/// Events of a choice that may wait for the client.
const QUEUE: usize = 64;

/// What a client asks of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    pub model: ModelId,
    pub prompt: Prompt,
    pub sampling: Sampling,
    pub constraint: Option<Constraint>,
    /// The client's metadata, for an orchestrator.
    pub metadata: BTreeMap<String, String>,
    /// Set when an interrupted turn goes on.
    pub resume: Option<Resumption>,
    /// Who will answer an interruption of this turn.
    pub dialect: Dialect,
    /// The client takes several calls of its tools at once; otherwise the reply has the first one alone.
    pub parallel_calls: bool,
}

/// Runs the input shields, then starts `n` choices of `ask`. A blocked request has `n` choices that end at once.
pub async fn start(run: &Arc<Run>, mut ask: Ask, n: usize) -> Result<Vec<Choice>, ApiError> {
    let mut verdict = check(run, &ask.model, &mut ask.prompt).await?;
    if let (InputVerdict::Pass, Some(resume)) = (&verdict, &mut ask.resume) {
        verdict = input::check_answer(run, &mut resume.answer).await?;
        if verdict != InputVerdict::Pass {
            run.ended(Status::Blocked);
        }
    }
    match verdict {
        InputVerdict::Pass => generate(run, ask, n).await,
        InputVerdict::Refuse(text) => Ok((0..n).map(|_| refused(&text)).collect()),
    }
}

/// Runs the input shields over a prompt; masked text takes its place.
pub async fn check(run: &Arc<Run>, model: &ModelId, prompt: &mut Prompt) -> Result<InputVerdict, ApiError> {
    let _span = run.span("input shields");
    let verdict = input::check_prompt(run, model, prompt).await?;
    if verdict != InputVerdict::Pass {
        run.ended(Status::Blocked);
    }
    Ok(verdict)
}

/// Starts `n` choices of an `ask` that [`check`] has let pass.
pub async fn generate(run: &Arc<Run>, ask: Ask, n: usize) -> Result<Vec<Choice>, ApiError> {
    let mut choices = Vec::with_capacity(n);
    for i in 0..n {
        let mut ask = ask.clone();
        // Equal seeds would give equal choices.
        ask.sampling.seed = ask.sampling.seed.map(|s| s.wrapping_add(i as u64));
        choices.push(pump::start(run, ask).await?);
    }
    Ok(choices)
}

/// Runs the input shields over texts that go to a model and bring no text back.
pub async fn check_texts(run: &Arc<Run>, texts: &mut [&mut String]) -> Result<(), ApiError> {
    let _span = run.span("input shields");
    match input::check_texts(run, texts).await? {
        InputVerdict::Pass => Ok(()),
        InputVerdict::Refuse(text) => {
            run.ended(Status::Blocked);
            Err(ApiError::new(crate::error::Code::Forbidden, text))
        }
    }
}

/// Runs the input shields of `pins` over the values of a stored prompt's variables, before they become configuration.
pub async fn check_variables(
    run: &Arc<Run>,
    pins: &Arc<Pins>,
    variables: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    let _span = run.span("input shields");
    match input::check_sheets(run, pins, vec![sheet::of_fields(variables)]).await? {
        InputVerdict::Pass => Ok(()),
        InputVerdict::Refuse(text) => {
            run.ended(Status::Blocked);
            Err(ApiError::new(crate::error::Code::Forbidden, text))
        }
    }
}

/// A choice that a shield has refused.
pub fn refused(text: &str) -> Choice {
    ended(refusal_end(text.into(), Usage::default()))
}

/// A choice without a reply.
pub fn ended(end: End) -> Choice {
    let (tx, rx) = mpsc::channel(1);
    // The channel has room for its one event.
    let _ = tx.try_send(Ok(Event::End(end)));
    rx
}

fn refusal_end(text: String, usage: Usage) -> End {
    End { reason: FinishReason::ContentFilter, usage, refusal: Some(text), interruption: None }
}

/// What a block shows: the binding's own text, else the shield's, else the host's.
fn refusal_text(shield: &Pinned, violation: &Violation) -> String {
    match &shield.refusal {
        Some(text) => text.clone(),
        None if !violation.message.is_empty() => violation.message.clone(),
        None => REFUSED.into(),
    }
}

impl Ask {
    /// The model's own request.
    fn request(self, run: &Run) -> GenerateRequest {
        GenerateRequest {
            model: self.model,
            tenant: run.tenant.clone(),
            prompt: self.prompt,
            sampling: self.sampling,
            constraint: self.constraint,
        }
    }

    /// The request for the tenant's orchestrator; only conversations have one.
    fn turn(&self, run: &Run) -> Option<(Arc<Pinned>, Turn)> {
        let Prompt::Chat(chat) = &self.prompt else {
            return None;
        };
        let bound = run.pins().one(&Role::Orchestrator)?;
        let ChatPrompt { messages, tools, tool_choice, template_args } = chat.clone();
        let turn = Turn {
            model: self.model.to_string(),
            messages,
            tools,
            tool_choice,
            sampling: self.sampling.clone(),
            constraint: self.constraint.clone(),
            metadata: self.metadata.clone(),
            template_args,
            resume: self.resume.clone(),
        };
        Some((bound.clone(), turn))
    }
}

/// The text of one message alone, for shields over text that is no conversation.
fn as_message(text: &str) -> Message {
    Message::text(stockade_core::chat::Role::User, text)
}
