//! OpenAI's dialect: chat completions, completions, embeddings, models.

pub mod chat;
pub mod chat_reply;
pub mod chat_request;
pub mod completions;
pub mod embeddings;
pub mod models;
pub mod sampling;

use serde_json::{Value, json};
use stockade_core::event::{FinishReason, TokenLogprob, Usage};

/// A fresh id such as `chatcmpl-…`.
pub fn reply_id(prefix: &str) -> String {
    format!("{prefix}-{:016x}", getrandom::u64().unwrap_or_default())
}

/// Seconds since 1970.
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

pub fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop | FinishReason::Interrupted | FinishReason::Cancelled => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
        FinishReason::ContentFilter => "content_filter",
    }
}

pub fn usage(u: Usage) -> Value {
    json!({
        "prompt_tokens": u.prompt_tokens,
        "completion_tokens": u.completion_tokens,
        "total_tokens": u64::from(u.prompt_tokens) + u64::from(u.completion_tokens),
        "prompt_tokens_details": { "cached_tokens": u.cached_tokens },
    })
}

/// Usage of a request with several choices: the prompt is the same, completions add up.
pub fn add_choice(total: &mut Usage, choice: Usage) {
    total.prompt_tokens = total.prompt_tokens.max(choice.prompt_tokens);
    total.cached_tokens = total.cached_tokens.max(choice.cached_tokens);
    total.completion_tokens = total.completion_tokens.saturating_add(choice.completion_tokens);
}

/// A token's text; bytes that are part of a character appear as the replacement character.
pub fn token_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Entries of a chat reply's `logprobs.content`.
pub fn chat_logprobs(entries: &[TokenLogprob]) -> Vec<Value> {
    let entry = |bytes: &[u8], logprob: f32| {
        json!({
            "token": token_text(bytes),
            "logprob": finite(logprob),
            "bytes": bytes,
        })
    };
    entries
        .iter()
        .map(|e| {
            let mut out = entry(&e.bytes, e.logprob);
            let top: Vec<Value> = e.top.iter().map(|(_, b, p)| entry(b, *p)).collect();
            out["top_logprobs"] = top.into();
            out
        })
        .collect()
}

/// JSON has no infinities; OpenAI writes an impossible token as -9999.
pub fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { -9999.0 }
}
