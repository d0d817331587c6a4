//! What passes between components in the middle of a turn, before the tenant's shields: output shields judge what goes to a
//! tool, input shields what comes back from a tool or a memory and may go to a model next.
//!
//! It stands here and not in the gateway's chain, because these bytes never pass the gateway; and under the calls themselves,
//! so that no component can go around it.
//!
//! Invariants:
//! - a shield judges whole texts; what it blocks goes no further, what it masks goes on masked
//! - what a shield calls is judged by none
//! - every verdict, with the bytes that it is about, stands in the request's trace

use crate::bindings::types::{self, Error, Message, Part, ToolCall, ToolOutput, ToolResult, Verdict, Violation};
use crate::call::Stop;
use crate::guest::Context;
use crate::judge;
use crate::runtime::Inner;
use serde::de::IgnoredAny;
use std::sync::Arc;
use stockade_core::json_text;
use stockade_core::plugin::{Direction, Mode, OnFailure, Role};

/// Where texts of a memory come from, in the words of a message.
const MEMORY: &str = "memory";
/// A mask that leaves no whole call, or not as many results as there were, is a block.
const LOST: &str = "The request was blocked by a policy.";

/// Runs the bound shields of a direction in order: the first block ends it, edits feed the next.
///
/// # Errors
/// The failure of a shield whose binding does not let requests through.
pub(crate) async fn judge(
    host: &Arc<Inner>,
    context: &Context,
    role: &Role,
    mut messages: Vec<Message>,
) -> Result<Verdict, Stop> {
    let direction = match role {
        Role::ShieldOutput => Direction::Output,
        _ => Direction::Input,
    };
    let mut edited = false;
    for shield in context.call.pins.all(role) {
        let verdict = judge::check(host, context.child(shield), direction, messages.clone()).await;
        match verdict {
            Ok(_) if shield.mode == Mode::Observe => {}
            Ok(Verdict::Pass) => {}
            Ok(Verdict::Edit(changed)) => {
                messages = changed;
                edited = true;
            }
            Ok(Verdict::Block(mut violation)) => {
                if let Some(refusal) = &shield.refusal {
                    violation.message.clone_from(refusal);
                }
                return Ok(Verdict::Block(violation));
            }
            Err(_) if shield.mode == Mode::Observe || shield.on_failure == OnFailure::Allow => {}
            // Under the shield's own name: it is not its caller's failure.
            Err(stop) => return Err(Stop::Broken(stop.into_call_error(&shield.component.to_string()))),
        }
    }
    Ok(if edited { Verdict::Edit(messages) } else { Verdict::Pass })
}

/// A call on its way to a tool: its arguments as the output shields let them through.
pub(crate) async fn arguments(
    host: &Arc<Inner>,
    context: &Context,
    name: &str,
    arguments: String,
) -> Result<String, Stop> {
    if unjudged(context, &Role::ShieldOutput) {
        return Ok(arguments);
    }
    let arguments = json_text::unescape(&arguments);
    let call = ToolCall { id: name.into(), name: name.into(), arguments: arguments.clone() };
    let asked = message(types::Role::Assistant, name, vec![Part::ToolCall(call)]);
    let Some(parts) = edited(judge(host, context, &Role::ShieldOutput, vec![asked]).await?)? else {
        return Ok(arguments);
    };
    match <[Part; 1]>::try_from(parts) {
        Ok([Part::ToolCall(masked)]) if masked.name == name && (is_json(&masked.arguments) || !is_json(&arguments)) => {
            Ok(masked.arguments)
        }
        _ => Err(blocked(LOST)),
    }
}

/// A tool's answer on its way to whoever called it, as the input shields let it through.
pub(crate) async fn result(
    host: &Arc<Inner>,
    context: &Context,
    name: &str,
    answered: Result<ToolOutput, Stop>,
) -> Result<ToolOutput, Stop> {
    if unjudged(context, &Role::ShieldInput) {
        return answered;
    }
    match answered {
        Ok(output) => {
            let content = one_text(host, context, name, output.content, output.is_error).await?;
            Ok(ToolOutput { content, ..output })
        }
        // The reason of a failure is the tool's text as well.
        Err(Stop::Answered(mut error, passed_on)) => {
            if let Some(text) = text_of(&mut error) {
                *text = one_text(host, context, name, std::mem::take(text), true).await?;
            }
            Err(Stop::Answered(error, passed_on))
        }
        Err(broken) => Err(broken),
    }
}

/// What was found in a memory, as the input shields let it through; what they block is left out. `texts` are an item's text
/// and its metadata.
pub(crate) async fn found<I>(
    host: &Arc<Inner>,
    context: &Context,
    items: Vec<I>,
    texts: fn(&mut I) -> [&mut String; 2],
) -> Result<Vec<I>, Stop> {
    if unjudged(context, &Role::ShieldInput) || items.is_empty() {
        return Ok(items);
    }
    let mut seen = Vec::with_capacity(items.len());
    let mut waiting = vec![items];
    // All at once; only where something is blocked they are halved, until it stands alone.
    while let Some(mut some) = waiting.pop() {
        let asked: Vec<String> = some.iter_mut().flat_map(texts).map(|text| text.clone()).collect();
        match judge_texts(host, context, MEMORY, asked, false).await {
            Ok(judged) => {
                let mut judged = judged.into_iter();
                for [text, metadata] in some.iter_mut().map(texts) {
                    *text = judged.next().unwrap_or_default();
                    *metadata = judged.next().filter(|masked| is_json(masked)).unwrap_or_else(|| "{}".into());
                }
                seen.extend(some);
            }
            Err(Stop::Answered(Error::Blocked(_), _)) if some.len() > 1 => {
                let rest = some.split_off(some.len() / 2);
                waiting.push(rest);
                waiting.push(some);
            }
            Err(Stop::Answered(Error::Blocked(_), _)) => {}
            Err(stop) => return Err(stop),
        }
    }
    Ok(seen)
}

async fn one_text(
    host: &Arc<Inner>,
    context: &Context,
    name: &str,
    text: String,
    is_error: bool,
) -> Result<String, Stop> {
    let judged = judge_texts(host, context, name, vec![text], is_error).await?;
    Ok(judged.into_iter().next().unwrap_or_default())
}

/// Texts that a tool or a memory has given, as the input shields leave them: one message with a result for each.
async fn judge_texts(
    host: &Arc<Inner>,
    context: &Context,
    name: &str,
    mut texts: Vec<String>,
    is_error: bool,
) -> Result<Vec<String>, Stop> {
    texts.iter_mut().for_each(json_text::settle);
    let result =
        |content: &String| Part::ToolResult(ToolResult { call_id: name.into(), content: content.clone(), is_error });
    let asked = message(types::Role::Tool, name, texts.iter().map(result).collect());
    let Some(parts) = edited(judge(host, context, &Role::ShieldInput, vec![asked]).await?)? else {
        return Ok(texts);
    };
    let content = |part| match part {
        Part::ToolResult(result) => Some(result.content),
        _ => None,
    };
    let judged: Option<Vec<String>> = parts.into_iter().map(content).collect();
    judged.filter(|judged| judged.len() == texts.len()).ok_or_else(|| blocked(LOST))
}

/// Whether nobody judges: no shield is bound, or a shield asks.
fn unjudged(context: &Context, role: &Role) -> bool {
    context.judging || context.call.pins.all(role).is_empty()
}

fn message(role: types::Role, name: &str, parts: Vec<Part>) -> Message {
    Message { role, parts, name: Some(name.into()) }
}

/// The parts of the one message that was judged, when shields have changed them.
fn edited(verdict: Verdict) -> Result<Option<Vec<Part>>, Stop> {
    match verdict {
        Verdict::Pass => Ok(None),
        Verdict::Edit(messages) => match <[Message; 1]>::try_from(messages) {
            Ok([message]) => Ok(Some(message.parts)),
            Err(_) => Err(blocked(LOST)),
        },
        // What a shield has found stays with the trace: it may quote the text.
        Verdict::Block(violation) => {
            let violation = Violation { metadata: "null".into(), ..violation };
            Err(Stop::Answered(Error::Blocked(violation), None))
        }
    }
}

fn blocked(message: &str) -> Stop {
    let violation =
        Violation { category: "shield".into(), message: message.into(), score: None, metadata: "null".into() };
    Stop::Answered(Error::Blocked(violation), None)
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// The text that an error carries.
fn text_of(error: &mut Error) -> Option<&mut String> {
    match error {
        Error::Denied(text)
        | Error::NotFound(text)
        | Error::Invalid(text)
        | Error::Conflict(text)
        | Error::TooLarge(text)
        | Error::Unavailable(text)
        | Error::Other(text) => Some(text),
        Error::Blocked(violation) => Some(&mut violation.message),
        Error::ContextOverflow(_) | Error::Overloaded | Error::Timeout => None,
    }
}
