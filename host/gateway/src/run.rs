//! One inference request from its admission to its last byte: what it pinned, what it took, how it ended.
//!
//! Invariant: a run is recorded exactly once, after its last holder has dropped it, whatever ended it.

use crate::admission::Permit;
use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use stockade_core::event::Usage;
use stockade_core::infer::ModelInfo;
use stockade_core::plugin::{Call, Pinned, Pins, TraceLog, call_span};
use stockade_core::registry::{AssistantVersion, Party, Recording, Span, TraceRecord, UsageDelta, new_trace_id};
use stockade_core::{RequestId, TenantId};

/// Most notes and spans that a run keeps.
const MAX_NOTES: usize = 64;

/// How a request ended; the worst of its choices counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// The client left before the end.
    Cancelled,
    Ok,
    Blocked,
    Failed,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Ok => "ok",
            Self::Blocked => "blocked",
            Self::Failed => "failed",
        }
    }
}

/// What a request runs in place of the tenant's bindings as they are.
#[derive(Debug)]
pub struct Cast {
    /// The assistant's version, where one was named.
    pub assistant: Option<AssistantVersion>,
    pub party: Party,
    pub pins: Arc<Pins>,
}

pub struct Run {
    pub app: App,
    pub tenant: TenantId,
    pub request: RequestId,
    pub trace_id: String,
    bound: Arc<Pins>,
    cast: OnceLock<Cast>,
    pub log: Arc<TraceLog>,
    route: &'static str,
    permit: Permit,
    created_us: u64,
    state: Mutex<State>,
}

struct State {
    status: Status,
    /// `None` until the model is known to be served.
    model: Option<String>,
    usage: Usage,
    spans: Vec<Span>,
    notes: Vec<String>,
}

impl Run {
    /// Admits a request and pins its tenant's bindings.
    pub fn begin(app: &App, caller: &Caller, request: RequestId, route: &'static str) -> Result<Arc<Self>, ApiError> {
        if !app.readiness.is_ready() {
            return Err(ApiError::new(
                crate::error::Code::Overloaded,
                format!("the host is {}", app.readiness.as_str()),
            )
            .retry_after(5));
        }
        let quotas = app.registry.tenant(&caller.tenant)?;
        let quotas = quotas.map(|t| t.quotas).unwrap_or_default();
        let permit = app.admission.admit(&app.registry, &caller.tenant, &quotas)?;
        let pins = app.registry.pins(&caller.tenant)?;
        let trace_id = new_trace_id(getrandom::u32().unwrap_or_default());
        tracing::Span::current().record("trace", &trace_id);
        let created = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(Arc::new(Self {
            app: app.clone(),
            tenant: caller.tenant.clone(),
            request,
            trace_id,
            bound: pins,
            cast: OnceLock::new(),
            log: Arc::default(),
            route,
            permit,
            created_us: created.map_or(0, |d| d.as_micros() as u64),
            state: Mutex::new(State {
                status: Status::Cancelled,
                model: None,
                usage: Usage::default(),
                spans: Vec::new(),
                notes: Vec::new(),
            }),
        }))
    }

    /// Names the served model that the request uses.
    pub fn uses(&self, model: &ModelInfo) {
        tracing::Span::current().record("model", model.id.as_str());
        self.state.lock().model = Some(model.id.to_string());
    }

    /// Fixes, once and before any component is called, what the request pins instead of the tenant's bindings.
    pub fn cast(&self, cast: Cast) {
        if let Some(a) = &cast.assistant {
            self.note(format!("assistant {}@{}", a.name, a.version));
        }
        // A second cast would change the pins of a request under way.
        let _ = self.cast.set(cast);
    }

    /// The exact versions of the request.
    pub fn pins(&self) -> &Arc<Pins> {
        self.cast.get().map_or(&self.bound, |c| &c.pins)
    }

    pub fn assistant(&self) -> Option<&AssistantVersion> {
        self.cast.get()?.assistant.as_ref()
    }

    pub fn party(&self) -> Party {
        self.cast.get().map(|c| c.party.clone()).unwrap_or_default()
    }

    /// How long the reply may take.
    pub fn time_limit(&self) -> Duration {
        let host = self.app.settings.request_timeout;
        let own = self.assistant().and_then(|a| a.definition.limits.seconds);
        own.map_or(host, |s| host.min(Duration::from_secs(s.into())))
    }

    /// A call from the gateway to one of the pinned components.
    pub fn call(&self, target: &Arc<Pinned>) -> Call {
        Call {
            tenant: self.tenant.clone(),
            request: self.request.clone(),
            target: target.clone(),
            pins: self.pins().clone(),
            trace: self.log.clone(),
            depth: 0,
        }
    }

    pub fn ended(&self, status: Status) {
        let mut state = self.state.lock();
        state.status = state.status.max(status);
    }

    pub fn status(&self) -> Status {
        self.state.lock().status
    }

    pub fn took(&self, usage: Usage) {
        self.state.lock().usage += usage;
    }

    /// Something that the host decided and the trace should tell.
    pub fn note(&self, note: String) {
        tracing::info!(note, "noted in the trace");
        let mut state = self.state.lock();
        if state.notes.len() < MAX_NOTES {
            state.notes.push(note);
        }
    }

    /// Opens a span; it ends when the guard is dropped.
    pub fn span(self: &Arc<Self>, name: &'static str) -> SpanGuard {
        SpanGuard { run: self.clone(), name, start_us: self.log.elapsed_us() }
    }
}

pub struct SpanGuard {
    run: Arc<Run>,
    name: &'static str,
    start_us: u64,
}

impl Drop for SpanGuard {
    fn drop(&mut self) {
        let span = Span {
            name: self.name.into(),
            start_us: self.start_us,
            duration_us: self.run.log.elapsed_us().saturating_sub(self.start_us),
            parent: Some(ROOT.into()),
            attributes: BTreeMap::new(),
        };
        let mut state = self.run.state.lock();
        if state.spans.len() < MAX_NOTES {
            state.spans.push(span);
        }
    }
}

/// Name of the span around a whole request.
const ROOT: &str = "request";

impl Drop for Run {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        self.app.metrics.tokens(state.usage);
        let tokens = u64::from(state.usage.prompt_tokens) + u64::from(state.usage.completion_tokens);
        self.permit.took(tokens);
        let whole = self.log.elapsed_us();
        let mut spans = vec![Span {
            name: ROOT.into(),
            start_us: 0,
            duration_us: whole,
            parent: None,
            attributes: BTreeMap::new(),
        }];
        spans.append(&mut state.spans);
        let ending = Ending {
            app: self.app.clone(),
            log: self.log.clone(),
            recording: Recording {
                tenant: self.tenant.clone(),
                usage: state.model.as_ref().map(|_| UsageDelta::of(state.usage)),
                trace: TraceRecord {
                    id: std::mem::take(&mut self.trace_id),
                    request: self.request.clone(),
                    route: self.route.into(),
                    status: state.status.as_str().into(),
                    model: state.model.take().unwrap_or_default(),
                    tokens: state.usage,
                    components: Vec::new(),
                    prompts: Vec::new(),
                    spans,
                    notes: std::mem::take(&mut state.notes),
                    created_us: self.created_us,
                },
            },
        };
        // Two handles are this run's and its ending's own.
        let settled = Arc::strong_count(&self.log) <= 2;
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if !settled => drop(runtime.spawn(ending.settle())),
            _ => ending.finish(),
        }
    }
}

/// A request whose reply is over and whose components may still be reporting: a stream's shields end on threads of
/// their own, a moment after it.
struct Ending {
    app: App,
    log: Arc<TraceLog>,
    recording: Recording,
}

/// How often, and how many times at most, it is looked whether all components have reported.
const SETTLE_STEP: Duration = Duration::from_millis(5);
const SETTLE_STEPS: usize = 100;

impl Ending {
    async fn settle(self) {
        for _ in 0..SETTLE_STEPS {
            // Every call holds the log until it has reported.
            if Arc::strong_count(&self.log) == 1 {
                break;
            }
            tokio::time::sleep(SETTLE_STEP).await;
        }
        self.finish();
    }

    fn finish(mut self) {
        let trace = &mut self.recording.trace;
        trace.components = self.log.snapshot();
        trace.prompts = self.log.prompts();
        for call in &trace.components {
            let component = call.component.as_str();
            self.app.metrics.component_call(component, &call.decision);
            trace.spans.push(Span {
                name: call_span(&call.role, &call.component, &call.version),
                start_us: call.start_us,
                duration_us: call.usage.wall_us,
                parent: Some(ROOT.into()),
                attributes: BTreeMap::new(),
            });
        }
        trace.spans.extend(self.log.spans());
        tracing::info!(
            request = %trace.request,
            tenant = %self.recording.tenant,
            trace = %trace.id,
            model = trace.model,
            status = trace.status,
            prompt_tokens = trace.tokens.prompt_tokens,
            completion_tokens = trace.tokens.completion_tokens,
            duration_ms = trace.spans.first().map_or(0, |s| s.duration_us / 1000),
            components = trace.components.len(),
            "request ended"
        );
        self.app.recorder.record(self.recording);
    }
}
