//! Short ways to make and read the values of [`crate::types`].

use crate::types::{Completion, Message, Part, Role, Sampling, ToolCall, ToolChoice, ToolResult, ToolSpec, Violation};
use serde::Serialize;

impl Message {
    /// A message of one text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, parts: vec![Part::Text(text.into())], name: None }
    }
    pub fn system(text: impl Into<String>) -> Self {
        Self::text(Role::System, text)
    }
    pub fn user(text: impl Into<String>) -> Self {
        Self::text(Role::User, text)
    }
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::text(Role::Assistant, text)
    }

    /// The answer of a tool to one call.
    pub fn tool_result(call: &ToolCall, content: impl Into<String>, is_error: bool) -> Self {
        let result = ToolResult { call_id: call.id.clone(), content: content.into(), is_error };
        Self { role: Role::Tool, parts: vec![Part::ToolResult(result)], name: None }
    }

    /// All text parts, joined.
    pub fn joined_text(&self) -> String {
        let texts = self.parts.iter().filter_map(|p| match p {
            Part::Text(text) => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }
}

impl From<Completion> for Message {
    /// The assistant's message that a completion amounts to, for the next round of a conversation.
    fn from(reply: Completion) -> Self {
        let mut parts = Vec::new();
        if !reply.reasoning.is_empty() {
            parts.push(Part::Reasoning(reply.reasoning));
        }
        if !reply.text.is_empty() {
            parts.push(Part::Text(reply.text));
        }
        parts.extend(reply.tool_calls.into_iter().map(Part::ToolCall));
        Self { role: Role::Assistant, parts, name: None }
    }
}

impl Violation {
    /// A violation without score or metadata.
    pub fn new(category: impl Into<String>, message: impl Into<String>) -> Self {
        Self { category: category.into(), message: message.into(), score: None, metadata: "null".into() }
    }
    pub fn with_score(mut self, score: f32) -> Self {
        self.score = Some(score);
        self
    }
    /// Attaches anything that serialises; what does not is left out.
    pub fn with_metadata(mut self, metadata: &impl Serialize) -> Self {
        if let Ok(json) = serde_json::to_string(metadata) {
            self.metadata = json;
        }
        self
    }
}

impl ToolSpec {
    /// `parameters` is a JSON Schema of the arguments object.
    pub fn new(name: impl Into<String>, description: impl Into<String>, parameters: &serde_json::Value) -> Self {
        Self { name: name.into(), description: description.into(), parameters: parameters.to_string() }
    }
}

impl Default for Sampling {
    /// The host's defaults throughout.
    fn default() -> Self {
        Self {
            max_tokens: None,
            temperature: None,
            top_k: None,
            top_p: None,
            min_p: None,
            repetition_penalty: None,
            frequency_penalty: None,
            presence_penalty: None,
            seed: None,
            stop: Vec::new(),
        }
    }
}

#[expect(clippy::derivable_impls, reason = "the type is generated")]
impl Default for ToolChoice {
    fn default() -> Self {
        Self::Auto
    }
}
