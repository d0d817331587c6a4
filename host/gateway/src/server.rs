//! Connections: bounded in number, in the time of a request's head, and in how long a client may not read.
//!
//! Shutdown: readiness goes off first, running requests may end within the drain time, then connections are closed.

use crate::app::App;
use crate::settings::Settings;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use futures::FutureExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep};
use tower::ServiceExt;

/// How long to wait after an `accept` that failed for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often draining looks whether requests still run.
const DRAIN_STEP: Duration = Duration::from_millis(20);

/// Serves until `shutdown` is done and running requests have ended or used up the drain time.
pub async fn serve(
    app: App,
    router: Router,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(app.settings.max_connections));
    let (closing, _) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut drained = shutdown.then(|()| drain(&app)).boxed();
    loop {
        let permit = tokio::select! {
            permit = room.clone().acquire_owned() => permit,
            () = &mut drained => break,
        };
        // The semaphore is never closed.
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut drained => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                let work = connection(stream, router.clone(), &app.settings, closing.subscribe());
                connections.spawn(async move {
                    work.await;
                    drop(permit);
                });
            }
            Err(e) => {
                tracing::warn!(error = %e, "a connection was not accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Idle connections close at once; whoever still streams has used up the drain time.
    let _ = closing.send(true);
    let rest = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(Duration::from_secs(1), rest).await;
    connections.shutdown().await;
    app.background.stop_all();
    Ok(())
}

/// Readiness goes off, then the running requests end, as far as the drain time allows.
async fn drain(app: &App) {
    app.readiness.set_draining();
    let running = app.admission.running();
    tracing::info!(running, "draining");
    let deadline = Instant::now() + app.settings.drain;
    while app.admission.running() > 0 && Instant::now() < deadline {
        sleep(DRAIN_STEP).await;
    }
}

fn connection(
    stream: TcpStream,
    router: Router,
    settings: &Settings,
    mut closing: watch::Receiver<bool>,
) -> impl Future<Output = ()> + Send + 'static {
    // Small events must not wait for more.
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(TimedStream::new(stream, settings.write_timeout));
    let header_timeout = settings.header_timeout;
    async move {
        let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
            let request: Request = request.map(Body::new);
            router.clone().oneshot(request)
        });
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(header_timeout);
        let connection = builder.serve_connection(io, service);
        tokio::pin!(connection);
        let done = tokio::select! {
            done = &mut connection => done,
            () = closed(&mut closing) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(e) = done {
            tracing::debug!(error = %e, "a connection ended early");
        }
    }
}

/// The server closes its connections.
async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|c| *c).await;
}

/// A stream whose writes fail once the peer has taken nothing for a while.
struct TimedStream {
    stream: TcpStream,
    timeout: Duration,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl TimedStream {
    fn new(stream: TcpStream, timeout: Duration) -> Self {
        Self { stream, timeout, waiting: None }
    }

    fn timed<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(done) = write(Pin::new(&mut self.stream), cx) {
            self.waiting = None;
            return Poll::Ready(done);
        }
        let timeout = self.timeout;
        let sleep = self.waiting.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read")))
    }
}

impl AsyncRead for TimedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for TimedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.timed(cx, |stream, cx| stream.poll_write(cx, buf))
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.timed(cx, |stream, cx| stream.poll_write_vectored(cx, bufs))
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.timed(cx, |stream, cx| stream.poll_flush(cx))
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.timed(cx, |stream, cx| stream.poll_shutdown(cx))
    }
}
