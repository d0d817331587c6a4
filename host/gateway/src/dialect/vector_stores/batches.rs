//! Batches of files that go into a store together. A batch's state is that of its files.

use super::files::{self, FileInStore, Status, of};
use super::{BATCHES, active, chunking, find, ingest};
use crate::app::App;
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::dialect::openai::now;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::reply::{self, Listing};
use axum::extract::{Path, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stockade_core::TenantId;
use stockade_core::registry::{Collection, Full, Scope, new_document_id};
use stockade_core::store::Expect;

/// Most batches that are remembered of a store; the oldest go.
const MAX_BATCHES: usize = 100;
/// Most files of a batch.
const MAX_FILES: usize = 500;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Batch {
    created_at: u64,
    files: Vec<String>,
    cancelled: bool,
}

fn batches(app: &App, tenant: &TenantId, store: &str) -> Collection {
    app.registry.collection(tenant, format!("{BATCHES}/{store}"), MAX_BATCHES, Full::DropOldest)
}

pub async fn clear(app: &App, tenant: &TenantId, store: &str) -> Result<(), ApiError> {
    let all = batches(app, tenant, store);
    for batch in all.list::<Batch>(None, MAX_BATCHES)? {
        all.delete(&batch.id, Expect::Present).await?;
    }
    Ok(())
}

/// File ids of a request.
pub fn ids(f: &Fields, name: &str) -> Result<Vec<String>, ApiError> {
    let list = f.array(name)?.map_or(&[][..], Vec::as_slice);
    let read = list.iter().map(|v| v.as_str().map(String::from)).collect::<Option<Vec<_>>>();
    match read {
        Some(ids) if ids.len() <= MAX_FILES => Ok(ids),
        _ => Err(f.wrong(name, format!("at most {MAX_FILES} file ids"))),
    }
}

/// `{file_ids, attributes?, chunking_strategy?}` or `{files: [{file_id, attributes?, chunking_strategy?}]}`.
pub async fn create(
    State(app): State<App>,
    caller: Caller,
    Path(store): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let record = active(&app, &caller.tenant, &store).await?;
    let f = Fields::root(&body)?;
    let mut wanted = Vec::new();
    let (common, strategy) = (files::attributes(&f)?, chunking(&f)?.or(record.chunking_strategy));
    for id in ids(&f, "file_ids")? {
        wanted.push((id, common.clone(), strategy.clone()));
    }
    for (i, value) in f.array("files")?.into_iter().flatten().enumerate().take(MAX_FILES + 1) {
        let one = Fields::of(value, format!("files[{i}]"))?;
        let own = chunking(&one)?.or(strategy.clone());
        wanted.push((one.need_str("file_id")?.to_owned(), files::attributes(&one)?.or(common.clone()), own));
    }
    if wanted.is_empty() || wanted.len() > MAX_FILES {
        return Err(f.wrong("file_ids", format!("1 to {MAX_FILES} files")));
    }
    // All are there before any is taken.
    for (id, ..) in &wanted {
        app.registry.file(&caller.tenant, id)?.ok_or_else(|| crate::dialect::files::unknown(id))?;
    }
    let batch = Batch { created_at: now(), files: wanted.iter().map(|w| w.0.clone()).collect(), cancelled: false };
    let id = new_document_id("vsfb", getrandom::u32().unwrap_or_default());
    batches(&app, &caller.tenant, &store).add(&id, &batch).await?;
    for (file, attributes, strategy) in wanted {
        ingest::attach(&app, &caller.tenant, &store, &file, attributes, strategy).await?;
    }
    Ok(reply::json(&shown(&app, &caller.tenant, &store, &id, &batch)?))
}

fn read(app: &App, tenant: &TenantId, store: &str, id: &str) -> Result<Batch, ApiError> {
    find(app, tenant, store)?;
    let found = batches(app, tenant, store).get::<Batch>(id)?;
    let unknown = || ApiError::not_found("file batch", id);
    Ok(found.ok_or_else(unknown)?.value)
}

/// Its files that are still in the store, in order.
fn members(app: &App, tenant: &TenantId, store: &str, batch: &Batch) -> Result<Vec<(String, FileInStore)>, ApiError> {
    let all = of(app, tenant, store);
    let mut out = Vec::with_capacity(batch.files.len());
    for id in &batch.files {
        if let Some(found) = all.get::<FileInStore>(id)? {
            ingest::go_on(app, tenant, store, id, &found.value);
            out.push((id.clone(), found.value));
        }
    }
    Ok(out)
}

fn shown(app: &App, tenant: &TenantId, store: &str, id: &str, batch: &Batch) -> Result<Value, ApiError> {
    let files = members(app, tenant, store, batch)?;
    let counts = files::counts(files.iter().map(|(_, f)| f.status));
    let status = match () {
        () if counts["in_progress"] != 0 => "in_progress",
        () if batch.cancelled => "cancelled",
        () if counts["failed"] == counts["total"] && !files.is_empty() => "failed",
        () => "completed",
    };
    Ok(json!({
        "id": id,
        "object": "vector_store.files_batch",
        "vector_store_id": store,
        "created_at": batch.created_at,
        "status": status,
        "file_counts": counts,
    }))
}

pub async fn get(
    State(app): State<App>,
    caller: Caller,
    Path((store, id)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let batch = read(&app, &caller.tenant, &store, &id)?;
    Ok(reply::json(&shown(&app, &caller.tenant, &store, &id, &batch)?))
}

/// Files that are not done yet stay out.
pub async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Path((store, id)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let mut batch = read(&app, &caller.tenant, &store, &id)?;
    batch.cancelled = true;
    batches(&app, &caller.tenant, &store).replace(&id, &batch, Expect::Present).await?;
    let all = of(&app, &caller.tenant, &store);
    for file in &batch.files {
        if let Some(found) = all.get::<FileInStore>(file)?
            && found.value.status == Status::InProgress
        {
            let cancelled = FileInStore { status: Status::Cancelled, ..found.value };
            // Finished a moment ago: then it is in.
            let _ = all.replace(file, &cancelled, Expect::Revision(found.revision)).await;
        }
    }
    Ok(reply::json(&shown(&app, &caller.tenant, &store, &id, &batch)?))
}

pub async fn list_files(
    State(app): State<App>,
    caller: Caller,
    Path((store, id)): Path<(String, String)>,
    listing: Listing,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let batch = read(&app, &caller.tenant, &store, &id)?;
    let files = members(&app, &caller.tenant, &store, &batch)?;
    Ok(listing.reply(files.iter().map(|(id, f)| files::shown(&store, id, f)).collect()))
}
