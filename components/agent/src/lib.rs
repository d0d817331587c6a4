//! What the shipped orchestrators share: the tenant's instructions, its tools, bounds on a turn, the steps that are told,
//! a history that fits the model, the tool loop, and what is remembered of conversations. A library; no plugin of its own.
//!
//! Invariant: every model call of an orchestrator starts through [`history::start`], so none of them overflows a context
//! that dropping old messages could have saved.

pub mod approval;
pub mod budget;
pub mod history;
pub mod instructions;
pub mod memory;
pub mod rounds;
pub mod search;
pub mod steps;
pub mod toolbox;
mod transcript;

pub use budget::{Budget, Limits};
pub use instructions::Instructions;
pub use memory::Memory;
pub use rounds::{Rules, converse};
pub use steps::{Steps, cut};
pub use toolbox::Toolbox;

use stockade_guest::inference::Chat;
use stockade_guest::prelude::*;

/// A turn's end as the host has to see it: a shield that has ended the reply is no failure, and the application knows.
pub fn finish(ended: Result<Outcome>) -> Result<Outcome> {
    match ended {
        Err(Error::Blocked(_)) => Ok(FinishReason::ContentFilter.into()),
        other => other,
    }
}

/// A model call with the turn's own model, sampling and template variables over `messages`; tools and constraint are
/// the caller's to add.
pub fn request(turn: &Turn, messages: Vec<Message>) -> Chat {
    Chat::new(&*turn.model).messages(messages).sampling(turn.sampling.clone()).template_args(turn.template_args.clone())
}

/// Sampling of a model call whose text is for this program, not for the application: bounded, likeliest tokens, no stop
/// texts of the application's.
pub fn inner_sampling(max_tokens: u32) -> Sampling {
    Sampling { max_tokens: Some(max_tokens), temperature: Some(0.0), ..Sampling::default() }
}

/// The text of the last message that the user wrote.
pub fn question(messages: &[Message]) -> String {
    messages.iter().rev().find(|m| m.role == Role::User).map(Message::joined_text).unwrap_or_default()
}

/// Adds text for the model at the end. It joins the user's message where that is the last, since many chat templates want
/// user and assistant to alternate.
pub fn append(messages: &mut Vec<Message>, text: &str) {
    match messages.last_mut() {
        Some(last) if last.role == Role::User => last.parts.push(Part::Text(format!("\n\n{text}"))),
        _ => messages.push(Message::user(text)),
    }
}
