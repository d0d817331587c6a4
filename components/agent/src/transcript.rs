//! The messages of tool rounds as JSON, for the state of an interrupted turn.
//!
//! Invariant: reading back what was written gives the same messages; pictures, which no model writes, are left out.

use serde::{Deserialize, Serialize};
use stockade_guest::prelude::{Message, Part, Role, ToolCall, ToolResult};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    role: Speaker,
    parts: Vec<Piece>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Speaker {
    System,
    User,
    Assistant,
    Tool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Piece {
    Text(String),
    Reasoning(String),
    Call { id: String, name: String, arguments: String },
    Result { id: String, content: String, is_error: bool },
}

impl From<&Message> for Entry {
    fn from(message: &Message) -> Self {
        let role = match message.role {
            Role::System => Speaker::System,
            Role::User => Speaker::User,
            Role::Assistant => Speaker::Assistant,
            Role::Tool => Speaker::Tool,
        };
        let piece = |part: &Part| {
            Some(match part.clone() {
                Part::Text(text) => Piece::Text(text),
                Part::Reasoning(text) => Piece::Reasoning(text),
                Part::ToolCall(ToolCall { id, name, arguments }) => Piece::Call { id, name, arguments },
                Part::ToolResult(ToolResult { call_id: id, content, is_error }) => {
                    Piece::Result { id, content, is_error }
                }
                Part::Image(_) => return None,
            })
        };
        Self { role, parts: message.parts.iter().filter_map(piece).collect() }
    }
}

impl From<Entry> for Message {
    fn from(entry: Entry) -> Self {
        let role = match entry.role {
            Speaker::System => Role::System,
            Speaker::User => Role::User,
            Speaker::Assistant => Role::Assistant,
            Speaker::Tool => Role::Tool,
        };
        let part = |piece| match piece {
            Piece::Text(text) => Part::Text(text),
            Piece::Reasoning(text) => Part::Reasoning(text),
            Piece::Call { id, name, arguments } => Part::ToolCall(ToolCall { id, name, arguments }),
            Piece::Result { id: call_id, content, is_error } => {
                Part::ToolResult(ToolResult { call_id, content, is_error })
            }
        };
        Self { role, parts: entry.parts.into_iter().map(part).collect(), name: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_way_through_json() {
        let call = ToolCall { id: "1".into(), name: "t".into(), arguments: "{\"a\": 1".into() };
        let mut asked = Message::assistant("let me see");
        asked.parts.insert(0, Part::Reasoning("hm".into()));
        asked.parts.push(Part::ToolCall(call.clone()));
        let messages = [Message::user("é\n"), asked, Message::tool_result(&call, "no", true), Message::system("")];
        let entries: Vec<Entry> = messages.iter().map(Entry::from).collect();
        let text = serde_json::to_string(&entries).unwrap();
        let back: Vec<Entry> = serde_json::from_str(&text).unwrap();
        assert_eq!(back.into_iter().map(Message::from).collect::<Vec<_>>(), messages);
    }
}
