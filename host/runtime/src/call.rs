//! One call into a component: a fresh instance, its limits, its end, its line in the trace.
//!
//! Invariants:
//! - limits are set before anything of the guest runs, `start` included
//! - the store is dropped on a guest thread after the answer has left, and never used again, whatever happened in it
//! - every call that got as far as its component is recorded before its answer leaves, a dropped one as `cancelled`

use crate::bindings::types;
use crate::convert;
use crate::exports::{self, Export};
use crate::guest::{Context, Guest, TurnState};
use crate::loaded::Loaded;
use crate::meter::{Exceeded, Meter, metered};
use crate::runtime::Inner;
use parking_lot::Mutex;
use std::sync::Arc;
use stockade_core::BoxFuture;
use stockade_core::infer::InferError;
use stockade_core::limits::LimitKind;
use stockade_core::plugin::{CallError, ComponentCall};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use wasmtime::component::{ComponentNamedList, ComponentType, Instance, Lift, Lower};
use wasmtime::{PoolConcurrencyLimitError, Store, Trap};

/// Longest text of a failure that leaves the runtime.
const MAX_DETAIL_BYTES: usize = 2000;

/// Why a call has no result.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The component answered with an error; the model error that it passed on, if it did.
    Answered(types::Error, Option<InferError>),
    Broken(CallError),
}

/// What a component's function gave: its value, or its own error.
pub(crate) type Given<T> = wasmtime::Result<Result<T, types::Error>>;

/// A running instance.
pub(crate) struct Live {
    pub store: Store<Guest>,
    pub instance: Instance,
    pub meter: Arc<Meter>,
    pub loaded: Arc<Loaded>,
    pub report: Arc<Report>,
    _slot: OwnedSemaphorePermit,
}

/// The call's line in the trace: written once, by whoever says so first, or when the last owner goes.
pub(crate) struct Report {
    context: Arc<Context>,
    meter: Arc<Meter>,
    function: String,
    start_us: u64,
    found: Mutex<Found>,
}

/// What is known of a call's outcome.
#[derive(Default)]
struct Found {
    decision: Option<&'static str>,
    scanned_bytes: Option<u64>,
    written: bool,
}

impl Inner {
    /// Calls an asynchronous function of the API whose answer is `result<R, error>`.
    pub fn ask<P, R>(
        self: &Arc<Self>,
        context: Arc<Context>,
        export: Export,
        params: P,
    ) -> impl Future<Output = Result<R, Stop>> + Send + use<P, R>
    where
        P: ComponentNamedList + Lower + Send + Sync + 'static,
        R: ComponentType + Lift + Send + Sync + 'static,
    {
        self.run(context, export.function.into(), None, move |live| {
            Box::pin(async move {
                let (answer,) = live.call::<P, (Result<R, types::Error>,)>(export, params).await?;
                Ok(answer)
            })
        })
    }

    /// Calls a plain function of the API that cannot fail.
    pub fn ask_plain<R>(
        self: &Arc<Self>,
        context: Arc<Context>,
        export: Export,
    ) -> impl Future<Output = Result<R, Stop>> + Send + use<R>
    where
        R: ComponentType + Lift + Send + Sync + 'static,
    {
        self.run(context, export.function.into(), None, move |live| {
            Box::pin(async move { Ok(Ok(live.call::<(), (R,)>(export, ()).await?.0)) })
        })
    }

    /// Runs `body` in a fresh instance on the guest threads. Dropping the future drops the instance.
    pub fn run<R, F>(
        self: &Arc<Self>,
        context: Arc<Context>,
        function: String,
        turn: Option<TurnState>,
        body: F,
    ) -> impl Future<Output = Result<R, Stop>> + Send + use<R, F>
    where
        R: Send + 'static,
        F: for<'a> FnOnce(&'a mut Live) -> BoxFuture<'a, Given<R>> + Send + 'static,
    {
        let host = self.clone();
        let (answer, answered) = oneshot::channel();
        // Boxed: nested calls would make the future's type contain itself.
        let task: BoxFuture<'static, ()> = Box::pin(async move {
            let mut live = match host.open(context, function, turn).await {
                Ok(live) => live,
                Err(e) => {
                    let _ = answer.send(Err(Stop::Broken(e)));
                    return;
                }
            };
            let meter = live.meter.clone();
            let given = metered(&meter, body(&mut live)).await;
            let ended = live.end(given);
            live.report.write();
            // A caller that has gone away needs no answer.
            let _ = answer.send(ended);
        });
        let task = self.threads.spawn(task);
        async move {
            let ended = answered.await.map_err(|_| Stop::Broken(lost()));
            drop(task);
            ended?
        }
    }

    /// Makes an instance, its `start` functions run.
    pub async fn open(
        self: &Arc<Self>,
        context: Arc<Context>,
        function: String,
        turn: Option<TurnState>,
    ) -> Result<Live, CallError> {
        let target = context.call.target.clone();
        let component = &target.component;
        if context.call.depth > self.settings.max_depth {
            return Err(CallError::Failed {
                component: component.to_string(),
                limit: LimitKind::HostCalls,
                detail: format!("more than {} components call each other in a row", self.settings.max_depth),
            });
        }
        let limits = self.settings.effective(target.grants.limits.as_ref());
        let machine = self.machine(limits.fuel > 0)?;
        let loaded = machine.load(self, component).await?;
        let slot = machine.slots.clone().try_acquire_owned();
        let slot = slot.map_err(|_| CallError::Overloaded)?;

        let meter = Meter::new(limits);
        let report = Arc::new(Report {
            start_us: context.call.trace.elapsed_us(),
            context: context.clone(),
            meter: meter.clone(),
            function,
            found: Mutex::default(),
        });
        let made = async {
            let guest = Guest::new(self.clone(), context, meter.clone(), turn)?;
            let mut store = guest.into_store(&machine.engine)?;
            let pre = loaded.pre.clone();
            let started = metered(&meter, pre.instantiate_async(&mut store)).await;
            meter.note_fuel(&store);
            Ok::<_, wasmtime::Error>((started?, store))
        };
        match made.await {
            Ok((instance, store)) => Ok(Live { store, instance, meter, loaded, report, _slot: slot }),
            Err(e) => {
                let e = broken(&component.to_string(), &meter, e);
                report.decide(decision_of(&e));
                Err(e)
            }
        }
    }
}

impl Live {
    /// Calls an exported function with its Rust types.
    pub async fn call<P, R>(&mut self, export: Export, params: P) -> wasmtime::Result<R>
    where
        P: ComponentNamedList + Lower + Send + Sync + 'static,
        R: ComponentNamedList + Lift + Send + Sync + 'static,
    {
        let func = exports::func(&mut self.store, self.instance, export);
        let func = func.ok_or_else(|| {
            wasmtime::Error::new(CallError::NoFunction {
                component: self.name(),
                function: format!("{}#{}", export.interface, export.function),
            })
        })?;
        let func = func.typed::<P, R>(&self.store)?;
        self.store.run_concurrent(async |a| func.call_concurrent(a, params).await).await?
    }

    pub fn name(&self) -> String {
        self.report.context.call.target.component.to_string()
    }

    /// Turns what a function gave into the call's end and notes it for the trace.
    pub fn end<R>(&mut self, given: Given<R>) -> Result<R, Stop> {
        self.meter.note_fuel(&self.store);
        match given {
            Ok(Ok(value)) => {
                self.report.found.lock().decision.get_or_insert("ok");
                Ok(value)
            }
            Ok(Err(error)) => {
                self.report.decide(match error {
                    types::Error::Denied(_) => "denied",
                    _ => "error",
                });
                let seen = self.store.data_mut().last_infer.take();
                let passed_on = seen.filter(|(form, _)| *form == error).map(|(_, e)| e);
                Err(Stop::Answered(error, passed_on))
            }
            Err(e) => {
                let e = broken(&self.name(), &self.meter, e);
                self.report.decide(decision_of(&e));
                Err(Stop::Broken(e))
            }
        }
    }
}

impl Report {
    pub fn decide(&self, decision: &'static str) {
        self.found.lock().decision = Some(decision);
    }

    pub fn decision(&self) -> Option<&'static str> {
        self.found.lock().decision
    }

    /// Counts bytes that a shield judges.
    pub fn scan(&self, bytes: usize) {
        let mut found = self.found.lock();
        let sum = found.scanned_bytes.get_or_insert(0);
        *sum = sum.saturating_add(bytes as u64);
    }

    /// Writes the line as things stand; later calls do nothing.
    pub fn write(&self) {
        let mut found = self.found.lock();
        if std::mem::replace(&mut found.written, true) {
            return;
        }
        let target = &self.context.call.target;
        let call = ComponentCall {
            role: target.role.clone(),
            component: target.component.name.clone(),
            version: target.component.version.clone(),
            digest: target.component.digest,
            function: self.function.clone(),
            decision: found.decision.unwrap_or("cancelled").into(),
            scanned_bytes: found.scanned_bytes,
            start_us: self.start_us,
            usage: self.meter.usage(),
            logs: self.meter.logs(),
        };
        tracing::debug!(
            target: "component",
            request = %self.context.call.request,
            component = %target.component,
            role = %target.role,
            function = call.function,
            decision = call.decision,
            wall_us = call.usage.wall_us,
            cpu_us = call.usage.cpu_us,
            memory_bytes = call.usage.peak_memory_bytes,
        );
        self.context.call.trace.record(call);
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.write();
    }
}

impl Stop {
    /// What the gateway gets.
    pub fn into_call_error(self, component: &str) -> CallError {
        let component = component.to_string();
        let answered = |code, message| CallError::Component { component: component.clone(), code, message };
        match self {
            Self::Broken(e) => e,
            Self::Answered(_, Some(model)) => CallError::Infer(model),
            Self::Answered(error, None) => match error {
                types::Error::Denied(what) => CallError::Denied { component, what },
                types::Error::NotFound(m) => answered("not-found", m),
                types::Error::Invalid(m) => answered("invalid", m),
                types::Error::Conflict(m) => answered("conflict", m),
                types::Error::TooLarge(m) => answered("too-large", m),
                types::Error::ContextOverflow(o) => CallError::Infer(InferError::ContextOverflow {
                    prompt: o.prompt,
                    requested: o.requested,
                    limit: o.limit,
                }),
                types::Error::Overloaded => CallError::Overloaded,
                types::Error::Timeout => answered("timeout", "it ran out of time".into()),
                types::Error::Blocked(v) => answered("blocked", v.message),
                types::Error::Unavailable(m) => answered("unavailable", m),
                types::Error::Other(m) => answered("other", m),
            },
        }
    }

    /// What a component gets that called another one.
    pub fn into_guest_error(self) -> types::Error {
        match self {
            Self::Answered(error, _) => error,
            Self::Broken(e) => match e {
                CallError::Overloaded => types::Error::Overloaded,
                CallError::Infer(e) => convert::infer_error_out(&e),
                CallError::Failed { limit: LimitKind::Deadline, .. } => types::Error::Timeout,
                CallError::Host { .. } => types::Error::Other("the host failed".into()),
                e => types::Error::Other(e.to_string()),
            },
        }
    }
}

/// Sorts out why wasmtime ended a call.
pub(crate) fn broken(component: &str, meter: &Meter, error: wasmtime::Error) -> CallError {
    let failed = |limit, detail: String| CallError::Failed { component: component.to_string(), limit, detail };
    if let Some(hit) = error.downcast_ref::<Exceeded>() {
        return failed(hit.limit, hit.detail.clone());
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return CallError::Overloaded;
    }
    let error = match error.downcast::<CallError>() {
        Ok(own) => return own,
        Err(error) => error,
    };
    let mut detail = format!("{error:#}");
    detail.truncate(detail.floor_char_boundary(MAX_DETAIL_BYTES));
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => {
            let detail = format!("more than {} units of fuel", meter.limits.fuel);
            return failed(LimitKind::Fuel, detail);
        }
        Some(Trap::Interrupt) => {
            return failed(LimitKind::Cpu, detail);
        }
        _ => {}
    }
    // The engine keeps these two types to itself; the pinned version's words are checked by tests.
    let root = error.root_cause().to_string();
    if root.starts_with("too much data is being copied") {
        let hit = meter.too_much_output();
        return failed(hit.limit, hit.detail);
    }
    if root.contains("store handle limit exceeded") {
        return failed(LimitKind::Memory, "too many handles".into());
    }
    failed(LimitKind::Trap, detail)
}

fn decision_of(e: &CallError) -> &'static str {
    match e {
        CallError::Failed { limit, .. } => limit.as_str(),
        CallError::Denied { .. } => "denied",
        CallError::Overloaded => "overloaded",
        _ => "error",
    }
}

fn lost() -> CallError {
    CallError::Host { stage: "running a component", source: Box::new(crate::threads::Lost) }
}
