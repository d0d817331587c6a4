//! Files of a vector store.

use super::{FILES, active, chunking, find, ingest};
use crate::app::App;
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::dialect::files::unknown;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::layers::RequestInfo;
use crate::memory;
use crate::reply::{self, Asked, Listing};
use axum::extract::{Path, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use stockade_core::TenantId;
use stockade_core::registry::{Collection, Full, Scope};
use stockade_core::store::Expect;

/// Most files of a store.
pub const MAX_FILES: usize = 1_000;
/// Most chunks of a page of a file's content: more than a file of the shipped memory has.
const MAX_SHOWN: usize = 32_000;
/// Most chunks that the memory is asked for at once.
const AT_ONCE: usize = 1_000;
/// Most attributes of a file, as OpenAI has it.
const MAX_ATTRIBUTES: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    InProgress,
    Completed,
    Failed,
    Cancelled,
}

/// A file's place in a store; its id is the file's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileInStore {
    pub created_at: u64,
    pub status: Status,
    /// Bytes of text that were found in it.
    pub usage_bytes: u64,
    pub attributes: Map<String, Value>,
    pub chunking_strategy: Option<Value>,
    /// Code and message.
    pub last_error: Option<(String, String)>,
}

pub fn of(app: &App, tenant: &TenantId, store: &str) -> Collection {
    app.registry.collection(tenant, format!("{FILES}/{store}"), MAX_FILES, Full::Refuse)
}

pub fn shown(store: &str, id: &str, file: &FileInStore) -> Value {
    let strategy = match &file.chunking_strategy {
        Some(given) if given["type"] == "static" => given.clone(),
        _ => json!({"type": "static", "static": {"max_chunk_size_tokens": 800, "chunk_overlap_tokens": 400}}),
    };
    json!({
        "id": id,
        "object": "vector_store.file",
        "vector_store_id": store,
        "created_at": file.created_at,
        "status": file.status,
        "usage_bytes": file.usage_bytes,
        "attributes": file.attributes,
        "chunking_strategy": strategy,
        "last_error": file.last_error.as_ref().map(|(code, message)| json!({"code": code, "message": message})),
    })
}

/// How many files stand how.
pub fn counts(all: impl Iterator<Item = Status>) -> Value {
    let (mut counts, mut total) = ([0u32; 4], 0u32);
    for status in all {
        counts[status as usize] += 1;
        total += 1;
    }
    let [in_progress, completed, failed, cancelled] = counts;
    json!({"in_progress": in_progress, "completed": completed, "failed": failed, "cancelled": cancelled, "total": total})
}

/// Text, numbers and booleans by name.
pub fn attributes(f: &Fields) -> Result<Option<Map<String, Value>>, ApiError> {
    let Some(given) = f.object("attributes")? else { return Ok(None) };
    let sound = |(key, value): (&String, &Value)| {
        let text = value.as_str().is_some_and(|s| s.len() <= 512);
        key.len() <= 64 && (text || value.is_number() || value.is_boolean())
    };
    if given.map().len() > MAX_ATTRIBUTES || !given.iter().all(sound) {
        let rule = "at most 16 entries: keys of at most 64 bytes, values texts of at most 512, numbers or booleans";
        return Err(f.wrong("attributes", rule));
    }
    Ok(Some(given.map().clone()))
}

/// `{file_id, attributes?, chunking_strategy?}`.
pub async fn create(
    State(app): State<App>,
    caller: Caller,
    Path(store): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let record = active(&app, &caller.tenant, &store).await?;
    let f = Fields::root(&body)?;
    let id = f.need_str("file_id")?;
    let strategy = chunking(&f)?.or(record.chunking_strategy);
    let file = ingest::attach(&app, &caller.tenant, &store, id, attributes(&f)?, strategy).await?;
    Ok(reply::json(&shown(&store, id, &file)))
}

pub async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(store): Path<String>,
    listing: Listing,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    find(&app, &caller.tenant, &store)?;
    let found = listing.read::<FileInStore>(&of(&app, &caller.tenant, &store))?;
    for file in &found {
        ingest::go_on(&app, &caller.tenant, &store, &file.id, &file.value);
    }
    Ok(listing.reply(found.iter().map(|d| shown(&store, &d.id, &d.value)).collect()))
}

fn file(app: &App, tenant: &TenantId, store: &str, id: &str) -> Result<FileInStore, ApiError> {
    find(app, tenant, store)?;
    Ok(of(app, tenant, store).get::<FileInStore>(id)?.ok_or_else(|| unknown(id))?.value)
}

pub async fn get(
    State(app): State<App>,
    caller: Caller,
    Path((store, id)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let found = file(&app, &caller.tenant, &store, &id)?;
    ingest::go_on(&app, &caller.tenant, &store, &id, &found);
    Ok(reply::json(&shown(&store, &id, &found)))
}

/// `{attributes}`: they stand on every chunk, so the file is taken apart again.
pub async fn update(
    State(app): State<App>,
    caller: Caller,
    Path((store, id)): Path<(String, String)>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let found = file(&app, &caller.tenant, &store, &id)?;
    let attributes = attributes(&Fields::root(&body)?)?.unwrap_or_default();
    let changed = ingest::attach(&app, &caller.tenant, &store, &id, Some(attributes), found.chunking_strategy).await?;
    Ok(reply::json(&shown(&store, &id, &changed)))
}

/// Takes a file out of the store; the file itself stays.
pub async fn delete(
    State(app): State<App>,
    caller: Caller,
    info: RequestInfo,
    Path((store, id)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    file(&app, &caller.tenant, &store, &id)?;
    memory::call(&app, &caller.tenant, info.id, "forget", vec![json!(store), json!(id)]).await?;
    match of(&app, &caller.tenant, &store).delete(&id, Expect::Present).await? {
        true => Ok(reply::json(&json!({"id": id, "object": "vector_store.file.deleted", "deleted": true}))),
        false => Err(unknown(&id)),
    }
}

/// What of a file's content is wanted: chunks after the one that `page` names. Clients of OpenAI's ask for all at once.
#[derive(Deserialize)]
pub struct Content {
    limit: Option<usize>,
    page: Option<String>,
}

/// The texts of its chunks, in order. A full page may have more after its last chunk.
pub async fn content(
    State(app): State<App>,
    caller: Caller,
    info: RequestInfo,
    Path((store, id)): Path<(String, String)>,
    Asked(asked): Asked<Content>,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let limit = asked.limit.unwrap_or(MAX_SHOWN);
    if !(1..=MAX_SHOWN).contains(&limit) {
        return Err(ApiError::invalid("limit", format!("must be from 1 to {MAX_SHOWN}")));
    }
    let found = file(&app, &caller.tenant, &store, &id)?;
    let (mut texts, mut after) = (Vec::new(), asked.page.filter(|page| !page.is_empty()));
    while texts.len() < limit {
        let some = AT_ONCE.min(limit - texts.len());
        let args = vec![json!(store), json!(id), json!(after), json!(some)];
        let items = memory::call(&app, &caller.tenant, info.id.clone(), "list", args).await?;
        let items = items.as_array().map_or(&[][..], Vec::as_slice);
        texts.extend(items.iter().map(|item| json!({"type": "text", "text": item["text"]})));
        after = items.last().and_then(|item| item["id"].as_str()).map(String::from);
        if items.len() < some {
            break;
        }
    }
    let next = after.filter(|_| texts.len() >= limit);
    let filename = app.registry.file(&caller.tenant, &id)?.map(|f| f.filename).unwrap_or_default();
    Ok(reply::json(&json!({
        "object": "vector_store.file_content.page",
        "file_id": id,
        "filename": filename,
        "attributes": found.attributes,
        "data": texts,
        "has_more": next.is_some(),
        "next_page": next,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_bounded() {
        let read = |v: Value| {
            let body = json!({ "attributes": v });
            attributes(&Fields::root(&body).unwrap())
        };
        assert_eq!(read(json!({"a": 1, "b": "x", "c": true})).unwrap().unwrap().len(), 3);
        assert_eq!(read(Value::Null).unwrap(), None);
        for bad in [json!({"a": []}), json!({"a": "x".repeat(513)}), json!({"x".repeat(65): 1})] {
            assert!(read(bad).is_err());
        }
    }

    #[test]
    fn counts_add_up() {
        let all = counts([Status::Completed, Status::Failed, Status::Completed].into_iter());
        assert_eq!(all, json!({"in_progress": 0, "completed": 2, "failed": 1, "cancelled": 0, "total": 3}));
    }
}
