//! Tools in words, for templates that have none.

use serde_json::{Value, json};
use stockade_core::chat::{Message, Part, Role, ToolSpec};

/// The conversation for a template that knows neither tools nor their results, in the words that Hermes, Qwen and
/// SmolLM2 were trained on.
pub(super) fn spelled_out(messages: &[Message], tools: &[ToolSpec]) -> Vec<Message> {
    let mut out: Vec<Message> = Vec::with_capacity(messages.len() + 1);
    for message in messages {
        let mut message = message.clone();
        let mut parts = Vec::with_capacity(message.parts.len());
        for part in message.parts {
            parts.push(match part {
                Part::ToolCall(call) => {
                    let name = Value::String(call.name);
                    let text =
                        format!("<tool_call>\n{{\"name\": {name}, \"arguments\": {}}}\n</tool_call>", call.arguments);
                    Part::Text { text }
                }
                Part::ToolResult(result) => {
                    message.role = Role::User;
                    Part::Text { text: format!("<tool_response>\n{}\n</tool_response>", result.content) }
                }
                other => other,
            });
        }
        message.parts = parts;
        out.push(message);
    }
    if tools.is_empty() {
        return out;
    }
    let description = describe(tools);
    match out.first_mut() {
        Some(first) if first.role == Role::System => {
            let text = format!("{}\n\n{description}", first.joined_text());
            *first = Message::text(Role::System, text);
        }
        _ => out.insert(0, Message::text(Role::System, description)),
    }
    out
}

fn describe(tools: &[ToolSpec]) -> String {
    let list: Vec<String> = tools
        .iter()
        .map(|tool| {
            let function = json!({"name": tool.name, "description": tool.description, "parameters": tool.parameters});
            json!({"type": "function", "function": function}).to_string()
        })
        .collect();
    format!(
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with \
         function signatures within <tools></tools> XML tags:\n<tools>\n{}\n</tools>\n\nFor each function call, return \
         a json object with function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n\
         {{\"name\": <function-name>, \"arguments\": <args-json-object>}}\n</tool_call>",
        list.join("\n")
    )
}
