//! `POST /v1/embeddings`.

use crate::app::App;
use crate::auth::Caller;
use crate::body::LateBody;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::layers::RequestInfo;
use crate::run::{Run, Status};
use crate::{chain, inference, reply};
use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::sync::Arc;
use stockade_core::event::Usage;
use stockade_core::infer::{EmbedInput, EmbedRequest, ModelInfo, ModelKind};
use stockade_core::plugin::Role;

/// Most inputs of a request, as OpenAI has it.
const MAX_INPUTS: usize = 2048;

pub async fn create(
    State(app): State<App>,
    caller: Caller,
    info: RequestInfo,
    body: LateBody,
) -> Result<Response, ApiError> {
    let route = "POST /v1/embeddings";
    inference::run(&app, &caller, info, route, async |run| {
        let body = body.read(&app).await?;
        let f = Fields::root(&body)?;
        let model = app.model_of(&caller.tenant, f.need_str("model")?, ModelKind::Embedder)?;
        run.uses(&model);
        let base64 = match f.str("encoding_format")? {
            None | Some("float") => false,
            Some("base64") => true,
            Some(_) => return Err(f.wrong("encoding_format", "must be float or base64")),
        };
        let most = i64::from(model.embedding_dimensions.unwrap_or(u32::MAX));
        let dimensions = f.integer("dimensions", 1..=most)?;
        let mut inputs = inputs(&f)?;
        shield(&run, &model, &mut inputs).await?;
        let request = EmbedRequest {
            model: model.id.clone(),
            tenant: caller.tenant.clone(),
            inputs,
            dimensions: dimensions.and_then(|d| u32::try_from(d).ok()),
        };
        let done = {
            let _span = run.span("embed");
            app.inference.embed(request).await?
        };
        run.took(Usage { prompt_tokens: done.prompt_tokens, ..Usage::default() });
        run.ended(Status::Ok);
        let data: Vec<Value> = done
            .vectors
            .iter()
            .enumerate()
            .map(|(i, v)| json!({"object": "embedding", "index": i, "embedding": vector(v, base64)}))
            .collect();
        Ok(reply::json(&json!({
            "object": "list",
            "data": data,
            "model": model.id,
            "usage": {"prompt_tokens": done.prompt_tokens, "total_tokens": done.prompt_tokens},
        })))
    })
    .await
}

fn vector(values: &[f32], base64: bool) -> Value {
    if !base64 {
        return json!(values);
    }
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    STANDARD.encode(bytes).into()
}

/// A string, strings, token ids, or arrays of token ids.
fn inputs(f: &Fields) -> Result<Vec<EmbedInput>, ApiError> {
    let wrong = || f.wrong("input", "must be a non-empty string, an array of them, token ids, or arrays of token ids");
    let one = |v: &Value| match v {
        Value::String(s) if !s.is_empty() => Some(EmbedInput::Text(s.clone())),
        Value::Array(ids) if !ids.is_empty() => tokens(ids).map(EmbedInput::Tokens),
        _ => None,
    };
    let inputs = match f.need("input")? {
        Value::Array(list) if list.first().is_some_and(Value::is_number) => {
            vec![EmbedInput::Tokens(tokens(list).ok_or_else(wrong)?)]
        }
        Value::Array(list) if !list.is_empty() => {
            if list.len() > MAX_INPUTS {
                return Err(f.wrong("input", format!("at most {MAX_INPUTS} inputs")));
            }
            list.iter().map(one).collect::<Option<_>>().ok_or_else(wrong)?
        }
        other => vec![one(other).ok_or_else(wrong)?],
    };
    Ok(inputs)
}

/// Token ids out of JSON numbers.
pub fn tokens(list: &[Value]) -> Option<Vec<u32>> {
    let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
    list.iter().map(id).collect()
}

/// The tenant's input shields see what is embedded, token ids as their text.
async fn shield(run: &Arc<Run>, model: &ModelInfo, inputs: &mut [EmbedInput]) -> Result<(), ApiError> {
    if run.pins().all(&Role::ShieldInput).is_empty() {
        return Ok(());
    }
    for input in inputs.iter_mut() {
        if let EmbedInput::Tokens(ids) = input {
            *input = EmbedInput::Text(run.app.inference.detokenize(&model.id, ids)?);
        }
    }
    let mut texts: Vec<&mut String> = inputs
        .iter_mut()
        .filter_map(|i| match i {
            EmbedInput::Text(text) => Some(text),
            EmbedInput::Tokens(_) => None,
        })
        .collect();
    chain::check_texts(run, &mut texts).await
}
