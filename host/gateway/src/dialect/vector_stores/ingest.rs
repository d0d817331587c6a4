//! Taking files apart into a store's bank, apart from the request that asked for it.
//!
//! Invariant: a file that is in progress is being worked on, or is taken up again by the next request that looks at it: a
//! crash leaves the record behind, and the memory replaces what was half done.

use super::files::{FileInStore, Status, of};
use crate::app::App;
use crate::dialect::files::unknown;
use crate::dialect::openai::now;
use crate::error::{ApiError, Code};
use crate::memory;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::sync::Arc;
use stockade_core::store::Expect;
use stockade_core::{RequestId, TenantId};
use tokio::sync::Semaphore;

/// Files that are taken apart at once; more wait.
const AT_ONCE: usize = 2;
/// Most files that wait, all tenants together.
const MAX_WAITING: usize = 10_000;

type Place = (TenantId, String, String);

/// What is being worked on. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ingesting {
    places: Arc<Mutex<HashSet<Place>>>,
    turns: Arc<Semaphore>,
}

impl Default for Ingesting {
    fn default() -> Self {
        Self { places: Arc::default(), turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

/// Puts a file into a store, or takes it apart again, and answers while that is going on.
pub async fn attach(
    app: &App,
    tenant: &TenantId,
    store: &str,
    id: &str,
    attributes: Option<Map<String, Value>>,
    chunking_strategy: Option<Value>,
) -> Result<FileInStore, ApiError> {
    if app.registry.file(tenant, id)?.is_none() {
        return Err(unknown(id));
    }
    let all = of(app, tenant, store);
    let known = all.get::<FileInStore>(id)?;
    let file = FileInStore {
        created_at: now(),
        status: Status::InProgress,
        usage_bytes: 0,
        attributes: attributes.unwrap_or_default(),
        chunking_strategy,
        last_error: None,
    };
    match known {
        Some(known) => {
            all.replace(id, &file, Expect::Revision(known.revision)).await?;
        }
        None => {
            all.add(id, &file).await?;
        }
    }
    go_on(app, tenant, store, id, &file);
    Ok(file)
}

/// Starts work on a file that is in progress unless it is under way.
pub fn go_on(app: &App, tenant: &TenantId, store: &str, id: &str, file: &FileInStore) {
    if file.status != Status::InProgress {
        return;
    }
    let place = (tenant.clone(), store.to_owned(), id.to_owned());
    let mut places = app.ingesting.places.lock();
    // One that does not find room stays in progress and is taken up by the next look at it.
    if places.len() >= MAX_WAITING || !places.insert(place.clone()) {
        return;
    }
    drop(places);
    let app = app.clone();
    tokio::spawn(async move {
        let turns = app.ingesting.turns.clone();
        // The semaphore is never closed.
        let _turn = turns.acquire_owned().await;
        if let Err(e) = work(&app, &place).await {
            tracing::error!(tenant = %place.0, store = place.1, file = place.2, error = %e.detail, "a file's end is not kept");
        }
        app.ingesting.places.lock().remove(&place);
    });
}

/// Takes one file apart and keeps how that ended.
async fn work(app: &App, (tenant, store, id): &Place) -> Result<(), ApiError> {
    let all = of(app, tenant, store);
    loop {
        let Some(found) = all.get::<FileInStore>(id)? else { return Ok(()) };
        if found.value.status != Status::InProgress {
            return Ok(());
        }
        let mut file = found.value;
        match take_apart(app, tenant, store, id, &file).await {
            Ok(bytes) => {
                file.status = Status::Completed;
                file.usage_bytes = bytes;
            }
            Err(e) => {
                let code = match e.code {
                    Code::InvalidRequest => "invalid_file",
                    Code::NotFound | Code::TooLarge => "unsupported_file",
                    _ => "server_error",
                };
                file.status = Status::Failed;
                file.last_error = Some((code.into(), e.detail));
            }
        }
        // Changed meanwhile (new attributes): once more. Gone meanwhile: what was added goes too.
        if all.replace(id, &file, Expect::Revision(found.revision)).await.is_ok() {
            return Ok(());
        }
        if all.get::<FileInStore>(id)?.is_none() {
            let request = RequestId(format!("ingest-{id}").into());
            // The bank may be gone with the store.
            let _ = memory::call(app, tenant, request, "forget", vec![json!(store), json!(id)]).await;
            return Ok(());
        }
    }
}

/// Bytes of text that were found.
async fn take_apart(app: &App, tenant: &TenantId, store: &str, id: &str, file: &FileInStore) -> Result<u64, ApiError> {
    let record = app.registry.file(tenant, id)?.ok_or_else(|| unknown(id))?;
    let data = app.registry.file_bytes(id, &record).await?;
    let mut metadata = file.attributes.clone();
    metadata.insert("file_id".into(), id.into());
    metadata.insert("filename".into(), record.filename.clone().into());
    let document = json!({
        "id": id,
        "name": record.filename,
        // A client's library sends what it guesses; the memory knows better from name and content.
        "media-type": "",
        "data": STANDARD.encode(&data),
        "metadata": Value::Object(metadata).to_string(),
        "chunking": file.chunking_strategy.as_ref().map(Value::to_string),
    });
    let request = RequestId(format!("ingest-{id}").into());
    let done = memory::call(app, tenant, request, "ingest", vec![json!(store), document]).await?;
    Ok(done["bytes"].as_u64().unwrap_or_default())
}
