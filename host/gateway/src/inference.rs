//! What every inference route does around its own work: scope, admission, trace, timeout.

use crate::app::App;
use crate::auth::Caller;
use crate::chain::Choice;
use crate::error::{ApiError, Code};
use crate::layers::RequestInfo;
use crate::run::{Run, Status};
use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use futures::future::try_join_all;
use std::sync::Arc;
use stockade_core::event::Event;
use stockade_core::registry::Scope;

/// Admits a request and does `work` for it. The reply names the trace, whatever came of the work.
pub async fn run<F>(
    app: &App,
    caller: &Caller,
    info: RequestInfo,
    route: &'static str,
    work: F,
) -> Result<Response, ApiError>
where
    F: AsyncFnOnce(Arc<Run>) -> Result<Response, ApiError>,
{
    caller.need(Scope::Inference)?;
    let run = Run::begin(app, caller, info.id, route)?;
    let trace = run.trace_id.clone();
    let limit = app.settings.request_timeout;
    let done = match tokio::time::timeout(limit, work(run.clone())).await {
        Ok(done) => done,
        Err(_) => Err(ApiError::new(Code::Overloaded, format!("the request took longer than {} s", limit.as_secs()))),
    };
    let mut reply = done.unwrap_or_else(|e| {
        run.failed();
        e.into_response()
    });
    if let Ok(value) = HeaderValue::try_from(trace) {
        reply.headers_mut().insert("stockade-trace", value);
    }
    Ok(reply)
}

/// Waits for all choices of a reply that is not streamed; the first failure fails it.
pub async fn gather<T>(
    choices: Vec<Choice>,
    new: impl Fn() -> T,
    add: impl Fn(&mut T, Event),
) -> Result<Vec<T>, ApiError> {
    let one = async |mut choice: Choice| {
        let mut all = new();
        while let Some(event) = choice.recv().await {
            let event = event?;
            let end = matches!(event, Event::End(_));
            add(&mut all, event);
            if end {
                return Ok(all);
            }
        }
        // The choice's task has ended without an end.
        Err(ApiError::internal())
    };
    try_join_all(choices.into_iter().map(one)).await
}

impl Run {
    /// The request ends with an error; a refusal by a shield stays a refusal.
    pub fn failed(&self) {
        if self.status() != Status::Blocked {
            self.ended(Status::Failed);
        }
    }
}
