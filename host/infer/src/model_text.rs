//! Tokenizer and chat template of a loaded model, in the words of [`ModelText`].

use crate::text::ModelText;
use serde_json::{Map, Value};
use std::time::SystemTime;
use stockade_core::Fault;
use stockade_core::chat::{Message, ToolSpec};
use stockade_core::infer::{InferError, Rendered, TokenizeOptions};
use stockade_model::conversation::{self, ConversationError, RenderOptions};
use stockade_model::template::ChatTemplate;
use stockade_model::tokenizer::{EncodeOptions, TokenizeError};
use stockade_model::{Checkpoint, ModelError, Tokenizer};

pub(crate) struct LoadedText {
    tokenizer: Tokenizer,
    template: Option<(ChatTemplate, String)>,
}

impl LoadedText {
    pub fn open(checkpoint: &Checkpoint) -> Result<Self, ModelError> {
        let tokenizer = Tokenizer::open(checkpoint)?;
        let template = ChatTemplate::open(checkpoint, &tokenizer)?.map(|template| {
            let source = template.source();
            (template, source)
        });
        Ok(Self { tokenizer, template })
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
}

impl ModelText for LoadedText {
    fn encode(&self, text: &str, options: TokenizeOptions) -> Result<Vec<u32>, InferError> {
        let TokenizeOptions { add_special, parse_special } = options;
        self.tokenizer.encode(text, EncodeOptions { add_special, parse_special }).map_err(refused)
    }

    fn decode(&self, tokens: &[u32]) -> Result<String, InferError> {
        Ok(self.tokenizer.decode(tokens, false))
    }

    fn tokenizer_config(&self) -> Map<String, Value> {
        let mut config = self.tokenizer.config().clone();
        if let Some(template) = self.template() {
            config.insert("chat_template".into(), template.into());
        }
        config
    }

    fn template(&self) -> Option<&str> {
        self.template.as_ref().map(|(_, source)| source.as_str())
    }

    fn render(
        &self,
        messages: &[Message],
        tools: &[ToolSpec],
        args: &Map<String, Value>,
    ) -> Result<Rendered, InferError> {
        let Some((template, _)) = &self.template else {
            return Err(InferError::Template("the model has no chat template".into()));
        };
        let options = RenderOptions { add_generation_prompt: true, args, now: SystemTime::now() };
        let rendered = conversation::render(template, messages, tools, options).map_err(|e| match e {
            ConversationError::Image => InferError::Invalid { field: "messages", reason: e.to_string() },
            other => InferError::Template(other.to_string()),
        })?;
        let tokens = self.tokenizer.encode_rendered(&rendered).map_err(refused)?;
        Ok(Rendered { text: rendered.text().into_owned(), tokens })
    }
}

fn refused(error: TokenizeError) -> InferError {
    match error.fault() {
        Fault::Caller | Fault::Load => InferError::Invalid { field: "prompt", reason: error.to_string() },
        Fault::Host => InferError::Backend { stage: "tokenizing", source: Box::new(error) },
    }
}
