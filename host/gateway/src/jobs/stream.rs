//! A job's events as server-sent events: what is there from a number on, then what comes, until the job has ended.
//!
//! Each event's `id` is its number; a client that comes back with it in `Last-Event-ID` misses none that is still kept.

use crate::app::App;
use crate::error::ApiError;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures::stream::unfold;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::time::Duration;
use stockade_core::TenantId;
use stockade_core::registry::{EventKind, JobEvent};
use tokio::time::{Instant, sleep};

/// How often the log is looked at while nothing comes.
const LOOK: Duration = Duration::from_millis(200);
/// Events written at once.
const BATCH: usize = 64;

/// The number after which a client wants to hear more: `Last-Event-ID`, else `after`.
pub fn after(headers: &HeaderMap, query: Option<u64>) -> Result<u64, ApiError> {
    match headers.get("last-event-id") {
        Some(value) => {
            let number = value.to_str().ok().and_then(|t| t.trim().parse().ok());
            number.ok_or_else(|| ApiError::invalid("Last-Event-ID", "must be the number of an event"))
        }
        None => Ok(query.unwrap_or(0)),
    }
}

pub fn reply(app: App, tenant: TenantId, id: String, after: u64) -> Response {
    let follow = Follow { app, tenant, id, after, over: false };
    let body = unfold(follow, |mut follow| async {
        let bytes = follow.next().await?;
        Some((Ok::<_, Infallible>(bytes), follow))
    });
    let mut reply = Response::new(Body::from_stream(body));
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    reply
}

struct Follow {
    app: App,
    tenant: TenantId,
    id: String,
    after: u64,
    over: bool,
}

impl Follow {
    /// The next bytes; `None` once the job has ended and all was told, or is gone.
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        let quiet = Instant::now();
        loop {
            // The status first: what an ended job had to tell is then in the log.
            let job = self.app.registry.job(&self.tenant, &self.id).ok().flatten();
            let events = self.app.registry.job_events(&self.tenant, &self.id, self.after, BATCH).ok()?;
            if let Some(last) = events.last() {
                self.after = last.id;
                return Some(events.iter().map(write).collect::<String>().into());
            }
            if job.is_none_or(|job| job.status.is_terminal()) {
                self.over = true;
                return Some(Bytes::from_static(b"event: end\ndata: {}\n\n"));
            }
            if quiet.elapsed() >= self.app.settings.keep_alive {
                return Some(Bytes::from_static(b": keep-alive\n\n"));
            }
            sleep(LOOK).await;
        }
    }
}

fn write(event: &JobEvent) -> String {
    let name = match event.event.kind {
        EventKind::Status => "status",
        EventKind::Metrics => "metrics",
        EventKind::Samples => "samples",
        EventKind::Checkpoint => "checkpoint",
        EventKind::Note => "note",
    };
    let mut out = format!("id: {}\nevent: {name}\ndata: ", event.id);
    // Writing to a string cannot fail; JSON holds no line feed.
    let _ = write!(out, "{}\n\n", serde_json::json!(event));
    out
}
