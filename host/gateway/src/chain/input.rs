//! Input shields: whole messages, in binding order, edits carried on to the next.

use super::sheet::{self, Sheet};
use super::{as_message, refusal_text};
use crate::error::ApiError;
use crate::run::{Run, Status};
use serde_json::Value;
use std::sync::Arc;
use stockade_core::ModelId;
use stockade_core::chat::Message;
use stockade_core::infer::{ChatPrompt, Prompt};
use stockade_core::json_text;
use stockade_core::plugin::{Call, Direction, Mode, OnFailure, Pins, Role, Verdict};

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
        Prompt::Chat(chat) => match check(run, run.pins(), &mut chat.messages).await? {
            InputVerdict::Pass => check_around(run, chat).await,
            refused => Ok(refused),
        },
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
    let verdict = check(run, run.pins(), &mut messages).await?;
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

/// Checks what stands around a conversation and reaches its template as well: the client's tools, template arguments and
/// names of speakers.
async fn check_around(run: &Arc<Run>, chat: &mut ChatPrompt) -> Result<InputVerdict, ApiError> {
    let mut sheets: Vec<Sheet<'_>> = chat.tools.iter_mut().map(sheet::of_tool).collect();
    sheets.push(sheet::of_fields(&mut chat.template_args));
    sheets.push(sheet::of_speakers(&mut chat.messages));
    check_sheets(run, run.pins(), sheets).await
}

/// Checks sheets, each as a user's message, by the shields of `pins`. What is masked goes back where it came from; a mask
/// over anything that cannot be written anew is a block.
pub async fn check_sheets(run: &Arc<Run>, pins: &Arc<Pins>, sheets: Vec<Sheet<'_>>) -> Result<InputVerdict, ApiError> {
    let sheets: Vec<Sheet<'_>> = sheets.into_iter().filter(|sheet| !sheet.text().is_empty()).collect();
    if pins.all(&Role::ShieldInput).is_empty() || sheets.is_empty() {
        return Ok(InputVerdict::Pass);
    }
    let mut messages: Vec<Message> = sheets.iter().map(|sheet| as_message(sheet.text())).collect();
    let verdict = check(run, pins, &mut messages).await?;
    if verdict != InputVerdict::Pass {
        return Ok(verdict);
    }
    let whole = messages.len() == sheets.len();
    if !whole || sheets.into_iter().zip(&messages).any(|(sheet, judged)| !sheet.take(&judged.joined_text())) {
        run.note("an input shield masked what cannot be masked: a name, or text across fields".into());
        return Ok(InputVerdict::Refuse(super::REFUSED.into()));
    }
    Ok(InputVerdict::Pass)
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

async fn check(run: &Arc<Run>, pins: &Arc<Pins>, messages: &mut Vec<Message>) -> Result<InputVerdict, ApiError> {
    let shields = pins.all(&Role::ShieldInput);
    if !shields.is_empty() {
        messages.iter_mut().for_each(json_text::settle_message);
    }
    for shield in shields {
        let plugins = &run.app.plugins;
        let call = Call { pins: pins.clone(), ..run.call(shield) };
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
