//! Replies of the host's own routes: JSON, lists by page, entity tags.

use crate::error::{ApiError, Code};
use axum::extract::{FromRequestParts, Query};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stockade_core::registry::{Collection, Document};
use stockade_core::store::{Expect, Revision};

/// Most entries of a page, and how many it has when nothing is said.
const MAX_PAGE: usize = 1000;
const DEFAULT_PAGE: usize = 100;
/// Longest cursor in bytes.
const MAX_CURSOR_BYTES: usize = 512;

pub fn json<T: Serialize>(value: &T) -> Response {
    json_as(StatusCode::OK, value)
}

pub fn json_as<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let media = [(header::CONTENT_TYPE, "application/json")];
            (status, media, bytes).into_response()
        }
        Err(e) => {
            tracing::error!(error = %e, "a reply could not be written as JSON");
            ApiError::internal().into_response()
        }
    }
}

/// A query as a record of ours; serde's message names the field.
#[derive(Debug, Clone)]
pub struct Asked<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query.map(|Query(query)| Self(query)).map_err(|e| ApiError::new(Code::InvalidRequest, e.body_text()))
    }
}

/// `limit` and `after` of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub limit: usize,
    pub after: Option<String>,
}

#[derive(Deserialize)]
struct PageQuery {
    limit: Option<usize>,
    after: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let wrong = |reason: String| ApiError::new(Code::InvalidRequest, reason);
        let query = Query::<PageQuery>::from_request_parts(parts, state).await;
        let Query(query) = query.map_err(|e| wrong(e.body_text()))?;
        let limit = query.limit.unwrap_or(DEFAULT_PAGE);
        if limit == 0 || limit > MAX_PAGE {
            return Err(ApiError::invalid("limit", format!("must be from 1 to {MAX_PAGE}")));
        }
        let after = query.after.filter(|a| !a.is_empty());
        if after.as_ref().is_some_and(|a| a.len() > MAX_CURSOR_BYTES) {
            return Err(ApiError::invalid("after", "is no cursor"));
        }
        Ok(Self { limit, after })
    }
}

impl Page {
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// The reply of a list: a full page may have more after its last entry.
    pub fn reply<T: Serialize>(&self, data: &[T], cursor: impl Fn(&T) -> String) -> Response {
        let next = data.last().filter(|_| data.len() == self.limit).map(cursor);
        json(&json!({"data": data, "next": next}))
    }
}

/// `limit`, `order` and `after` of a list in OpenAI's shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    limit: usize,
    newest_first: bool,
    after: Option<String>,
}

#[derive(Deserialize)]
struct ListingQuery {
    limit: Option<usize>,
    order: Option<String>,
    after: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Listing {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::<ListingQuery>::from_request_parts(parts, state).await;
        let Query(query) = query.map_err(|e| ApiError::new(Code::InvalidRequest, e.body_text()))?;
        let limit = query.limit.unwrap_or(20);
        if limit == 0 || limit > 100 {
            return Err(ApiError::invalid("limit", "must be from 1 to 100"));
        }
        let newest_first = match query.order.as_deref() {
            None | Some("desc") => true,
            Some("asc") => false,
            Some(_) => return Err(ApiError::invalid("order", "must be asc or desc")),
        };
        Ok(Self { limit, newest_first, after: query.after.filter(|a| !a.is_empty()) })
    }
}

impl Listing {
    /// The page, and one document more where there is more.
    pub fn read<T: DeserializeOwned>(&self, collection: &Collection) -> Result<Vec<Document<T>>, ApiError> {
        let after = self.after.as_deref();
        Ok(match self.newest_first {
            true => collection.list_back(after, self.limit + 1)?,
            false => collection.list(after, self.limit + 1)?,
        })
    }

    /// The reply of what [`Listing::read`] has found.
    pub fn reply(&self, mut data: Vec<Value>) -> Response {
        let has_more = data.len() > self.limit;
        data.truncate(self.limit);
        let id = |item: Option<&Value>| item.map_or(Value::Null, |i| i["id"].clone());
        let (first, last) = (id(data.first()), id(data.last()));
        json(&json!({"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": has_more}))
    }
}

/// What `If-Match` and `If-None-Match` ask of the present revision.
pub fn precondition(headers: &HeaderMap) -> Result<Option<Expect>, ApiError> {
    if let Some(value) = headers.get(header::IF_MATCH) {
        let text = value.to_str().unwrap_or_default().trim();
        if text == "*" {
            return Ok(Some(Expect::Present));
        }
        let revision = text
            .trim_start_matches("W/")
            .trim_matches('"')
            .parse::<Revision>()
            // No revision has this form: it cannot match.
            .map_err(|_| ApiError::new(Code::RevisionMismatch, "`If-Match` names no revision"))?;
        // Revision 0 is what a record has that was never written.
        return Ok(Some(match revision {
            0 => Expect::Absent,
            r => Expect::Revision(r),
        }));
    }
    match headers.get(header::IF_NONE_MATCH) {
        Some(value) if value == "*" => Ok(Some(Expect::Absent)),
        Some(_) => Err(ApiError::new(Code::InvalidRequest, "`If-None-Match` takes `*` alone")),
        None => Ok(None),
    }
}

/// Adds a revision as `ETag`.
pub fn tagged(mut reply: Response, revision: Revision) -> Response {
    if let Ok(value) = HeaderValue::try_from(format!("\"{revision}\"")) {
        reply.headers_mut().insert(header::ETAG, value);
    }
    reply
}
