//! The tenant's bound memory, as the gateway's own routes call it.

use crate::app::App;
use crate::bound::Bound;
use crate::error::ApiError;
use serde_json::Value;
use stockade_core::plugin::Role;
use stockade_core::{RequestId, TenantId};

/// Calls one of the memory's functions with JSON arguments in order.
///
/// # Errors
/// As [`Bound::new`] and [`Bound::call`].
pub async fn call(
    app: &App,
    tenant: &TenantId,
    request: RequestId,
    function: &str,
    args: Vec<Value>,
) -> Result<Value, ApiError> {
    Bound::new(app, tenant, request, &Role::Memory, "memory")?.call(function, args).await
}
