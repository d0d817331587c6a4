//! A chat completion's request in the internal form.

use super::sampling::{self, MAX_TOP_LOGPROBS};
use crate::auth::Caller;
use crate::chain::Ask;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::target::{Bound, Overlay};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::collections::BTreeMap;
use stockade_core::ModelId;
use stockade_core::chat::{Image, Message, Part, Role, ToolCall, ToolChoice, ToolResult, ToolSpec};
use stockade_core::infer::{ChatPrompt, Constraint, ModelInfo, Prompt, Sampling};
use stockade_core::plugin::Pins;
use stockade_core::registry::{Dialect, Party};

/// Most messages of a conversation and most tools offered.
pub const MAX_MESSAGES: usize = 10_000;
pub const MAX_TOOLS: usize = 128;
/// Longest `user` in bytes.
const MAX_USER_BYTES: usize = 512;
/// Architectures that read pictures.
const VISION: &[&str] = &["mllama"];

/// A parsed request; [`ChatRequest::ask`] adds the served model.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatRequest {
    pub model: String,
    pub stream: bool,
    pub include_usage: bool,
    pub n: usize,
    chat: ChatPrompt,
    sampling: Sampling,
    constraint: Option<Constraint>,
    metadata: BTreeMap<String, String>,
    user: Option<String>,
    parallel_calls: bool,
}

pub fn parse(body: &Value) -> Result<ChatRequest, ApiError> {
    let f = Fields::root(body)?;
    let model = f.need_str("model")?.to_owned();
    let (stream, include_usage) = sampling::stream(&f)?;
    let mut sampling = sampling::read(&f)?;
    // Both bounds are read even where one wins, so that a wrong type is always told.
    let old = sampling::max_tokens(&f, "max_tokens", 1)?;
    sampling.max_tokens = sampling::max_tokens(&f, "max_completion_tokens", 1)?.or(old);
    sampling.logprobs = logprobs(&f)?;
    Ok(ChatRequest {
        model,
        stream,
        include_usage,
        n: sampling::choices(&f)?,
        chat: ChatPrompt {
            messages: messages(&f)?,
            tools: tools(&f)?,
            tool_choice: tool_choice(&f)?,
            template_args: match f.object("chat_template_kwargs")? {
                Some(args) => args.map().clone(),
                None => serde_json::Map::new(),
            },
        },
        sampling,
        constraint: constraint(&f)?,
        metadata: metadata(&f)?,
        user: user(&f)?,
        parallel_calls: f.bool("parallel_tool_calls")?.unwrap_or(true),
    })
}

/// The end user in the application's words.
pub fn user(f: &Fields) -> Result<Option<String>, ApiError> {
    let user = f.str("safety_identifier")?.or(f.str("user")?);
    if user.is_some_and(|u| u.len() > MAX_USER_BYTES) {
        return Err(f.wrong("user", format!("at most {MAX_USER_BYTES} bytes")));
    }
    Ok(user.map(String::from))
}

impl ChatRequest {
    /// What the request says of the orchestrator.
    pub fn overlay(&self) -> Overlay {
        Overlay { bounds: Bound::one_call(self.parallel_calls).into_iter().collect(), ..Overlay::default() }
    }

    /// Whose memory an assistant's turn touches; a session is what `metadata.session` names.
    pub fn party(&self, caller: &Caller) -> Party {
        Party {
            user: self.user.clone().unwrap_or_else(|| caller.key.id.clone()),
            session: self.metadata.get("session").cloned(),
        }
    }

    /// # Errors
    /// `invalid_request` when the conversation holds pictures and the model reads none, or when the forced tool is
    /// offered by nobody.
    pub fn ask(self, model: &ModelInfo, pins: &Pins) -> Result<Ask, ApiError> {
        check_choice(&self.chat, pins)?;
        check_pictures(&self.chat.messages, model, "messages")?;
        Ok(Ask {
            model: ModelId::clone(&model.id),
            prompt: Prompt::Chat(self.chat),
            sampling: self.sampling,
            constraint: self.constraint,
            metadata: self.metadata,
            resume: None,
            dialect: Dialect::Chat,
            parallel_calls: self.parallel_calls,
        })
    }
}

/// Refuses pictures for a model that reads none; `field` is where they stand.
pub fn check_pictures(messages: &[Message], model: &ModelInfo, field: &str) -> Result<(), ApiError> {
    let mut parts = messages.iter().flat_map(|m| &m.parts);
    let pictures = parts.any(|p| matches!(p, Part::Image(_)));
    if pictures && !VISION.contains(&model.architecture.as_str()) {
        return Err(ApiError::invalid(field, format!("model `{}` does not read pictures", model.id)));
    }
    Ok(())
}

fn logprobs(f: &Fields) -> Result<Option<u8>, ApiError> {
    let top = f.integer("top_logprobs", 0..=MAX_TOP_LOGPROBS)?;
    match (f.bool("logprobs")?.unwrap_or(false), top) {
        (true, top) => Ok(Some(u8::try_from(top.unwrap_or(0)).unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(f.wrong("top_logprobs", "needs `logprobs` to be true")),
    }
}

pub fn metadata(f: &Fields) -> Result<BTreeMap<String, String>, ApiError> {
    let Some(map) = f.object("metadata")? else {
        return Ok(BTreeMap::new());
    };
    if map.map().len() > 16 {
        return Err(f.wrong("metadata", "at most 16 entries"));
    }
    map.iter()
        .map(|(key, _)| {
            let value = map.str(key)?.unwrap_or_default();
            if key.len() > 64 || value.len() > 512 {
                return Err(f.wrong("metadata", "keys of at most 64, values of 512 bytes"));
            }
            Ok((key.clone(), value.to_owned()))
        })
        .collect()
}

fn constraint(f: &Fields) -> Result<Option<Constraint>, ApiError> {
    let Some(format) = f.object("response_format")? else {
        return Ok(None);
    };
    match format.need_str("type")? {
        "text" => Ok(None),
        "json_object" => Ok(Some(Constraint::JsonObject)),
        "json_schema" => {
            let named = format.object("json_schema")?;
            let named = named.ok_or_else(|| format.wrong("json_schema", "is required"))?;
            let schema = named.need("schema")?;
            if !schema.is_object() && !schema.is_boolean() {
                return Err(named.wrong("schema", "must be an object"));
            }
            Ok(Some(Constraint::JsonSchema(schema.clone())))
        }
        _ => Err(format.wrong("type", "must be text, json_object or json_schema")),
    }
}

fn tools(f: &Fields) -> Result<Vec<ToolSpec>, ApiError> {
    let list = f.array("tools")?.map_or(&[][..], Vec::as_slice);
    if list.len() > MAX_TOOLS {
        return Err(f.wrong("tools", format!("at most {MAX_TOOLS}")));
    }
    let tool = |(i, value): (usize, &Value)| {
        let tool = Fields::of(value, format!("tools[{i}]"))?;
        if tool.need_str("type")? != "function" {
            return Err(tool.wrong("type", "must be function"));
        }
        let function = tool.object("function")?;
        let function = function.ok_or_else(|| tool.wrong("function", "is required"))?;
        let parameters = function.object("parameters")?;
        Ok(ToolSpec {
            name: function_name(&function)?,
            description: function.str("description")?.unwrap_or_default().into(),
            parameters: parameters.map_or_else(
                || serde_json::json!({"type": "object", "properties": {}}),
                |p| Value::Object(p.map().clone()),
            ),
        })
    };
    list.iter().enumerate().map(tool).collect()
}

pub fn function_name(f: &Fields) -> Result<String, ApiError> {
    let name = f.need_str("name")?;
    let sound = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(sound) {
        return Err(f.wrong("name", "1 to 64 of a-z, A-Z, 0-9, `_`, `-`, `.`"));
    }
    Ok(name.into())
}

fn tool_choice(f: &Fields) -> Result<ToolChoice, ApiError> {
    match f.value("tool_choice") {
        None => Ok(ToolChoice::Auto),
        Some(Value::String(s)) => match s.as_str() {
            "none" => Ok(ToolChoice::None),
            "auto" => Ok(ToolChoice::Auto),
            "required" => Ok(ToolChoice::Required),
            _ => Err(f.wrong("tool_choice", "must be none, auto, required or a function")),
        },
        Some(value) => {
            let named = Fields::of(value, "tool_choice")?;
            let function = named.object("function")?;
            let function = function.ok_or_else(|| named.wrong("function", "is required"))?;
            Ok(ToolChoice::Named(function.need_str("name")?.into()))
        }
    }
}

/// A forced call needs a tool to call: one of the client's, or one that the tenant has bound.
pub fn check_choice(chat: &ChatPrompt, pins: &Pins) -> Result<(), ApiError> {
    let mut bound = pins.tools().map(|(name, _)| name.as_str());
    let known = match &chat.tool_choice {
        ToolChoice::Auto | ToolChoice::None => true,
        ToolChoice::Required => !chat.tools.is_empty() || bound.next().is_some(),
        ToolChoice::Named(name) => chat.tools.iter().any(|t| t.name == *name) || bound.any(|b| b == name),
    };
    match known {
        true => Ok(()),
        false => Err(ApiError::invalid("tool_choice", "names no tool that is offered")),
    }
}

/// The conversation of a body, checked.
pub fn messages(f: &Fields) -> Result<Vec<Message>, ApiError> {
    f.need("messages")?;
    let list = f.array("messages")?.map_or(&[][..], Vec::as_slice);
    if list.is_empty() || list.len() > MAX_MESSAGES {
        return Err(f.wrong("messages", format!("1 to {MAX_MESSAGES} messages")));
    }
    let one = |(i, value): (usize, &Value)| message(&Fields::of(value, format!("messages[{i}]"))?);
    list.iter().enumerate().map(one).collect()
}

fn message(f: &Fields) -> Result<Message, ApiError> {
    let role = match f.need_str("role")? {
        // What OpenAI's newer models call the system's words.
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        _ => {
            return Err(f.wrong("role", "must be system, developer, user, assistant or tool"));
        }
    };
    let mut parts = Vec::new();
    if role == Role::Assistant {
        for name in ["reasoning_content", "reasoning"] {
            if let Some(Value::String(text)) = f.value(name) {
                parts.push(Part::Reasoning { text: text.clone() });
                break;
            }
        }
    }
    let calls = f.array("tool_calls")?.map_or(&[][..], Vec::as_slice);
    match f.value("content") {
        Some(content) => parts.extend(content_parts(f, content)?),
        None if role == Role::Assistant => {
            if let Some(text) = f.str("refusal")? {
                parts.push(Part::Text { text: text.into() });
            }
        }
        None => return Err(f.wrong("content", "is required")),
    }
    if role == Role::Tool {
        let result = ToolResult {
            call_id: f.need_str("tool_call_id")?.into(),
            content: Message { role, parts, name: None }.joined_text(),
            is_error: false,
        };
        parts = vec![Part::ToolResult(result)];
    }
    if role == Role::Assistant {
        for (i, value) in calls.iter().enumerate() {
            parts.push(Part::ToolCall(tool_call(&Fields::of(value, f.at(&format!("tool_calls[{i}]")))?)?));
        }
    } else if !calls.is_empty() {
        return Err(f.wrong("tool_calls", "only an assistant's message has them"));
    }
    Ok(Message { role, parts, name: f.str("name")?.map(String::from) })
}

fn tool_call(f: &Fields) -> Result<ToolCall, ApiError> {
    let function = f.object("function")?;
    let function = function.ok_or_else(|| f.wrong("function", "is required"))?;
    Ok(ToolCall {
        id: f.need_str("id")?.into(),
        name: function.need_str("name")?.into(),
        arguments: function.str("arguments")?.unwrap_or("{}").into(),
    })
}

fn content_parts(f: &Fields, content: &Value) -> Result<Vec<Part>, ApiError> {
    match content {
        Value::String(text) => Ok(vec![Part::Text { text: text.clone() }]),
        Value::Array(list) => {
            let part = |(i, value): (usize, &Value)| part(&Fields::of(value, f.at(&format!("content[{i}]")))?);
            list.iter().enumerate().map(part).collect()
        }
        _ => Err(f.wrong("content", "must be a string or an array of parts")),
    }
}

fn part(f: &Fields) -> Result<Part, ApiError> {
    match f.need_str("type")? {
        "text" => Ok(Part::Text { text: f.need_str("text")?.into() }),
        "refusal" => Ok(Part::Text { text: f.need_str("refusal")?.into() }),
        "image_url" => {
            let image = f.object("image_url")?;
            let image = image.ok_or_else(|| f.wrong("image_url", "is required"))?;
            picture(image.need_str("url")?).map(Part::Image).map_err(|reason| image.wrong("url", reason))
        }
        _ => Err(f.wrong("type", "must be text, image_url or refusal")),
    }
}

/// A picture out of a `data:` URL: the host fetches nothing on a client's word.
pub fn picture(url: &str) -> Result<Image, &'static str> {
    let rule = "must be data:image/TYPE;base64,DATA: the host fetches no address";
    let (head, data) = url.strip_prefix("data:").and_then(|rest| rest.split_once(',')).ok_or(rule)?;
    let media_type = head.strip_suffix(";base64").ok_or(rule)?;
    if !media_type.starts_with("image/") || media_type.len() > 64 {
        return Err(rule);
    }
    let data = STANDARD.decode(data).map_err(|_| "is not base64")?;
    Ok(Image { media_type: media_type.into(), data })
}

#[cfg(test)]
#[path = "chat_request_tests.rs"]
mod tests;
