//! What a tool answered, as text for the model.

use stockade_guest::prelude::*;

/// Most characters that a model gets of one answer.
const MAX_CHARACTERS: usize = 100_000;

pub fn output(result: &Value) -> ToolOutput {
    let parts = result["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut texts: Vec<String> = parts.iter().map(part).collect();
    // Servers that give structured content are asked to give the same as text; some do not.
    if texts.is_empty() && !result["structuredContent"].is_null() {
        texts.push(result["structuredContent"].to_string());
    }
    let mut content = texts.join("\n");
    if let Some((at, _)) = content.char_indices().nth(MAX_CHARACTERS) {
        content.truncate(at);
        content += "\n[cut]";
    }
    ToolOutput { content, is_error: result["isError"].as_bool().unwrap_or(false) }
}

fn part(part: &Value) -> String {
    let text = |name: &str| part[name].as_str().unwrap_or_default();
    match text("type") {
        "text" => text("text").into(),
        kind @ ("image" | "audio") => {
            format!("[{kind} {}, {} bytes]", text("mimeType"), text("data").len() / 4 * 3)
        }
        "resource" => match part["resource"]["text"].as_str() {
            Some(text) => text.into(),
            None => format!("[resource {}]", part["resource"]["uri"].as_str().unwrap_or_default()),
        },
        "resource_link" => format!("[{}]({})", text("name"), text("uri")),
        other => format!("[{other}]"),
    }
}
