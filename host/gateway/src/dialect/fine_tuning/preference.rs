//! OpenAI's preference rows as ours: `{input: {messages}, preferred_output, non_preferred_output}` becomes
//! `{prompt, chosen, rejected}`. A file that has our columns already stays as it is.

use crate::app::App;
use crate::dialect::files;
use crate::error::ApiError;
use serde_json::{Value, json};
use stockade_core::TenantId;
use stockade_core::jobs::Order;

/// Most rows that are turned around.
const MAX_ROWS: usize = 1 << 20;

pub async fn convert(app: &App, tenant: &TenantId, order: &mut Order) -> Result<(), ApiError> {
    if order.spec["method"] != "dpo" {
        return Ok(());
    }
    for (field, theirs) in [("train", "training_file"), ("eval", "validation_file")] {
        let Some(id) = order.spec["data"][field].as_str().map(String::from) else { continue };
        let record = app.registry.file(tenant, &id)?;
        let record = record.ok_or_else(|| ApiError { param: Some(theirs.into()), ..files::unknown(&id) })?;
        let bytes = app.registry.file_bytes(&id, &record).await?;
        if let Some(converted) = turn_around(&String::from_utf8_lossy(&bytes), theirs)? {
            order.spec["data"][field] = json!({"rows": converted});
        }
    }
    Ok(())
}

/// `None` when the first row is not of OpenAI's form.
fn turn_around(text: &str, field: &str) -> Result<Option<Vec<Value>>, ApiError> {
    let lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty());
    let mut converted = Vec::new();
    for (at, line) in lines {
        let wrong = |reason: &str| ApiError::invalid(field, format!("line {}: {reason}", at + 1));
        let row: Value = serde_json::from_str(line).map_err(|_| wrong("is no JSON"))?;
        if converted.is_empty() && row["preferred_output"].is_null() {
            return Ok(None);
        }
        if converted.len() >= MAX_ROWS {
            return Err(wrong("there are too many rows"));
        }
        let list = |value: &Value, name: &str| {
            if value.is_array() { Ok(value.clone()) } else { Err(wrong(&format!("{name} must be a list of messages"))) }
        };
        converted.push(json!({
            "prompt": list(&row["input"]["messages"], "input.messages")?,
            "chosen": list(&row["preferred_output"], "preferred_output")?,
            "rejected": list(&row["non_preferred_output"], "non_preferred_output")?,
        }));
    }
    Ok(Some(converted).filter(|c| !c.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_openai_are_turned_around_and_ours_are_left() {
        let message = |role: &str, text: &str| json!([{"role": role, "content": text}]);
        let theirs = json!({
            "input": {"messages": message("user", "q"), "tools": []},
            "preferred_output": message("assistant", "good"),
            "non_preferred_output": message("assistant", "bad"),
        });
        let rows = turn_around(&format!("\n{theirs}\n{theirs}\n"), "f").unwrap().unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0]["chosen"][0]["content"], "good");
        let ours = json!({"prompt": "q", "chosen": "a", "rejected": "b"});
        assert_eq!(turn_around(&ours.to_string(), "f").unwrap(), None);
        let e = turn_around(&format!("{theirs}\n{ours}"), "f").unwrap_err();
        assert!(e.detail.contains("line 2"), "{}", e.detail);
    }
}
