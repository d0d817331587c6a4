//! The threads that guests run on: a tokio runtime of their own, below the gateway's priority.
//!
//! Invariant: a guest that computes for long does so in turns, at most [`Lane`]'s width of them at once, and gives its
//! thread back at every tick. A short call therefore waits for a fraction of a tick at most, not for a stranger's loop.

use crate::settings::Settings;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

/// Owns the guest runtime. Dropping it abandons what still runs.
pub(crate) struct Threads {
    runtime: Option<Runtime>,
    handle: Handle,
    pub lane: Lane,
}

impl Threads {
    pub fn start(settings: &Settings) -> std::io::Result<Self> {
        let nice = settings.nice;
        let runtime = Builder::new_multi_thread()
            .worker_threads(settings.threads.max(1))
            .thread_name("guest")
            .enable_all()
            // Look at timers, sockets and the shared queue after every poll: a guest's poll may last a whole tick.
            .event_interval(1)
            .global_queue_interval(1)
            .on_thread_start(move || lower_priority(nice))
            .build()?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
            lane: Lane { turns: Arc::new(Semaphore::new(settings.heavy_at_once.max(1))) },
        })
    }

    /// Runs `task` on the guest threads; dropping the answer cancels it.
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> Task<T> {
        Task(self.handle.spawn(task))
    }

    /// Runs a task that ends by itself.
    pub fn detach(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(task);
    }

    /// Runs blocking work off the guests' own threads.
    pub fn spawn_blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Task<T> {
        Task(self.handle.spawn_blocking(work))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Turns for guests that compute for long.
#[derive(Clone)]
pub(crate) struct Lane {
    turns: Arc<Semaphore>,
}

impl Lane {
    /// Lets everybody else run, then waits for a turn; first come, first served.
    pub async fn turn(self) -> Option<OwnedSemaphorePermit> {
        tokio::task::yield_now().await;
        self.turns.acquire_owned().await.ok()
    }
}

/// A task that ends when its handle is dropped.
pub(crate) struct Task<T>(JoinHandle<T>);

/// The task panicked, or the host is shutting down.
#[derive(Debug, thiserror::Error)]
#[error("a guest task ended without an answer")]
pub(crate) struct Lost;

impl<T> Future for Task<T> {
    type Output = Result<T, Lost>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_err(|_| Lost)
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Makes the calling thread yield to threads of a lower niceness.
pub(crate) fn lower_priority(nice: i32) {
    // SAFETY: setpriority reads no memory; `who` 0 with PRIO_PROCESS is the calling thread on Linux. A refusal leaves
    // the priority as it is, which costs latency only.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS as _, 0, nice);
    }
}
