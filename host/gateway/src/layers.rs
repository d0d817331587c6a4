//! The outermost layer of all routes: request id, span, panics, the shape of errors, counters.

use crate::app::App;
use crate::error::{ApiError, Code};
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, header, request::Parts};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;
use stockade_core::RequestId;
use tracing::Instrument;

/// What a handler is told of its request.
#[derive(Debug, Clone)]
pub struct RequestInfo {
    pub id: RequestId,
}

impl<S: Sync> FromRequestParts<S> for RequestInfo {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let info = parts.extensions.get::<Self>().cloned();
        Ok(info.unwrap_or_else(Self::fresh))
    }
}

impl RequestInfo {
    fn fresh() -> Self {
        let id = format!("req_{:016x}", getrandom::u64().unwrap_or_default());
        Self { id: RequestId(id.into()) }
    }
}

pub async fn outermost(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let info = RequestInfo::fresh();
    let id = info.id.clone();
    request.extensions_mut().insert(info);
    let method = method_name(request.method());
    let path = request.uri().path().to_owned();
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.map_or("unmatched", |m| m.as_str()).to_owned();
    let span = tracing::info_span!(
        "request",
        request = %id,
        method,
        route,
        tenant = tracing::field::Empty,
        model = tracing::field::Empty,
        trace = tracing::field::Empty,
    );
    let work = AssertUnwindSafe(next.run(request)).catch_unwind();
    let mut reply = match work.instrument(span).await {
        Ok(reply) => reply,
        Err(_) => {
            tracing::error!(request = %id, route, "a handler panicked");
            ApiError::internal().into_response()
        }
    };
    let error = reply.extensions_mut().remove::<Arc<ApiError>>();
    if let Some(error) = error.or_else(|| foreign(&reply)) {
        let headers = std::mem::take(reply.headers_mut());
        reply = error.reply(&path, &id.0);
        for (name, value) in &headers {
            if !reply.headers().contains_key(name) && name != header::CONTENT_LENGTH {
                reply.headers_mut().insert(name, value.clone());
            }
        }
    }
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        reply.headers_mut().insert("x-request-id", value);
    }
    let status = reply.status().as_u16();
    app.metrics.request(method, &route, status, started.elapsed());
    tracing::debug!(request = %id, method, route, status, "answered");
    reply
}

/// A refusal that an extractor of the framework wrote as plain text, such as a path that is not UTF-8.
fn foreign(reply: &Response) -> Option<Arc<ApiError>> {
    let media = reply.headers().get(header::CONTENT_TYPE);
    let plain = media.is_some_and(|m| m.as_bytes().starts_with(b"text/plain"));
    let refused = plain && reply.status().is_client_error();
    let error = || ApiError::new(Code::InvalidRequest, "the path or its parameters cannot be read");
    refused.then(|| Arc::new(error()))
}

pub async fn not_found() -> ApiError {
    ApiError::new(Code::NotFound, "no such route")
}

pub async fn method_not_allowed() -> ApiError {
    ApiError::new(Code::MethodNotAllowed, "the route does not take this method")
}

/// A method as a label: unknown ones are one.
fn method_name(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
