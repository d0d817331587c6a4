//! HTTP in front of the host: authentication, admission, API dialects, event streams, and the chain of mandatory
//! shields that every model request passes.
//!
//! Reaches models, components and state through the seams of `stockade-core` alone; no candle, wgpu or wasmtime is in
//! its dependency graph.
//!
//! ```text
//! server ─► layers ─► routes ─► dialect/openai ─► inference ─► chain ─► Inference | Plugins
//!                            └► host (our own routes) ─────────────────► registry | Plugins
//! ```

mod admission;
mod app;
mod auth;
mod body;
mod bound;
mod chain;
mod dialect;
mod error;
mod fields;
mod health;
mod held;
mod host;
mod inference;
mod interruption;
mod jobs;
mod layers;
mod memory;
mod metrics;
mod openapi;
mod prompt_store;
mod reply;
mod routes;
mod run;
mod server;
mod settings;
mod sse;
mod target;

pub use app::Readiness;
pub use settings::Settings;

use app::{App, Parts};
use axum::Router;
use dialect::responses::background::Background;
use dialect::vector_stores::Ingesting;
use futures::future::BoxFuture;
use std::future::Future;
use std::io;
use std::sync::Arc;
use stockade_core::id::ComponentName;
use stockade_core::infer::Inference;
use stockade_core::jobs::Jobs;
use stockade_core::plugin::Plugins;
use stockade_core::registry::{Recorder, Registry};
use stockade_core::train::Publisher;
use tokio::net::TcpListener;

/// What the gateway stands in front of.
pub struct GatewayParts {
    pub registry: Registry,
    pub inference: Arc<dyn Inference>,
    pub plugins: Arc<dyn Plugins>,
    /// Makes jobs; who works on them is not the gateway's business.
    pub jobs: Jobs,
    /// Serves jobs' checkpoints.
    pub publisher: Arc<dyn Publisher>,
    pub settings: Settings,
    /// Names of the components that come with the host, which the default tenant holds.
    pub shipped: Vec<ComponentName>,
    /// Requests for models are refused until it is set ready; set to draining at shutdown.
    pub readiness: Readiness,
}

/// A gateway that is built and not yet served.
pub struct Gateway {
    app: App,
    router: Router,
    /// Writes traces and usage; ends once the router and all requests are gone.
    recorder: BoxFuture<'static, ()>,
}

impl Gateway {
    pub fn new(parts: GatewayParts) -> Self {
        let (recorder, writer) = Recorder::new(parts.registry.clone(), parts.settings.keep_traces);
        let admission = admission::Admission::new(admission::Limits {
            total: parts.settings.max_requests,
            per_tenant: parts.settings.max_requests_per_tenant,
        });
        let app = App::new(Parts {
            registry: parts.registry,
            inference: parts.inference,
            plugins: parts.plugins,
            jobs: parts.jobs,
            publisher: parts.publisher,
            settings: parts.settings,
            readiness: parts.readiness,
            recorder,
            metrics: metrics::Metrics::default(),
            admission,
            ingesting: Ingesting::default(),
            background: Background::default(),
            shipped: parts.shipped,
        });
        Self { router: routes::router(app.clone()), app, recorder: Box::pin(writer) }
    }

    /// The routes alone, and the future that writes traces and usage, for callers that serve them themselves.
    pub fn into_router(self) -> (Router, BoxFuture<'static, ()>) {
        (self.router, self.recorder)
    }

    /// Serves `listener` until `shutdown` is done and the running requests have ended or used up the drain time; every
    /// finished request's trace is written before it returns.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) -> io::Result<()> {
        let Self { app, router, recorder } = self;
        // The recorder ends when the last request has dropped its sender, so both run to their end.
        let (served, ()) = tokio::join!(server::serve(app, router, listener, shutdown), recorder);
        served
    }
}
