//! The tenant's system prompt, put in front of the conversation.

use crate::Assistant;
use stockade_guest::prelude::*;
use stockade_guest::prompts::{self, Content, Selector};

/// Which prompt of the prompt store.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    pub name: String,
    /// Its label; `production` without one, unless a version is given.
    #[serde(default)]
    pub label: Option<String>,
    #[serde(default)]
    pub version: Option<u32>,
    /// Values of its variables.
    #[serde(default)]
    pub variables: serde_json::Map<String, Value>,
}

impl Prompt {
    fn render(&self) -> Result<Content> {
        let selector = match (&self.label, self.version) {
            (Some(_), Some(_)) => {
                return Err(Error::Invalid("prompt: label or version, not both".into()));
            }
            (None, Some(version)) => Selector::Version(version),
            (label, None) => Selector::Label(label.clone().unwrap_or("production".into())),
        };
        let variables = serde_json::to_string(&self.variables)?;
        Ok(prompts::render(&self.name, &selector, &variables)?.content)
    }
}

/// The conversation after the tenant's own instructions.
///
/// Many chat templates take a single system message, in front: all system text that stands there becomes one.
pub fn prepend(assistant: &Assistant, messages: Vec<Message>) -> Result<Vec<Message>> {
    let mut all: Vec<Message> = Vec::new();
    all.extend(assistant.system.as_deref().map(Message::system));
    match assistant.prompt.as_ref().map(Prompt::render).transpose()? {
        Some(Content::Text(text)) => all.push(Message::system(text)),
        Some(Content::Messages(messages)) => all.extend(messages),
        None => {}
    }
    all.extend(messages);
    let leading = all.iter().take_while(|m| m.role == Role::System).count();
    if leading > 1 {
        let texts: Vec<String> = all.drain(..leading).map(|m| m.joined_text()).collect();
        all.insert(0, Message::system(texts.join("\n\n")));
    }
    Ok(all)
}
