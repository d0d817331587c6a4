//! The host's own sandbox without a server: a component runtime over in-memory state and no models, for `stockade test`.

use crate::commands::data::failed;
use crate::digest::sha256;
use crate::failure::{Exit, Failure};
use bytes::Bytes;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use stockade_core::ModelId;
use stockade_core::error::BoxFuture;
use stockade_core::event::TokenLogprob;
use stockade_core::http::NoNetwork;
use stockade_core::id::{ComponentName, ComponentRef, RequestId, TenantId, Version};
use stockade_core::infer::{
    ChatPrompt, ClassifyRequest, EmbedRequest, Embeddings, EventStream, GenerateRequest, InferError, Inference, Load,
    ModelInfo, Rendered, ScoreRequest, TokenizeOptions,
};
use stockade_core::plugin::{AdmitError, Call, Grants, Pinned, Pins, PluginKind, Plugins, Role, TraceLog};
use stockade_core::registry::{MemoryStore, Registry};
use stockade_runtime::{Runtime, Seams, Settings};
use stockade_vectors::Indexes;

pub struct Sandbox {
    pub plugins: Runtime,
    pinned: Pinned,
    _artifacts: tempfile::TempDir,
}

impl Sandbox {
    /// Admits a component as an upload would be, and grants what it asks for.
    pub async fn load(bytes: &[u8]) -> Result<Self, Failure> {
        let artifacts = tempfile::tempdir()?;
        let store = Arc::new(MemoryStore::new());
        let registry = Registry::new(store.clone(), store);
        registry.ensure_default_tenant().await.map_err(failed)?;
        let plugins = runtime(&registry, artifacts.path())?;
        let tenant = TenantId::default_tenant();
        let bytes = Bytes::copy_from_slice(bytes);
        let admitted = plugins.admit(&tenant, bytes.clone()).await.map_err(|e| refused(&e))?;
        let (name, version) = (ComponentName::new("plugin"), Version::new("0.0.0"));
        let (name, version) = (name.map_err(failed)?, version.map_err(failed)?);
        let kind = admitted.roles.first().copied();
        let grants = admitted.grants_wanted.clone();
        registry.put_version(&tenant, &name, &version, admitted, bytes.clone()).await.map_err(failed)?;
        let component = ComponentRef { name: name.clone(), version, digest: sha256(&bytes) };
        Ok(Self { plugins, pinned: pinned(component, name, kind, grants), _artifacts: artifacts })
    }

    /// A call with this configuration.
    pub fn call(&self, config: Value) -> Call {
        Call {
            tenant: TenantId::default_tenant(),
            request: RequestId("test".into()),
            target: Arc::new(Pinned { config, ..self.pinned.clone() }),
            pins: Arc::new(Pins::default()),
            trace: Arc::new(TraceLog::default()),
            depth: 0,
        }
    }
}

/// A runtime over a registry, with no models and no network.
pub fn runtime(registry: &Registry, artifacts: &Path) -> Result<Runtime, Failure> {
    let seams = Seams {
        inference: Arc::new(NoModels),
        registry: registry.clone(),
        vectors: Arc::new(Indexes::new(registry.store().clone(), stockade_vectors::Settings::default())),
        http: Arc::new(NoNetwork),
        jobs: None,
    };
    let settings = Settings { instances: 16, ..Settings::new(artifacts, 2) };
    Runtime::new(settings, seams, crate::serve::compiler()?).map_err(failed)
}

fn pinned(component: ComponentRef, name: ComponentName, kind: Option<PluginKind>, grants: Grants) -> Pinned {
    let role = match kind {
        Some(PluginKind::Orchestrator) => Role::Orchestrator,
        Some(PluginKind::PromptStore) => Role::PromptStore,
        Some(PluginKind::Memory) => Role::Memory,
        Some(PluginKind::Evaluator) => Role::Evaluator(name),
        Some(PluginKind::RewardScorer) => Role::Reward(name),
        Some(PluginKind::Generator) => Role::Generator(name),
        Some(PluginKind::Tool | PluginKind::Toolset) => Role::Tool(name),
        Some(PluginKind::Shield) | None => Role::ShieldOutput,
    };
    Pinned::new(role, component, Value::Null, grants)
}

fn refused(error: &AdmitError) -> Failure {
    let mut message = error.to_string();
    if let AdmitError::Invalid { reasons } = error {
        for reason in reasons {
            message += &format!("\n  {}: found {}, expected {}", reason.at, reason.found, reason.expected);
        }
    }
    Failure::new(Exit::Refused, message)
}

/// A host that serves no model: every model call answers that it is not served.
struct NoModels;

fn unknown(model: &ModelId) -> InferError {
    InferError::UnknownModel(model.to_string())
}

impl Inference for NoModels {
    fn models(&self) -> Vec<ModelInfo> {
        Vec::new()
    }
    fn generate(&self, request: GenerateRequest) -> Result<EventStream, InferError> {
        Err(unknown(&request.model))
    }
    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, InferError>> {
        Box::pin(async move { Err(unknown(&request.model)) })
    }
    fn classify(&self, request: ClassifyRequest) -> BoxFuture<'_, Result<Vec<Vec<(String, f32)>>, InferError>> {
        Box::pin(async move { Err(unknown(&request.model)) })
    }
    fn log_likelihood(&self, request: ScoreRequest) -> BoxFuture<'_, Result<Vec<TokenLogprob>, InferError>> {
        Box::pin(async move { Err(unknown(&request.model)) })
    }
    fn tokenize(&self, model: &ModelId, _: &str, _: TokenizeOptions) -> Result<Vec<u32>, InferError> {
        Err(unknown(model))
    }
    fn detokenize(&self, model: &ModelId, _: &[u32]) -> Result<String, InferError> {
        Err(unknown(model))
    }
    fn render(&self, model: &ModelId, _: &ChatPrompt) -> Result<Rendered, InferError> {
        Err(unknown(model))
    }
    fn load(&self) -> Load {
        Load::default()
    }
}
