//! Request bodies: bounded in size, time, depth and number of values before they are parsed.

use crate::app::App;
use crate::error::{ApiError, Code};
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;

/// A parsed JSON body within the gateway's bounds.
#[derive(Debug, Clone)]
pub struct JsonBody(pub Value);

impl JsonBody {
    /// The body as a record of ours; serde's message names the field.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        serde_json::from_value(self.0).map_err(|e| ApiError::new(Code::InvalidRequest, format!("request body: {e}")))
    }
}

impl FromRequest<App> for JsonBody {
    type Rejection = ApiError;
    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let settings = &app.settings;
        let bytes = collect(request, settings.max_body_bytes, settings.body_timeout).await?;
        parse(&bytes, settings.max_json_depth, settings.max_json_values).map(Self)
    }
}

/// A body that is read only once its request is admitted: what a tenant can make the host hold is bounded by the number
/// of its requests.
#[derive(Debug)]
pub struct LateBody(Request);

impl LateBody {
    pub async fn read(self, app: &App) -> Result<serde_json::Value, ApiError> {
        JsonBody::from_request(self.0, app).await.map(|body| body.0)
    }
}

impl FromRequest<App> for LateBody {
    type Rejection = std::convert::Infallible;
    async fn from_request(request: Request, _: &App) -> Result<Self, Self::Rejection> {
        Ok(Self(request))
    }
}

/// The whole body, at most `limit` bytes, within `timeout`.
pub async fn collect(request: Request, limit: usize, timeout: Duration) -> Result<Bytes, ApiError> {
    let too_large = || ApiError::new(Code::TooLarge, format!("the body exceeds {limit} bytes")).with("limit", limit);
    let declared = request.headers().get(header::CONTENT_LENGTH);
    let declared = declared.and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|d| d > limit) {
        return Err(too_large());
    }
    let body: Body = request.into_body();
    let body = Limited::new(body, limit).collect();
    match tokio::time::timeout(timeout, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(ApiError::new(Code::InvalidRequest, "the body could not be read")),
        Err(_) => {
            Err(ApiError::new(Code::InvalidRequest, format!("the body did not arrive within {} s", timeout.as_secs())))
        }
    }
}

/// Parses JSON after its depth and number of values are known to be within bounds.
pub fn parse(bytes: &[u8], max_depth: usize, max_values: usize) -> Result<Value, ApiError> {
    let (depth, values) = shape(bytes);
    if depth > max_depth || values > max_values {
        return Err(ApiError::new(
            Code::InvalidRequest,
            format!("the body exceeds {max_depth} levels or {max_values} values"),
        ));
    }
    serde_json::from_slice(bytes).map_err(|e| ApiError::new(Code::InvalidRequest, format!("the body is not JSON: {e}")))
}

/// Upper bounds of a text's nesting and number of JSON values, without memory.
fn shape(bytes: &[u8]) -> (usize, usize) {
    let (mut depth, mut deepest, mut values) = (0usize, 0usize, 1usize);
    let (mut in_string, mut escaped) = (false, false);
    for &b in bytes {
        if in_string {
            match b {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match b {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                values += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
    }
    (deepest, values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_and_values_are_bounded_and_strings_do_not_count() {
        assert!(parse(b"[[1,2],[3]]", 2, 10).is_ok());
        assert!(parse(b"[[[1]]]", 2, 10).is_err());
        assert!(parse(b"[1,2,3,4]", 2, 4).is_err());
        assert!(parse(br#""[[[[,,,,\"[[[,,,""#, 1, 2).is_ok());
        let deep = "[".repeat(1_000_000);
        assert!(parse(deep.as_bytes(), 96, 1 << 20).is_err());
    }
}
