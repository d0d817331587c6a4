//! A request for a response in the internal form.

use super::file_search::FileSearch;
use super::items;
use crate::chain::Ask;
use crate::dialect::openai::chat_request::{
    self, MAX_MESSAGES, MAX_TOOLS, check_choice, check_pictures, function_name,
};
use crate::dialect::openai::sampling::{self, MAX_TOP_LOGPROBS};
use crate::error::ApiError;
use crate::fields::Fields;
use crate::target::{Bound, Overlay};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use stockade_core::chat::{Message, ToolChoice, ToolSpec};
use stockade_core::id::ComponentName;
use stockade_core::infer::{ChatPrompt, Constraint, ModelInfo, Prompt, Sampling};
use stockade_core::plugin::Pins;
use stockade_core::registry::{Dialect, PromptRef};

/// The label of the tenant's own tools.
pub const OWN_SERVER: &str = "stockade";

/// How the client gets its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    Whole,
    Stream,
    /// By reading it until it has ended.
    Background,
}

/// A parsed request.
#[derive(Debug, Clone)]
pub struct Request {
    pub delivery: Delivery,
    pub store: bool,
    /// In normal form, ids included.
    pub input: Vec<Value>,
    pub previous: Option<String>,
    pub conversation: Option<String>,
    pub instructions: Option<String>,
    pub prompt: Option<PromptRef>,
    /// The tenant's tools that the request names; `None`: it names none and all are there. Beside a search it is those
    /// that are named.
    pub own_tools: Option<Vec<ComponentName>>,
    pub search: Option<FileSearch>,
    /// What a search finds is shown in its item.
    pub results: bool,
    /// The oldest messages go where the conversation is too long.
    pub truncate: bool,
    pub user: Option<String>,
    /// What the response says of its request.
    pub echo: Map<String, Value>,
    tools: Vec<ToolSpec>,
    tool_choice: ToolChoice,
    sampling: Sampling,
    constraint: Option<Constraint>,
    metadata: BTreeMap<String, String>,
    /// Most calls of the tenant's tools.
    max_tool_calls: Option<u32>,
    parallel_calls: bool,
}

pub fn parse(body: &Value) -> Result<Request, ApiError> {
    let f = Fields::root(body)?;
    refuse(&f)?;
    let mut sampling = sampling::read(&f)?;
    sampling.max_tokens = sampling::max_tokens(&f, "max_output_tokens", 1)?;
    sampling.logprobs = logprobs(&f)?;
    let previous = f.str("previous_response_id")?.map(String::from);
    let conversation = match f.value("conversation") {
        None => None,
        Some(Value::String(id)) => Some(id.clone()),
        Some(other) => Some(Fields::of(other, "conversation")?.need_str("id")?.to_owned()),
    };
    if previous.is_some() && conversation.is_some() {
        return Err(f.wrong("previous_response_id", "cannot stand beside `conversation`"));
    }
    let Tools { functions, own, search } = tools(&f)?;
    let tool_choice = match tool_choice(&f)? {
        // The search is a tool that is called in any case.
        ToolChoice::Required if search.is_some() => ToolChoice::Auto,
        choice => choice,
    };
    let metadata = chat_request::metadata(&f)?;
    Ok(Request {
        delivery: delivery(&f)?,
        store: f.bool("store")?.unwrap_or(true),
        input: input(&f)?,
        previous,
        conversation,
        instructions: f.str("instructions")?.map(String::from),
        prompt: prompt(&f)?,
        own_tools: own,
        search,
        results: includes(&f, "file_search_call.results")?,
        truncate: f.str("truncation")? == Some("auto"),
        user: chat_request::user(&f)?,
        echo: echo(&f, &sampling, &metadata),
        tools: functions,
        tool_choice,
        sampling,
        constraint: constraint(&f)?,
        metadata,
        max_tool_calls: f.integer("max_tool_calls", 1..=i64::from(u32::MAX))?.and_then(|n| u32::try_from(n).ok()),
        parallel_calls: f.bool("parallel_tool_calls")?.unwrap_or(true),
    })
}

impl Request {
    /// What the request says of the orchestrator.
    pub fn overlay(&self) -> Overlay {
        let calls = self.max_tool_calls.map(Bound::tool_calls);
        Overlay {
            tools: self.own_tools.clone(),
            prompt: self.prompt.clone(),
            search: self.search.clone(),
            bounds: calls.into_iter().chain(Bound::one_call(self.parallel_calls)).collect(),
        }
    }

    /// The approval that the input is, where it is one: the id of what it answers, and the answer.
    ///
    /// # Errors
    /// `invalid_request` when other items stand beside it: the interrupted turn goes on as it was asked.
    pub fn approval(&self) -> Result<Option<(String, Value)>, ApiError> {
        let approvals = self.input.iter().filter(|i| i["type"] == "mcp_approval_response").count();
        match (approvals, self.input.len()) {
            (0, _) => Ok(None),
            (1, 1) => {
                let mut answer = json!({"approve": self.input[0]["approve"]});
                if self.input[0]["reason"].is_string() {
                    answer["reason"] = self.input[0]["reason"].clone();
                }
                Ok(Some((self.input[0]["approval_request_id"].as_str().unwrap_or_default().into(), answer)))
            }
            _ => Err(ApiError::invalid("input", "an approval is answered alone, one at a time")),
        }
    }

    /// The request to the model: `earlier` is what came before this input.
    pub fn ask(&self, model: &ModelInfo, pins: &Pins, earlier: Vec<Message>) -> Result<Ask, ApiError> {
        let mut messages = earlier;
        messages.extend(items::messages(&self.input));
        if messages.is_empty() || messages.len() > MAX_MESSAGES {
            return Err(ApiError::invalid("input", format!("1 to {MAX_MESSAGES} messages with what came before")));
        }
        check_pictures(&messages, model, "input")?;
        let chat = ChatPrompt {
            messages,
            tools: self.tools.clone(),
            tool_choice: self.tool_choice.clone(),
            template_args: Map::new(),
        };
        check_choice(&chat, pins)?;
        Ok(Ask {
            model: model.id.clone(),
            prompt: Prompt::Chat(chat),
            sampling: self.sampling.clone(),
            constraint: self.constraint.clone(),
            metadata: self.metadata.clone(),
            resume: None,
            dialect: Dialect::default(),
            parallel_calls: self.parallel_calls,
        })
    }
}

fn delivery(f: &Fields) -> Result<Delivery, ApiError> {
    let is_set = |name| Ok::<_, ApiError>(f.bool(name)?.unwrap_or(false));
    match (is_set("background")?, is_set("stream")?) {
        (true, true) => {
            Err(f.wrong("stream", "is not served beside `background`: read the response until it has ended"))
        }
        (true, false) if !f.bool("store")?.unwrap_or(true) => {
            Err(f.wrong("background", "needs a response that is stored"))
        }
        (true, false) => Ok(Delivery::Background),
        (false, true) => Ok(Delivery::Stream),
        (false, false) => Ok(Delivery::Whole),
    }
}

/// What this host does not do, refused in so many words.
fn refuse(f: &Fields) -> Result<(), ApiError> {
    if f.str("truncation")?.is_some_and(|t| !["disabled", "auto"].contains(&t)) {
        return Err(f.wrong("truncation", "must be auto or disabled"));
    }
    Ok(())
}

fn input(f: &Fields) -> Result<Vec<Value>, ApiError> {
    match f.value("input") {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![items::user_text(text)]),
        Some(Value::Array(list)) if list.len() <= MAX_MESSAGES => items::normal(list, "input"),
        Some(_) => Err(f.wrong("input", format!("must be a string or an array of at most {MAX_MESSAGES} items"))),
    }
}

fn logprobs(f: &Fields) -> Result<Option<u8>, ApiError> {
    let top = f.integer("top_logprobs", 0..=MAX_TOP_LOGPROBS)?;
    let wanted = top.is_some_and(|t| t > 0) || includes(f, "message.output_text.logprobs")?;
    Ok(wanted.then(|| u8::try_from(top.unwrap_or(0)).unwrap_or(0)))
}

fn includes(f: &Fields, what: &str) -> Result<bool, ApiError> {
    Ok(f.array("include")?.is_some_and(|include| include.iter().any(|i| i == what)))
}

struct Tools {
    /// The client's own.
    functions: Vec<ToolSpec>,
    /// The tenant's, where the request names some.
    own: Option<Vec<ComponentName>>,
    search: Option<FileSearch>,
}

fn tools(f: &Fields) -> Result<Tools, ApiError> {
    let list = f.array("tools")?.map_or(&[][..], Vec::as_slice);
    if list.len() > MAX_TOOLS {
        return Err(f.wrong("tools", format!("at most {MAX_TOOLS}")));
    }
    let (mut functions, mut own, mut search) = (Vec::new(), None::<Vec<ComponentName>>, None);
    for (i, value) in list.iter().enumerate() {
        let tool = Fields::of(value, format!("tools[{i}]"))?;
        let name = |text: &str| ComponentName::new(text).map_err(|e| tool.wrong("name", e.to_string()));
        match tool.need_str("type")? {
            "function" => functions.push(ToolSpec {
                name: function_name(&tool)?,
                description: tool.str("description")?.unwrap_or_default().into(),
                parameters: tool
                    .object("parameters")?
                    .map_or_else(|| json!({"type": "object"}), |p| p.map().clone().into()),
            }),
            "stockade" => own.get_or_insert_default().push(name(tool.need_str("name")?)?),
            "mcp" => {
                if tool.need_str("server_label")? != OWN_SERVER || tool.value("server_url").is_some() {
                    let reason =
                        format!("the host calls no server on a client's word; `{OWN_SERVER}` is its own tools");
                    return Err(tool.wrong("server_label", reason));
                }
                let allowed = match tool.value("allowed_tools") {
                    None => return Err(tool.wrong("allowed_tools", "names the tenant's bound tools")),
                    Some(Value::Object(_)) => {
                        tool.object("allowed_tools")?.map(|a| a.array("tool_names")).transpose()?.flatten()
                    }
                    Some(_) => tool.array("allowed_tools")?,
                };
                for allowed in allowed.into_iter().flatten() {
                    let text = allowed.as_str().ok_or_else(|| tool.wrong("allowed_tools", "must be names"))?;
                    own.get_or_insert_default().push(name(text)?);
                }
            }
            "file_search" if search.is_none() => search = Some(FileSearch::read(&tool)?),
            "file_search" => return Err(tool.wrong("type", "one file_search a request: it takes several stores")),
            _ => return Err(tool.wrong("type", "must be function, file_search, stockade or mcp")),
        }
    }
    // Beside a search only what the request names is called: it stands in place of the bound orchestrator.
    if search.is_some() {
        own.get_or_insert_default();
    }
    Ok(Tools { functions, own, search })
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
            match named.need_str("type")? {
                "file_search" => Ok(ToolChoice::Auto),
                "function" | "mcp" | "stockade" => Ok(ToolChoice::Named(named.need_str("name")?.into())),
                _ => Err(named.wrong("type", "must be function, file_search, mcp or stockade")),
            }
        }
    }
}

fn constraint(f: &Fields) -> Result<Option<Constraint>, ApiError> {
    let Some(format) = f.object("text")?.map(|t| t.object("format")).transpose()?.flatten() else {
        return Ok(None);
    };
    match format.need_str("type")? {
        "text" => Ok(None),
        "json_object" => Ok(Some(Constraint::JsonObject)),
        "json_schema" => match format.need("schema")? {
            schema @ (Value::Object(_) | Value::Bool(_)) => Ok(Some(Constraint::JsonSchema(schema.clone()))),
            _ => Err(format.wrong("schema", "must be an object")),
        },
        _ => Err(format.wrong("type", "must be text, json_object or json_schema")),
    }
}

fn prompt(f: &Fields) -> Result<Option<PromptRef>, ApiError> {
    let Some(prompt) = f.object("prompt")? else { return Ok(None) };
    let mut variables = Map::new();
    if let Some(given) = prompt.object("variables")? {
        for (name, value) in given.iter() {
            let value = match value {
                Value::Object(part) => part.get("text").cloned().ok_or_else(|| given.wrong(name, "must be text"))?,
                other => other.clone(),
            };
            variables.insert(name.clone(), value);
        }
    }
    // OpenAI writes a version as text; a label does as well.
    let (mut version, mut label) = (None, None);
    match prompt.value("version") {
        Some(Value::String(text)) => match text.parse() {
            Ok(number) => version = Some(number),
            Err(_) => label = Some(text.clone()),
        },
        _ => version = prompt.integer("version", 1..=i64::from(u32::MAX))?.and_then(|n| u32::try_from(n).ok()),
    }
    Ok(Some(PromptRef { name: prompt.need_str("id")?.into(), label, version, variables }))
}

fn echo(f: &Fields, sampling: &Sampling, metadata: &BTreeMap<String, String>) -> Map<String, Value> {
    let given = |name: &str, otherwise: Value| f.value(name).cloned().unwrap_or(otherwise);
    let text = match f.value("text") {
        Some(Value::Object(text)) if text.get("format").is_some_and(Value::is_object) => json!(text),
        _ => json!({"format": {"type": "text"}}),
    };
    let echo = json!({
        "background": given("background", json!(false)),
        "instructions": given("instructions", Value::Null),
        "max_output_tokens": given("max_output_tokens", Value::Null),
        "max_tool_calls": given("max_tool_calls", Value::Null),
        "metadata": metadata,
        "parallel_tool_calls": given("parallel_tool_calls", json!(true)),
        "prompt": given("prompt", Value::Null),
        "reasoning": {"effort": null, "summary": null},
        "service_tier": "default",
        "store": f.value("store").and_then(Value::as_bool).unwrap_or(true),
        "temperature": sampling.temperature,
        "text": text,
        "tool_choice": given("tool_choice", json!("auto")),
        "tools": given("tools", json!([])),
        "top_logprobs": given("top_logprobs", json!(0)),
        "top_p": sampling.top_p,
        "truncation": given("truncation", json!("disabled")),
        "user": given("user", Value::Null),
    });
    match echo {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
