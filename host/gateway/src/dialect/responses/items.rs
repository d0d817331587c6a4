//! Items of OpenAI's Responses: what a client sends or a reply has made, in one normal form, and as messages.

use crate::dialect::openai::chat_request::picture;
use crate::error::ApiError;
use crate::fields::Fields;
use serde_json::{Map, Value, json};
use stockade_core::chat::{Message, Part, Role, ToolCall, ToolResult};
use stockade_core::registry::new_document_id;

/// Items that this host makes or keeps, with the prefix of their ids.
const KINDS: &[(&str, &str)] = &[
    ("message", "msg"),
    ("function_call", "fc"),
    ("function_call_output", "fco"),
    ("reasoning", "rs"),
    ("mcp_call", "mcp"),
    ("mcp_approval_request", "mcpr"),
    ("mcp_approval_response", "mcpa"),
    ("file_search_call", "fs"),
];

/// What names an item that the host keeps.
pub const ITEM_REFERENCE: &str = "item_reference";

/// A fresh item id; it never changes.
pub fn item_id(kind: &str) -> String {
    new_document_id(prefix(kind), getrandom::u32().unwrap_or_default())
}

/// The id of an item that stands in another's place.
pub fn id_at(kind: &str, place: &str) -> String {
    format!("{}_{}", prefix(kind), place.rsplit_once('_').map_or(place, |(_, key)| key))
}

fn prefix(kind: &str) -> &'static str {
    KINDS.iter().find(|(k, _)| *k == kind).map_or("item", |(_, p)| p)
}

/// A client's items in normal form, each with an id of the host's.
pub fn normal(list: &[Value], path: &str) -> Result<Vec<Value>, ApiError> {
    let one = |(i, value): (usize, &Value)| item(&Fields::of(value, format!("{path}[{i}]"))?);
    list.iter().enumerate().map(one).collect()
}

/// A text as a user's message in normal form.
pub fn user_text(text: &str) -> Value {
    json!({"id": item_id("message"), "type": "message", "status": "completed", "role": "user",
        "content": [{"type": "input_text", "text": text}]})
}

fn item(f: &Fields) -> Result<Value, ApiError> {
    let kind = match f.str("type")? {
        Some(kind) => kind,
        None if f.value("role").is_some() => "message",
        None if f.value("id").is_some() => ITEM_REFERENCE,
        None => return Err(f.wrong("type", "is required")),
    };
    let fields = match kind {
        "message" => message(f)?,
        "function_call" => json!({
            "call_id": f.need_str("call_id")?, "name": f.need_str("name")?,
            "arguments": f.str("arguments")?.unwrap_or("{}"),
        }),
        "function_call_output" => json!({"call_id": f.need_str("call_id")?, "output": output(f)?}),
        "reasoning" => json!({
            "summary": f.array("summary")?.cloned().unwrap_or_default(),
            "content": f.array("content")?.cloned().unwrap_or_default(),
        }),
        "mcp_approval_response" => json!({
            "approval_request_id": f.need_str("approval_request_id")?,
            "approve": f.bool("approve")?.ok_or_else(|| f.wrong("approve", "is required"))?,
            "reason": f.str("reason")?,
        }),
        "mcp_call" => json!({
            "server_label": f.str("server_label")?.unwrap_or_default(), "name": f.need_str("name")?,
            "arguments": f.str("arguments")?.unwrap_or("{}"), "output": f.str("output")?, "error": f.value("error"),
        }),
        "mcp_approval_request" => json!({
            "server_label": f.str("server_label")?.unwrap_or_default(), "name": f.need_str("name")?,
            "arguments": f.str("arguments")?.unwrap_or("{}"),
        }),
        "file_search_call" => json!({
            "queries": f.array("queries")?.cloned().unwrap_or_default(), "results": f.value("results"),
        }),
        // Until it is looked up: its place among the items is told by an id of its own.
        ITEM_REFERENCE => return Ok(json!({"type": kind, "id": f.need_str("id")?, "place": item_id(kind)})),
        _ => {
            let kinds: Vec<&str> = KINDS.iter().map(|(k, _)| *k).collect();
            return Err(f.wrong("type", format!("must be one of {}", kinds.join(", "))));
        }
    };
    let mut out = Map::new();
    out.insert("id".into(), item_id(kind).into());
    out.insert("type".into(), kind.into());
    out.insert("status".into(), "completed".into());
    if let Value::Object(fields) = fields {
        out.extend(fields);
    }
    Ok(Value::Object(out))
}

fn message(f: &Fields) -> Result<Value, ApiError> {
    let role = f.need_str("role")?;
    if !["user", "assistant", "system", "developer"].contains(&role) {
        return Err(f.wrong("role", "must be user, assistant, system or developer"));
    }
    let text_kind = if role == "assistant" { "output_text" } else { "input_text" };
    let text = |text: &str| match text_kind {
        "output_text" => json!({"type": text_kind, "text": text, "annotations": [], "logprobs": []}),
        _ => json!({"type": text_kind, "text": text}),
    };
    let content = match f.need("content")? {
        Value::String(s) => vec![text(s)],
        Value::Array(parts) => {
            let part = |(i, value): (usize, &Value)| {
                let p = Fields::of(value, f.at(&format!("content[{i}]")))?;
                Ok(match p.need_str("type")? {
                    "input_text" | "output_text" | "text" => text(p.need_str("text")?),
                    "refusal" => json!({"type": "refusal", "refusal": p.need_str("refusal")?}),
                    "input_image" => {
                        let url = p.str("image_url")?;
                        let url =
                            url.ok_or_else(|| p.wrong("image_url", "is required: the host keeps no image files"))?;
                        picture(url).map_err(|reason| p.wrong("image_url", reason))?;
                        json!({"type": "input_image", "image_url": url, "detail": p.str("detail")?.unwrap_or("auto")})
                    }
                    _ => return Err(p.wrong("type", "must be input_text, input_image, output_text or refusal")),
                })
            };
            parts.iter().enumerate().map(part).collect::<Result<_, ApiError>>()?
        }
        _ => return Err(f.wrong("content", "must be a string or an array of parts")),
    };
    Ok(json!({"role": role, "content": content}))
}

/// A function's output: a text, or text parts.
fn output(f: &Fields) -> Result<String, ApiError> {
    match f.need("output")? {
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => {
            let texts = parts
                .iter()
                .enumerate()
                .map(|(i, part)| Fields::of(part, f.at(&format!("output[{i}]")))?.need_str("text").map(String::from));
            Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
        }
        _ => Err(f.wrong("output", "must be a string or an array of text parts")),
    }
}

/// Items in normal form as a conversation. Calls and words of the assistant that stand together are one message, which
/// is what chat templates read.
pub fn messages(items: &[Value]) -> Vec<Message> {
    let mut out = Vec::new();
    for item in items {
        let text = |field: &str| item[field].as_str().unwrap_or_default().to_owned();
        match item["type"].as_str().unwrap_or_default() {
            "message" => {
                let role = match item["role"].as_str() {
                    Some("user") => Role::User,
                    Some("assistant") => Role::Assistant,
                    _ => Role::System,
                };
                let parts = item["content"].as_array().map_or(&[][..], Vec::as_slice);
                push(&mut out, role, parts.iter().filter_map(part).collect());
            }
            "function_call" => {
                let call = ToolCall { id: text("call_id"), name: text("name"), arguments: text("arguments") };
                push(&mut out, Role::Assistant, vec![Part::ToolCall(call)]);
            }
            "function_call_output" => push(&mut out, Role::Tool, vec![result(text("call_id"), text("output"), false)]),
            "mcp_call" => {
                let call = ToolCall { id: text("id"), name: text("name"), arguments: text("arguments") };
                push(&mut out, Role::Assistant, vec![Part::ToolCall(call)]);
                let failed = item["error"].as_str().map(String::from);
                let (content, is_error) = failed.map_or((text("output"), false), |e| (e, true));
                push(&mut out, Role::Tool, vec![result(text("id"), content, is_error)]);
            }
            "reasoning" => {
                let texts = item["content"].as_array().into_iter().flatten().filter_map(|c| c["text"].as_str());
                let text: String = texts.collect();
                if !text.is_empty() {
                    push(&mut out, Role::Assistant, vec![Part::Reasoning { text }]);
                }
            }
            // An approval is part of the turn that it belonged to, and what was found stands in its answer.
            _ => {}
        }
    }
    out
}

fn push(out: &mut Vec<Message>, role: Role, parts: Vec<Part>) {
    match out.last_mut() {
        Some(last) if role == Role::Assistant && last.role == role => last.parts.extend(parts),
        _ => out.push(Message { role, parts, name: None }),
    }
}

fn result(call_id: String, content: String, is_error: bool) -> Part {
    Part::ToolResult(ToolResult { call_id, content, is_error })
}

fn part(part: &Value) -> Option<Part> {
    let text = |field: &str| part[field].as_str().map(|t| Part::Text { text: t.into() });
    match part["type"].as_str()? {
        "input_image" => picture(part["image_url"].as_str()?).ok().map(Part::Image),
        "refusal" => text("refusal"),
        _ => text("text"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_assistant_did_in_a_row_is_one_message() {
        let list = json!([
            {"role": "user", "content": "Hi"},
            {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
            {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "42"}]},
            {"type": "mcp_call", "name": "g", "arguments": "{}", "error": "down"},
        ]);
        let items = normal(list.as_array().unwrap(), "input").unwrap();
        assert!(items.iter().all(|i| i["id"].is_string() && i["status"] == "completed"));
        let messages = messages(&items);
        let roles: Vec<Role> = messages.iter().map(|m| m.role).collect();
        assert_eq!(roles, [Role::User, Role::Assistant, Role::Tool, Role::Assistant, Role::Tool]);
        assert_eq!(messages[1].parts.len(), 3);
        assert_eq!(messages[2].parts, [result("1".into(), "42".into(), false)]);
        let Part::ToolResult(failed) = &messages[4].parts[0] else { panic!() };
        assert!(failed.is_error && failed.content == "down");
    }

    #[test]
    fn items_that_are_none_are_refused_by_their_field() {
        for (bad, field) in [
            (json!([{}]), "input[0].type"),
            (json!([{"role": "robot", "content": "x"}]), "input[0].role"),
            (
                json!([{"role": "user", "content": [{"type": "input_image", "image_url": "http://x/y.png"}]}]),
                "input[0].content[0].image_url",
            ),
            (json!([{"type": "function_call_output", "call_id": "1"}]), "input[0].output"),
            (json!([{"type": "mcp_approval_response", "approval_request_id": "x"}]), "input[0].approve"),
            (json!([{"type": "computer_call"}]), "input[0].type"),
        ] {
            let e = normal(bad.as_array().unwrap(), "input").unwrap_err();
            assert_eq!(e.param.as_deref(), Some(field));
        }
    }
}
