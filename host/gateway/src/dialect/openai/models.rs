//! `GET /v1/models` and `/v1/models/{id}`; ids are the names under which models are served and may hold slashes.

use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::reply;
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};
use stockade_core::infer::ModelInfo;
use stockade_core::registry::Scope;

pub async fn list(State(app): State<App>, caller: Caller) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let models = app.models(&caller.tenant)?;
    let data: Vec<Value> = models.iter().map(model).collect();
    Ok(reply::json(&json!({"object": "list", "data": data})))
}

pub async fn get(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    Ok(reply::json(&model(&app.model(&caller.tenant, &id)?)))
}

fn model(m: &ModelInfo) -> Value {
    json!({
        "id": m.id,
        "object": "model",
        "created": m.created,
        "owned_by": "stockade",
        "kind": m.kind,
        "digest": m.digest,
        "max_model_len": m.context_tokens,
        "parameters": m.parameters,
        "embedding_dimensions": m.embedding_dimensions,
        "architecture": m.architecture,
        "quantization": m.quantization,
    })
}
