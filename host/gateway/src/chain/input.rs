//! Input shields: whole messages, in binding order, edits carried on to the next.

use super::{as_message, refusal_text};
use crate::error::ApiError;
use crate::run::{Run, Status};
use serde_json::Value;
use std::sync::Arc;
use stockade_core::ModelId;
use stockade_core::chat::Message;
use stockade_core::infer::Prompt;
use stockade_core::plugin::{Direction, Mode, OnFailure, Role, Verdict};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputVerdict {
    Pass,
    /// Show this text, call no model.
    Refuse(String),
}

/// Checks a prompt of any form; masked text takes the prompt's place.
pub async fn check_prompt(run: &Arc<Run>, model: &ModelId, prompt: &mut Prompt) -> Result<InputVerdict, ApiError> {
    if run.pins().all(&Role::ShieldInput).is_empty() {
        return Ok(InputVerdict::Pass);
    }
    match prompt {
        Prompt::Chat(chat) => check(run, &mut chat.messages).await,
        Prompt::Text(text) => check_texts(run, &mut [text]).await,
        Prompt::Tokens(tokens) => {
            let text = run.app.inference.detokenize(model, tokens)?;
            let mut masked = text.clone();
            let verdict = check_texts(run, &mut [&mut masked]).await?;
            if masked != text {
                *prompt = Prompt::Text(masked);
            }
            Ok(verdict)
        }
    }
}

/// Checks texts, each as a user's message.
pub async fn check_texts(run: &Arc<Run>, texts: &mut [&mut String]) -> Result<InputVerdict, ApiError> {
    if run.pins().all(&Role::ShieldInput).is_empty() {
        return Ok(InputVerdict::Pass);
    }
    let mut messages: Vec<Message> = texts.iter().map(|t| as_message(t)).collect();
    let before = messages.clone();
    let verdict = check(run, &mut messages).await?;
    if messages != before {
        if messages.len() != texts.len() {
            run.ended(Status::Failed);
            return Err(ApiError::new(crate::error::Code::ComponentFailed, "a shield changed the number of texts"));
        }
        for (text, message) in texts.iter_mut().zip(&messages) {
            **text = message.joined_text();
        }
    }
    Ok(verdict)
}

/// Checks what was answered to an interruption: a text as itself, anything else as JSON text.
pub async fn check_answer(run: &Arc<Run>, answer: &mut Value) -> Result<InputVerdict, ApiError> {
    let before = match &*answer {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut text = before.clone();
    let verdict = check_texts(run, &mut [&mut text]).await?;
    if text != before {
        *answer = match &*answer {
            Value::String(_) => Value::String(text),
            _ => serde_json::from_str(&text).map_err(|_| {
                run.ended(Status::Failed);
                ApiError::new(crate::error::Code::ComponentFailed, "a shield left no JSON of the answer")
            })?,
        };
    }
    Ok(verdict)
}

async fn check(run: &Arc<Run>, messages: &mut Vec<Message>) -> Result<InputVerdict, ApiError> {
    for shield in run.pins().all(&Role::ShieldInput) {
        let plugins = &run.app.plugins;
        let call = run.call(shield);
        let verdict = plugins.check(call, Direction::Input, messages.clone());
        match (verdict.await, shield.mode, shield.on_failure) {
            (Ok(Verdict::Pass), ..) => {}
            (Ok(_), Mode::Observe, _) => {
                run.note(format!("{} would have acted (observe)", shield.component));
            }
            (Ok(Verdict::Edit(edited)), Mode::Enforce, _) => *messages = edited,
            (Ok(Verdict::Block(violation)), Mode::Enforce, _) => {
                run.note(format!("{} blocked the input: {}", shield.component, violation.category));
                return Ok(InputVerdict::Refuse(refusal_text(shield, &violation)));
            }
            (Err(e), Mode::Enforce, OnFailure::Block) => {
                run.ended(Status::Failed);
                return Err(super::output::shield_failed(shield, e));
            }
            (Err(e), ..) => {
                run.note(format!("{} failed and was let through: {e}", shield.component));
            }
        }
    }
    Ok(InputVerdict::Pass)
}
