//! `GET /v1/models` and `/v1/models/{id}`: served models, then the tenant's assistants; ids are the names under which models are served and may hold slashes.

use crate::app::App;
use crate::auth::Caller;
use crate::error::{ApiError, Code};
use crate::jobs;
use crate::reply;
use crate::target::Target;
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};
use stockade_core::TenantId;
use stockade_core::infer::ModelInfo;
use stockade_core::registry::{AssistantVersion, Scope};

/// Most assistants that the list shows; a tenant has no more.
const MAX_ASSISTANTS: usize = 1_000;

pub async fn list(State(app): State<App>, caller: Caller) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let models = app.models(&caller.tenant)?;
    let mut data = Vec::with_capacity(models.len());
    for m in &models {
        data.push(model(&app, &caller.tenant, m)?);
    }
    let assistants = app.registry.assistants(&caller.tenant, None, MAX_ASSISTANTS)?;
    data.extend(assistants.iter().map(|a| assistant(a, &caller.tenant)));
    Ok(reply::json(&json!({"object": "list", "data": data})))
}

pub async fn get(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    jobs::serve_named(&app, &caller.tenant, &id).await?;
    let found = app.model(&caller.tenant, &id);
    match found {
        Err(e) if e.code == Code::NotFound => {
            let target = Target::resolve(&app, &caller.tenant, &id)?;
            Ok(reply::json(&target.assistant.map_or(Value::Null, |a| assistant(&a, &caller.tenant))))
        }
        found => Ok(reply::json(&model(&app, &caller.tenant, &found?)?)),
    }
}

/// An assistant is called like a model.
fn assistant(a: &AssistantVersion, tenant: &TenantId) -> Value {
    json!({
        "id": a.name,
        "object": "model",
        "created": a.created_at,
        "owned_by": tenant,
        "kind": "assistant",
        "version": a.version,
        "base_model": a.definition.model,
    })
}

fn model(app: &App, tenant: &TenantId, m: &ModelInfo) -> Result<Value, ApiError> {
    let own = app.registry.owns_model(tenant, &m.id)?;
    Ok(json!({
        "id": app.name_of(tenant, &m.id)?,
        "object": "model",
        "created": m.created,
        "owned_by": if own { tenant.as_str() } else { "stockade" },
        "kind": m.kind,
        "digest": m.digest,
        "parent": m.base,
        "max_model_len": m.context_tokens,
        "parameters": m.parameters,
        "embedding_dimensions": m.embedding_dimensions,
        "architecture": m.architecture,
        "quantization": m.quantization,
    }))
}
