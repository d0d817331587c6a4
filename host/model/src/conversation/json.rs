//! Messages and tools in the JSON that chat templates are written for.

use super::ConversationError;
use serde_json::{Map, Value, json};
use stockade_core::chat::{Message, Part, Role, ToolSpec};

/// A tool in the shape templates know.
pub(super) fn tool_as_json(tool: &ToolSpec) -> Value {
    json!({
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
    })
}

/// Messages in the shape templates know: OpenAI's, with arguments as objects. A message that holds several tool results
/// becomes several.
pub(super) fn as_json(messages: &[Message]) -> Result<Vec<Value>, ConversationError> {
    let mut out = Vec::with_capacity(messages.len());
    for message in messages {
        let mut reasoning = String::new();
        let mut calls = Vec::new();
        let mut results = Vec::new();
        for part in &message.parts {
            match part {
                Part::Text { .. } => {}
                Part::Reasoning { text } => reasoning.push_str(text),
                Part::ToolCall(call) => {
                    let text = || Value::String(call.arguments.clone());
                    let arguments: Value = serde_json::from_str(&call.arguments).unwrap_or_else(|_| text());
                    let function = json!({"name": call.name, "arguments": arguments});
                    calls.push(json!({"id": call.id, "type": "function", "function": function}));
                }
                Part::ToolResult(result) => results.push(json!({
                    "role": Role::Tool.as_str(),
                    "tool_call_id": result.call_id,
                    "content": result.content,
                })),
                Part::Image(_) => {
                    return Err(ConversationError::Image);
                }
            }
        }
        let has_text = message.parts.iter().any(|part| matches!(part, Part::Text { .. }));
        if has_text || results.is_empty() {
            let mut object = Map::new();
            object.insert("role".into(), message.role.as_str().into());
            object.insert("content".into(), message.joined_text().into());
            if let Some(name) = &message.name {
                object.insert("name".into(), name.as_str().into());
            }
            if !reasoning.is_empty() {
                object.insert("reasoning_content".into(), reasoning.into());
            }
            if !calls.is_empty() {
                object.insert("tool_calls".into(), calls.into());
            }
            out.push(object.into());
        }
        out.append(&mut results);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use stockade_core::chat::{Image, ToolCall, ToolResult};

    #[test]
    fn messages_take_the_shape_that_templates_know() {
        let call = ToolCall { id: "c1".into(), name: "f".into(), arguments: "{\"a\": 1}".into() };
        let result =
            |id: &str| Part::ToolResult(ToolResult { call_id: id.into(), content: "42".into(), is_error: false });
        let messages = [
            Message {
                role: Role::Assistant,
                parts: vec![Part::Reasoning { text: "hm".into() }, Part::ToolCall(call)],
                name: None,
            },
            Message { role: Role::Tool, parts: vec![result("c1"), result("c2")], name: None },
        ];
        let json = as_json(&messages).unwrap();
        assert_eq!(json[0]["tool_calls"][0]["function"]["arguments"]["a"], 1);
        assert_eq!((&json[0]["content"], &json[0]["reasoning_content"]), (&json!(""), &json!("hm")));
        assert_eq!((json.len(), &json[2]["tool_call_id"]), (3, &json!("c2")));
        let image = Message {
            role: Role::User,
            parts: vec![Part::Image(Image { media_type: "image/png".into(), data: vec![] })],
            name: None,
        };
        assert!(matches!(as_json(&[image]), Err(ConversationError::Image)));
    }
}
