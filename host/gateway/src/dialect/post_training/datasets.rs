//! `/v1beta/datasets` and `/v1beta/datasetio`: data sets in Llama Stack's shape. Rows are given with the request; an
//! address is not followed, since the host fetches nothing on a client's word.

use crate::app::App;
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::dialect::openai::now;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::host::datasets::{find, put};
use crate::reply::{self, Asked};
use axum::extract::{Path, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use stockade_core::id::DatasetName;
use stockade_core::registry::{Dataset, DatasetPurpose, Scope};

/// Most data sets of a tenant.
const MAX_DATASETS: usize = 1_000;
/// Rows of a page, and bytes of their text together.
const MAX_ROWS: usize = 1_000;
const MAX_ROWS_BYTES: usize = 16 << 20;

/// `{purpose, source: {type: "rows", rows}, dataset_id?, metadata?}`
pub async fn register(State(app): State<App>, caller: Caller, JsonBody(body): JsonBody) -> Result<Response, ApiError> {
    caller.need(Scope::Jobs)?;
    let f = Fields::root(&body)?;
    let purpose = match f.need_str("purpose")? {
        "post-training/messages" => DatasetPurpose::PostTraining,
        "eval/question-answer" | "eval/messages-answer" => DatasetPurpose::Evaluation,
        _ => {
            let reason = "must be post-training/messages, eval/question-answer or eval/messages-answer";
            return Err(f.wrong("purpose", reason));
        }
    };
    let source = f.object("source")?.ok_or_else(|| f.wrong("source", "is required"))?;
    let given = source.array("rows")?;
    let given = given.ok_or_else(|| source.wrong("rows", "is required: addresses are not followed"))?;
    let name = match f.str("dataset_id")? {
        Some(name) => name.to_string(),
        None => format!("dataset-{:08x}", getrandom::u32().unwrap_or_default()),
    };
    let name = DatasetName::new(&name).map_err(|e| f.wrong("dataset_id", e.to_string()))?;
    let mut metadata = f.object("metadata")?.map_or_else(Map::new, |m| m.map().clone());
    let told = |field: &str| match metadata.get(field).and_then(Value::as_str) {
        Some(text) => text.to_string(),
        None => "not told".into(),
    };
    let (licence, provenance) = (told("licence"), told("provenance"));
    metadata.insert("purpose".into(), f.need_str("purpose")?.into());
    let random = getrandom::u32().unwrap_or_default();
    let dataset = Dataset {
        name,
        purpose,
        licence,
        provenance,
        format: None,
        files: vec![app.registry.put_rows(&caller.tenant, given, "source.rows", random).await?],
        owns_files: true,
        component: None,
        bytes: 0,
        metadata,
        created_at: now(),
    };
    Ok(reply::json(&shown(&put(&app, &caller, dataset).await?)))
}

pub async fn list(State(app): State<App>, caller: Caller) -> Result<Response, ApiError> {
    caller.need(Scope::Jobs)?;
    let found = app.registry.datasets(&caller.tenant, None, MAX_DATASETS)?;
    Ok(reply::json(&json!({"data": found.iter().map(shown).collect::<Vec<_>>()})))
}

pub async fn get(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Result<Response, ApiError> {
    Ok(reply::json(&shown(&find(&app, &caller, &name)?)))
}

pub async fn unregister(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let found = find(&app, &caller, &name)?;
    app.registry.delete_dataset(&caller.tenant, &found.name).await?;
    Ok(reply::json(&Value::Null))
}

#[derive(Debug, Deserialize)]
pub struct RowsQuery {
    start_index: Option<usize>,
    limit: Option<usize>,
}

/// Rows of a data set of JSON lines, from `start_index` on.
pub async fn iterate(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Asked(query): Asked<RowsQuery>,
) -> Result<Response, ApiError> {
    let found = find(&app, &caller, &name)?;
    let (mut before, limit) = (query.start_index.unwrap_or(0), query.limit.unwrap_or(MAX_ROWS).clamp(1, MAX_ROWS));
    let read = async |from: u64, rows: usize| {
        app.registry.dataset_rows(&caller.tenant, &found, from, rows, MAX_ROWS_BYTES).await
    };
    // The reply names rows by their number, the registry by their place.
    let mut from = 0;
    while before > 0 {
        let passed = read(from, before.min(MAX_ROWS)).await?;
        before -= passed.rows.len();
        match passed.next {
            Some(next) => from = next,
            None => return Ok(reply::json(&json!({"data": [], "has_more": false, "url": null}))),
        }
    }
    let page = read(from, limit).await?;
    Ok(reply::json(&json!({"data": page.rows, "has_more": page.next.is_some(), "url": null})))
}

fn shown(dataset: &Dataset) -> Value {
    let purpose = dataset.metadata.get("purpose").and_then(Value::as_str);
    let purpose = purpose.unwrap_or(match dataset.purpose {
        DatasetPurpose::Evaluation => "eval/messages-answer",
        _ => "post-training/messages",
    });
    json!({
        "type": "dataset",
        "identifier": dataset.name,
        "provider_id": "stockade",
        "provider_resource_id": dataset.name,
        "purpose": purpose,
        "source": {"type": "uri", "uri": format!("stockade://datasets/{}", dataset.name)},
        "metadata": dataset.metadata,
    })
}
