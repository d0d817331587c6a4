//! Rows that a request carries: kept as a file of JSON lines.

use crate::app::App;
use crate::error::ApiError;
use serde_json::Value;
use stockade_core::TenantId;
use stockade_core::registry::{FileLabel, new_document_id};

/// Stores rows as a file and answers with its id. `field` is the request's, for messages.
pub async fn store(app: &App, tenant: &TenantId, rows: &[Value], field: &str) -> Result<String, ApiError> {
    let lines = lines(rows, field)?;
    let id = new_document_id("file", getrandom::u32().unwrap_or_default());
    let label = FileLabel {
        filename: "rows.jsonl".into(),
        purpose: "fine-tune".into(),
        media_type: "application/jsonl".into(),
        expires_at: None,
    };
    app.registry.put_file(tenant, &id, label, lines.as_bytes()).await?;
    Ok(id)
}

fn lines(rows: &[Value], field: &str) -> Result<String, ApiError> {
    if rows.is_empty() {
        return Err(ApiError::invalid(field, "holds no row"));
    }
    let mut lines = String::new();
    for (i, row) in rows.iter().enumerate() {
        if !row.is_object() {
            return Err(ApiError::invalid(format!("{field}[{i}]"), "must be an object"));
        }
        lines += &row.to_string();
        lines.push('\n');
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_become_lines_and_what_is_no_row_is_refused_by_its_place() {
        assert_eq!(lines(&[json!({"a": "x\ny"}), json!({})], "rows").unwrap(), "{\"a\":\"x\\ny\"}\n{}\n");
        assert_eq!(lines(&[json!({}), json!(1)], "rows").unwrap_err().param.as_deref(), Some("rows[1]"));
        assert!(lines(&[], "rows").is_err());
    }
}
