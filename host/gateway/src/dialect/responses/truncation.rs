//! `truncation: "auto"`: the oldest exchanges go where a conversation is longer than the model's context.
//!
//! Invariant: an exchange, which begins with a user's message, goes whole, so that no tool's result is left without its
//! call; instructions and the last exchange stay.

use crate::app::App;
use crate::chain::Ask;
use crate::error::ApiError;
use std::ops::Range;
use stockade_core::chat::{Message, Role};
use stockade_core::infer::{ChatPrompt, ModelInfo, Prompt};

/// Tokens that are left for what an orchestrator adds of its own.
const ALLOWANCE: u32 = 128;
/// Tokens that are left for a reply whose length the request does not bound, at most a quarter of the context.
const REPLY: u32 = 1_024;

/// The ask without its oldest exchanges, as few as have to go; `more` tokens come to it later. What does not fit even so is
/// left to the engine, which says by how much.
pub async fn fit(app: &App, model: &ModelInfo, mut ask: Ask, more: u32) -> Result<Ask, ApiError> {
    let Prompt::Chat(chat) = &ask.prompt else { return Ok(ask) };
    let reply = ask.sampling.max_tokens.unwrap_or(REPLY.min(model.context_tokens / 4));
    let room = model.context_tokens.saturating_sub(reply.saturating_add(more).saturating_add(ALLOWANCE)) as usize;
    let (inference, id, chat) = (app.inference.clone(), model.id.clone(), chat.clone());
    // Tokenizing a long conversation is work, and async code only waits.
    let fitted = tokio::task::spawn_blocking(move || {
        let droppable = exchanges(&chat.messages).len().saturating_sub(1);
        let fits = |dropped: usize| Ok(inference.render(&id, &without(&chat, dropped))?.tokens.len() <= room);
        let dropped = least(droppable, fits)?;
        Ok::<_, ApiError>(without(&chat, dropped))
    });
    ask.prompt = Prompt::Chat(fitted.await.map_err(|_| ApiError::internal())??);
    Ok(ask)
}

/// The smallest number up to `most` that fits, `most` if none does; what fits stays fitting with more.
fn least(most: usize, fits: impl Fn(usize) -> Result<bool, ApiError>) -> Result<usize, ApiError> {
    let (mut low, mut high) = (0, most);
    while low < high {
        let middle = low + (high - low) / 2;
        if fits(middle)? { high = middle } else { low = middle + 1 }
    }
    Ok(low)
}

/// Where exchanges stand; what comes before the first user's message is one.
fn exchanges(messages: &[Message]) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for (i, message) in messages.iter().enumerate() {
        match found.last_mut() {
            // What users say in a row is answered together.
            Some(last) if message.role != Role::User || messages[i - 1].role == Role::User => last.end = i + 1,
            _ => found.push(i..i + 1),
        }
    }
    found
}

fn without(chat: &ChatPrompt, dropped: usize) -> ChatPrompt {
    let exchanges = exchanges(&chat.messages);
    let from = exchanges.get(dropped).map_or(0, |range| range.start);
    let kept = chat.messages.iter().enumerate().filter(|(i, m)| *i >= from || m.role == Role::System);
    ChatPrompt { messages: kept.map(|(_, m)| m.clone()).collect(), ..chat.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stockade_core::chat::{Part, ToolCall, ToolChoice, ToolResult};

    fn chat() -> ChatPrompt {
        let call = Part::ToolCall(ToolCall { id: "1".into(), name: "f".into(), arguments: "{}".into() });
        let result = Part::ToolResult(ToolResult { call_id: "1".into(), content: "r".into(), is_error: false });
        let of = |role, part| Message { role, parts: vec![part], name: None };
        ChatPrompt {
            messages: vec![
                Message::text(Role::System, "rules"),
                Message::text(Role::User, "one"),
                of(Role::Assistant, call),
                of(Role::Tool, result),
                Message::text(Role::Assistant, "done"),
                Message::text(Role::System, "more rules"),
                Message::text(Role::User, "two"),
                Message::text(Role::User, "and three"),
                Message::text(Role::Assistant, "four"),
                Message::text(Role::User, "five"),
            ],
            tools: Vec::new(),
            tool_choice: ToolChoice::Auto,
            template_args: Default::default(),
        }
    }

    #[test]
    fn exchanges_go_whole_and_instructions_stay() {
        let said = |dropped| {
            let kept = without(&chat(), dropped).messages;
            kept.iter().map(|m| m.joined_text()).filter(|t| !t.is_empty()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(exchanges(&chat().messages).len(), 4);
        assert_eq!(without(&chat(), 0), chat());
        assert!(said(1).starts_with("rules one"), "{}", said(1));
        assert_eq!(said(2), "rules more rules two and three four five");
        assert_eq!(said(3), "rules more rules five");
        let tools = without(&chat(), 2).messages.iter().filter(|m| m.role == Role::Tool).count();
        assert_eq!(tools, 0, "the result went with its call");
    }

    #[test]
    fn as_few_as_have_to_go_do() {
        for need in 0..=5 {
            assert_eq!(least(5, |n| Ok(n >= need)).unwrap(), need);
        }
        assert_eq!(least(5, |_| Ok(false)).unwrap(), 5);
    }
}
