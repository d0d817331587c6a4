//! Llama Stack's messages and content in the internal form.

use crate::dialect::openai::chat_request::{MAX_MESSAGES, picture};
use crate::error::ApiError;
use crate::fields::Fields;
use serde_json::Value;
use stockade_core::chat::{Image, Message, Part, Role, ToolResult};

/// The messages of a turn, its documents at the end of the last user's message.
pub fn read(f: &Fields) -> Result<Vec<Message>, ApiError> {
    f.need("messages")?;
    let list = f.array("messages")?.map_or(&[][..], Vec::as_slice);
    if list.is_empty() || list.len() > MAX_MESSAGES {
        return Err(f.wrong("messages", format!("1 to {MAX_MESSAGES} messages")));
    }
    let one = |(i, value): (usize, &Value)| message(&Fields::of(value, format!("messages[{i}]"))?);
    let mut messages: Vec<Message> = list.iter().enumerate().map(one).collect::<Result<_, _>>()?;
    let documents = f.array("documents")?.map_or(&[][..], Vec::as_slice);
    for (i, value) in documents.iter().enumerate() {
        let document = Fields::of(value, format!("documents[{i}]"))?;
        let texts = content(&document, "content")?;
        let user = messages.iter_mut().rfind(|m| m.role == Role::User);
        let user = user.ok_or_else(|| f.wrong("documents", "needs a message of the user"))?;
        user.parts.push(Part::Text { text: "\n\n# Attached document\n".into() });
        user.parts.extend(texts);
    }
    Ok(messages)
}

fn message(f: &Fields) -> Result<Message, ApiError> {
    match f.need_str("role")? {
        "user" => {
            let mut parts = content(f, "content")?;
            if f.value("context").is_some() {
                parts.extend(content(f, "context")?);
            }
            Ok(Message { role: Role::User, parts, name: None })
        }
        "tool" => tool_response(f),
        _ => Err(f.wrong("role", "must be user or tool")),
    }
}

/// What a client's tool has answered.
pub fn tool_response(f: &Fields) -> Result<Message, ApiError> {
    let parts = content(f, "content")?;
    let text = Message { role: Role::Tool, parts, name: None }.joined_text();
    let result = ToolResult { call_id: f.need_str("call_id")?.into(), content: text, is_error: false };
    Ok(Message { role: Role::Tool, parts: vec![Part::ToolResult(result)], name: None })
}

/// Interleaved content: a text, an item, or a list of items.
fn content(f: &Fields, field: &str) -> Result<Vec<Part>, ApiError> {
    match f.need(field)? {
        Value::String(text) => Ok(vec![Part::Text { text: text.clone() }]),
        value @ Value::Object(_) => Ok(vec![item(&Fields::of(value, f.at(field))?)?]),
        Value::Array(list) => {
            let one = |(i, value): (usize, &Value)| match value {
                Value::String(text) => Ok(Part::Text { text: text.clone() }),
                value => item(&Fields::of(value, f.at(&format!("{field}[{i}]")))?),
            };
            list.iter().enumerate().map(one).collect()
        }
        _ => Err(f.wrong(field, "must be a text, an item or a list of items")),
    }
}

fn item(f: &Fields) -> Result<Part, ApiError> {
    match f.str("type")? {
        Some("text") => Ok(Part::Text { text: f.need_str("text")?.into() }),
        Some("image") => {
            let image = f.object("image")?.ok_or_else(|| f.wrong("image", "is required"))?;
            if let Some(data) = image.str("data")? {
                let bytes = stockade_core::chat::base64_bytes::decode(data);
                let data = bytes.ok_or_else(|| image.wrong("data", "is not base64"))?;
                return Ok(Part::Image(Image { media_type: "image/png".into(), data }));
            }
            let url = image.object("url")?.ok_or_else(|| image.wrong("url", "is required without `data`"))?;
            picture(url.need_str("uri")?).map(Part::Image).map_err(|reason| url.wrong("uri", reason))
        }
        _ => Err(f.wrong("type", "must be text or image: the host fetches no address")),
    }
}
