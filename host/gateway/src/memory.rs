//! Calls of the gateway's own into a tenant's bound memory.

use crate::app::App;
use crate::error::{ApiError, Code};
use serde_json::Value;
use std::sync::Arc;
use stockade_core::plugin::{Call, CallError, Role, TraceLog};
use stockade_core::{RequestId, TenantId};

/// Calls one of the memory's functions with JSON arguments in order.
///
/// # Errors
/// `not_found` when no memory is bound or the memory knows no such thing; `invalid_request` and `conflict` as it says.
pub async fn call(
    app: &App,
    tenant: &TenantId,
    request: RequestId,
    function: &str,
    args: Vec<Value>,
) -> Result<Value, ApiError> {
    let pins = app.registry.pins(tenant)?;
    let bound = pins.one(&Role::Memory).cloned();
    let target = bound.ok_or_else(|| ApiError::new(Code::NotFound, "the tenant has bound no memory"))?;
    let trace = Arc::new(TraceLog::default());
    let call = Call { tenant: tenant.clone(), request, target, pins, trace: trace.clone(), depth: 0 };
    let done = app.plugins.invoke(call, function.into(), args).await;
    for call in trace.snapshot() {
        app.metrics.component_call(call.component.as_str(), &call.decision);
    }
    match done {
        Ok(done) => Ok(done.result),
        Err(CallError::Component { code, message, .. }) => Err(match code {
            "not-found" => ApiError::new(Code::NotFound, message),
            "invalid" => ApiError::new(Code::InvalidRequest, message),
            "conflict" => ApiError::new(Code::Conflict, message),
            "too-large" => ApiError::new(Code::TooLarge, message),
            _ => ApiError::new(Code::ComponentFailed, message),
        }),
        Err(e) => Err(e.into()),
    }
}
