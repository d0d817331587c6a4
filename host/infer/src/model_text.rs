//! Tokenizer and chat template of a loaded model, in the words of [`ModelText`].

use crate::text::ModelText;
use serde_json::{Map, Value, json};
use std::time::SystemTime;
use stockade_core::Fault;
use stockade_core::chat::{Message, Part, Role, ToolSpec};
use stockade_core::infer::{InferError, Rendered, TokenizeOptions};
use stockade_model::template::{ChatInput, ChatTemplate};
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
        let messages = as_json(messages)?;
        let tools: Vec<Value> = tools.iter().map(tool_as_json).collect();
        let input = ChatInput {
            messages: &messages,
            tools: (!tools.is_empty()).then_some(&tools[..]),
            add_generation_prompt: true,
            variables: (!args.is_empty()).then_some(args),
            now: SystemTime::now(),
        };
        let rendered = template.render(&input).map_err(|e| InferError::Template(e.to_string()))?;
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

fn tool_as_json(tool: &ToolSpec) -> Value {
    json!({
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
    })
}

/// Messages in the shape templates know: OpenAI's, with arguments as objects. A message that holds several tool results
/// becomes several.
fn as_json(messages: &[Message]) -> Result<Vec<Value>, InferError> {
    let mut out = Vec::with_capacity(messages.len());
    for message in messages {
        let mut reasoning = String::new();
        let mut calls = Vec::new();
        let mut results = Vec::new();
        for part in &message.parts {
            match part {
                Part::Text { .. } => {}
                Part::Reasoning { text } => reasoning.push_str(text),
                Part::ToolCall(call) => {
                    let text = || Value::String(call.arguments.clone());
                    let arguments: Value = serde_json::from_str(&call.arguments).unwrap_or_else(|_| text());
                    let function = json!({"name": call.name, "arguments": arguments});
                    calls.push(json!({"id": call.id, "type": "function", "function": function}));
                }
                Part::ToolResult(result) => results.push(json!({
                    "role": Role::Tool.as_str(),
                    "tool_call_id": result.call_id,
                    "content": result.content,
                })),
                Part::Image(_) => {
                    let reason = "the model takes no images".into();
                    return Err(InferError::Invalid { field: "messages", reason });
                }
            }
        }
        let has_text = message.parts.iter().any(|part| matches!(part, Part::Text { .. }));
        if has_text || results.is_empty() {
            let mut object = Map::new();
            object.insert("role".into(), message.role.as_str().into());
            object.insert("content".into(), message.joined_text().into());
            if let Some(name) = &message.name {
                object.insert("name".into(), name.as_str().into());
            }
            if !reasoning.is_empty() {
                object.insert("reasoning_content".into(), reasoning.into());
            }
            if !calls.is_empty() {
                object.insert("tool_calls".into(), calls.into());
            }
            out.push(object.into());
        }
        out.append(&mut results);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use stockade_core::chat::{Image, ToolCall, ToolResult};

    #[test]
    fn messages_take_the_shape_that_templates_know() {
        let call = ToolCall { id: "c1".into(), name: "f".into(), arguments: "{\"a\": 1}".into() };
        let result =
            |id: &str| Part::ToolResult(ToolResult { call_id: id.into(), content: "42".into(), is_error: false });
        let messages = [
            Message {
                role: Role::Assistant,
                parts: vec![Part::Reasoning { text: "hm".into() }, Part::ToolCall(call)],
                name: None,
            },
            Message { role: Role::Tool, parts: vec![result("c1"), result("c2")], name: None },
        ];
        let json = as_json(&messages).unwrap();
        assert_eq!(json[0]["tool_calls"][0]["function"]["arguments"]["a"], 1);
        assert_eq!((&json[0]["content"], &json[0]["reasoning_content"]), (&json!(""), &json!("hm")));
        assert_eq!((json.len(), &json[2]["tool_call_id"]), (3, &json!("c2")));
        let image = Message {
            role: Role::User,
            parts: vec![Part::Image(Image { media_type: "image/png".into(), data: vec![] })],
            name: None,
        };
        assert!(matches!(as_json(&[image]), Err(InferError::Invalid { field: "messages", .. })));
    }
}
