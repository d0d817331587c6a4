//! A reply as a response: events become items, and each change of an item an event of OpenAI's stream.
//!
//! Invariants: an item is complete in the response exactly when its `output_item.done` has been written, output indices
//! count items in the order in which they began, and sequence numbers have no gap.

use super::approval;
use super::citations::{Scanner, Sources, file};
use super::items::item_id;
use super::request::OWN_SERVER;
use crate::dialect::openai::{chat_logprobs, chat_reply, now};
use crate::error::ApiError;
use crate::sse::{Encode, named};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use stockade_core::BoxFuture;
use stockade_core::event::{
    End, Event, FinishReason, Interruption, Step, StepKind, StepStatus, TextDelta, TokenLogprob, ToolCallDelta, Usage,
};

/// What a response says from its first event on.
#[derive(Debug, Clone)]
pub struct Head {
    pub id: String,
    pub created_at: u64,
    pub model: String,
    pub previous: Option<String>,
    pub conversation: Option<String>,
    /// What a search has found is shown.
    pub results: bool,
    pub echo: Map<String, Value>,
}

/// Keeps the finished response, given whole.
pub type Keep = Box<dyn FnOnce(Value) -> BoxFuture<'static, Result<(), ApiError>> + Send>;

pub struct Composer {
    head: Head,
    output: Vec<Value>,
    /// The item that text goes on in.
    open: Option<Open>,
    /// Items of tool calls by their index in the reply, and of steps by their id.
    calls: BTreeMap<u32, usize>,
    steps: BTreeMap<String, usize>,
    sources: Sources,
    end: Option<End>,
    sequence: u64,
    begun: bool,
    keep: Option<Keep>,
}

struct Open {
    index: usize,
    kind: Kind,
    text: String,
    logprobs: Vec<TokenLogprob>,
    scanner: Scanner,
    annotations: Vec<Value>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Reasoning,
}

impl Kind {
    fn part(self, text: &str, annotations: &[Value], logprobs: &[TokenLogprob]) -> Value {
        match self {
            Self::Text => json!({"type": "output_text", "text": text, "annotations": annotations,
                "logprobs": chat_logprobs(logprobs)}),
            Self::Reasoning => json!({"type": "reasoning_text", "text": text}),
        }
    }
    fn event(self, what: &str) -> String {
        let kind = if self == Self::Text { "output_text" } else { "reasoning_text" };
        format!("response.{kind}.{what}")
    }
}

impl Composer {
    pub fn new(head: Head, keep: Option<Keep>) -> Self {
        Self {
            head,
            output: Vec::new(),
            open: None,
            calls: BTreeMap::new(),
            steps: BTreeMap::new(),
            sources: Sources::default(),
            end: None,
            sequence: 0,
            begun: false,
            keep,
        }
    }

    /// The response as far as it is.
    pub fn response(&self) -> Value {
        let (status, reason) = match self.end.as_ref().map(|e| e.reason) {
            None => ("in_progress", None),
            Some(FinishReason::Length) => ("incomplete", Some("max_output_tokens")),
            Some(FinishReason::ContentFilter) => ("incomplete", Some("content_filter")),
            Some(_) => ("completed", None),
        };
        let mut out = json!({
            "id": self.head.id,
            "object": "response",
            "created_at": self.head.created_at,
            "completed_at": (status == "completed").then(now),
            "status": status,
            "error": null,
            "incomplete_details": reason.map(|r| json!({"reason": r})),
            "model": self.head.model,
            "output": self.output,
            "previous_response_id": self.head.previous,
            "conversation": self.head.conversation.as_ref().map(|id| json!({"id": id})),
            "usage": self.end.as_ref().map(|e| usage(e.usage)),
        });
        if let Value::Object(out) = &mut out {
            out.extend(self.head.echo.clone());
        }
        if let Some(told) = self.end.as_ref().and_then(|e| e.interruption.as_ref()) {
            out["stockade"] = chat_reply::interruption(told);
        }
        out
    }

    fn emit(&mut self, kind: &str, fields: Value, out: &mut String) {
        let mut event = json!({"type": kind, "sequence_number": self.sequence});
        if let (Value::Object(event), Value::Object(fields)) = (&mut event, fields) {
            event.extend(fields);
        }
        self.sequence += 1;
        named(kind, &event, out);
    }

    /// Begins an item; its place in the output.
    fn add(&mut self, item: Value, out: &mut String) -> usize {
        let index = self.output.len();
        self.output.push(item.clone());
        self.emit("response.output_item.added", json!({"output_index": index, "item": item}), out);
        index
    }

    fn done(&mut self, index: usize, status: &str, out: &mut String) {
        self.output[index]["status"] = status.into();
        let item = self.output[index].clone();
        self.emit("response.output_item.done", json!({"output_index": index, "item": item}), out);
    }

    fn item_id(&self, index: usize) -> Value {
        self.output[index]["id"].clone()
    }

    fn begin(&mut self, out: &mut String) {
        if !std::mem::replace(&mut self.begun, true) {
            for kind in ["response.created", "response.in_progress"] {
                let response = self.response();
                self.emit(kind, json!({"response": response}), out);
            }
        }
    }

    fn text(&mut self, kind: Kind, text: &str, logprobs: Vec<TokenLogprob>, out: &mut String) {
        if self.open.as_ref().is_none_or(|o| o.kind != kind) {
            self.close_open("completed", out);
            let item = match kind {
                Kind::Text => json!({"id": item_id("message"), "type": "message", "status": "in_progress",
                    "role": "assistant", "content": []}),
                Kind::Reasoning => json!({"id": item_id("reasoning"), "type": "reasoning", "status": "in_progress",
                    "summary": [], "content": []}),
            };
            let index = self.add(item, out);
            let part = json!({"item_id": self.item_id(index), "output_index": index, "content_index": 0,
                "part": kind.part("", &[], &[])});
            self.emit("response.content_part.added", part, out);
            self.open = Some(Open {
                index,
                kind,
                text: String::new(),
                logprobs: Vec::new(),
                scanner: Scanner::default(),
                annotations: Vec::new(),
            });
        }
        let Some(open) = &mut self.open else { return };
        open.text.push_str(text);
        let mut delta = json!({"output_index": open.index, "content_index": 0, "delta": text});
        if kind == Kind::Text {
            delta["logprobs"] = chat_logprobs(&logprobs).into();
        }
        open.logprobs.extend(logprobs);
        let index = open.index;
        let cited = if kind == Kind::Text { open.scanner.take(&open.text, &self.sources) } else { Vec::new() };
        let before = open.annotations.len();
        open.annotations.extend(cited.iter().cloned());
        delta["item_id"] = self.item_id(index);
        self.emit(&kind.event("delta"), delta, out);
        for (n, annotation) in cited.into_iter().enumerate() {
            let fields = json!({"item_id": self.item_id(index), "output_index": index, "content_index": 0,
                "annotation_index": before + n, "annotation": annotation});
            self.emit("response.output_text.annotation.added", fields, out);
        }
    }

    /// Completes the item that text goes on in; its place, for a refusal to follow.
    fn close_open(&mut self, status: &str, out: &mut String) {
        if let Some(index) = self.close_text(out) {
            self.done(index, status, out);
        }
    }

    fn close_text(&mut self, out: &mut String) -> Option<usize> {
        let open = self.open.take()?;
        let index = open.index;
        let part = open.kind.part(&open.text, &open.annotations, &open.logprobs);
        let place = json!({"item_id": self.item_id(index), "output_index": index, "content_index": 0});
        let mut done = place.clone();
        done["text"] = open.text.into();
        if open.kind == Kind::Text {
            done["logprobs"] = part["logprobs"].clone();
        }
        self.emit(&open.kind.event("done"), done, out);
        let mut part_done = place;
        part_done["part"] = part.clone();
        self.emit("response.content_part.done", part_done, out);
        self.output[index]["content"] = json!([part]);
        Some(index)
    }

    fn tool_call(&mut self, delta: ToolCallDelta, out: &mut String) {
        let index = match self.calls.get(&delta.index) {
            Some(index) => *index,
            None => {
                self.close_open("completed", out);
                let item = json!({"id": item_id("function_call"), "type": "function_call", "status": "in_progress",
                    "call_id": delta.id.unwrap_or_default(), "name": delta.name.unwrap_or_default(), "arguments": ""});
                let index = self.add(item, out);
                self.calls.insert(delta.index, index);
                index
            }
        };
        if !delta.arguments.is_empty() {
            let before = self.output[index]["arguments"].as_str().unwrap_or_default().to_owned();
            self.output[index]["arguments"] = (before + &delta.arguments).into();
            let fields = json!({"item_id": self.item_id(index), "output_index": index, "delta": delta.arguments});
            self.emit("response.function_call_arguments.delta", fields, out);
        }
    }

    /// Tool calls and look-ups that the host ran; other steps have no words in this dialect.
    fn step(&mut self, step: Step, out: &mut String) {
        let kind = match step.kind {
            StepKind::Tool => "mcp_call",
            StepKind::Retrieval => "file_search_call",
            _ => return,
        };
        self.sources.learn(&step.detail["hits"]);
        let results = self.head.results;
        let began = self.steps.get(&step.id).copied();
        let index = match began {
            Some(index) => index,
            None => {
                self.close_open("completed", out);
                let index = self.add(step_item(kind, &step, results), out);
                self.steps.insert(step.id.clone(), index);
                self.step_event(kind, index, "in_progress", out);
                if kind == "file_search_call" {
                    self.step_event(kind, index, "searching", out);
                }
                index
            }
        };
        let status = match step.status {
            StepStatus::Started => return,
            StepStatus::Done => "completed",
            StepStatus::Failed => "failed",
        };
        let id = self.item_id(index);
        self.output[index] = step_item(kind, &step, results);
        self.output[index]["id"] = id;
        // A look-up that failed has no event of its own.
        if !(kind == "file_search_call" && status == "failed") {
            self.step_event(kind, index, status, out);
        }
        self.done(index, status, out);
    }

    fn step_event(&mut self, kind: &str, index: usize, what: &str, out: &mut String) {
        let fields = json!({"item_id": self.item_id(index), "output_index": index});
        self.emit(&format!("response.{kind}.{what}"), fields, out);
    }

    fn refusal(&mut self, text: &str, out: &mut String) {
        let index = match self.open.as_ref().map(|o| o.kind) {
            Some(Kind::Text) => self.close_text(out),
            _ => {
                self.close_open("completed", out);
                None
            }
        };
        let index = index.unwrap_or_else(|| {
            let item = json!({"id": item_id("message"), "type": "message", "status": "in_progress",
                "role": "assistant", "content": []});
            self.add(item, out)
        });
        let content_index = self.output[index]["content"].as_array().map_or(0, Vec::len);
        let place = json!({"item_id": self.item_id(index), "output_index": index, "content_index": content_index});
        let with = |field: &str, value: Value| {
            let mut fields = place.clone();
            fields[field] = value;
            fields
        };
        self.emit("response.content_part.added", with("part", json!({"type": "refusal", "refusal": ""})), out);
        self.emit("response.refusal.delta", with("delta", text.into()), out);
        self.emit("response.refusal.done", with("refusal", text.into()), out);
        let part = json!({"type": "refusal", "refusal": text});
        self.emit("response.content_part.done", with("part", part.clone()), out);
        if let Some(content) = self.output[index]["content"].as_array_mut() {
            content.push(part);
        }
        self.done(index, "incomplete", out);
    }

    fn approval(&mut self, told: &Interruption, out: &mut String) {
        let Some(item) = approval::request(told) else { return };
        let index = self.add(item.clone(), out);
        self.emit("response.output_item.done", json!({"output_index": index, "item": item}), out);
    }

    fn ended(&mut self, end: End, out: &mut String) {
        let status = match end.reason {
            FinishReason::Length | FinishReason::ContentFilter => "incomplete",
            _ => "completed",
        };
        match &end.refusal {
            Some(text) => self.refusal(text, out),
            None => self.close_open(status, out),
        }
        for index in std::mem::take(&mut self.calls).into_values() {
            let fields = json!({"item_id": self.item_id(index), "output_index": index,
                "name": self.output[index]["name"], "arguments": self.output[index]["arguments"]});
            self.emit("response.function_call_arguments.done", fields, out);
            self.done(index, status, out);
        }
        // A step that was begun and never ended is over with its turn.
        for index in std::mem::take(&mut self.steps).into_values() {
            if self.output[index]["status"] == "in_progress" {
                self.done(index, "incomplete", out);
            }
        }
        if let Some(told) = &end.interruption {
            self.approval(told, out);
        }
        self.end = Some(end);
    }
}

impl Encode for Composer {
    fn event(&mut self, _: usize, event: Event, out: &mut String) {
        self.begin(out);
        match event {
            Event::Text(TextDelta { text, logprobs }) => self.text(Kind::Text, &text, logprobs, out),
            Event::Reasoning { text } => self.text(Kind::Reasoning, &text, Vec::new(), out),
            Event::ToolCall(delta) => self.tool_call(delta, out),
            Event::Step(step) => self.step(step, out),
            Event::End(end) => self.ended(end, out),
        }
    }

    fn error(&mut self, e: &ApiError, out: &mut String) {
        self.begin(out);
        let mut response = self.response();
        fail(&mut response, e);
        self.emit("response.failed", json!({"response": response}), out);
    }

    fn close(&mut self) -> Option<BoxFuture<'static, Result<(), ApiError>>> {
        let keep = self.keep.take()?;
        Some(keep(self.response()))
    }

    fn finish(&mut self, out: &mut String) {
        let response = self.response();
        let kind = format!("response.{}", response["status"].as_str().unwrap_or("completed"));
        self.emit(&kind, json!({"response": response}), out);
    }
}

/// Turns a response into one that has failed.
pub fn fail(response: &mut Value, e: &ApiError) {
    response["status"] = "failed".into();
    let code = if e.code.status().as_u16() == 429 { "rate_limit_exceeded" } else { "server_error" };
    response["error"] = json!({"code": code, "message": e.detail, "stockade_code": e.code.as_str()});
}

fn step_item(kind: &str, step: &Step, results: bool) -> Value {
    let detail = &step.detail;
    let status = match step.status {
        StepStatus::Started => "in_progress",
        StepStatus::Done => "completed",
        StepStatus::Failed => "failed",
    };
    let id = item_id(kind);
    if kind == "mcp_call" {
        let result = (step.status != StepStatus::Started).then(|| json_text(&detail["result"]));
        let (output, error) = if step.status == StepStatus::Failed { (None, result) } else { (result, None) };
        return json!({"id": id, "type": kind, "status": status, "server_label": OWN_SERVER, "name": step.title,
            "arguments": json_text(&detail["arguments"]), "output": output, "error": error});
    }
    let hits = detail["hits"].as_array().filter(|_| results);
    let results = hits.map(|hits| hits.iter().map(found).collect::<Vec<Value>>());
    json!({"id": id, "type": kind, "status": status, "queries": [detail["query"].as_str().unwrap_or_default()],
        "results": results})
}

fn found(hit: &Value) -> Value {
    let (id, name) = file(hit);
    let mut attributes = hit["metadata"].as_object().cloned().unwrap_or_default();
    attributes.retain(|field, _| field != "file_id" && field != "filename");
    json!({"file_id": id, "filename": name, "score": hit["score"], "text": hit["text"], "attributes": attributes})
}

/// A text as it is, nothing as `{}`, anything else as JSON text.
pub fn json_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "{}".into(),
        other => other.to_string(),
    }
}

fn usage(u: Usage) -> Value {
    json!({
        "input_tokens": u.prompt_tokens,
        "input_tokens_details": {"cached_tokens": u.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": u.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": u64::from(u.prompt_tokens) + u64::from(u.completion_tokens),
    })
}
