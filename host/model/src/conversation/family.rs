//! What the templates of a model family insist on beyond the common form of a conversation.

use super::CallFormat;
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use stockade_core::chat::{Message, Part, Role};

/// Length of a call id that Mistral's templates accept.
const MISTRAL_ID: usize = 9;

/// The conversation as the family's template takes it.
///
/// Llama 3 refuses a message with several calls: each goes with its result, one after the other. Mistral refuses ids that
/// are not of nine letters and digits: others become a digest of theirs.
pub(super) fn adapted(messages: &[Message], format: CallFormat) -> Cow<'_, [Message]> {
    let is_call = |part: &&Part| matches!(part, Part::ToolCall(_));
    let calls = |message: &Message| message.parts.iter().filter(is_call).count();
    let is_tools = |part: &Part| matches!(part, Part::ToolCall(_) | Part::ToolResult(_));
    match format {
        CallFormat::Llama if messages.iter().any(|m| calls(m) > 1) => Cow::Owned(one_call_each(messages)),
        CallFormat::Mistral if messages.iter().any(|m| m.parts.iter().any(is_tools)) => {
            Cow::Owned(messages.iter().map(with_short_ids).collect())
        }
        CallFormat::Hermes | CallFormat::Llama | CallFormat::Mistral => Cow::Borrowed(messages),
    }
}

/// Splits messages of several calls; a call's result, which may stand anywhere behind, follows it.
fn one_call_each(messages: &[Message]) -> Vec<Message> {
    let mut out: Vec<Message> = Vec::with_capacity(messages.len());
    let mut moved: Vec<&str> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        let mut rest = Message { parts: Vec::new(), ..message.clone() };
        let several = message.parts.iter().filter(|part| matches!(part, Part::ToolCall(_))).count() > 1;
        for part in &message.parts {
            match part {
                Part::ToolCall(call) if several => {
                    rest.parts.push(part.clone());
                    out.push(std::mem::replace(&mut rest, Message { parts: Vec::new(), ..message.clone() }));
                    let of_call = |part: &&Part| matches!(part, Part::ToolResult(result) if result.call_id == call.id);
                    let result = messages[at + 1..].iter().find_map(|m| m.parts.iter().find(of_call));
                    if let Some(result) = result {
                        out.push(Message { role: Role::Tool, parts: vec![result.clone()], name: None });
                        moved.push(&call.id);
                    }
                }
                Part::ToolResult(result) if moved.contains(&result.call_id.as_str()) => {}
                other => rest.parts.push(other.clone()),
            }
        }
        if !rest.parts.is_empty() || message.parts.is_empty() {
            out.push(rest);
        }
    }
    out
}

fn with_short_ids(message: &Message) -> Message {
    let mut message = message.clone();
    for part in &mut message.parts {
        match part {
            Part::ToolCall(call) => call.id = short_id(&call.id),
            Part::ToolResult(result) => result.call_id = short_id(&result.call_id),
            Part::Text { .. } | Part::Image(_) | Part::Reasoning { .. } => {}
        }
    }
    message
}

fn short_id(id: &str) -> String {
    if id.len() == MISTRAL_ID && id.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return id.to_owned();
    }
    let digest = Sha256::digest(id);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    hex[..MISTRAL_ID].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use stockade_core::chat::{ToolCall, ToolResult};

    fn call(id: &str) -> Part {
        Part::ToolCall(ToolCall { id: id.into(), name: "f".into(), arguments: "{}".into() })
    }
    fn result(id: &str) -> Part {
        Part::ToolResult(ToolResult { call_id: id.into(), content: id.to_uppercase(), is_error: false })
    }
    fn message(role: Role, parts: Vec<Part>) -> Message {
        Message { role, parts, name: None }
    }
    fn shape(messages: &[Message]) -> Vec<String> {
        let part = |part: &Part| match part {
            Part::ToolCall(call) => format!("call {}", call.id),
            Part::ToolResult(result) => format!("result {}", result.call_id),
            Part::Text { text } => text.clone(),
            other => format!("{other:?}"),
        };
        messages.iter().map(|m| m.parts.iter().map(part).collect::<Vec<_>>().join(" + ")).collect()
    }

    #[test]
    fn llama_gets_one_call_a_message_each_before_its_result() {
        let text = Part::Text { text: "hm".into() };
        let messages = [
            Message::text(Role::User, "q"),
            message(Role::Assistant, vec![text, call("a"), call("b"), call("c")]),
            message(Role::Tool, vec![result("b"), result("a")]),
            Message::text(Role::User, "on"),
        ];
        let adapted = adapted(&messages, CallFormat::Llama);
        assert_eq!(shape(&adapted), ["q", "hm + call a", "result a", "call b", "result b", "call c", "on"]);
        assert_eq!(adapted[2].role, Role::Tool);
        assert!(matches!(super::adapted(&messages, CallFormat::Hermes), Cow::Borrowed(_)));
        let single = [message(Role::Assistant, vec![call("a")]), message(Role::Tool, vec![result("a")])];
        assert!(matches!(super::adapted(&single, CallFormat::Llama), Cow::Borrowed(_)));
    }

    #[test]
    fn mistral_gets_ids_of_nine_letters_and_digits_alike_in_call_and_result() {
        let messages = [
            message(Role::Assistant, vec![call("call_0001"), call("abcdef123")]),
            message(Role::Tool, vec![result("call_0001"), result("abcdef123")]),
        ];
        let adapted = adapted(&messages, CallFormat::Mistral);
        let Part::ToolCall(first) = &adapted[0].parts[0] else { panic!() };
        assert!(first.id.len() == 9 && first.id.bytes().all(|b| b.is_ascii_alphanumeric()), "{}", first.id);
        let want = [format!("call {} + call abcdef123", first.id), format!("result {} + result abcdef123", first.id)];
        assert_eq!(shape(&adapted), want);
    }
}
