//! What a row must hold, by format: JSON becomes typed rows, or a reason why not.

use crate::job::{DataSpec, Format};
use serde_json::{Map, Value};
use stockade_core::chat::{Message, Part, Role, ToolCall, ToolResult, ToolSpec};

/// Most messages of a conversation.
const MAX_MESSAGES: usize = 4096;

/// A row of data, typed.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    Chat { conversation: Conversation, tools: Vec<ToolSpec> },
    Completion(Answered),
    Preference { pair: Pair, margin: Option<f32> },
    Unpaired { answered: Answered, desirable: bool },
    Text(String),
    Classify { text: String, label: String },
    Embed { anchor: String, positive: String, negative: Option<String> },
    Prompts { prompt: Content, reference: Option<Value> },
    Tokens { tokens: Vec<u32>, labels: Option<Vec<i32>> },
}

impl Row {
    /// Everything in it that is text.
    pub fn texts(self) -> Vec<String> {
        let spoken = |messages: Vec<Message>| messages.iter().map(Message::joined_text).collect::<Vec<_>>();
        let answered = |answered: Answered| match answered {
            Answered::Raw { prompt, completion } => vec![prompt, completion],
            Answered::Chat { prompt, answer } => [spoken(prompt), spoken(answer)].concat(),
        };
        match self {
            Self::Text(text) | Self::Classify { text, .. } => vec![text],
            Self::Chat { conversation, .. } => spoken(conversation.messages),
            Self::Completion(one) | Self::Unpaired { answered: one, .. } => answered(one),
            Self::Preference { pair, .. } => [answered(pair.chosen), answered(pair.rejected)].concat(),
            Self::Embed { anchor, positive, negative } => [anchor, positive].into_iter().chain(negative).collect(),
            Self::Prompts { prompt: Content::Raw(text), .. } => vec![text],
            Self::Prompts { prompt: Content::Chat(messages), .. } => spoken(messages),
            Self::Tokens { .. } => Vec::new(),
        }
    }
}

/// Messages, and which of the assistant's are learned from (all unless a `weight` is 0).
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    pub messages: Vec<Message>,
    pub learned: Vec<bool>,
}

/// A text that is taken raw, or messages that go through the chat template.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    Raw(String),
    Chat(Vec<Message>),
}

/// A prompt with one answer, both raw or both messages.
#[derive(Debug, Clone, PartialEq)]
pub enum Answered {
    Raw { prompt: String, completion: String },
    Chat { prompt: Vec<Message>, answer: Vec<Message> },
}

/// A prompt with a better and a worse answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    pub chosen: Answered,
    pub rejected: Answered,
}

/// The first of `formats` whose columns the row has.
pub fn detect(row: &Value, spec: &DataSpec, formats: &[Format]) -> Result<Format, String> {
    let columns = Columns::of(row, spec)?;
    let has = |name: &str| columns.get(name).is_some();
    let fits = |format: &&Format| match format {
        Format::Chat => has("messages") || has("conversations"),
        Format::Completion => has("prompt") && has("completion"),
        Format::Preference => has("chosen") && has("rejected") || has("preferred_output"),
        Format::Unpaired => has("prompt") && has("completion") && has("label"),
        Format::Text => has("text"),
        Format::Classify => has("text") && has("label"),
        Format::Embed => has("anchor") && has("positive"),
        Format::Prompts => has("prompt") || has("messages"),
        Format::Tokens => has("tokens"),
    };
    formats.iter().find(fits).copied().ok_or_else(|| {
        let known: Vec<String> = formats.iter().map(ToString::to_string).collect();
        format!("has columns {}, which is none of the formats {}", columns.names(), known.join(", "))
    })
}

/// Reads a row of `format`.
pub fn read(row: &Value, spec: &DataSpec, format: Format) -> Result<Row, String> {
    let columns = Columns::of(row, spec)?;
    Ok(match format {
        Format::Chat => {
            let conversation = match columns.get("messages") {
                Some(messages) => conversation("messages", messages)?,
                None => conversation("conversations", columns.need("conversations")?)?,
            };
            if !conversation.messages.iter().any(|message| message.role == Role::Assistant) {
                return Err("`messages` has no message of the assistant".into());
            }
            Row::Chat { conversation, tools: tools(columns.get("tools"))? }
        }
        Format::Completion => {
            Row::Completion(answered(columns.get("prompt"), columns.need("completion")?, "completion")?)
        }
        Format::Preference => {
            let (prompt, better, worse) = columns.preference();
            let chosen = answered(prompt, columns.need(better)?, better)?;
            let rejected = answered(prompt, columns.need(worse)?, worse)?;
            let margin = match columns.get("margin") {
                None => None,
                Some(value) => {
                    let margin = value.as_f64().filter(|margin| margin.abs() <= 1e6);
                    Some(margin.ok_or("`margin` is no number up to a million")? as f32)
                }
            };
            if prompt_of(&chosen) != prompt_of(&rejected) {
                return Err(format!("`{better}` and `{worse}` answer different prompts"));
            }
            Row::Preference { pair: Pair { chosen, rejected }, margin }
        }
        Format::Unpaired => {
            let answered = answered(columns.get("prompt"), columns.need("completion")?, "completion")?;
            let desirable = match columns.need("label")? {
                Value::Bool(label) => *label,
                Value::Number(n) if n.as_u64() == Some(0) => false,
                Value::Number(n) if n.as_u64() == Some(1) => true,
                _ => return Err("`label` is neither true nor false".into()),
            };
            Row::Unpaired { answered, desirable }
        }
        Format::Text => Row::Text(columns.text("text")?),
        Format::Classify => Row::Classify { text: columns.text("text")?, label: label(columns.need("label")?)? },
        Format::Embed => Row::Embed {
            anchor: columns.text("anchor")?,
            positive: columns.text("positive")?,
            negative: columns.get("negative").map(|_| columns.text("negative")).transpose()?,
        },
        Format::Prompts => {
            let prompt = match columns.get("prompt") {
                Some(prompt) => content("prompt", prompt)?,
                None => Content::Chat(conversation("messages", columns.need("messages")?)?.messages),
            };
            if let Content::Chat(messages) = &prompt
                && messages.last().is_none_or(|last| last.role == Role::Assistant)
            {
                return Err("a prompt ends with a message that the assistant answers".into());
            }
            let reference = columns.get("reference").or_else(|| columns.own("answer"));
            Row::Prompts { prompt, reference: reference.cloned() }
        }
        Format::Tokens => tokens(&columns)?,
    })
}

/// Values of a row by our names.
struct Columns<'a> {
    row: &'a Map<String, Value>,
    spec: &'a DataSpec,
}

impl<'a> Columns<'a> {
    fn of(row: &'a Value, spec: &'a DataSpec) -> Result<Self, String> {
        let row = row.as_object().ok_or("a row is a JSON object")?;
        Ok(Self { row, spec })
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.own(self.spec.columns.get(name).map_or(name, String::as_str))
    }

    /// The prompt of a pair, and what the columns of its answers are called: in OpenAI's rows
    /// `{input: {messages}, preferred_output, non_preferred_output}`.
    fn preference(&self) -> (Option<&'a Value>, &'static str, &'static str) {
        match self.own("preferred_output") {
            None => (self.get("prompt"), "chosen", "rejected"),
            Some(_) => {
                let prompt = self.own("input").and_then(|input| input.get("messages"));
                (prompt, "preferred_output", "non_preferred_output")
            }
        }
    }

    /// By the file's name of it.
    fn own(&self, name: &str) -> Option<&'a Value> {
        self.row.get(name).filter(|value| !value.is_null())
    }

    fn need(&self, name: &str) -> Result<&'a Value, String> {
        self.get(name).ok_or_else(|| {
            let own = self.spec.columns.get(name).map_or(name, String::as_str);
            format!("column `{own}` is missing; it has {}", self.names())
        })
    }

    fn text(&self, name: &str) -> Result<String, String> {
        match self.need(name)? {
            Value::String(text) => Ok(text.clone()),
            other => Err(format!("`{name}` is {}, not a text", kind(other))),
        }
    }

    fn names(&self) -> String {
        let names: Vec<String> = self.row.keys().take(16).map(|key| printable(key)).collect();
        if names.is_empty() { "none".into() } else { names.join(", ") }
    }
}

fn content(name: &str, value: &Value) -> Result<Content, String> {
    match value {
        Value::String(text) => Ok(Content::Raw(text.clone())),
        Value::Array(_) => Ok(Content::Chat(conversation(name, value)?.messages)),
        other => Err(format!("`{name}` is {}, neither a text nor messages", kind(other))),
    }
}

/// An answer to `prompt`; without one, or where it repeats it, a whole conversation whose last turn is the answer.
fn answered(prompt: Option<&Value>, answer: &Value, name: &str) -> Result<Answered, String> {
    let prompt = prompt.map(|prompt| content("prompt", prompt)).transpose()?;
    Ok(match (prompt, content(name, answer)?) {
        (Some(Content::Raw(prompt)), Content::Raw(completion)) => Answered::Raw { prompt, completion },
        (Some(Content::Chat(prompt)), Content::Raw(completion)) => {
            Answered::Chat { prompt, answer: vec![Message::text(Role::Assistant, completion)] }
        }
        (prompt, Content::Chat(messages)) => {
            let at = messages.iter().rposition(|m| m.role != Role::Assistant).map_or(0, |last| last + 1);
            if at == messages.len() {
                return Err(format!("`{name}` does not end with a message of the assistant"));
            }
            let answer = messages[at..].to_vec();
            match prompt {
                _ if at > 0 => Answered::Chat { prompt: messages[..at].to_vec(), answer },
                Some(Content::Chat(prompt)) => Answered::Chat { prompt, answer },
                Some(Content::Raw(prompt)) => {
                    Answered::Chat { prompt: vec![Message::text(Role::User, prompt)], answer }
                }
                None => return Err("column `prompt` is missing".into()),
            }
        }
        (None, Content::Raw(_)) => return Err("column `prompt` is missing".into()),
    })
}

/// What both sides of a pair must share.
fn prompt_of(answered: &Answered) -> Content {
    match answered {
        Answered::Raw { prompt, .. } => Content::Raw(prompt.clone()),
        Answered::Chat { prompt, .. } => Content::Chat(prompt.clone()),
    }
}

/// Messages in the OpenAI dialect, or `from` and `value` as some hubs have it.
fn conversation(name: &str, value: &Value) -> Result<Conversation, String> {
    let items = value.as_array().ok_or_else(|| format!("`{name}` is {}, not a list of messages", kind(value)))?;
    if items.is_empty() || items.len() > MAX_MESSAGES {
        return Err(format!("`{name}` has {} messages, not 1 to {MAX_MESSAGES}", items.len()));
    }
    let mut out = Conversation { messages: Vec::with_capacity(items.len()), learned: Vec::with_capacity(items.len()) };
    for (i, item) in items.iter().enumerate() {
        let read = message(item).map_err(|reason| format!("{name}[{i}]: {reason}"))?;
        out.learned.push(item.get("weight").is_none_or(|weight| weight.as_f64() != Some(0.0)));
        out.messages.push(read);
    }
    Ok(out)
}

fn message(item: &Value) -> Result<Message, String> {
    let field = |name: &str| item.get(name).filter(|value| !value.is_null());
    let text = |name: &str| field(name).and_then(Value::as_str);
    let role = text("role").or_else(|| text("from")).ok_or("`role` is missing or no text")?;
    let role = match role {
        "system" | "developer" => Role::System,
        "user" | "human" => Role::User,
        "assistant" | "gpt" | "model" => Role::Assistant,
        "tool" | "function" | "ipython" | "observation" => Role::Tool,
        other => return Err(format!("role `{}` is unknown", printable(other))),
    };
    let content = match field("content").or_else(|| field("value")) {
        None => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Array(parts)) => Some(text_parts(parts)?),
        Some(other) => return Err(format!("`content` is {}, not a text", kind(other))),
    };
    let mut parts = Vec::new();
    if let Some(reasoning) = text("reasoning_content").filter(|text| !text.is_empty()) {
        parts.push(Part::Reasoning { text: reasoning.to_owned() });
    }
    if role == Role::Tool {
        let call_id = text("tool_call_id").unwrap_or_default().to_owned();
        let content = content.ok_or("a tool's result has no content")?;
        parts.push(Part::ToolResult(ToolResult { call_id, content, is_error: false }));
    } else {
        parts.extend(content.map(|text| Part::Text { text }));
        if let Some(calls) = field("tool_calls") {
            let calls = calls.as_array().ok_or("`tool_calls` is not a list")?;
            for (i, call) in calls.iter().enumerate() {
                parts.push(Part::ToolCall(tool_call(i, call)?));
            }
        }
    }
    if parts.is_empty() {
        return Err("neither content nor tool calls".into());
    }
    Ok(Message { role, parts, name: text("name").map(str::to_owned) })
}

fn text_parts(parts: &[Value]) -> Result<String, String> {
    let text = |part: &Value| {
        let kind = part.get("type").and_then(Value::as_str).unwrap_or("text");
        part.get("text").and_then(Value::as_str).filter(|_| kind == "text").map(str::to_owned)
    };
    parts.iter().map(text).collect::<Option<String>>().ok_or_else(|| "a part of `content` is not text".into())
}

fn tool_call(i: usize, call: &Value) -> Result<ToolCall, String> {
    let function = call.get("function").unwrap_or(call);
    let name = function.get("name").and_then(Value::as_str).ok_or_else(|| format!("tool_calls[{i}] has no name"))?;
    let arguments = match function.get("arguments").or_else(|| function.get("parameters")) {
        Some(Value::String(text)) => text.clone(),
        Some(arguments @ Value::Object(_)) => arguments.to_string(),
        None | Some(Value::Null) => "{}".into(),
        Some(_) => return Err(format!("the arguments of tool_calls[{i}] are neither an object nor its text")),
    };
    let id = call.get("id").and_then(Value::as_str).map_or_else(|| format!("call_{i}"), str::to_owned);
    Ok(ToolCall { id, name: name.to_owned(), arguments })
}

fn tools(value: Option<&Value>) -> Result<Vec<ToolSpec>, String> {
    // Some hubs store the list as its JSON text, since its columns differ from row to row.
    let parsed = match value {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) => serde_json::from_str(text).map_err(|e| format!("`tools` is no JSON: {e}"))?,
        Some(other) => other.clone(),
    };
    let items = parsed.as_array().ok_or("`tools` is not a list")?;
    let tool = |(i, tool): (usize, &Value)| {
        let function = tool.get("function").unwrap_or(tool);
        let name = function.get("name").and_then(Value::as_str).ok_or_else(|| format!("tools[{i}] has no name"))?;
        let description = function.get("description").and_then(Value::as_str).unwrap_or_default();
        let parameters = function.get("parameters").cloned().unwrap_or_else(|| Value::Object(Map::new()));
        Ok(ToolSpec { name: name.into(), description: description.into(), parameters })
    };
    items.iter().enumerate().map(tool).collect()
}

fn label(value: &Value) -> Result<String, String> {
    match value {
        Value::String(label) if (1..=256).contains(&label.len()) => Ok(label.clone()),
        Value::Bool(label) => Ok(label.to_string()),
        Value::Number(label) if label.is_u64() || label.is_i64() => Ok(label.to_string()),
        _ => Err("`label` is no text of 1 to 256 bytes, whole number or truth value".into()),
    }
}

fn tokens(columns: &Columns<'_>) -> Result<Row, String> {
    let list = |name: &str, value: &Value| -> Result<Vec<i64>, String> {
        let items = value.as_array().ok_or_else(|| format!("`{name}` is not a list"))?;
        let read = |(i, item): (usize, &Value)| {
            item.as_i64().ok_or_else(|| format!("{name}[{i}] is {}, not a whole number", kind(item)))
        };
        items.iter().enumerate().map(read).collect()
    };
    let numbers = list("tokens", columns.need("tokens")?)?;
    let token = |(i, &n): (usize, &i64)| u32::try_from(n).map_err(|_| format!("tokens[{i}] is {n}, no token id"));
    let tokens: Vec<u32> = numbers.iter().enumerate().map(token).collect::<Result<_, _>>()?;
    let Some(labels) = columns.get("labels") else {
        return Ok(Row::Tokens { tokens, labels: None });
    };
    let labels = list("labels", labels)?;
    if labels.len() != tokens.len() {
        return Err(format!("{} labels for {} tokens", labels.len(), tokens.len()));
    }
    let ignored = i64::from(super::IGNORE);
    if let Some(i) = (0..labels.len()).find(|&i| labels[i] != ignored && labels[i] != numbers[i]) {
        return Err(format!("labels[{i}] is {}, neither its token nor {ignored}", labels[i]));
    }
    Ok(Row::Tokens { tokens, labels: Some(labels.into_iter().map(|label| label as i32).collect()) })
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A name from the file, cut and without control characters, for messages.
fn printable(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
