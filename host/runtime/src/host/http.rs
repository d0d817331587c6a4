//! `http`: requests to the network, to granted hosts.

use super::{Answer, denied, enter};
use crate::bindings::http::{Host, HostWithStore, Request, Response};
use crate::bindings::types::Error;
use crate::guest::Guest;
use std::time::{Duration, Instant};
use stockade_core::http::{
    DEFAULT_TIMEOUT, HttpError, HttpRequest, MAX_BODY_BYTES, MAX_HEADER_BYTES, MAX_HEADERS, MAX_TIMEOUT, Target,
};
use wasmtime::component::{Accessor, HasSelf};

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Headers that say where a message goes and where it ends: a guest that sets them could reach past its grant.
const CONNECTION_HEADERS: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Host for Guest {}

impl<T: Send + 'static> HostWithStore<T> for HasSelf<Guest> {
    async fn send(a: &Accessor<T, Self>, request: Request) -> Answer<Response> {
        let me = enter(a).await?;
        let target = match Target::parse(&request.url) {
            Ok(target) => target,
            Err(e) => return Ok(Err(error_out(e))),
        };
        let Some(reach) = target.reach(&me.grants().http) else {
            return Ok(Err(denied("http", &target.origin())));
        };
        if let Err(e) = check(&request) {
            return Ok(Err(e));
        }
        me.meter.output(request.body.len())?;
        let left = me.meter.deadline().saturating_duration_since(Instant::now());
        let timeout = request.timeout_ms.map_or(DEFAULT_TIMEOUT, |ms| Duration::from_millis(ms.into()));
        let sent = me.host.http.send(HttpRequest {
            method: request.method,
            target,
            reach,
            headers: request.headers,
            body: request.body.into(),
            timeout: timeout.min(MAX_TIMEOUT).min(left),
        });
        Ok(match sent.await {
            Ok(r) => Ok(Response { status: r.status, headers: r.headers, body: r.body.into() }),
            Err(e) => Err(error_out(e)),
        })
    }
}

fn check(request: &Request) -> Result<(), Error> {
    let invalid = |text: String| Err(Error::Invalid(text));
    if !METHODS.contains(&request.method.as_str()) {
        return invalid(format!("method: one of {}", METHODS.join(", ")));
    }
    if request.body.len() > MAX_BODY_BYTES {
        return Err(Error::TooLarge(format!("a body has at most {MAX_BODY_BYTES} bytes")));
    }
    let bytes: usize = request.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if request.headers.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
        return Err(Error::TooLarge(format!("at most {MAX_HEADERS} headers and {MAX_HEADER_BYTES} bytes of them")));
    }
    for (name, value) in &request.headers {
        let token =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
        if !token || !value.bytes().all(|b| b == b'\t' || (0x20..0x7f).contains(&b)) {
            return invalid(format!("headers: `{}` is not one", name.escape_debug()));
        }
        if CONNECTION_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
            return invalid(format!("headers: `{name}` is the host's"));
        }
    }
    Ok(())
}

fn error_out(error: HttpError) -> Error {
    match error {
        HttpError::Invalid(text) => Error::Invalid(text),
        HttpError::Denied(host) => denied("http", &format!("{host}, at a local address")),
        HttpError::TooLarge(text) => Error::TooLarge(text),
        HttpError::Timeout => Error::Timeout,
        HttpError::Overloaded => Error::Overloaded,
        HttpError::Failed(text) => Error::Other(text),
    }
}
