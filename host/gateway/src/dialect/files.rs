//! `/v1/files` in OpenAI's shape.

use crate::app::App;
use crate::auth::Caller;
use crate::body;
use crate::dialect::openai::now;
use crate::error::{ApiError, Code};
use crate::reply::{self, Listing};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use multer::{Constraints, Multipart, SizeLimit};
use serde_json::{Value, json};
use stockade_core::registry::{FileLabel, FileRecord, Scope, new_document_id};

/// Longest file name in bytes.
const MAX_NAME_BYTES: usize = 512;
/// What files may be for.
const PURPOSES: [&str; 6] = ["assistants", "batch", "fine-tune", "vision", "user_data", "evals"];

/// A form with `file`, `purpose` and `expires_after[seconds]`.
pub async fn upload(State(app): State<App>, caller: Caller, request: Request) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let boundary = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let boundary = boundary.and_then(|v| multer::parse_boundary(v).ok());
    let boundary =
        boundary.ok_or_else(|| ApiError::new(Code::InvalidRequest, "the body must be multipart/form-data"))?;
    // Room for the form around the file.
    let limit = app.settings.max_file_bytes + (64 << 10);
    let form = body::collect(request, limit, app.settings.body_timeout).await?;
    let (label, data) = read(form, &boundary, app.settings.max_file_bytes).await?;
    let id = new_document_id("file", getrandom::u32().unwrap_or_default());
    let record = app.registry.put_file(&caller.tenant, &id, label, &data).await?;
    Ok(reply::json(&shown(&id, &record)))
}

async fn read(form: Bytes, boundary: &str, max: usize) -> Result<(FileLabel, Bytes), ApiError> {
    let broken = |e: multer::Error| ApiError::new(Code::InvalidRequest, format!("the form cannot be read: {e}"));
    let limits = SizeLimit::new().per_field(max as u64);
    let body = futures::stream::once(async move { Ok::<_, std::convert::Infallible>(form) });
    let mut form = Multipart::with_constraints(body, boundary, Constraints::new().size_limit(limits));
    let mut label = FileLabel { purpose: "assistants".into(), ..FileLabel::default() };
    let mut data = None;
    while let Some(field) = form.next_field().await.map_err(broken)? {
        match field.name() {
            Some("file") => {
                label.filename = field.file_name().unwrap_or("file").into();
                label.media_type = field.content_type().map(ToString::to_string).unwrap_or_default();
                data = Some(field.bytes().await.map_err(broken)?);
            }
            Some("purpose") => label.purpose = field.text().await.map_err(broken)?,
            Some("expires_after[seconds]") => {
                let text = field.text().await.map_err(broken)?;
                let seconds = text.parse::<u64>().ok().filter(|s| (3600..=2_592_000).contains(s));
                let seconds = seconds.ok_or_else(|| ApiError::invalid("expires_after.seconds", "3600 to 2592000"))?;
                label.expires_at = Some(now() + seconds);
            }
            _ => {}
        }
    }
    if !PURPOSES.contains(&label.purpose.as_str()) {
        return Err(ApiError::invalid("purpose", format!("must be one of {}", PURPOSES.join(", "))));
    }
    if label.filename.len() > MAX_NAME_BYTES || label.filename.chars().any(char::is_control) {
        return Err(ApiError::invalid(
            "file",
            format!("a name of at most {MAX_NAME_BYTES} bytes without control characters"),
        ));
    }
    let data = data.ok_or_else(|| ApiError::invalid("file", "is required"))?;
    Ok((label, data))
}

fn shown(id: &str, record: &FileRecord) -> Value {
    json!({
        "id": id,
        "object": "file",
        "bytes": record.bytes,
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "filename": record.filename,
        "purpose": record.purpose,
        "status": "processed",
    })
}

fn find(app: &App, caller: &Caller, id: &str) -> Result<FileRecord, ApiError> {
    app.registry.file(&caller.tenant, id)?.ok_or_else(|| unknown(id))
}

pub fn unknown(id: &str) -> ApiError {
    ApiError::not_found("file", id)
}

pub async fn list(State(app): State<App>, caller: Caller, listing: Listing) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let found = listing.read::<FileRecord>(&app.registry.files(&caller.tenant))?;
    Ok(listing.reply(found.iter().map(|d| shown(&d.id, &d.value)).collect()))
}

pub async fn get(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    Ok(reply::json(&shown(&id, &find(&app, &caller, &id)?)))
}

/// The bytes, as a download whatever they are: a browser shall not run them.
pub async fn content(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let record = find(&app, &caller, &id)?;
    let mut reply = app.registry.file_bytes(&id, &record).await?.into_response();
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(reply)
}

pub async fn delete(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    match app.registry.delete_file(&caller.tenant, &id).await? {
        true => Ok(reply::json(&json!({"id": id, "object": "file", "deleted": true}))),
        false => Err(unknown(&id)),
    }
}
