//! Data sets: files with a purpose, a licence and a provenance, under a name that jobs read them by.

use super::name_error;
use crate::app::App;
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::dialect::openai::now;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::reply::{self, Page};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::Map;
use stockade_core::id::DatasetName;
use stockade_core::registry::{Dataset, DatasetPurpose, Scope};

/// `{name, purpose, licence, provenance, files | file | rows, format?, metadata?}`
pub async fn create(State(app): State<App>, caller: Caller, JsonBody(body): JsonBody) -> Result<Response, ApiError> {
    caller.need(Scope::Jobs)?;
    let f = Fields::root(&body)?;
    let purpose = match f.need_str("purpose")? {
        "pretraining" => DatasetPurpose::Pretraining,
        "preference" => DatasetPurpose::Preference,
        "post-training" => DatasetPurpose::PostTraining,
        "evaluation" => DatasetPurpose::Evaluation,
        _ => return Err(f.wrong("purpose", "must be pretraining, preference, post-training or evaluation")),
    };
    let text = |name: &str| f.need_str(name).map(String::from);
    let mut dataset = Dataset {
        name: DatasetName::new(f.need_str("name")?).map_err(name_error)?,
        purpose,
        licence: text("licence")?,
        provenance: text("provenance")?,
        format: f.str("format")?.map(String::from),
        files: Vec::new(),
        owns_files: false,
        component: None,
        bytes: 0,
        metadata: f.object("metadata")?.map_or_else(Map::new, |m| m.map().clone()),
        created_at: now(),
    };
    match (f.str("file")?, f.array("files")?, f.array("rows")?) {
        (Some(file), None, None) => dataset.files.push(file.into()),
        (None, Some(files), None) => {
            for (i, file) in files.iter().enumerate() {
                let id = file.as_str().ok_or_else(|| f.wrong(&format!("files[{i}]"), "must be a file's id"))?;
                dataset.files.push(id.into());
            }
        }
        (None, None, Some(given)) => {
            let random = getrandom::u32().unwrap_or_default();
            dataset.files.push(app.registry.put_rows(&caller.tenant, given, "rows", random).await?);
            dataset.owns_files = true;
        }
        _ => return Err(f.wrong("files", "needs exactly one of `file`, `files` and `rows`")),
    }
    let made = put(&app, &caller, dataset).await?;
    Ok(reply::json_as(StatusCode::CREATED, &made))
}

/// Keeps a data set; the file that was made for one that is refused goes again.
pub async fn put(app: &App, caller: &Caller, dataset: Dataset) -> Result<Dataset, ApiError> {
    let (owned, files) = (dataset.owns_files, dataset.files.clone());
    let made = app.registry.create_dataset(&caller.tenant, dataset).await;
    if made.is_err() && owned {
        for id in &files {
            app.registry.delete_file(&caller.tenant, id).await?;
        }
    }
    Ok(made?)
}

pub async fn list(State(app): State<App>, caller: Caller, page: Page) -> Result<Response, ApiError> {
    caller.need(Scope::Jobs)?;
    let found = app.registry.datasets(&caller.tenant, page.after(), page.limit)?;
    Ok(page.reply(&found, |d| d.name.to_string()))
}

pub async fn get(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Result<Response, ApiError> {
    Ok(reply::json(&find(&app, &caller, &name)?))
}

pub fn find(app: &App, caller: &Caller, name: &str) -> Result<Dataset, ApiError> {
    caller.need(Scope::Jobs)?;
    let known = DatasetName::new(name).ok();
    let found = known.map(|n| app.registry.dataset(&caller.tenant, &n)).transpose()?.flatten();
    found.ok_or_else(|| unknown(name))
}

pub async fn delete(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Result<Response, ApiError> {
    let found = find(&app, &caller, &name)?;
    match app.registry.delete_dataset(&caller.tenant, &found.name).await? {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(unknown(&name)),
    }
}

fn unknown(name: &str) -> ApiError {
    ApiError::not_found("data set", &name.chars().take(64).collect::<String>())
}
