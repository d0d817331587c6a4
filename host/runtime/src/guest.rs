//! What belongs to one running instance: the data of its store, its limiter and what it sees of WASI.
//!
//! Invariant: nothing in here is shared between calls, except through the host's seams and within the call's grants.

use crate::bindings::types;
use crate::engine;
use crate::meter::Meter;
use crate::runtime::Inner;
use crate::threads;
use parking_lot::Mutex;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Cx, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use stockade_core::event::{Event, Usage};
use stockade_core::infer::{InferError, Sampling};
use stockade_core::plugin::{Call, CallError, DirectoryGrant, Grants, Pinned, Role};
use tokio::io::AsyncWrite;
use tokio::sync::{Semaphore, mpsc};
use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, Store, UpdateDeadline};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::{FsPerms, HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

/// Longest log line in bytes that is kept.
pub(crate) const MAX_LOG_LINE_BYTES: usize = 4096;
/// Bytes that a table's element takes on the host.
const TABLE_ELEMENT_BYTES: u64 = 16;

/// On whose behalf a component runs.
#[derive(Clone)]
pub(crate) struct Context {
    pub call: Call,
    /// Tokens of all model calls of the request's turn.
    pub usage: Arc<Mutex<Usage>>,
    /// A shield, or what one has called: judged by nobody, or shields would judge each other without end.
    pub judging: bool,
}

impl Context {
    pub fn new(call: Call) -> Arc<Self> {
        Arc::new(Self { judging: is_shield(&call.target), call, usage: Arc::default() })
    }

    /// The same request one component further down.
    pub fn child(&self, target: &Arc<Pinned>) -> Arc<Self> {
        let mut call = self.call.target(target);
        call.depth = call.depth.saturating_add(1);
        Arc::new(Self { call, usage: self.usage.clone(), judging: self.judging || is_shield(target) })
    }

    pub fn grants(&self) -> &Grants {
        &self.call.target.grants
    }
}

fn is_shield(target: &Pinned) -> bool {
    matches!(target.role, Role::ShieldInput | Role::ShieldOutput | Role::Shield(_))
}

/// Where an orchestrator's reply goes.
pub(crate) type Output = mpsc::Sender<Result<Event, CallError>>;

/// What only the orchestrator of a turn has.
#[derive(Clone)]
pub(crate) struct TurnState {
    pub output: Output,
    /// The turn's sampling as the client gave it, with what the plugin API has no words for.
    pub sampling: Arc<Sampling>,
}

/// The data of a store.
pub(crate) struct Guest {
    pub host: Arc<Inner>,
    pub context: Arc<Context>,
    pub meter: Arc<Meter>,
    pub table: ResourceTable,
    /// Calls into the host under way.
    pub at_once: Arc<Semaphore>,
    pub turn: Option<TurnState>,
    /// The last model error as the guest saw it, to be recognised when the guest passes it on.
    pub last_infer: Option<(types::Error, InferError)>,
    /// Made when the guest first asks for it, or at once where directories are granted: most guests never do.
    wasi: Option<WasiCtx>,
    limiter: Limiter,
}

impl Guest {
    /// # Errors
    /// When a granted directory cannot be opened.
    pub fn new(
        host: Arc<Inner>,
        context: Arc<Context>,
        meter: Arc<Meter>,
        turn: Option<TurnState>,
    ) -> wasmtime::Result<Self> {
        let wasi = match context.grants().directories.as_slice() {
            [] => None,
            directories => Some(wasi(directories, &meter)?),
        };
        Ok(Self {
            at_once: Arc::new(Semaphore::new(host.settings.max_host_calls_at_once)),
            host,
            context,
            table: ResourceTable::new(),
            turn,
            last_infer: None,
            wasi,
            limiter: Limiter { meter: meter.clone() },
            meter,
        })
    }

    /// A store with all limits set, before anything of the guest runs.
    pub fn into_store(self, engine: &wasmtime::Engine) -> wasmtime::Result<Store<Self>> {
        let meter = self.meter.clone();
        let light_cpu = self.host.settings.light_cpu;
        let max_handles = self.host.settings.max_handles;
        let copied = usize::try_from(meter.limits.output_bytes).unwrap_or(usize::MAX);

        let mut store = Store::new(engine, self);
        store.limiter(|guest| &mut guest.limiter);
        store.set_hostcall_fuel(copied);
        store.set_max_component_handles(max_handles);
        if meter.limits.fuel > 0 {
            store.set_fuel(meter.limits.fuel)?;
        }
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |_| {
            meter.check_clocks().map_err(wasmtime::Error::new)?;
            if meter.running() < engine::TICK {
                // All guests see the same tick: one that has only just begun would queue up behind the long ones.
                return Ok(UpdateDeadline::Continue(1));
            }
            if meter.cpu() < light_cpu {
                return Ok(UpdateDeadline::Yield(1));
            }
            threads::computes();
            Ok(UpdateDeadline::Yield(1))
        });
        Ok(store)
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let meter = &self.meter;
        let ctx = self.wasi.get_or_insert_with(|| bare_wasi(meter).build());
        WasiCtxView { ctx, table: &mut self.table }
    }
}

/// Counts all memories and tables of a store against one limit.
struct Limiter {
    meter: Arc<Meter>,
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|m| desired > m) {
            return Ok(false);
        }
        // An error and not `false`: a guest that only sees its allocation fail would abort with no hint of the limit.
        self.meter.grow(desired.saturating_sub(current) as u64)?;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|m| desired > m) {
            return Ok(false);
        }
        let more = desired.saturating_sub(current) as u64;
        self.meter.grow(more.saturating_mul(TABLE_ELEMENT_BYTES))?;
        Ok(true)
    }
}

/// An empty world: no arguments, environment, network, directories or input; output goes to the component's log; clocks
/// tick in milliseconds.
fn bare_wasi(meter: &Arc<Meter>) -> WasiCtxBuilder {
    let mut builder = WasiCtxBuilder::new();
    builder
        .stdout(LogLines::new(meter))
        .stderr(LogLines::new(meter))
        .wall_clock(CoarseClock)
        .monotonic_clock(CoarseClock);
    builder
}

/// The empty world with directories in it.
fn wasi(directories: &[DirectoryGrant], meter: &Arc<Meter>) -> wasmtime::Result<WasiCtx> {
    let mut builder = bare_wasi(meter);
    for grant in directories {
        let perms = if grant.writable { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
        let opened = builder.preopened_dir(&grant.host_path, &grant.guest_path, perms);
        opened.map_err(|e| {
            wasmtime::Error::new(CallError::Host { stage: "opening a granted directory", source: e.into() })
        })?;
    }
    Ok(builder.build())
}

/// A clock in whole milliseconds: enough for programs, too coarse to time a neighbour's cache.
struct CoarseClock;

fn since_epoch() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Duration::from_millis(now.map_or(0, |d| d.as_millis() as u64))
}

impl HostWallClock for CoarseClock {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }
    fn now(&self) -> Duration {
        since_epoch()
    }
}

impl HostMonotonicClock for CoarseClock {
    fn resolution(&self) -> u64 {
        1_000_000
    }
    fn now(&self) -> u64 {
        use std::sync::LazyLock;
        use std::time::Instant;
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        (START.elapsed().as_millis() as u64).saturating_mul(1_000_000)
    }
}

/// Standard output of a guest as lines of its log.
#[derive(Clone)]
struct LogLines {
    meter: Arc<Meter>,
    line: Arc<Mutex<Vec<u8>>>,
}

impl LogLines {
    fn new(meter: &Arc<Meter>) -> Self {
        Self { meter: meter.clone(), line: Arc::default() }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut line = self.line.lock();
        for &byte in bytes {
            if byte != b'\n' && line.len() < MAX_LOG_LINE_BYTES {
                line.push(byte);
            } else {
                let text = std::mem::take(&mut *line);
                let logged = self.meter.log(|| String::from_utf8_lossy(&text).into_owned());
                logged.map_err(io::Error::other)?;
            }
        }
        Ok(())
    }
}

impl IsTerminal for LogLines {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogLines {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl AsyncWrite for LogLines {
    fn poll_write(self: Pin<&mut Self>, _: &mut Cx<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.write(bytes).map(|()| bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Cx<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Cx<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
