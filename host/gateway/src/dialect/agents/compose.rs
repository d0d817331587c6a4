//! A reply as a turn: events become Llama Stack's steps, each told when it starts, grows and is complete.
//!
//! Invariant: a step is in the turn exactly when its `step_complete` has been written.

use super::time::rfc3339;
use crate::dialect::openai::{chat_reply, now};
use crate::error::ApiError;
use crate::run::Run;
use crate::sse::{self, Encode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use stockade_core::BoxFuture;
use stockade_core::chat::{Message, Part, Role as Speaker, ToolCall, ToolResult};
use stockade_core::event::{End, Event, FinishReason, Interruption, Step, StepKind, StepStatus, ToolCallDelta};
use stockade_core::plugin::{Mode, Role};
use stockade_core::registry::new_document_id;

/// A turn as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    pub id: String,
    pub session: String,
    /// As the client sent them.
    pub input: Vec<Value>,
    pub steps: Vec<Value>,
    /// `null` until the reply has ended.
    pub output: Value,
    /// What the turn adds to the conversation, in order.
    pub messages: Vec<Message>,
    pub awaiting: Option<Awaiting>,
    /// Seconds since 1970.
    pub started_at: u64,
    pub completed_at: Option<u64>,
}

/// What a turn waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Awaiting {
    /// The client runs these calls.
    Tools,
    /// Somebody answers the orchestrator; what the client needs for it.
    Interruption { id: String, question: String, request: Value },
}

impl Turn {
    /// In Llama Stack's shape.
    pub fn shown(&self) -> Value {
        let mut out = json!({
            "turn_id": self.id,
            "session_id": self.session,
            "input_messages": self.input,
            "steps": self.steps,
            "output_message": self.output,
            "output_attachments": [],
            "started_at": rfc3339(self.started_at),
            "completed_at": self.completed_at.map(rfc3339),
        });
        if let Some(Awaiting::Interruption { id, question, request }) = &self.awaiting {
            let told = Interruption {
                id: Some(id.clone()),
                question: question.clone(),
                request: request.clone(),
                state: Value::Null,
            };
            out["stockade"] = chat_reply::interruption(&told);
        }
        out
    }
}

pub type Keep = Box<dyn FnOnce(Turn) -> BoxFuture<'static, Result<(), ApiError>> + Send>;

pub struct Composer {
    run: Arc<Run>,
    turn: Turn,
    inference: Option<Inference>,
    /// Ids and starts of the tool and memory steps under way, by the orchestrator's own id.
    running: BTreeMap<String, (String, u64)>,
    begun: bool,
    resumed: bool,
    keep: Option<Keep>,
}

/// The model's words and calls so far.
struct Inference {
    step: String,
    started_at: u64,
    text: String,
    calls: BTreeMap<u32, ToolCall>,
}

impl Composer {
    pub fn new(run: Arc<Run>, turn: Turn, resumed: bool, keep: Option<Keep>) -> Self {
        Self { run, turn, inference: None, running: BTreeMap::new(), begun: false, resumed, keep }
    }

    pub fn turn(&self) -> &Turn {
        &self.turn
    }

    fn payload(payload: Value, out: &mut String) {
        sse::data(&json!({"event": {"payload": payload}}), out);
    }

    fn start(kind: &str, step: &str, out: &mut String) {
        let payload = json!({"event_type": "step_start", "step_type": kind, "step_id": step, "metadata": {}});
        Self::payload(payload, out);
    }

    /// Completes a step: `fields` are those of its kind.
    fn complete(&mut self, kind: &str, step: &str, started_at: u64, fields: Value, out: &mut String) {
        let mut details = json!({
            "step_type": kind, "step_id": step, "turn_id": self.turn.id,
            "started_at": rfc3339(started_at), "completed_at": rfc3339(now()),
        });
        if let (Value::Object(details), Value::Object(fields)) = (&mut details, fields) {
            details.extend(fields);
        }
        self.turn.steps.push(details.clone());
        let payload =
            json!({"event_type": "step_complete", "step_type": kind, "step_id": step, "step_details": details});
        Self::payload(payload, out);
    }

    fn begin(&mut self, refusal: Option<&str>, out: &mut String) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        if !self.resumed {
            Self::payload(json!({"event_type": "turn_start", "turn_id": self.turn.id}), out);
        }
        let blocked = refusal.filter(|_| self.blocker(&Role::ShieldInput).is_some());
        if !self.run.pins().all(&Role::ShieldInput).is_empty() {
            self.shield_step(&Role::ShieldInput, blocked, out);
        }
    }

    /// The shield of this side that has blocked the turn.
    fn blocker(&self, role: &Role) -> Option<String> {
        let calls = self.run.log.snapshot();
        let enforced = |name: &stockade_core::id::ComponentName| {
            self.run.pins().all(role).iter().any(|p| p.component.name == *name && p.mode == Mode::Enforce)
        };
        let mut blocks = calls.iter().filter(|c| c.role == *role && c.decision == "block");
        let blocked = blocks.rfind(|c| enforced(&c.component));
        blocked.map(|c| format!("{}@{}", c.component, c.version))
    }

    fn shield_step(&mut self, role: &Role, refusal: Option<&str>, out: &mut String) {
        let step = step_id();
        Self::start("shield_call", &step, out);
        let violation = refusal.map(|text| {
            let shield = self.blocker(role);
            json!({"violation_level": "error", "user_message": text, "metadata": {"shield": shield, "side": role}})
        });
        self.complete("shield_call", &step, now(), json!({"violation": violation}), out);
    }

    fn inference(&mut self, out: &mut String) -> &mut Inference {
        self.inference.get_or_insert_with(|| {
            let step = step_id();
            Self::start("inference", &step, out);
            Inference { step, started_at: now(), text: String::new(), calls: BTreeMap::new() }
        })
    }

    fn progress(&mut self, delta: Value, out: &mut String) {
        let step = self.inference(out).step.clone();
        let payload = json!({"event_type": "step_progress", "step_type": "inference", "step_id": step, "delta": delta});
        Self::payload(payload, out);
    }

    fn tool_call(&mut self, delta: ToolCallDelta, out: &mut String) {
        let inference = self.inference(out);
        let begins = !inference.calls.contains_key(&delta.index);
        let call = inference.calls.entry(delta.index).or_insert_with(|| ToolCall {
            id: String::new(),
            name: String::new(),
            arguments: String::new(),
        });
        call.id.push_str(&delta.id.unwrap_or_default());
        call.name.push_str(&delta.name.unwrap_or_default());
        call.arguments.push_str(&delta.arguments);
        let status = if begins { "started" } else { "in_progress" };
        self.progress(json!({"type": "tool_call", "tool_call": delta.arguments, "parse_status": status}), out);
    }

    /// Completes the inference step under way.
    fn close_inference(&mut self, stop_reason: &str, out: &mut String) -> Option<Value> {
        let inference = self.inference.take()?;
        let calls: Vec<ToolCall> = inference.calls.into_values().collect();
        for call in &calls {
            let delta = json!({"type": "tool_call", "tool_call": tool_call(call), "parse_status": "succeeded"});
            let payload = json!({"event_type": "step_progress", "step_type": "inference",
                "step_id": inference.step, "delta": delta});
            Self::payload(payload, out);
        }
        let shown: Vec<Value> = calls.iter().map(tool_call).collect();
        let message = json!({"role": "assistant", "content": inference.text, "stop_reason": stop_reason,
            "tool_calls": shown});
        let mut parts = Vec::new();
        if !inference.text.is_empty() {
            parts.push(Part::Text { text: inference.text });
        }
        parts.extend(calls.into_iter().map(Part::ToolCall));
        self.turn.messages.push(Message { role: Speaker::Assistant, parts, name: None });
        let fields = json!({"model_response": message.clone()});
        self.complete("inference", &inference.step, inference.started_at, fields, out);
        Some(message)
    }

    /// Tool calls and look-ups that the host ran; other steps have no words in this dialect.
    fn step(&mut self, told: Step, out: &mut String) {
        let kind = match told.kind {
            StepKind::Tool => "tool_execution",
            StepKind::Retrieval => "memory_retrieval",
            _ => return,
        };
        if !self.running.contains_key(&told.id) {
            self.close_inference("end_of_message", out);
            let step = step_id();
            Self::start(kind, &step, out);
            self.running.insert(told.id.clone(), (step, now()));
        }
        if told.status == StepStatus::Started {
            return;
        }
        let Some((step, started_at)) = self.running.remove(&told.id) else { return };
        let detail = &told.detail;
        let fields = if kind == "tool_execution" {
            let call = ToolCall { id: step.clone(), name: told.title, arguments: text_of(&detail["arguments"]) };
            let content = text_of(&detail["result"]);
            let fields = json!({
                "tool_calls": [tool_call(&call)],
                "tool_responses": [{"call_id": step, "tool_name": call.name, "content": content}],
            });
            let result = ToolResult { call_id: step.clone(), content, is_error: told.status == StepStatus::Failed };
            let message = |role, part| Message { role, parts: vec![part], name: None };
            self.turn.messages.push(message(Speaker::Assistant, Part::ToolCall(call)));
            self.turn.messages.push(message(Speaker::Tool, Part::ToolResult(result)));
            fields
        } else {
            let texts: Vec<&str> =
                detail["hits"].as_array().into_iter().flatten().filter_map(|h| h["text"].as_str()).collect();
            let banks: Vec<&str> = detail["banks"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            json!({"vector_db_ids": banks.join(","), "inserted_context": texts.join("\n\n")})
        };
        self.complete(kind, &step, started_at, fields, out);
    }

    fn ended(&mut self, end: End, out: &mut String) {
        let stop_reason = match end.reason {
            FinishReason::Length => "out_of_tokens",
            FinishReason::ToolCalls | FinishReason::Interrupted => "end_of_message",
            _ => "end_of_turn",
        };
        let said = self.close_inference(stop_reason, out);
        let plain =
            |text: &str| json!({"role": "assistant", "content": text, "stop_reason": stop_reason, "tool_calls": []});
        self.turn.output = said.unwrap_or_else(|| plain(""));
        let input_blocked = end.refusal.is_some() && self.blocker(&Role::ShieldInput).is_some();
        if !input_blocked && !self.run.pins().all(&Role::ShieldOutput).is_empty() {
            self.shield_step(&Role::ShieldOutput, end.refusal.as_deref(), out);
        }
        if let Some(text) = &end.refusal {
            self.turn.output = plain(text);
            self.turn.messages.push(Message::text(Speaker::Assistant, text));
        }
        self.turn.awaiting = match (end.reason, end.interruption) {
            (FinishReason::ToolCalls, _) => Some(Awaiting::Tools),
            (_, Some(told)) => Some(self.interrupted(*told)),
            _ => None,
        };
        self.turn.completed_at = self.turn.awaiting.is_none().then(now);
    }

    /// What the client has to answer looks like a call of a tool that it runs.
    fn interrupted(&mut self, told: Interruption) -> Awaiting {
        let id = told.id.unwrap_or_default();
        let name = told.request["tool"].as_str().unwrap_or("question").to_owned();
        let arguments = match &told.request["arguments"] {
            Value::Null => told.request.to_string(),
            given => text_of(given),
        };
        let call = ToolCall { id: id.clone(), name, arguments };
        self.turn.output = json!({"role": "assistant", "content": told.question, "stop_reason": "end_of_message",
            "tool_calls": [tool_call(&call)]});
        Awaiting::Interruption { id, question: told.question, request: told.request }
    }
}

impl Encode for Composer {
    fn event(&mut self, _: usize, event: Event, out: &mut String) {
        let refusal = match &event {
            Event::End(end) => end.refusal.clone(),
            _ => None,
        };
        self.begin(refusal.as_deref(), out);
        match event {
            Event::Text(delta) => {
                self.inference(out).text.push_str(&delta.text);
                self.progress(json!({"type": "text", "text": delta.text}), out);
            }
            // This dialect has no words for it.
            Event::Reasoning { .. } => {}
            Event::ToolCall(delta) => self.tool_call(delta, out),
            Event::Step(step) => self.step(step, out),
            Event::End(end) => self.ended(end, out),
        }
    }

    fn error(&mut self, e: &ApiError, out: &mut String) {
        sse::data(&json!({"error": {"message": e.detail, "code": e.code.as_str()}}), out);
    }

    fn close(&mut self) -> Option<BoxFuture<'static, Result<(), ApiError>>> {
        let keep = self.keep.take()?;
        Some(keep(self.turn.clone()))
    }

    fn finish(&mut self, out: &mut String) {
        let event_type = if self.turn.awaiting.is_some() { "turn_awaiting_input" } else { "turn_complete" };
        Self::payload(json!({"event_type": event_type, "turn": self.turn.shown()}), out);
    }
}

pub fn step_id() -> String {
    new_document_id("step", getrandom::u32().unwrap_or_default())
}

/// A call in Llama Stack's shape.
fn tool_call(call: &ToolCall) -> Value {
    let parsed: Value = serde_json::from_str(&call.arguments).unwrap_or_default();
    let arguments = if parsed.is_object() { parsed } else { call.arguments.as_str().into() };
    json!({"call_id": call.id, "tool_name": call.name, "arguments": arguments, "arguments_json": call.arguments})
}

/// A text as it is, nothing as nothing, anything else as JSON text.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
