//! The tenant's instructions, put in front of the conversation.

use crate::steps::cut_at;
use stockade_guest::prelude::*;
use stockade_guest::prompts::{self, Content, Selector, Sticky};

/// Where the system text of a configuration comes from.
#[derive(Debug, Default)]
pub struct Instructions<'a> {
    /// As text.
    pub system: Option<&'a str>,
    /// From the prompt store, after `system`.
    pub prompt: Option<&'a Prompt>,
}

/// Most bytes of a conversation's beginning that keep it with one version of a prompt.
const MAX_KEY: usize = 256;

/// Which prompt of the prompt store.
#[derive(Debug, Clone, Deserialize)]
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
    /// Where a label has several versions, a conversation stays with one of them: with each of its turns it begins anew
    /// with the same words.
    fn render(&self, conversation: &[Message]) -> Result<Content> {
        let selector = match (&self.label, self.version) {
            (Some(_), Some(_)) => {
                return Err(Error::Invalid("prompt: label or version, not both".into()));
            }
            (None, Some(version)) => Selector::Version(version),
            (label, None) => {
                let label = label.clone().unwrap_or("production".into());
                let first = conversation.iter().find(|m| m.role == Role::User).map(Message::joined_text);
                let key = cut_at(&first.unwrap_or_default(), MAX_KEY).to_string();
                Selector::Sticky(Sticky { label, key })
            }
        };
        let variables = serde_json::to_string(&self.variables)?;
        Ok(prompts::render(&self.name, &selector, &variables)?.content)
    }
}

impl Instructions<'_> {
    /// The conversation after the instructions, `own` last of them: what the orchestrator itself has to say.
    ///
    /// Many chat templates take a single system message, in front: all system text that stands there becomes one.
    pub fn prepend(&self, messages: Vec<Message>, own: Option<String>) -> Result<Vec<Message>> {
        let mut all: Vec<Message> = Vec::new();
        all.extend(self.system.map(Message::system));
        match self.prompt.map(|prompt| prompt.render(&messages)).transpose()? {
            Some(Content::Text(text)) => all.push(Message::system(text)),
            Some(Content::Messages(messages)) => all.extend(messages),
            None => {}
        }
        all.extend(messages);
        let leading = all.iter().take_while(|m| m.role == Role::System).count();
        let mut texts: Vec<String> = all.drain(..leading).map(|m| m.joined_text()).collect();
        texts.extend(own);
        if !texts.is_empty() {
            all.insert(0, Message::system(texts.join("\n\n")));
        }
        Ok(all)
    }
}
