//! `POST /stockade/v1/prompts/render`: what a stored prompt becomes, as the tenant's bound prompt store renders it.

use crate::app::App;
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::{ApiError, Code};
use crate::fields::Fields;
use crate::layers::RequestInfo;
use crate::reply;
use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};
use std::sync::Arc;
use stockade_core::plugin::{Call, CallError, Role, TraceLog};
use stockade_core::registry::Scope;

pub async fn render(
    State(app): State<App>,
    caller: Caller,
    info: RequestInfo,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    caller.need_any(&[Scope::Inference, Scope::Components])?;
    let f = Fields::root(&body)?;
    if f.value("template").is_some() {
        return Err(f.wrong("template", "is not served: store the prompt and give its name"));
    }
    let name = f.need_str("name")?;
    let variables = match f.object("variables")? {
        Some(v) => Value::Object(v.map().clone()),
        None => json!({}),
    };
    let selector = match (f.integer("version", 1..=i64::from(u32::MAX))?, f.str("label")?) {
        (Some(version), _) => json!({"version": version}),
        (None, Some(label)) => json!({"label": label}),
        (None, None) => json!("latest"),
    };
    let pins = app.registry.pins(&caller.tenant)?;
    let bound = pins.one(&Role::PromptStore).cloned();
    let target = bound.ok_or_else(|| ApiError::new(Code::NotFound, "the tenant has bound no prompt store"))?;
    let call = Call {
        tenant: caller.tenant.clone(),
        request: info.id,
        target,
        pins,
        trace: Arc::new(TraceLog::default()),
        depth: 0,
    };
    // The store's interface takes variables as JSON text.
    let args = vec![json!(name), selector, json!(variables.to_string())];
    let done = app.plugins.invoke(call, "render".into(), args).await;
    match done {
        Ok(done) => Ok(reply::json(&shape(done.result))),
        Err(CallError::Component { code, message, .. }) => Err(match code {
            "not-found" | "not_found" => ApiError::new(Code::NotFound, message),
            _ => ApiError::new(Code::InvalidRequest, message),
        }),
        Err(e) => Err(e.into()),
    }
}

/// `{version, content: {text | messages}}` as `{version, text | messages}`.
fn shape(result: Value) -> Value {
    let mut out = json!({"version": result["version"]});
    if let (Value::Object(out), Value::Object(content)) = (&mut out, &result["content"]) {
        out.extend(content.clone());
    }
    out
}
