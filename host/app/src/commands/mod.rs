//! One module a group of commands.

pub mod chat;
pub mod component;
pub mod data;
pub mod doctor;
pub mod job;
pub mod models;
pub mod plugin;
pub mod prompt;
pub mod tenant;
pub mod train;

use crate::failure::Failure;
use serde_json::Value;

/// JSON given in place or, with `@`, by the name of a file.
fn json_argument(what: &str, text: &str) -> Result<Value, Failure> {
    let text = match text.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).map_err(|e| Failure::usage(format!("{path}: {e}")))?,
        None => text.to_string(),
    };
    serde_json::from_str(&text).map_err(|e| Failure::usage(format!("{what} is not JSON: {e}")))
}

/// Splits `NAME@VERSION`.
fn name_and_version(text: &str) -> Result<(&str, &str), Failure> {
    text.split_once('@')
        .filter(|(name, version)| !name.is_empty() && !version.is_empty())
        .ok_or_else(|| Failure::usage(format!("`{text}` is not NAME@VERSION")))
}
