//! The forms in which model families write calls of tools.

/// How a model family writes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallFormat {
    /// `<tool_call>{"name": .., "arguments": {..}}</tool_call>`, anywhere, any number; a list inside too (Hermes,
    /// Qwen, SmolLM2).
    Hermes,
    /// As the whole reply: `{"name": .., "parameters": {..}}`, `<|python_tag|>` before it or not, `;` between several
    /// (Llama 3.x); or `[f(a=1), g(b="x")]`, between `<|python_start|>` and `<|python_end|>` or not (Llama 3.2 and 4).
    Llama,
    /// `[TOOL_CALLS] [{"name": .., "arguments": {..}}]` or `[TOOL_CALLS]name[ARGS]{..}`, after text or not (Mistral).
    Mistral,
}

/// Opens a call in the form of Hermes.
pub const CALL: &str = "<tool_call>";
/// Opens calls in the form of Mistral.
pub const MISTRAL: &str = "[TOOL_CALLS]";

impl CallFormat {
    /// Of the family that a chat template was written for; `None` when the template shows no tools.
    pub fn of_template(template: &str) -> Option<Self> {
        if !template.contains("tools") {
            None
        } else if template.contains(CALL) {
            Some(Self::Hermes)
        } else if template.contains(MISTRAL) {
            Some(Self::Mistral)
        } else if template.contains("ipython") || template.contains("\"parameters\"") {
            Some(Self::Llama)
        } else {
            None
        }
    }
}
