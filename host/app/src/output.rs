//! Results on stdout: one JSON document, JSON lines for streams, or text for people.

use serde_json::Value;
use std::io::{IsTerminal, Write};

#[derive(Debug, Clone, Copy)]
pub struct Output {
    pub json: bool,
}

impl Output {
    /// One document: pretty JSON with `--json`, else what `text` makes of it.
    pub fn document(self, value: &Value, text: impl FnOnce(&Value) -> String) {
        let out = if self.json { pretty(value) } else { text(value) };
        print_line(out.trim_end());
    }

    /// One line of a stream.
    pub fn line(self, value: &Value, text: impl FnOnce(&Value) -> String) {
        let out = if self.json { value.to_string() } else { text(value) };
        print_line(&out);
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

/// A closed pipe (`stockade ... | head`) is no failure of ours.
pub fn print_line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

pub fn print_piece(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = write!(out, "{text}").and_then(|()| out.flush());
}

/// Progress and diagnostics go to stderr, bars only to a terminal.
pub fn is_interactive() -> bool {
    std::io::stderr().is_terminal()
}

/// Rows of text with aligned columns; the first row is the heading.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, &w)| format!("{cell:<w$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// `name: value` lines of an object's fields, for people.
pub fn fields(value: &Value) -> String {
    let Value::Object(map) = value else { return text(value) };
    let rows: Vec<Vec<String>> = map.iter().map(|(k, v)| vec![k.clone(), text(v)]).collect();
    table(&rows)
}

/// A table of the rows under `data`, one column for each of `columns`.
pub fn listing(value: &Value, columns: &[&str]) -> String {
    let mut rows = vec![columns.iter().map(|c| c.to_uppercase()).collect::<Vec<_>>()];
    for row in value["data"].as_array().into_iter().flatten() {
        rows.push(columns.iter().map(|c| text(&row[*c])).collect());
    }
    table(&rows)
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(s) => s.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn listing_aligns_columns_and_shows_missing_fields_as_a_dash() {
        let value = json!({"data": [{"name": "a", "size": 10}, {"name": "long-name"}]});
        assert_eq!(listing(&value, &["name", "size"]), "NAME       SIZE\na          10\nlong-name  -");
    }
}
