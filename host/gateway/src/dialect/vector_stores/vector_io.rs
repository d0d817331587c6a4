//! `/v1/vector-io`: chunks put into a store and found again directly, in Llama Stack's shape.
//!
//! The memory embeds texts itself, by the store's own model: vectors that a client sends are not taken over.

use super::active;
use super::search::{attributes, mode};
use crate::app::App;
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::dialect::openai::now;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::layers::RequestInfo;
use crate::{memory, reply};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use stockade_core::registry::Scope;

/// Most chunks of a request, and how many go to the memory at once.
const MAX_CHUNKS: usize = 4096;
const AT_ONCE: usize = 256;

/// The store that a request names, under its name of today or of before.
fn store<'a>(f: &Fields<'a>) -> Result<&'a str, ApiError> {
    match f.str("vector_store_id")? {
        Some(id) => Ok(id),
        None => f.str("vector_db_id")?.ok_or_else(|| f.wrong("vector_store_id", "is required")),
    }
}

/// A text, or text parts joined.
fn text(f: &Fields, name: &str) -> Result<String, ApiError> {
    let wrong = || f.wrong(name, "must be text or text parts");
    let of_part = |part: &Value| part["text"].as_str().map(String::from);
    match f.need(name)? {
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => Ok(parts.iter().map(of_part).collect::<Option<Vec<_>>>().ok_or_else(wrong)?.join("\n")),
        part => of_part(part).ok_or_else(wrong),
    }
}

/// `{vector_store_id, chunks: [{content, metadata?, chunk_id?}], ttl_seconds?}`.
pub async fn insert(
    State(app): State<App>,
    caller: Caller,
    info: RequestInfo,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let f = Fields::root(&body)?;
    let store = store(&f)?;
    active(&app, &caller.tenant, store).await?;
    let ttl = f.integer("ttl_seconds", 1..=i64::from(u32::MAX))?;
    let expires = ttl.map(|seconds| (now() + seconds as u64) * 1000);
    let chunks = f.array("chunks")?.map_or(&[][..], Vec::as_slice);
    if chunks.is_empty() || chunks.len() > MAX_CHUNKS {
        return Err(f.wrong("chunks", format!("1 to {MAX_CHUNKS} chunks")));
    }
    let mut items = Vec::with_capacity(chunks.len());
    for (i, chunk) in chunks.iter().enumerate() {
        let chunk = Fields::of(chunk, format!("chunks[{i}]"))?;
        let metadata = chunk.object("metadata")?.map(|m| m.map().clone()).unwrap_or_default();
        let id = chunk.str("chunk_id")?.or(chunk.str("stored_chunk_id")?).unwrap_or_default();
        items.push(json!({
            "id": id,
            "text": text(&chunk, "content")?,
            "metadata": Value::Object(metadata).to_string(),
            "document": null,
            "expires-at": expires,
        }));
    }
    for some in items.chunks(AT_ONCE) {
        memory::call(&app, &caller.tenant, info.id.clone(), "insert", vec![json!(store), json!(some)]).await?;
    }
    Ok(StatusCode::OK.into_response())
}

/// `{vector_store_id, query, params: {max_chunks?, score_threshold?, mode?}}` -> `{chunks, scores}`.
pub async fn query(
    State(app): State<App>,
    caller: Caller,
    info: RequestInfo,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let f = Fields::root(&body)?;
    let store = store(&f)?;
    active(&app, &caller.tenant, store).await?;
    let params = Value::Object(f.object("params")?.map(|p| p.map().clone()).unwrap_or_default());
    let params = Fields::of(&params, "params")?;
    let limit = params.integer("max_chunks", 1..=1000)?.unwrap_or(10);
    let mode = mode(&params, "mode")?;
    let threshold = params.number("score_threshold", 0.0..=1e6)?.filter(|t| *t > 0.0);
    let query = json!({
        "text": text(&f, "query")?, "limit": limit, "filter": null, "mode": mode,
        "options": threshold.map(|t| json!({"threshold": t}).to_string()),
    });
    let hits = memory::call(&app, &caller.tenant, info.id, "search", vec![json!(store), query]).await?;
    let hits = hits.as_array().map_or(&[][..], Vec::as_slice);
    let chunk = |hit: &Value| {
        let (item, metadata) = (&hit["item"], attributes(&hit["item"]));
        json!({"content": item["text"], "chunk_id": item["id"], "metadata": metadata, "chunk_metadata": null})
    };
    Ok(reply::json(&json!({
        "chunks": hits.iter().map(chunk).collect::<Vec<_>>(),
        "scores": hits.iter().map(|h| h["score"].clone()).collect::<Vec<_>>(),
    })))
}
