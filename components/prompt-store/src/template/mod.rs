//! Templates: one parser and one evaluation for all formats, since all are hostile input and share their limits.
//!
//! Invariant: a value never becomes syntax. It is put into the output as text, and roles, history and images are pieces
//! of the output beside the text, so no value can forge one.

mod evaluation;
mod expression;
mod lexer;
mod parser;

pub use evaluation::{Inclusion, Inclusions, Inputs, Limits, evaluate, role_of};
pub use expression::is_name;
pub use parser::{Template, parse};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use stockade_guest::types::Role;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Simple,
    Mustache,
    Dotprompt,
}

/// A piece of a rendered template.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    Text(String),
    /// What follows is this role's.
    Role(Role),
    /// Here go the messages so far.
    History,
    Media(Media),
}

/// A picture or another medium, as its caller gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct Media {
    /// A URL, or an image variable's value.
    pub source: Value,
    pub content_type: Option<String>,
}

/// A value as text: strings as they are, `null` as nothing, anything else as JSON.
pub fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
