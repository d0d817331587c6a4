//! `/v1/conversations` in OpenAI's shape: items kept on their own, that responses go on from and add to.

use crate::app::App;
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::dialect::openai::chat_request::MAX_MESSAGES;
use crate::dialect::openai::now;
use crate::dialect::responses::{items, metadata};
use crate::error::ApiError;
use crate::fields::Fields;
use crate::reply::{self, Listing};
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};
use stockade_core::TenantId;
use stockade_core::registry::{Collection, Document, Full, Scope, new_document_id};
use stockade_core::store::Expect;

/// Most conversations of a tenant.
const MAX_CONVERSATIONS: usize = 10_000;
/// Most items that one request adds.
const MAX_ADDED: usize = 20;
/// Largest item as JSON text.
const MAX_ITEM_BYTES: usize = 1_000_000;
const ITEMS: &str = "conversation-items";

fn conversations(app: &App, tenant: &TenantId) -> Collection {
    app.registry.collection(tenant, "conversations", MAX_CONVERSATIONS, Full::Refuse).with_below(ITEMS)
}

fn items_of(app: &App, tenant: &TenantId, id: &str) -> Result<Collection, ApiError> {
    find(app, tenant, id)?;
    Ok(app.registry.collection(tenant, format!("{ITEMS}/{id}"), MAX_MESSAGES, Full::Refuse))
}

fn find(app: &App, tenant: &TenantId, id: &str) -> Result<Value, ApiError> {
    let found = conversations(app, tenant).get::<Value>(id)?;
    Ok(found.ok_or_else(|| unknown("conversation", id))?.value)
}

fn unknown(what: &str, id: &str) -> ApiError {
    ApiError::not_found(what, id)
}

/// All items, oldest first, in normal form.
pub fn all_items(app: &App, tenant: &TenantId, id: &str) -> Result<Vec<Value>, ApiError> {
    let found = items_of(app, tenant, id)?.list::<Value>(None, MAX_MESSAGES)?;
    Ok(found.into_iter().map(|d: Document<Value>| d.value).collect())
}

/// Adds items in normal form.
pub async fn append(app: &App, tenant: &TenantId, id: &str, items: Vec<Value>) -> Result<(), ApiError> {
    let all = items_of(app, tenant, id)?;
    for item in items {
        all.add(item["id"].as_str().unwrap_or_default(), &item).await?;
    }
    Ok(())
}

/// `{items?, metadata?}`.
pub async fn create(State(app): State<App>, caller: Caller, JsonBody(body): JsonBody) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let items = read_items(&Fields::root(&body)?)?;
    let id = new_document_id("conv", getrandom::u32().unwrap_or_default());
    let record = json!({"id": id, "object": "conversation", "created_at": now(), "metadata": metadata(&body)?});
    conversations(&app, &caller.tenant).add(&id, &record).await?;
    append(&app, &caller.tenant, &id, items).await?;
    Ok(reply::json(&record))
}

pub async fn get(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    Ok(reply::json(&find(&app, &caller.tenant, &id)?))
}

/// `{metadata}`.
pub async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let mut record = find(&app, &caller.tenant, &id)?;
    record["metadata"] = metadata(&body)?.into();
    conversations(&app, &caller.tenant).replace(&id, &record, Expect::Present).await?;
    Ok(reply::json(&record))
}

pub async fn delete(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    match conversations(&app, &caller.tenant).delete(&id, Expect::Present).await? {
        true => Ok(reply::json(&json!({"id": id, "object": "conversation.deleted", "deleted": true}))),
        false => Err(unknown("conversation", &id)),
    }
}

pub async fn list_items(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    listing: Listing,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let found = listing.read::<Value>(&items_of(&app, &caller.tenant, &id)?)?;
    Ok(listing.reply(found.into_iter().map(|d| d.value).collect()))
}

/// `{items}`.
pub async fn add_items(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let f = Fields::root(&body)?;
    f.need("items")?;
    let items = read_items(&f)?;
    append(&app, &caller.tenant, &id, items.clone()).await?;
    let id_of = |item: Option<&Value>| item.map_or(Value::Null, |i| i["id"].clone());
    let (first, last) = (id_of(items.first()), id_of(items.last()));
    Ok(reply::json(&json!({"object": "list", "data": items, "first_id": first, "last_id": last, "has_more": false})))
}

pub async fn get_item(
    State(app): State<App>,
    caller: Caller,
    Path((id, item)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let found = items_of(&app, &caller.tenant, &id)?.get::<Value>(&item)?;
    Ok(reply::json(&found.ok_or_else(|| unknown("item", &item))?.value))
}

/// Answers with the conversation.
pub async fn delete_item(
    State(app): State<App>,
    caller: Caller,
    Path((id, item)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    match items_of(&app, &caller.tenant, &id)?.delete(&item, Expect::Present).await? {
        true => Ok(reply::json(&find(&app, &caller.tenant, &id)?)),
        false => Err(unknown("item", &item)),
    }
}

fn read_items(f: &Fields) -> Result<Vec<Value>, ApiError> {
    let list = f.array("items")?.map_or(&[][..], Vec::as_slice);
    if list.len() > MAX_ADDED {
        return Err(f.wrong("items", format!("at most {MAX_ADDED} at once")));
    }
    let items = items::normal(list, "items")?;
    match items.iter().any(|i| i.to_string().len() > MAX_ITEM_BYTES) {
        true => Err(f.wrong("items", format!("at most {MAX_ITEM_BYTES} bytes each"))),
        false => Ok(items),
    }
}
