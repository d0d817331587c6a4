//! Chat completions on their way out: chunks of a stream, or one object.

use super::{add_choice, chat_logprobs, finish_reason, now, reply_id, usage};
use crate::error::ApiError;
use crate::sse::Encode;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use stockade_core::event::{End, Event, Interruption, TextDelta, TokenLogprob, ToolCallDelta, Usage};

/// What all chunks of a reply say.
#[derive(Debug, Clone)]
pub struct Head {
    pub id: String,
    pub created: u64,
    pub model: String,
    pub fingerprint: String,
}

impl Head {
    pub fn new(model: &str, fingerprint: String) -> Self {
        Self { id: reply_id("chatcmpl"), created: now(), model: model.into(), fingerprint }
    }

    fn object(&self, kind: &str) -> Map<String, Value> {
        let mut out = Map::new();
        out.insert("id".into(), self.id.as_str().into());
        out.insert("object".into(), kind.into());
        out.insert("created".into(), self.created.into());
        out.insert("model".into(), self.model.as_str().into());
        out.insert("system_fingerprint".into(), self.fingerprint.as_str().into());
        out
    }
}

/// Writes `chat.completion.chunk` objects.
pub struct ChatChunks {
    head: Head,
    request: String,
    include_usage: bool,
    logprobs: bool,
    /// Choices whose role was announced.
    begun: Vec<bool>,
    usage: Usage,
}

impl ChatChunks {
    pub fn new(head: Head, request: String, n: usize, include_usage: bool, logprobs: bool) -> Self {
        Self { head, request, include_usage, logprobs, begun: vec![false; n], usage: Usage::default() }
    }

    fn chunk(&self, choices: Value, out: &mut String) {
        let mut chunk = self.head.object("chat.completion.chunk");
        chunk.insert("choices".into(), choices);
        if self.include_usage {
            chunk.insert("usage".into(), Value::Null);
        }
        crate::sse::data(&Value::Object(chunk), out);
    }

    fn delta(&self, i: usize, delta: Value, logprobs: Option<&[TokenLogprob]>, out: &mut String) {
        let mut choice = json!({"index": i, "delta": delta, "finish_reason": null});
        if self.logprobs {
            choice["logprobs"] = match logprobs {
                Some(entries) => json!({"content": chat_logprobs(entries), "refusal": null}),
                None => Value::Null,
            };
        }
        self.chunk(json!([choice]), out);
    }
}

impl Encode for ChatChunks {
    fn event(&mut self, i: usize, event: Event, out: &mut String) {
        if let Some(begun) = self.begun.get_mut(i)
            && !std::mem::replace(begun, true)
        {
            self.delta(i, json!({"role": "assistant", "content": ""}), None, out);
        }
        match event {
            Event::Text(TextDelta { text, logprobs }) => {
                self.delta(i, json!({"content": text}), Some(&logprobs), out);
            }
            Event::Reasoning { text } => {
                self.delta(i, json!({"reasoning_content": text}), None, out);
            }
            Event::ToolCall(call) => {
                self.delta(i, json!({"tool_calls": [call_delta(call)]}), None, out);
            }
            // This dialect has no words for them.
            Event::Step(_) => {}
            Event::End(end) => {
                add_choice(&mut self.usage, end.usage);
                if let Some(text) = end.refusal {
                    self.delta(i, json!({"refusal": text}), None, out);
                }
                let mut choice = json!({
                    "index": i,
                    "delta": {},
                    "finish_reason": finish_reason(end.reason),
                });
                if self.logprobs {
                    choice["logprobs"] = Value::Null;
                }
                if let Some(told) = &end.interruption {
                    choice["stockade"] = interruption(told);
                }
                self.chunk(json!([choice]), out);
            }
        }
    }

    fn error(&mut self, e: &ApiError, out: &mut String) {
        crate::sse::data(&e.openai(&self.request), out);
    }

    fn finish(&mut self, out: &mut String) {
        if self.include_usage {
            let mut chunk = self.head.object("chat.completion.chunk");
            chunk.insert("choices".into(), json!([]));
            chunk.insert("usage".into(), usage(self.usage));
            crate::sse::data(&Value::Object(chunk), out);
        }
        out.push_str("data: [DONE]\n\n");
    }
}

fn call_delta(call: ToolCallDelta) -> Value {
    let mut function = Map::new();
    let mut out = json!({"index": call.index});
    if let Some(id) = call.id {
        out["id"] = id.into();
        out["type"] = "function".into();
    }
    if let Some(name) = call.name {
        function.insert("name".into(), name.into());
    }
    function.insert("arguments".into(), call.arguments.into());
    out["function"] = function.into();
    out
}

/// What a client needs to answer a turn that waits.
pub fn interruption(told: &Interruption) -> Value {
    json!({"interruption": {"id": told.id, "question": told.question, "request": told.request}})
}

/// A whole choice, gathered.
#[derive(Debug, Default)]
pub struct Gathered {
    pub text: String,
    pub reasoning: String,
    pub logprobs: Vec<TokenLogprob>,
    /// Id, name and arguments by index.
    pub calls: BTreeMap<u32, (String, String, String)>,
    pub end: Option<End>,
}

impl Gathered {
    pub fn add(&mut self, event: Event) {
        match event {
            Event::Text(delta) => {
                self.text.push_str(&delta.text);
                self.logprobs.extend(delta.logprobs);
            }
            Event::Reasoning { text } => self.reasoning.push_str(&text),
            Event::ToolCall(delta) => {
                let call = self.calls.entry(delta.index).or_default();
                if let Some(id) = delta.id {
                    call.0 = id;
                }
                if let Some(name) = delta.name {
                    call.1 = name;
                }
                call.2.push_str(&delta.arguments);
            }
            Event::Step(_) => {}
            Event::End(end) => self.end = Some(end),
        }
    }

    fn message(&mut self) -> Value {
        let refusal = self.end.as_ref().and_then(|e| e.refusal.clone());
        let silent = self.text.is_empty() && (refusal.is_some() || !self.calls.is_empty());
        let mut message = json!({
            "role": "assistant",
            "content": if silent { Value::Null } else { std::mem::take(&mut self.text).into() },
            "refusal": refusal,
        });
        if !self.reasoning.is_empty() {
            message["reasoning_content"] = std::mem::take(&mut self.reasoning).into();
        }
        if !self.calls.is_empty() {
            let calls = std::mem::take(&mut self.calls).into_values();
            let calls = calls.map(|(id, name, arguments)| {
                json!({
                    "id": id,
                    "type": "function",
                    "function": {"name": name, "arguments": arguments},
                })
            });
            message["tool_calls"] = calls.collect::<Vec<Value>>().into();
        }
        message
    }
}

/// The `chat.completion` object.
pub fn whole(head: &Head, choices: Vec<Gathered>, logprobs: bool) -> Value {
    let mut total = Usage::default();
    let mut out = Vec::with_capacity(choices.len());
    for (i, mut choice) in choices.into_iter().enumerate() {
        let entries = logprobs.then(|| json!({"content": chat_logprobs(&choice.logprobs), "refusal": null}));
        let message = choice.message();
        let end = choice.end;
        if let Some(end) = &end {
            add_choice(&mut total, end.usage);
        }
        let mut whole = json!({
            "index": i,
            "message": message,
            "logprobs": entries,
            "finish_reason": end.as_ref().map_or("stop", |e| finish_reason(e.reason)),
        });
        if let Some(told) = end.and_then(|e| e.interruption) {
            whole["stockade"] = interruption(&told);
        }
        out.push(whole);
    }
    let mut object = head.object("chat.completion");
    object.insert("choices".into(), out.into());
    object.insert("usage".into(), usage(total));
    Value::Object(object)
}
