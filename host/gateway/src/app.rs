//! What all handlers share: the parts behind the seams, and the gateway's own counters.

use crate::admission::Admission;
use crate::dialect::responses::background::Background;
use crate::dialect::vector_stores::Ingesting;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::settings::Settings;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use stockade_core::id::ComponentName;
use stockade_core::infer::{InferError, Inference, ModelInfo, ModelKind};
use stockade_core::jobs::Jobs;
use stockade_core::plugin::Plugins;
use stockade_core::registry::{Recorder, Registry};
use stockade_core::train::Publisher;
use stockade_core::{ModelId, TenantId};

/// Shared state of all handlers; cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Parts>);

pub struct Parts {
    pub registry: Registry,
    pub inference: Arc<dyn Inference>,
    pub plugins: Arc<dyn Plugins>,
    pub jobs: Jobs,
    pub publisher: Arc<dyn Publisher>,
    pub settings: Settings,
    pub readiness: Readiness,
    pub recorder: Recorder,
    pub metrics: Metrics,
    pub admission: Admission,
    pub ingesting: Ingesting,
    pub background: Background,
    /// Components that come with the host; the default tenant holds them.
    pub shipped: Vec<ComponentName>,
}

impl App {
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// The served model of this name if the tenant may use it; one that it has trained goes by its own name. What it may
    /// not use looks as if it were not served.
    pub fn model(&self, tenant: &TenantId, name: &str) -> Result<ModelInfo, ApiError> {
        let unknown = || InferError::UnknownModel(name.chars().take(128).collect());
        Ok(self.registry.model_seen(tenant, self.inference.models(), name)?.ok_or_else(unknown)?)
    }

    /// What the tenant calls a model.
    pub fn name_of<'a>(&self, tenant: &TenantId, id: &'a ModelId) -> Result<&'a str, ApiError> {
        let own = id.as_str().strip_prefix(tenant.as_str()).and_then(|rest| rest.strip_prefix('/'));
        match own {
            Some(own) if self.registry.owns_model(tenant, id)? => Ok(own),
            _ => Ok(id.as_str()),
        }
    }

    /// As [`App::model`], and of this kind.
    pub fn model_of(&self, tenant: &TenantId, name: &str, needs: ModelKind) -> Result<ModelInfo, ApiError> {
        let model = self.model(tenant, name)?;
        if model.kind != needs {
            return Err(InferError::WrongKind { model: model.id, is: model.kind, needs }.into());
        }
        Ok(model)
    }

    /// The served models that the tenant may use, the default first; those that it has trained are its own, and nobody
    /// else's.
    pub fn models(&self, tenant: &TenantId) -> Result<Vec<ModelInfo>, ApiError> {
        Ok(self.registry.models_seen(tenant, self.inference.models())?)
    }
}

impl Deref for App {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// Whether the host takes requests; shared with whoever starts and stops it.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicU8>);

const READY: u8 = 1;
const DRAINING: u8 = 2;

impl Readiness {
    /// Not ready until told so.
    pub fn starting() -> Self {
        Self::default()
    }
    pub fn set_ready(&self) {
        self.0.store(READY, Ordering::Release);
    }
    pub fn set_draining(&self) {
        self.0.store(DRAINING, Ordering::Release);
    }
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire) == READY
    }
    pub fn as_str(&self) -> &'static str {
        match self.0.load(Ordering::Acquire) {
            READY => "ready",
            DRAINING => "draining",
            _ => "starting",
        }
    }
}
