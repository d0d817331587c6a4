//! The plugin API's values and the host's own words, in both directions. The only place where they meet.

use crate::bindings::{inference, orchestrator, shield, types};
use serde_json::Value;
use stockade_core::chat::{Image, Message, Part, Role, ToolCall, ToolChoice, ToolResult, ToolSpec};
use stockade_core::event::{
    End, Event, FinishReason, Interruption, Step, StepKind, StepStatus, TextDelta, ToolCallDelta, Usage,
};
use stockade_core::infer::{Constraint, InferError, ModelInfo, ModelKind, Sampling};
use stockade_core::plugin::{Direction, Edit, Ruling, Turn, Verdict, Violation};

/// A value of the plugin API that breaks its own rules; the text names which and how.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Bad(pub String);

impl From<Bad> for types::Error {
    fn from(bad: Bad) -> Self {
        Self::Invalid(bad.0)
    }
}

/// Reads JSON text. serde_json bounds its depth.
pub(crate) fn json(what: &str, text: &str) -> Result<Value, Bad> {
    serde_json::from_str(text).map_err(|e| Bad(format!("{what}: not JSON: {e}")))
}

pub(crate) fn messages_out(messages: Vec<Message>) -> Vec<types::Message> {
    messages.into_iter().map(message_out).collect()
}
pub(crate) fn messages_in(messages: Vec<types::Message>) -> Vec<Message> {
    messages.into_iter().map(message_in).collect()
}

/// Messages for a shield that judges what answers them: pictures without their bytes.
pub(crate) fn conversation_out(messages: &[Message]) -> Vec<types::Message> {
    let part = |p: &Part| match p {
        Part::Image(i) => part_out(Part::Image(Image { media_type: i.media_type.clone(), data: Default::default() })),
        other => part_out(other.clone()),
    };
    let message = |m: &Message| types::Message {
        role: role_out(m.role),
        parts: m.parts.iter().map(part).collect(),
        name: m.name.clone(),
    };
    messages.iter().map(message).collect()
}

fn role_out(role: Role) -> types::Role {
    match role {
        Role::System => types::Role::System,
        Role::User => types::Role::User,
        Role::Assistant => types::Role::Assistant,
        Role::Tool => types::Role::Tool,
    }
}

fn message_out(m: Message) -> types::Message {
    types::Message { role: role_out(m.role), parts: m.parts.into_iter().map(part_out).collect(), name: m.name }
}

fn message_in(m: types::Message) -> Message {
    Message {
        role: match m.role {
            types::Role::System => Role::System,
            types::Role::User => Role::User,
            types::Role::Assistant => Role::Assistant,
            types::Role::Tool => Role::Tool,
        },
        parts: m.parts.into_iter().map(part_in).collect(),
        name: m.name,
    }
}

fn part_out(p: Part) -> types::Part {
    match p {
        Part::Text { text } => types::Part::Text(text),
        Part::Reasoning { text } => types::Part::Reasoning(text),
        Part::Image(i) => types::Part::Image(types::Image { media_type: i.media_type, data: i.data }),
        Part::ToolCall(c) => types::Part::ToolCall(types::ToolCall { id: c.id, name: c.name, arguments: c.arguments }),
        Part::ToolResult(r) => {
            types::Part::ToolResult(types::ToolResult { call_id: r.call_id, content: r.content, is_error: r.is_error })
        }
    }
}

fn part_in(p: types::Part) -> Part {
    match p {
        types::Part::Text(text) => Part::Text { text },
        types::Part::Reasoning(text) => Part::Reasoning { text },
        types::Part::Image(i) => Part::Image(Image { media_type: i.media_type, data: i.data }),
        types::Part::ToolCall(c) => Part::ToolCall(ToolCall { id: c.id, name: c.name, arguments: c.arguments }),
        types::Part::ToolResult(r) => {
            Part::ToolResult(ToolResult { call_id: r.call_id, content: r.content, is_error: r.is_error })
        }
    }
}

/// Bytes of all texts and pictures.
pub(crate) fn messages_bytes(messages: &[types::Message]) -> usize {
    let parts = messages.iter().flat_map(|m| &m.parts);
    parts
        .map(|p| match p {
            types::Part::Text(t) | types::Part::Reasoning(t) => t.len(),
            types::Part::Image(i) => i.data.len(),
            types::Part::ToolCall(c) => c.name.len() + c.arguments.len(),
            types::Part::ToolResult(r) => r.content.len(),
        })
        .sum()
}

pub(crate) fn tool_out(t: ToolSpec) -> types::ToolSpec {
    types::ToolSpec { name: t.name, description: t.description, parameters: t.parameters.to_string() }
}

pub(crate) fn tool_in(t: types::ToolSpec) -> Result<ToolSpec, Bad> {
    Ok(ToolSpec { parameters: json("tools.parameters", &t.parameters)?, name: t.name, description: t.description })
}

fn choice_out(c: ToolChoice) -> types::ToolChoice {
    match c {
        ToolChoice::Auto => types::ToolChoice::Auto,
        ToolChoice::None => types::ToolChoice::Forbidden,
        ToolChoice::Required => types::ToolChoice::Required,
        ToolChoice::Named(name) => types::ToolChoice::Named(name),
    }
}

pub(crate) fn choice_in(c: types::ToolChoice) -> ToolChoice {
    match c {
        types::ToolChoice::Auto => ToolChoice::Auto,
        types::ToolChoice::Forbidden => ToolChoice::None,
        types::ToolChoice::Required => ToolChoice::Required,
        types::ToolChoice::Named(name) => ToolChoice::Named(name),
    }
}

pub(crate) fn sampling_out(s: &Sampling) -> types::Sampling {
    types::Sampling {
        max_tokens: s.max_tokens,
        temperature: Some(s.temperature),
        top_k: Some(s.top_k),
        top_p: Some(s.top_p),
        min_p: Some(s.min_p),
        repetition_penalty: Some(s.repetition_penalty),
        frequency_penalty: Some(s.frequency_penalty),
        presence_penalty: Some(s.presence_penalty),
        seed: s.seed,
        stop: s.stop.clone(),
    }
}

/// `turn` is the sampling of the turn that the guest runs: passed on unchanged, it keeps what the plugin API has no
/// words for (logit bias, log-probabilities).
pub(crate) fn sampling_in(s: types::Sampling, turn: Option<&Sampling>) -> Result<Sampling, Bad> {
    if let Some(turn) = turn
        && sampling_out(turn) == s
    {
        return Ok(turn.clone());
    }
    let d = Sampling::default();
    let finite = |name: &str, x: f32| {
        if x.is_finite() { Ok(x) } else { Err(Bad(format!("sampling.{name}: not a finite number"))) }
    };
    Ok(Sampling {
        max_tokens: s.max_tokens,
        temperature: finite("temperature", s.temperature.unwrap_or(d.temperature))?,
        top_k: s.top_k.unwrap_or(d.top_k),
        top_p: finite("top-p", s.top_p.unwrap_or(d.top_p))?,
        min_p: finite("min-p", s.min_p.unwrap_or(d.min_p))?,
        repetition_penalty: finite("repetition-penalty", s.repetition_penalty.unwrap_or(d.repetition_penalty))?,
        frequency_penalty: finite("frequency-penalty", s.frequency_penalty.unwrap_or(d.frequency_penalty))?,
        presence_penalty: finite("presence-penalty", s.presence_penalty.unwrap_or(d.presence_penalty))?,
        seed: s.seed,
        stop: s.stop,
        ..d
    })
}

fn constraint_out(c: Constraint) -> types::Constraint {
    match c {
        Constraint::JsonObject => types::Constraint::JsonObject,
        Constraint::JsonSchema(schema) => types::Constraint::JsonSchema(schema.to_string()),
        Constraint::Regex(r) => types::Constraint::Regex(r),
        Constraint::Lark(l) => types::Constraint::Lark(l),
    }
}

pub(crate) fn constraint_in(c: types::Constraint) -> Result<Constraint, Bad> {
    Ok(match c {
        types::Constraint::JsonObject => Constraint::JsonObject,
        types::Constraint::JsonSchema(s) => Constraint::JsonSchema(json("constraint", &s)?),
        types::Constraint::Regex(r) => Constraint::Regex(r),
        types::Constraint::Lark(l) => Constraint::Lark(l),
    })
}

pub(crate) fn turn_out(turn: Turn) -> orchestrator::Turn {
    orchestrator::Turn {
        model: turn.model,
        messages: messages_out(turn.messages),
        tools: turn.tools.into_iter().map(tool_out).collect(),
        tool_choice: choice_out(turn.tool_choice),
        sampling: sampling_out(&turn.sampling),
        constraint: turn.constraint.map(constraint_out),
        metadata: turn.metadata.into_iter().collect(),
        template_args: (!turn.template_args.is_empty()).then(|| Value::Object(turn.template_args).to_string()),
        resume: turn
            .resume
            .map(|r| orchestrator::Resumption { state: r.state.to_string(), answer: r.answer.to_string() }),
    }
}

/// Most bytes of what an interrupted turn leaves to go on from.
const MAX_INTERRUPTION_BYTES: usize = 1 << 20;

/// How a turn ended: its reason, and the interruption where it is one.
pub(crate) fn outcome_in(o: orchestrator::Outcome) -> Result<(FinishReason, Option<Box<Interruption>>), Bad> {
    let interruption = match o {
        orchestrator::Outcome::Finished(reason) => return Ok((reason_in(reason), None)),
        orchestrator::Outcome::Interrupted(i) => i,
    };
    let bytes = interruption.question.len() + interruption.request.len() + interruption.state.len();
    if bytes > MAX_INTERRUPTION_BYTES {
        return Err(Bad(format!("an interruption of {bytes} bytes: the limit is {MAX_INTERRUPTION_BYTES}")));
    }
    let interruption = Interruption {
        id: None,
        question: interruption.question,
        request: json("interruption.request", &interruption.request)?,
        state: json("interruption.state", &interruption.state)?,
    };
    Ok((FinishReason::Interrupted, Some(Box::new(interruption))))
}

pub(crate) fn reason_out(r: FinishReason) -> types::FinishReason {
    match r {
        FinishReason::Stop | FinishReason::Interrupted | FinishReason::Cancelled => types::FinishReason::Stop,
        FinishReason::Length => types::FinishReason::Length,
        FinishReason::ToolCalls => types::FinishReason::ToolCalls,
        FinishReason::ContentFilter => types::FinishReason::ContentFilter,
    }
}

pub(crate) fn reason_in(r: types::FinishReason) -> FinishReason {
    match r {
        types::FinishReason::Stop => FinishReason::Stop,
        types::FinishReason::Length => FinishReason::Length,
        types::FinishReason::ToolCalls => FinishReason::ToolCalls,
        types::FinishReason::ContentFilter => FinishReason::ContentFilter,
    }
}

pub(crate) fn usage_out(u: Usage) -> types::Usage {
    types::Usage {
        prompt_tokens: u.prompt_tokens,
        cached_tokens: u.cached_tokens,
        completion_tokens: u.completion_tokens,
    }
}

pub(crate) fn event_out(e: Event) -> types::Event {
    match e {
        Event::Text(t) => types::Event::Text(t.text),
        Event::Reasoning { text } => types::Event::Reasoning(text),
        Event::ToolCall(d) => types::Event::ToolCall(types::ToolCallDelta {
            index: d.index,
            id: d.id,
            name: d.name,
            arguments: d.arguments,
        }),
        Event::Step(s) => types::Event::Step(step_out(s)),
        Event::End(End { reason, usage, .. }) => {
            types::Event::End(types::End { reason: reason_out(reason), usage: usage_out(usage) })
        }
    }
}

/// Refuses the end, which guests may not emit.
pub(crate) fn event_in(e: types::Event) -> Result<Event, Bad> {
    Ok(match e {
        types::Event::Text(text) => Event::Text(TextDelta { text, logprobs: Vec::new() }),
        types::Event::Reasoning(text) => Event::Reasoning { text },
        types::Event::ToolCall(d) => {
            Event::ToolCall(ToolCallDelta { index: d.index, id: d.id, name: d.name, arguments: d.arguments })
        }
        types::Event::Step(s) => Event::Step(step_in(s)?),
        types::Event::End(_) => return Err(Bad("events: `end` is said by returning from `run`".into())),
    })
}

fn step_out(s: Step) -> types::Step {
    types::Step {
        id: s.id,
        kind: match s.kind {
            StepKind::Inference => types::StepKind::Inference,
            StepKind::Tool => types::StepKind::Tool,
            StepKind::Retrieval => types::StepKind::Retrieval,
            StepKind::Plan => types::StepKind::Plan,
            StepKind::Route => types::StepKind::Route,
            StepKind::Other => types::StepKind::Other,
        },
        status: match s.status {
            StepStatus::Started => types::StepStatus::Started,
            StepStatus::Done => types::StepStatus::Done,
            StepStatus::Failed => types::StepStatus::Failed,
        },
        title: s.title,
        detail: s.detail.to_string(),
    }
}

fn step_in(s: types::Step) -> Result<Step, Bad> {
    Ok(Step {
        detail: json("step.detail", &s.detail)?,
        id: s.id,
        kind: match s.kind {
            types::StepKind::Inference => StepKind::Inference,
            types::StepKind::Tool => StepKind::Tool,
            types::StepKind::Retrieval => StepKind::Retrieval,
            types::StepKind::Plan => StepKind::Plan,
            types::StepKind::Route => StepKind::Route,
            types::StepKind::Other => StepKind::Other,
        },
        status: match s.status {
            types::StepStatus::Started => StepStatus::Started,
            types::StepStatus::Done => StepStatus::Done,
            types::StepStatus::Failed => StepStatus::Failed,
        },
        title: s.title,
    })
}

/// Bytes of text in an event.
pub(crate) fn event_bytes(e: &Event) -> usize {
    match e {
        Event::Text(t) => t.text.len(),
        Event::Reasoning { text } => text.len(),
        Event::ToolCall(d) => d.arguments.len() + d.name.as_ref().map_or(0, String::len),
        Event::Step(s) => s.title.len() + s.detail.to_string().len(),
        Event::End(_) => 0,
    }
}

pub(crate) fn model_out(m: ModelInfo) -> inference::ModelInfo {
    inference::ModelInfo {
        name: m.id.to_string(),
        kind: match m.kind {
            ModelKind::Generator => inference::ModelKind::Generator,
            ModelKind::Embedder => inference::ModelKind::Embedder,
            ModelKind::Classifier => inference::ModelKind::Classifier,
        },
        context_tokens: m.context_tokens,
        embedding_dimensions: m.embedding_dimensions,
    }
}

/// What a guest learns of a model error. Backend failures carry no detail: it belongs in the host's log.
pub(crate) fn infer_error_out(e: &InferError) -> types::Error {
    match e {
        InferError::UnknownModel(name) => types::Error::NotFound(format!("model `{name}`")),
        InferError::ContextOverflow { prompt, requested, limit } => {
            types::Error::ContextOverflow(types::ContextOverflow {
                prompt: *prompt,
                requested: *requested,
                limit: *limit,
            })
        }
        InferError::Overloaded { .. } => types::Error::Overloaded,
        InferError::WrongKind { .. }
        | InferError::Invalid { .. }
        | InferError::Template(_)
        | InferError::Constraint(_) => types::Error::Invalid(e.to_string()),
        InferError::Cancelled => types::Error::Other("the generation was cancelled".into()),
        _ => types::Error::Other("the model failed".into()),
    }
}

pub(crate) fn direction_out(d: Direction) -> types::Direction {
    match d {
        Direction::Input => types::Direction::Input,
        Direction::Output => types::Direction::Output,
    }
}
pub(crate) fn direction_in(d: types::Direction) -> Direction {
    match d {
        types::Direction::Input => Direction::Input,
        types::Direction::Output => Direction::Output,
    }
}

pub(crate) fn violation_in(v: types::Violation) -> Violation {
    Violation {
        category: v.category,
        message: v.message,
        score: v.score.filter(|s| s.is_finite()),
        // A shield's finding is not lost over a broken note to it.
        metadata: serde_json::from_str(&v.metadata).unwrap_or(Value::String(v.metadata)),
    }
}

pub(crate) fn verdict_in(v: types::Verdict) -> Verdict {
    match v {
        types::Verdict::Pass => Verdict::Pass,
        types::Verdict::Edit(messages) => Verdict::Edit(messages_in(messages)),
        types::Verdict::Block(v) => Verdict::Block(violation_in(v)),
    }
}

pub(crate) fn ruling_in(r: shield::Ruling) -> Ruling {
    let edits = r.edits.into_iter().map(|e| Edit { start: e.start, end: e.end, replacement: e.replacement });
    Ruling { cleared: r.cleared, edits: edits.collect(), violation: r.violation.map(violation_in) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turns_own_sampling_keeps_what_the_plugin_api_cannot_say() {
        let turn = Sampling { temperature: 0.5, logit_bias: vec![(7, -1.0)], logprobs: Some(3), ..Sampling::default() };
        let same = sampling_in(sampling_out(&turn), Some(&turn)).unwrap();
        assert_eq!(same, turn);
        let mut other = sampling_out(&turn);
        other.temperature = Some(0.6);
        let changed = sampling_in(other, Some(&turn)).unwrap();
        assert!(changed.logit_bias.is_empty() && changed.logprobs.is_none());
    }

    #[test]
    fn numbers_that_are_no_numbers_are_refused_by_name() {
        let mut s = sampling_out(&Sampling::default());
        s.top_p = Some(f32::NAN);
        let error = sampling_in(s, None).unwrap_err();
        assert!(error.0.contains("top-p"), "{error}");
    }

    #[test]
    fn messages_survive_the_way_to_a_guest_and_back() {
        let messages = vec![Message {
            role: Role::Assistant,
            name: Some("n".into()),
            parts: vec![
                Part::Text { text: "a".into() },
                Part::Reasoning { text: "b".into() },
                Part::Image(Image { media_type: "image/png".into(), data: vec![1, 2] }),
                Part::ToolCall(ToolCall { id: "1".into(), name: "t".into(), arguments: "{".into() }),
                Part::ToolResult(ToolResult { call_id: "1".into(), content: "c".into(), is_error: true }),
            ],
        }];
        assert_eq!(messages_in(messages_out(messages.clone())), messages);
    }
}
