//! `/v1/vector_stores` in OpenAI's shape and `/v1/vector-io` in Llama Stack's: a vector store is a bank of the tenant's
//! bound memory, a file of it a document in the bank.

pub mod batches;
pub mod files;
mod ingest;
pub mod search;
pub mod vector_io;

pub use ingest::Ingesting;

use crate::app::App;
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::dialect::openai::now;
use crate::dialect::responses::metadata;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::layers::RequestInfo;
use crate::memory;
use crate::reply::{self, Listing};
use axum::extract::{Path, State};
use axum::response::Response;
use files::FileInStore;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use stockade_core::TenantId;
use stockade_core::registry::{Collection, Full, Scope, new_document_id};
use stockade_core::store::Expect;

/// Most vector stores of a tenant.
const MAX_STORES: usize = 1_000;
/// Collections of a store's files and batches, before its id.
const FILES: &str = "vector-store-files";
const BATCHES: &str = "vector-store-batches";
const DAY: u64 = 86_400;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreRecord {
    name: String,
    created_at: u64,
    last_active_at: u64,
    metadata: Map<String, Value>,
    /// Days after its last use.
    expires_after: Option<u64>,
    /// As the client gave it; for files that bring none.
    chunking_strategy: Option<Value>,
}

impl StoreRecord {
    fn expires_at(&self) -> Option<u64> {
        self.expires_after.map(|days| self.last_active_at + days * DAY)
    }
    fn expired(&self) -> bool {
        self.expires_at().is_some_and(|at| at <= now())
    }
}

fn stores(app: &App, tenant: &TenantId) -> Collection {
    app.registry.collection(tenant, "vector-stores", MAX_STORES, Full::Refuse).with_below(FILES)
}

fn unknown(id: &str) -> ApiError {
    ApiError::not_found("vector store", id)
}

fn find(app: &App, tenant: &TenantId, id: &str) -> Result<StoreRecord, ApiError> {
    Ok(stores(app, tenant).get::<StoreRecord>(id)?.ok_or_else(|| unknown(id))?.value)
}

/// A store that may be written and searched; its expiry moves on.
pub async fn active(app: &App, tenant: &TenantId, id: &str) -> Result<StoreRecord, ApiError> {
    let mut record = find(app, tenant, id)?;
    if record.expired() {
        return Err(ApiError::invalid("vector_store_id", "the vector store has expired"));
    }
    // Expiry counts days: a write an hour is enough.
    if record.expires_after.is_some() && now() > record.last_active_at + 3600 {
        record.last_active_at = now();
        stores(app, tenant).replace(id, &record, Expect::Present).await?;
    }
    Ok(record)
}

/// `{name?, file_ids?, metadata?, expires_after?, chunking_strategy?}`; Llama Stack's clients add `embedding_model`.
pub async fn create(
    State(app): State<App>,
    caller: Caller,
    info: RequestInfo,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let f = Fields::root(&body)?;
    let record = StoreRecord {
        name: f.str("name")?.unwrap_or_default().chars().take(256).collect(),
        created_at: now(),
        last_active_at: now(),
        metadata: metadata(&body)?,
        expires_after: expiry(&f)?,
        chunking_strategy: chunking(&f)?,
    };
    let file_ids = batches::ids(&f, "file_ids")?;
    let mut config = Map::new();
    if let Some(model) = f.str("embedding_model")? {
        config.insert("embedding_model".into(), model.into());
    }
    let id = new_document_id("vs", getrandom::u32().unwrap_or_default());
    // The bank first: a store that can be seen can be used.
    let args = vec![json!(id), json!("hybrid"), json!(Value::Object(config).to_string())];
    memory::call(&app, &caller.tenant, info.id, "create", args).await?;
    stores(&app, &caller.tenant).add(&id, &record).await?;
    for file in file_ids {
        ingest::attach(&app, &caller.tenant, &id, &file, None, record.chunking_strategy.clone()).await?;
    }
    Ok(reply::json(&shown(&app, &caller.tenant, &id, &record)?))
}

/// How files are to be cut, as the client gave it.
fn chunking(f: &Fields) -> Result<Option<Value>, ApiError> {
    Ok(f.object("chunking_strategy")?.map(|c| Value::Object(c.map().clone())))
}

fn expiry(f: &Fields) -> Result<Option<u64>, ApiError> {
    let Some(expires) = f.object("expires_after")? else { return Ok(None) };
    let days = expires.integer("days", 1..=365)?;
    Ok(Some(days.ok_or_else(|| expires.wrong("days", "is required"))? as u64))
}

/// A store with the counts of its files as they are now.
fn shown(app: &App, tenant: &TenantId, id: &str, record: &StoreRecord) -> Result<Value, ApiError> {
    let files = files::of(app, tenant, id).list::<FileInStore>(None, files::MAX_FILES)?;
    let counts = files::counts(files.iter().map(|d| d.value.status));
    let usage: u64 = files.iter().map(|d| d.value.usage_bytes).sum();
    let status = match (record.expired(), counts["in_progress"] == 0) {
        (true, _) => "expired",
        (false, true) => "completed",
        (false, false) => "in_progress",
    };
    Ok(json!({
        "id": id,
        "object": "vector_store",
        "name": record.name,
        "created_at": record.created_at,
        "last_active_at": record.last_active_at,
        "metadata": record.metadata,
        "expires_after": record.expires_after.map(|days| json!({"anchor": "last_active_at", "days": days})),
        "expires_at": record.expires_at(),
        "file_counts": counts,
        "status": status,
        "usage_bytes": usage,
    }))
}

pub async fn list(State(app): State<App>, caller: Caller, listing: Listing) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let found = listing.read::<StoreRecord>(&stores(&app, &caller.tenant))?;
    let data = found.iter().map(|d| shown(&app, &caller.tenant, &d.id, &d.value)).collect::<Result<_, _>>()?;
    Ok(listing.reply(data))
}

pub async fn get(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let record = find(&app, &caller.tenant, &id)?;
    Ok(reply::json(&shown(&app, &caller.tenant, &id, &record)?))
}

/// `{name?, metadata?, expires_after?}`.
pub async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let f = Fields::root(&body)?;
    let mut record = find(&app, &caller.tenant, &id)?;
    if let Some(name) = f.str("name")? {
        record.name = name.chars().take(256).collect();
    }
    if f.value("metadata").is_some() {
        record.metadata = metadata(&body)?;
    }
    if f.map().contains_key("expires_after") {
        record.expires_after = expiry(&f)?;
    }
    stores(&app, &caller.tenant).replace(&id, &record, Expect::Present).await?;
    Ok(reply::json(&shown(&app, &caller.tenant, &id, &record)?))
}

/// The store goes with all that was found in its files; the files themselves stay.
pub async fn delete(
    State(app): State<App>,
    caller: Caller,
    info: RequestInfo,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    find(&app, &caller.tenant, &id)?;
    let dropped = memory::call(&app, &caller.tenant, info.id, "drop", vec![json!(id)]).await;
    match dropped {
        Err(e) if e.code != crate::error::Code::NotFound => return Err(e),
        _ => {}
    }
    batches::clear(&app, &caller.tenant, &id).await?;
    match stores(&app, &caller.tenant).delete(&id, Expect::Present).await? {
        true => Ok(reply::json(&json!({"id": id, "object": "vector_store.deleted", "deleted": true}))),
        false => Err(unknown(&id)),
    }
}
