//! The threads that guests run on: two tokio runtimes of their own, below the gateway's priority. Short calls have one,
//! guests that compute for long the other.
//!
//! Invariant: a guest that computes for long does so on the threads for that, and comes back from them when it waits for
//! something. A short call therefore never stands behind a stranger's loop.

use crate::settings::Settings;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use stockade_core::BoxFuture;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

/// Owns the guest runtimes. Dropping it abandons what still runs.
pub(crate) struct Threads {
    short: Owned,
    long: Owned,
}

impl Threads {
    pub fn start(settings: &Settings) -> std::io::Result<Self> {
        Ok(Self {
            short: Owned::start("guest", settings.threads, settings.nice)?,
            long: Owned::start("guest-long", settings.heavy_at_once, settings.nice)?,
        })
    }

    /// Runs `task` on the guest threads; dropping the answer cancels it.
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> Task<T> {
        let placed = Placed { place: Place::Short(Box::pin(task)), long: self.long.handle.clone() };
        Task(self.short.handle.spawn(placed))
    }

    /// Runs a task that ends by itself.
    pub fn detach(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.short.handle.spawn(task);
    }

    /// Runs blocking work off the guests' own threads.
    pub fn spawn_blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Task<T> {
        Task(self.short.handle.spawn_blocking(work))
    }
}

struct Owned {
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Owned {
    fn start(name: &str, threads: usize, nice: i32) -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name(name)
            .enable_all()
            // Look at timers, sockets and the shared queue after every poll: a guest's poll may last a whole tick.
            .event_interval(1)
            .global_queue_interval(1)
            .on_thread_start(move || lower_priority(nice))
            .build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

thread_local! {
    /// The task that is being polled has yielded in the midst of a long computation.
    static COMPUTES: Cell<bool> = const { Cell::new(false) };
}

/// Says of the task that is being polled that it yields now and would go on computing.
pub(crate) fn computes() {
    COMPUTES.set(true);
}

/// Polls `task` once; `true`: it computes and has woken itself.
fn poll<T>(task: &mut BoxFuture<'static, T>, cx: &mut Context<'_>) -> (Poll<T>, bool) {
    COMPUTES.set(false);
    let polled = task.as_mut().poll(cx);
    (polled, COMPUTES.replace(false))
}

/// A guest's task where it has its threads just now.
struct Placed<T> {
    place: Place<T>,
    long: Handle,
}

enum Place<T> {
    Short(BoxFuture<'static, T>),
    /// Comes back done, or with what waits for something.
    Long(Task<Result<T, BoxFuture<'static, T>>>),
    Between,
}

impl<T: Send + 'static> Future for Placed<T> {
    type Output = T;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        loop {
            match std::mem::replace(&mut self.place, Place::Between) {
                Place::Short(mut task) => match poll(&mut task, cx) {
                    (Poll::Ready(done), _) => return Poll::Ready(done),
                    (Poll::Pending, false) => {
                        self.place = Place::Short(task);
                        return Poll::Pending;
                    }
                    (Poll::Pending, true) => self.place = Place::Long(Task(self.long.spawn(compute(task)))),
                },
                Place::Long(mut away) => match Pin::new(&mut away.0).poll(cx) {
                    Poll::Ready(Ok(Ok(done))) => return Poll::Ready(done),
                    Poll::Ready(Ok(Err(task))) => self.place = Place::Short(task),
                    Poll::Pending => {
                        self.place = Place::Long(away);
                        return Poll::Pending;
                    }
                    Poll::Ready(Err(e)) => match e.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        // The host is shutting down.
                        Err(_) => return Poll::Pending,
                    },
                },
                // Done, or never to be.
                Place::Between => return Poll::Pending,
            }
        }
    }
}

/// Polls a task as long as it computes.
async fn compute<T>(task: BoxFuture<'static, T>) -> Result<T, BoxFuture<'static, T>> {
    let mut task = Some(task);
    poll_fn(move |cx| {
        let Some(mut present) = task.take() else { return Poll::Pending };
        match poll(&mut present, cx) {
            (Poll::Ready(done), _) => Poll::Ready(Ok(done)),
            (Poll::Pending, false) => Poll::Ready(Err(present)),
            (Poll::Pending, true) => {
                task = Some(present);
                Poll::Pending
            }
        }
    })
    .await
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
