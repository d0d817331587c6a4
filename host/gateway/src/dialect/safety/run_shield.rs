//! `POST /v1/safety/run-shield`.

use super::resolve;
use crate::app::App;
use crate::auth::Caller;
use crate::body::LateBody;
use crate::dialect::openai::chat_request;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::layers::RequestInfo;
use crate::run::Status;
use crate::{inference, reply};
use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, Value, json};
use stockade_core::chat::{Message, Role};
use stockade_core::plugin::{Direction, Verdict, Violation};

pub async fn run(
    State(app): State<App>,
    caller: Caller,
    info: RequestInfo,
    body: LateBody,
) -> Result<Response, ApiError> {
    let route = "POST /v1/safety/run-shield";
    inference::run(&app, &caller, info, route, async |run| {
        let mut body = body.read(&app).await?;
        if let Some(Value::Array(messages)) = body.get_mut("messages") {
            messages.iter_mut().for_each(modernise);
        }
        let f = Fields::root(&body)?;
        let found = resolve(&app, &caller.tenant, run.pins(), f.need_str("shield_id")?)?;
        let params = f.object("params")?.map(|p| p.map().clone()).unwrap_or_default();
        let shield = found.with(&params)?;
        let messages = chat_request::messages(&f)?;
        // Who spoke last is who is judged.
        let direction = match messages.last().map(|m| m.role) {
            Some(Role::Assistant) => Direction::Output,
            _ => Direction::Input,
        };
        let verdict = app.plugins.check(run.call(&shield), direction, messages).await;
        let verdict = verdict.map_err(|e| crate::chain::shield_failed(&shield, e))?;
        run.ended(if matches!(verdict, Verdict::Block(_)) { Status::Blocked } else { Status::Ok });
        Ok(reply::json(&json!({"violation": violation(verdict, shield.refusal.as_deref())})))
    })
    .await
}

/// The verdict in Llama Stack's words. What was masked is a warning that brings the masked texts.
fn violation(verdict: Verdict, refusal: Option<&str>) -> Value {
    match verdict {
        Verdict::Pass => Value::Null,
        Verdict::Edit(messages) => json!({
            "violation_level": "warn",
            "user_message": "Parts of the text were masked.",
            "metadata": {"edited": messages.iter().map(Message::joined_text).collect::<Vec<_>>()},
        }),
        Verdict::Block(found) => {
            let message = refusal.unwrap_or(&found.message).to_owned();
            json!({"violation_level": "error", "user_message": message, "metadata": metadata(found)})
        }
    }
}

/// A violation's metadata with its category as `violation_type` and its score.
pub fn metadata(found: Violation) -> Map<String, Value> {
    let mut metadata = match found.metadata {
        Value::Object(map) => map,
        Value::Null => Map::new(),
        other => Map::from_iter([("detail".into(), other)]),
    };
    metadata.insert("violation_type".into(), found.category.into());
    if let Some(score) = found.score {
        metadata.entry("score").or_insert(score.into());
    }
    metadata
}

/// Llama Stack's older messages in the words of today's: a single content part, `call_id`, `tool_name`.
fn modernise(message: &mut Value) {
    let Value::Object(message) = message else { return };
    if message.get("role").is_some_and(|r| r == "ipython" || r == "tool") {
        message.insert("role".into(), "tool".into());
        let id = message.get("call_id").cloned().unwrap_or_else(|| "call".into());
        message.entry("tool_call_id").or_insert(id);
    }
    if let Some(part) = message.get_mut("content").filter(|c| c.is_object()) {
        *part = Value::Array(vec![part.take()]);
    }
    for call in message.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten() {
        let (Some(name), Value::Object(call)) = (call.get("tool_name").cloned(), call) else { continue };
        let arguments = match call.get("arguments") {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => "{}".into(),
        };
        let id = call.get("call_id").cloned().unwrap_or_else(|| "call".into());
        call.insert("id".into(), id);
        call.insert("function".into(), json!({"name": name, "arguments": arguments}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_messages_read_like_new_ones() {
        let mut body = json!({"messages": [
            {"role": "user", "content": {"type": "text", "text": "hi"}},
            {"role": "assistant", "content": "", "stop_reason": "end_of_turn",
             "tool_calls": [{"call_id": "1", "tool_name": "t", "arguments": {"a": 1}}]},
            {"role": "tool", "call_id": "1", "content": "ok"},
        ]});
        body["messages"].as_array_mut().unwrap().iter_mut().for_each(modernise);
        let messages = chat_request::messages(&Fields::root(&body).unwrap()).unwrap();
        assert_eq!(messages[0].joined_text(), "hi");
        assert_eq!(messages[1].tool_calls().next().unwrap().arguments, "{\"a\":1}");
        assert_eq!(messages[2].role, Role::Tool);
    }

    #[test]
    fn verdicts_become_violations() {
        assert_eq!(violation(Verdict::Pass, None), Value::Null);
        let found =
            Violation { category: "c".into(), message: "m".into(), score: Some(0.5), metadata: json!({"issues": [1]}) };
        let told = violation(Verdict::Block(found), Some("No."));
        assert_eq!(told["user_message"], "No.");
        assert_eq!(told["metadata"], json!({"issues": [1], "violation_type": "c", "score": 0.5}));
        let told = violation(Verdict::Edit(vec![Message::text(Role::User, "a ***")]), None);
        assert_eq!(told["metadata"]["edited"], json!(["a ***"]));
    }
}
