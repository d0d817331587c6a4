//! What a call has used and where its limits are. Shared between the store, its epoch callback and the task around it.
//!
//! Invariant: processor time is the thread's own clock between the start and the end of each poll of the call, so
//! waiting costs nothing and a busy neighbour is not paid for.

use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use stockade_core::limits::{CallUsage, LimitKind, Limits};

/// A call has met one of its limits. Travels through wasmtime's error and is found by downcast.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub(crate) struct Exceeded {
    pub limit: LimitKind,
    pub detail: String,
}

pub(crate) struct Meter {
    pub limits: Limits,
    started: Instant,
    deadline: Mutex<Instant>,
    cpu_ns: AtomicU64,
    /// Thread time at which the running poll began; 0 between polls.
    poll_began_ns: AtomicU64,
    host_calls: AtomicU64,
    output_bytes: AtomicU64,
    log_lines: AtomicU32,
    logs: Mutex<Vec<String>>,
    memory_bytes: AtomicU64,
    peak_memory_bytes: AtomicU64,
    fuel_used: AtomicU64,
}

impl Meter {
    pub fn new(limits: Limits) -> Arc<Self> {
        let started = Instant::now();
        Arc::new(Self {
            limits,
            started,
            deadline: Mutex::new(started + Duration::from_millis(limits.deadline_ms)),
            cpu_ns: AtomicU64::new(0),
            poll_began_ns: AtomicU64::new(0),
            host_calls: AtomicU64::new(0),
            output_bytes: AtomicU64::new(0),
            log_lines: AtomicU32::new(0),
            logs: Mutex::new(Vec::new()),
            memory_bytes: AtomicU64::new(0),
            peak_memory_bytes: AtomicU64::new(0),
            fuel_used: AtomicU64::new(0),
        })
    }

    pub fn deadline(&self) -> Instant {
        *self.deadline.lock()
    }

    /// Starts the wall clock again: a streaming shield's limit holds for each piece of text.
    pub fn restart_deadline(&self) {
        *self.deadline.lock() = Instant::now() + Duration::from_millis(self.limits.deadline_ms);
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Processor time so far, the running poll included when called from within it.
    pub fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu_ns.load(Relaxed)).saturating_add(self.running())
    }

    /// Processor time of the running poll, asked from within it; zero between polls.
    pub fn running(&self) -> Duration {
        match self.poll_began_ns.load(Relaxed) {
            0 => Duration::ZERO,
            began => Duration::from_nanos(thread_cpu_ns().saturating_sub(began)),
        }
    }

    /// # Errors
    /// When processor time or the deadline has run out.
    pub fn check_clocks(&self) -> Result<(), Exceeded> {
        if self.cpu() >= Duration::from_millis(self.limits.cpu_ms) {
            return Err(Exceeded {
                limit: LimitKind::Cpu,
                detail: format!("more than {} ms of processor time", self.limits.cpu_ms),
            });
        }
        if Instant::now() >= self.deadline() {
            return Err(self.late());
        }
        Ok(())
    }

    pub fn late(&self) -> Exceeded {
        Exceeded { limit: LimitKind::Deadline, detail: format!("no answer within {} ms", self.limits.deadline_ms) }
    }

    /// Counts one call into the host.
    pub fn host_call(&self) -> Result<(), Exceeded> {
        let made = self.host_calls.fetch_add(1, Relaxed).saturating_add(1);
        if made > self.limits.host_calls {
            return Err(Exceeded {
                limit: LimitKind::HostCalls,
                detail: format!("more than {} calls into the host", self.limits.host_calls),
            });
        }
        Ok(())
    }

    /// How long the next asynchronous call into the host has to wait to keep to `per_second` on average; one second's
    /// worth may come at once.
    pub fn pace(&self, per_second: u64) -> Option<Duration> {
        let made = self.host_calls.load(Relaxed);
        let over = made.saturating_sub(per_second);
        let due = Duration::from_secs_f64(over as f64 / per_second.max(1) as f64);
        due.checked_sub(self.elapsed()).filter(|d| !d.is_zero())
    }

    /// Counts bytes that leave the component.
    pub fn output(&self, bytes: usize) -> Result<(), Exceeded> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let sum = self.output_bytes.fetch_add(bytes, Relaxed).saturating_add(bytes);
        if sum > self.limits.output_bytes {
            return Err(self.too_much_output());
        }
        Ok(())
    }

    pub fn too_much_output(&self) -> Exceeded {
        Exceeded { limit: LimitKind::Output, detail: format!("more than {} bytes of output", self.limits.output_bytes) }
    }

    /// Keeps a log line, or counts it when there are too many.
    pub fn log(&self, line: impl FnOnce() -> String) -> Result<(), Exceeded> {
        let number = self.log_lines.fetch_add(1, Relaxed);
        if number < self.limits.log_lines {
            let line = line();
            self.output(line.len())?;
            self.logs.lock().push(line);
        }
        Ok(())
    }

    pub fn logs(&self) -> Vec<String> {
        let mut logs = self.logs.lock().clone();
        let dropped = self.log_lines.load(Relaxed).saturating_sub(self.limits.log_lines);
        if dropped > 0 {
            logs.push(format!("({dropped} more lines were dropped)"));
        }
        logs
    }

    /// Takes `bytes` more of linear memory and tables.
    pub fn grow(&self, bytes: u64) -> Result<(), Exceeded> {
        let sum = self.memory_bytes.load(Relaxed).saturating_add(bytes);
        if sum > self.limits.memory_bytes {
            return Err(Exceeded {
                limit: LimitKind::Memory,
                detail: format!("more than {} bytes of memory and tables", self.limits.memory_bytes),
            });
        }
        self.memory_bytes.store(sum, Relaxed);
        self.peak_memory_bytes.fetch_max(sum, Relaxed);
        Ok(())
    }

    /// Notes what a store has burnt, where fuel is counted.
    pub fn note_fuel<T>(&self, store: &wasmtime::Store<T>) {
        if self.limits.fuel > 0
            && let Ok(left) = store.get_fuel()
        {
            self.fuel_used.store(self.limits.fuel.saturating_sub(left), Relaxed);
        }
    }

    /// What has been used so far, but for the poll that may be running: for any thread.
    pub fn usage(&self) -> CallUsage {
        self.usage_with(Duration::from_nanos(self.cpu_ns.load(Relaxed)))
    }

    /// What has been used so far, asked from within the call.
    pub fn usage_inside(&self) -> CallUsage {
        self.usage_with(self.cpu())
    }

    fn usage_with(&self, cpu: Duration) -> CallUsage {
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        CallUsage {
            wall_us: micros(self.elapsed()),
            cpu_us: micros(cpu),
            fuel: (self.limits.fuel > 0).then(|| self.fuel_used.load(Relaxed)),
            peak_memory_bytes: self.peak_memory_bytes.load(Relaxed),
            host_calls: self.host_calls.load(Relaxed),
        }
    }
}

/// Runs `work` with its processor time counted and its deadline kept, guests that wait in the host included.
pub(crate) async fn metered<T>(
    meter: &Arc<Meter>,
    work: impl Future<Output = wasmtime::Result<T>>,
) -> wasmtime::Result<T> {
    let deadline = tokio::time::Instant::from_std(meter.deadline());
    let work = Counted { meter: meter.clone(), work: std::pin::pin!(work) };
    match tokio::time::timeout_at(deadline, work).await {
        Ok(done) => done,
        Err(_) => Err(wasmtime::Error::new(meter.late())),
    }
}

struct Counted<'a, F> {
    meter: Arc<Meter>,
    work: Pin<&'a mut F>,
}

impl<T, F: Future<Output = wasmtime::Result<T>>> Future for Counted<'_, F> {
    type Output = wasmtime::Result<T>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let began = thread_cpu_ns();
        self.meter.poll_began_ns.store(began.max(1), Relaxed);
        let polled = self.work.as_mut().poll(cx);
        let meter = &self.meter;
        meter.poll_began_ns.store(0, Relaxed);
        meter.cpu_ns.fetch_add(thread_cpu_ns().saturating_sub(began), Relaxed);
        match polled {
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => match meter.check_clocks() {
                Ok(()) => Poll::Pending,
                Err(e) => Poll::Ready(Err(wasmtime::Error::new(e))),
            },
        }
    }
}

/// Processor time of the calling thread in nanoseconds.
fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime writes one timespec, which `time` is.
    unsafe {
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time);
    }
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(limits: Limits) -> Arc<Meter> {
        Meter::new(limits)
    }

    #[test]
    fn host_calls_output_and_memory_pass_at_their_limit_and_fail_one_beyond() {
        let m = meter(Limits { host_calls: 3, output_bytes: 10, memory_bytes: 100, ..Limits::default() });
        for _ in 0..3 {
            m.host_call().unwrap();
        }
        assert_eq!(m.host_call().unwrap_err().limit, LimitKind::HostCalls);
        m.output(10).unwrap();
        assert_eq!(m.output(1).unwrap_err().limit, LimitKind::Output);
        m.grow(60).unwrap();
        m.grow(40).unwrap();
        assert_eq!(m.grow(1).unwrap_err().limit, LimitKind::Memory);
        assert_eq!(m.usage().peak_memory_bytes, 100);
    }

    #[test]
    fn log_lines_beyond_the_limit_are_dropped_and_counted() {
        let m = meter(Limits { log_lines: 2, ..Limits::default() });
        for i in 0..5 {
            m.log(|| format!("line {i}")).unwrap();
        }
        assert_eq!(m.logs(), ["line 0", "line 1", "(3 more lines were dropped)"]);
    }

    #[test]
    fn pace_lets_a_burst_through_and_then_asks_for_patience() {
        let m = meter(Limits::default());
        for _ in 0..1000 {
            m.host_call().unwrap();
        }
        assert!(m.pace(1000).is_none());
        for _ in 0..1000 {
            m.host_call().unwrap();
        }
        let wait = m.pace(1000).unwrap();
        assert!(wait > Duration::from_millis(500) && wait <= Duration::from_secs(1));
    }

    #[tokio::test]
    async fn waiting_costs_no_processor_time_and_meets_the_deadline() {
        let m = meter(Limits { deadline_ms: 30, ..Limits::default() });
        let never = std::future::pending::<wasmtime::Result<()>>();
        let error = metered(&m, never).await.unwrap_err();
        let hit = error.downcast_ref::<Exceeded>().unwrap();
        assert_eq!(hit.limit, LimitKind::Deadline);
        assert!(m.cpu() < Duration::from_millis(10), "{:?}", m.cpu());
    }
}
