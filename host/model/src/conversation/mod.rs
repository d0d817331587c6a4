//! The one way from the core's messages to a prompt: serving and training both go it.
//!
//! [`adapted`] makes of a conversation what the model's template takes, [`render`] runs the template. Training that
//! rendered in any other way would teach prompts that serving never sends.

mod calls;
mod family;
mod json;
mod spelled_out;

pub use calls::{CALL, CallFormat, MISTRAL};

use crate::template::{ChatInput, ChatTemplate, Rendered, TemplateError};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::time::SystemTime;
use stockade_core::Fault;
use stockade_core::chat::{Message, ToolSpec};

/// A conversation as a template takes it.
#[derive(Debug, Clone)]
pub struct Adapted<'a> {
    pub messages: Cow<'a, [Message]>,
    /// Empty where the template knows no tools: then they are spelled out in a message.
    pub tools: &'a [ToolSpec],
    /// The form of calls that the template itself has.
    pub native: Option<CallFormat>,
}

/// How a conversation is rendered.
#[derive(Debug, Clone, Copy)]
pub struct RenderOptions<'a> {
    /// End with the header of the answer that is to be generated.
    pub add_generation_prompt: bool,
    /// Further variables of the template.
    pub args: &'a Map<String, Value>,
    /// What the template takes for the present time.
    pub now: SystemTime,
}

/// A conversation that was not rendered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConversationError {
    #[error("the model takes no images")]
    Image,
    #[error(transparent)]
    Template(#[from] TemplateError),
}

impl ConversationError {
    pub fn fault(&self) -> Fault {
        Fault::Caller
    }
}

/// What the template of source `template` insists on, or lacks, beyond the common form of a conversation.
pub fn adapted<'a>(template: &str, messages: &'a [Message], tools: &'a [ToolSpec]) -> Adapted<'a> {
    match CallFormat::of_template(template) {
        Some(format) => Adapted { messages: family::adapted(messages, format), tools, native: Some(format) },
        None => Adapted { messages: spelled_out::spelled_out(messages, tools).into(), tools: &[], native: None },
    }
}

/// Renders messages and tools that were [`adapted`] to the template.
pub fn render(
    template: &ChatTemplate,
    messages: &[Message],
    tools: &[ToolSpec],
    options: RenderOptions<'_>,
) -> Result<Rendered, ConversationError> {
    let messages = json::as_json(messages)?;
    let tools: Vec<Value> = tools.iter().map(json::tool_as_json).collect();
    let input = ChatInput {
        messages: &messages,
        tools: (!tools.is_empty()).then_some(&tools[..]),
        add_generation_prompt: options.add_generation_prompt,
        variables: (!options.args.is_empty()).then_some(options.args),
        now: options.now,
    };
    Ok(template.render(&input)?)
}
