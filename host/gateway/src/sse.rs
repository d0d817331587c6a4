//! Server-sent events: choices of a reply written as they come.
//!
//! The body is pulled: a client that stops reading leaves events in the choices' bounded channels, whose writers give up
//! after a while. Dropping the body drops the choices and cancels everything below them.

use crate::chain::Choice;
use crate::error::ApiError;
use crate::run::{Run, Status};
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{SelectAll, Stream, poll_fn, select_all, unfold};
use futures::{FutureExt, StreamExt};
use serde_json::Value;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use stockade_core::BoxFuture;
use stockade_core::event::Event;
use tokio::time::timeout;

/// Most bytes that are written at once when events are waiting.
const MAX_WRITE_BYTES: usize = 16 << 10;

/// Writes a dialect's events.
pub trait Encode: Send + 'static {
    /// The choice with this index goes on.
    fn event(&mut self, choice: usize, event: Event, out: &mut String);
    /// The reply has failed; nothing follows.
    fn error(&mut self, e: &ApiError, out: &mut String);
    /// Every choice has ended and nothing was said of it yet: what must be done first, for example to keep the reply.
    fn close(&mut self) -> Option<BoxFuture<'static, Result<(), ApiError>>> {
        None
    }
    /// Every choice has ended.
    fn finish(&mut self, out: &mut String);
}

/// One `data:` line.
pub fn data(value: &Value, out: &mut String) {
    out.push_str("data: ");
    out.push_str(&value.to_string());
    out.push_str("\n\n");
}

/// An event with its name.
pub fn named(name: &str, value: &Value, out: &mut String) {
    out.push_str("event: ");
    out.push_str(name);
    out.push('\n');
    data(value, out);
}

type Item = (usize, Result<Event, ApiError>);
type Events = SelectAll<Pin<Box<dyn Stream<Item = Item> + Send>>>;

/// Answers with a stream once its first event is there; what fails before it is an error with a status of its own.
pub async fn reply(run: &Arc<Run>, choices: Vec<Choice>, encoder: impl Encode) -> Result<Response, ApiError> {
    let left = choices.len();
    let streams = choices.into_iter().enumerate().map(|(i, mut choice)| {
        let stream = poll_fn(move |cx| choice.poll_recv(cx).map(|e| e.map(|e| (i, e))));
        Box::pin(stream) as Pin<Box<dyn Stream<Item = Item> + Send>>
    });
    let mut events: Events = select_all(streams);
    let first = match events.next().await {
        Some((_, Err(e))) => return Err(e),
        Some(first) => first,
        None => return Err(ApiError::internal()),
    };
    let writer = Writer { events, encoder, left, next: Some(first), over: false, run: run.clone() };
    let body = unfold(writer, |mut writer| async {
        let bytes = writer.write().await?;
        Some((Ok::<_, Infallible>(bytes), writer))
    });
    let mut reply = Response::new(Body::from_stream(body));
    let headers = reply.headers_mut();
    for (name, value) in
        [(header::CONTENT_TYPE, "text/event-stream; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")]
    {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Asks reverse proxies not to gather the stream.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(reply)
}

struct Writer<E> {
    events: Events,
    encoder: E,
    /// Choices that have not ended.
    left: usize,
    next: Option<Item>,
    over: bool,
    /// Held until the last byte is taken: the trace covers the whole reply.
    run: Arc<Run>,
}

impl<E: Encode> Writer<E> {
    async fn write(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        let keep_alive = self.run.app.settings.keep_alive;
        let mut item = match self.next.take() {
            Some(item) => Some(item),
            None => match timeout(keep_alive, self.events.next()).await {
                Ok(item) => item,
                Err(_) => return Some(Bytes::from_static(b": keep-alive\n\n")),
            },
        };
        let mut out = String::new();
        loop {
            self.encode(item, &mut out).await;
            if self.over || out.len() >= MAX_WRITE_BYTES {
                break;
            }
            match self.events.next().now_or_never() {
                Some(more) => item = more,
                None => break,
            }
        }
        Some(out.into())
    }

    async fn encode(&mut self, item: Option<Item>, out: &mut String) {
        match item {
            Some((i, Ok(event))) => {
                let end = matches!(event, Event::End(_));
                self.encoder.event(i, event, out);
                self.left -= usize::from(end && self.left > 0);
                if self.left == 0 {
                    if let Some(close) = self.encoder.close()
                        && let Err(e) = close.await
                    {
                        self.fail(&e, out);
                        return;
                    }
                    self.encoder.finish(out);
                    self.over = true;
                }
            }
            Some((_, Err(e))) => self.fail(&e, out),
            // A choice's task has ended without its end: it panicked, or the client was too slow for it.
            None => self.fail(&ApiError::internal(), out),
        }
    }

    fn fail(&mut self, e: &ApiError, out: &mut String) {
        self.run.ended(Status::Failed);
        self.encoder.error(e, out);
        self.over = true;
    }
}
