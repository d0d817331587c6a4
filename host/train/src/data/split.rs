//! Which rows are held out: by a hash of what they are about, so that no row has its like on the other side.

use crate::job::DataSpec;
use crate::random::{Purpose, uniform};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Columns that say what a row is about: rows that share one belong together.
const SUBJECTS: [&str; 3] = ["prompt", "anchor", "text"];
/// Columns of whole conversations, whose subject is what precedes the last answer.
const CONVERSATIONS: [&str; 4] = ["messages", "conversation", "conversations", "chosen"];

/// Whether the row is held out for evaluation.
pub fn held_out(row: &Value, spec: &DataSpec, seed: u64) -> bool {
    if spec.eval_split <= 0.0 {
        return false;
    }
    let column = |name: &str| row.get(name).filter(|value| !value.is_null());
    let own = |name: &str| column(spec.columns.get(name).map_or(name, String::as_str));
    let subject = match &spec.group {
        Some(group) => column(group),
        // OpenAI's name of a pair's prompt.
        None => SUBJECTS.iter().find_map(|name| own(name)).or_else(|| column("input")),
    };
    let asked = || CONVERSATIONS.iter().find_map(|name| asked(own(name)?));
    let about = subject.map(Value::to_string).or_else(asked).unwrap_or_else(|| row.to_string());
    let digest = Sha256::digest(about);
    let word = |at: usize| digest[at..at + 8].iter().fold(0u64, |word, &byte| word << 8 | u64::from(byte));
    uniform(seed, Purpose::Split, word(0), word(8)) < spec.eval_split
}

/// The messages of a conversation up to its last answer: who speaks and what, whatever else a row keeps with them.
fn asked(conversation: &Value) -> Option<String> {
    let messages = conversation.as_array()?;
    let speaker = |message: &Value| message.get("role").or_else(|| message.get("from")).cloned();
    let answers = |message: &Value| {
        speaker(message).is_some_and(|role| ["assistant", "gpt", "model"].iter().any(|name| role == *name))
    };
    let last = messages.iter().rposition(answers)?;
    let said = messages[..last].iter().map(|message| {
        let text = message.get("content").or_else(|| message.get("value"));
        serde_json::json!([speaker(message), text]).to_string()
    });
    Some(said.collect())
}
