//! What the engine asks of a tokenizer and a chat template.

use serde_json::{Map, Value};
use stockade_core::chat::{Message, ToolSpec};
use stockade_core::infer::{InferError, Rendered, TokenizeOptions};

/// Text to tokens and conversations to prompts, for one model.
pub trait ModelText: Send + Sync + 'static {
    fn encode(&self, text: &str, options: TokenizeOptions) -> Result<Vec<u32>, InferError>;

    fn decode(&self, tokens: &[u32]) -> Result<String, InferError>;

    /// What the files say of the tokenizer, in the words of `tokenizer_config.json`; empty where nothing is known.
    fn tokenizer_config(&self) -> Map<String, Value> {
        Map::new()
    }

    /// The chat template's source; `None` when the model has none.
    fn template(&self) -> Option<&str>;

    /// Renders up to and including the opening of the assistant's turn. Control tokens that are spelled out in
    /// messages are plain text.
    fn render(
        &self,
        messages: &[Message],
        tools: &[ToolSpec],
        args: &Map<String, Value>,
    ) -> Result<Rendered, InferError>;
}
