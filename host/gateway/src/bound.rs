//! Calls of the gateway's own into the component that a tenant has bound to a role.

use crate::app::App;
use crate::error::{ApiError, Code};
use serde_json::Value;
use std::sync::Arc;
use stockade_core::plugin::{Call, CallError, Role, TraceLog};
use stockade_core::{RequestId, TenantId};

/// A way into the bound component, with the bindings as they were when it was made.
pub struct Bound {
    app: App,
    call: Call,
}

impl Bound {
    /// # Errors
    /// `not_found` when the tenant has bound nothing to the role, which is called `what`.
    pub fn new(app: &App, tenant: &TenantId, request: RequestId, role: &Role, what: &str) -> Result<Self, ApiError> {
        let pins = app.registry.pins(tenant)?;
        let bound = pins.one(role).cloned();
        let target = bound.ok_or_else(|| ApiError::new(Code::NotFound, format!("the tenant has bound no {what}")))?;
        let call = Call { tenant: tenant.clone(), request, target, pins, trace: Arc::default(), depth: 0 };
        Ok(Self { app: app.clone(), call })
    }

    /// Calls one of the component's functions with JSON arguments in order.
    ///
    /// # Errors
    /// What the component answers, under the code of its error's case.
    pub async fn call(&self, function: &str, args: Vec<Value>) -> Result<Value, ApiError> {
        let trace = Arc::new(TraceLog::default());
        let call = Call { trace: trace.clone(), ..self.call.clone() };
        let done = self.app.plugins.invoke(call, function.into(), args).await;
        for call in trace.snapshot() {
            self.app.metrics.component_call(call.component.as_str(), &call.decision);
        }
        match done {
            Ok(done) => Ok(done.result),
            Err(CallError::Component { code, message, component }) => Err(match code {
                "not-found" => ApiError::new(Code::NotFound, message),
                "conflict" => ApiError::new(Code::Conflict, message),
                "too-large" => ApiError::new(Code::TooLarge, message),
                "invalid" => ApiError::new(Code::InvalidRequest, message),
                "overloaded" => ApiError::new(Code::Overloaded, message),
                code => ApiError::new(Code::ComponentFailed, message)
                    .with("component", component)
                    .with("component_code", code),
            }),
            Err(e) => Err(e.into()),
        }
    }
}
