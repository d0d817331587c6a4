//! [`Runtime`]: the host's components, behind the core's seam.

use crate::admit::{self, Uploads};
use crate::artifacts::UnderWay;
use crate::call::Stop;
use crate::compile::{CompilerCommand, Compilers};
use crate::convert;
use crate::engine::Ticker;
use crate::guest::Context;
use crate::invoke;
use crate::judge;
use crate::loaded::{Machine, private_folder};
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::threads::Threads;
use crate::toolbox;
use crate::turn;
use bytes::Bytes;
use serde_json::Value;
use std::sync::{Arc, OnceLock};
use stockade_core::chat::{Message, ToolOutput, ToolSpec};
use stockade_core::http::Http;
use stockade_core::infer::Inference;
use stockade_core::jobs::Jobs;
use stockade_core::plugin::{
    AdmitError, Admitted, Call, CallError, ComponentMetric, Direction, Invocation, Plugins, ShieldStream, Turn,
    TurnStream, Verdict,
};
use stockade_core::registry::Registry;
use stockade_core::vectors::Vectors;
use stockade_core::{BoxError, BoxFuture, ComponentRef, Digest, TenantId};

/// What components reach through the host.
pub struct Seams {
    pub inference: Arc<dyn Inference>,
    /// State buckets, secrets, and the bytes of components.
    pub registry: Registry,
    pub vectors: Arc<dyn Vectors>,
    pub http: Arc<dyn Http>,
    /// `None`: none are run here.
    pub jobs: Option<Jobs>,
}

/// Compiles and runs components. Cheap to clone; the last clone's drop ends its threads.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

/// Why the runtime does not start.
#[derive(Debug, thiserror::Error)]
#[error("the component runtime failed in {stage}")]
pub struct StartError {
    stage: &'static str,
    #[source]
    source: BoxError,
}

pub(crate) struct Inner {
    pub settings: Settings,
    pub inference: Arc<dyn Inference>,
    pub registry: Registry,
    pub vectors: Arc<dyn Vectors>,
    pub http: Arc<dyn Http>,
    pub jobs: Option<Jobs>,
    pub threads: Threads,
    pub compiler: CompilerCommand,
    pub compilers: Compilers,
    pub uploads: Uploads,
    pub under_way: UnderWay,
    pub metrics: Metrics,
    plain: Machine,
    /// The engine that counts fuel, made when the first call asks for it: counting costs every guest a fifth or more.
    metered: OnceLock<Machine>,
    tickers: parking_lot::Mutex<Vec<Ticker>>,
}

impl Runtime {
    /// Starts the engine and the guest threads. Components load when they are first used.
    ///
    /// # Errors
    /// When the artifact folder cannot be made or the machine lacks what the engine needs, for example address space.
    pub fn new(settings: Settings, seams: Seams, compiler: CompilerCommand) -> Result<Self, StartError> {
        let stage = |stage| move |source: BoxError| StartError { stage, source };
        private_folder(&settings.artifacts).map_err(|e| stage("making the artifact folder")(e.into()))?;
        let plain = Machine::new(&settings, false).map_err(stage("making the engine"))?;
        let ticker =
            Ticker::start(vec![plain.engine.clone()]).map_err(|e| stage("starting the epoch thread")(e.into()))?;
        let threads = Threads::start(&settings).map_err(|e| stage("starting the guest threads")(e.into()))?;
        let compile = &settings.compile;
        Ok(Self {
            inner: Arc::new(Inner {
                inference: seams.inference,
                registry: seams.registry,
                vectors: seams.vectors,
                http: seams.http,
                jobs: seams.jobs,
                threads,
                compiler,
                compilers: Compilers::new(compile.at_once, compile.max_waiting),
                uploads: Uploads::default(),
                under_way: UnderWay::default(),
                metrics: Metrics::default(),
                plain,
                metered: OnceLock::new(),
                tickers: parking_lot::Mutex::new(vec![ticker]),
                settings,
            }),
        })
    }
}

impl Runtime {
    /// Takes an artifact that was compiled beforehand, so that admitting the component compiles nothing. `false` when it
    /// is for another engine or another processor, and of no use.
    ///
    /// # Safety
    /// The artifact is machine code: it must be what this host's compiler made of exactly the component `digest`.
    pub unsafe fn seed(&self, digest: Digest, artifact: &[u8]) -> std::io::Result<bool> {
        // SAFETY: the caller's promise.
        unsafe { self.inner.plain.seed(digest, artifact) }
    }
}

impl Inner {
    /// The engine for calls that count fuel, or the one for all others.
    pub fn machine(&self, fuel: bool) -> Result<&Machine, CallError> {
        if !fuel {
            return Ok(&self.plain);
        }
        if let Some(machine) = self.metered.get() {
            return Ok(machine);
        }
        let failed = |source: BoxError| CallError::Host { stage: "starting the engine that counts fuel", source };
        let machine = Machine::new(&self.settings, true).map_err(failed)?;
        let ticker = Ticker::start(vec![machine.engine.clone()]).map_err(|e| failed(e.into()))?;
        let machine = self.metered.get_or_init(|| {
            self.tickers.lock().push(ticker);
            machine
        });
        Ok(machine)
    }
}

impl Plugins for Runtime {
    fn admit(&self, tenant: &TenantId, bytes: Bytes) -> BoxFuture<'_, Result<Admitted, AdmitError>> {
        let (host, tenant) = (self.inner.clone(), tenant.clone());
        // On the guest threads: they watch child processes and timers wherever the caller is.
        let task = self.inner.threads.spawn(admit::admit(host, tenant, bytes));
        Box::pin(async move {
            task.await.unwrap_or_else(|e| Err(AdmitError::Host { stage: "admitting a component", source: e.into() }))
        })
    }

    fn warm(&self, component: &ComponentRef) -> BoxFuture<'_, Result<(), CallError>> {
        let (host, component) = (self.inner.clone(), component.clone());
        let task = self.inner.threads.spawn(async move {
            host.machine(false)?.load(&host, &component).await?;
            Ok(())
        });
        Box::pin(async move {
            task.await.unwrap_or_else(|e| Err(CallError::Host { stage: "loading a component", source: e.into() }))
        })
    }

    fn sweep(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            match self.inner.sweep_artifacts().await {
                Ok(0) => {}
                Ok(artifacts) => tracing::info!(artifacts, "compiled components whose bytes are gone are deleted"),
                Err(e) => tracing::warn!(error = &*e, "compiled components stay until the next sweep"),
            }
        })
    }

    fn check(
        &self,
        call: Call,
        direction: Direction,
        messages: Vec<Message>,
    ) -> BoxFuture<'_, Result<Verdict, CallError>> {
        Box::pin(async move {
            let name = call.target.component.to_string();
            let messages = convert::messages_out(messages);
            let judged = judge::check(&self.inner, Context::new(call), direction, messages).await;
            judged.map(convert::verdict_in).map_err(|stop| stop.into_call_error(&name))
        })
    }

    fn open_stream(
        &self,
        call: Call,
        conversation: &[Message],
    ) -> BoxFuture<'_, Result<Box<dyn ShieldStream>, CallError>> {
        Box::pin(judge::open(&self.inner, Context::new(call), convert::conversation_out(conversation)))
    }

    fn metrics(&self) -> Vec<ComponentMetric> {
        self.inner.metrics.snapshot()
    }

    fn run_turn(&self, call: Call, turn: Turn) -> TurnStream {
        turn::run(&self.inner, Context::new(call), turn)
    }

    fn tools(&self, call: Call) -> BoxFuture<'_, Result<Vec<ToolSpec>, CallError>> {
        Box::pin(async move {
            let name = call.target.component.to_string();
            let specs = toolbox::list(&self.inner, Context::new(call)).await;
            let specs = specs.map_err(|stop| stop.into_call_error(&name))?;
            let broken = |e: convert::Bad| Stop::Answered(e.into(), None).into_call_error(&name);
            specs.into_iter().map(|spec| convert::tool_in(spec).map_err(broken)).collect()
        })
    }

    fn call_tool(
        &self,
        call: Call,
        tool: Option<String>,
        arguments: Value,
    ) -> BoxFuture<'_, Result<ToolOutput, CallError>> {
        Box::pin(async move {
            let name = call.target.component.to_string();
            let output = toolbox::call(&self.inner, Context::new(call), tool, arguments.to_string()).await;
            let output = output.map_err(|stop| stop.into_call_error(&name))?;
            Ok(ToolOutput { content: output.content, is_error: output.is_error })
        })
    }

    fn invoke(&self, call: Call, function: String, args: Vec<Value>) -> BoxFuture<'_, Result<Invocation, CallError>> {
        Box::pin(invoke::invoke(&self.inner, Context::new(call), function, args))
    }
}
