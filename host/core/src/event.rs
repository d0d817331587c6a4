//! The one internal form of a reply: what the engine, an orchestrator and the shields pass on, whatever the
//! dialect outside.
//!
//! Invariant: a stream of events ends with exactly one [`Event::End`] or with an error; nothing follows.

use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Event {
    /// More of the answer. Whole characters, never part of a stop sequence.
    Text(TextDelta),
    /// More of the reasoning, where the model marks it off.
    Reasoning { text: String },
    /// More of a tool call.
    ToolCall(ToolCallDelta),
    /// Something that the turn did on its way to the reply.
    Step(Step),
    /// The end.
    End(End),
}

/// A step of a turn. The same `id` again replaces what was told of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub id: String,
    pub kind: StepKind,
    pub status: StepStatus,
    /// For people, in a line.
    pub title: String,
    /// What went in and what came out: an object.
    pub detail: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepKind {
    Inference,
    Tool,
    Retrieval,
    Plan,
    Route,
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepStatus {
    Started,
    Done,
    Failed,
}

/// Why a turn stopped before its reply was complete: somebody has to answer first.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Interruption {
    /// Under which the host keeps it; `None` until it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// For the person who is asked.
    pub question: String,
    /// The same for programs: an object.
    pub request: Value,
    /// The orchestrator's own, to go on from; `null` on its way to a client.
    pub state: Value,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TextDelta {
    pub text: String,
    /// The tokens whose text begins in `text`, when log-probabilities were asked for; else empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<TokenLogprob>,
}

/// One token's log-probability, natural logarithm, of the raw logits before any sampling processor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    pub id: u32,
    /// The token's own bytes; may be a part of a character.
    pub bytes: Vec<u8>,
    pub logprob: f32,
    /// The likeliest tokens at this place, best first, as many as were asked for.
    #[serde(default)]
    pub top: Vec<(u32, Vec<u8>, f32)>,
}

/// `id` and `name` stand in the first delta of an `index`; arguments may come in any number of pieces.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ToolCallDelta {
    /// Counts calls within a reply, from 0.
    pub index: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub arguments: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct End {
    pub reason: FinishReason,
    pub usage: Usage,
    /// Set when a shield ended the reply: the text to show in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// Set with [`FinishReason::Interrupted`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interruption: Option<Box<Interruption>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FinishReason {
    /// An end-of-turn token or a stop sequence.
    Stop,
    /// `max_tokens` or the context's end.
    Length,
    /// The reply calls tools that the client has to run.
    ToolCalls,
    /// A shield ended the reply.
    ContentFilter,
    /// The turn waits for an answer.
    Interrupted,
    /// The stream was dropped or the host is shutting down.
    Cancelled,
}

/// Tokens that a request took, summed over all model calls of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    pub prompt_tokens: u32,
    /// Of `prompt_tokens`, how many came from the prefix cache.
    pub cached_tokens: u32,
    pub completion_tokens: u32,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.prompt_tokens = self.prompt_tokens.saturating_add(other.prompt_tokens);
        self.cached_tokens = self.cached_tokens.saturating_add(other.cached_tokens);
        self.completion_tokens = self.completion_tokens.saturating_add(other.completion_tokens);
    }
}
