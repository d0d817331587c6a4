//! `item_reference`: an item that the host keeps, named by its id.
//!
//! Ids begin with their time, so an item of a reply is in one of the responses that had begun when it was made, and an
//! input item in one that began soon after. A bounded number of both is looked through.

use super::items::{ITEM_REFERENCE, id_at};
use super::store::{Stored, input_items, responses};
use crate::app::App;
use crate::error::ApiError;
use serde_json::Value;
use stockade_core::TenantId;
use stockade_core::registry::Document;

/// Most responses that are looked through for one item: those under way when it was made.
const BEFORE: usize = 64;
const AFTER: usize = 16;
/// Most references of a request.
const MAX_REFERENCES: usize = 64;

/// Puts items in the place of references to them. One that `earlier` holds is said already.
///
/// # Errors
/// `not_found` for an item that no kept response has.
pub fn resolve(app: &App, tenant: &TenantId, input: &mut Vec<Value>, earlier: &[Value]) -> Result<(), ApiError> {
    let is_reference = |item: &Value| item["type"] == ITEM_REFERENCE;
    if input.iter().filter(|item| is_reference(item)).count() > MAX_REFERENCES {
        return Err(ApiError::invalid("input", format!("at most {MAX_REFERENCES} item references")));
    }
    let mut resolved = Vec::with_capacity(input.len());
    for (i, item) in std::mem::take(input).into_iter().enumerate() {
        if !is_reference(&item) {
            resolved.push(item);
            continue;
        }
        let id = item["id"].as_str().unwrap_or_default();
        if earlier.iter().any(|e| e["id"] == id) {
            continue;
        }
        let mut found = find(app, tenant, id)?.ok_or_else(|| {
            let unknown = ApiError::not_found("item", &id.chars().take(64).collect::<String>());
            ApiError { param: Some(format!("input[{i}].id")), ..unknown }
        })?;
        let kind = found["type"].as_str().unwrap_or_default();
        found["id"] = id_at(kind, item["place"].as_str().unwrap_or_default()).into();
        resolved.push(found);
    }
    *input = resolved;
    Ok(())
}

fn find(app: &App, tenant: &TenantId, id: &str) -> Result<Option<Value>, ApiError> {
    let all = responses(app, tenant);
    let before = all.list_back::<Stored>(Some(id), BEFORE)?;
    let after = all.list::<Stored>(Some(id), AFTER)?;
    for Document { id: response, value } in before.into_iter().chain(after) {
        let mut output = value.response["output"].as_array().into_iter().flatten();
        if let Some(item) = output.find(|item| item["id"] == id) {
            return Ok(Some(item.clone()));
        }
        if let Some(item) = input_items(app, tenant, &response).get::<Value>(id)? {
            return Ok(Some(item.value));
        }
    }
    Ok(None)
}
