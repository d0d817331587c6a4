//! The host's own routes under `/stockade/v1`.

pub mod assistants;
pub mod bindings;
pub mod components;
pub mod datasets;
pub mod interruptions;
pub mod jobs;
pub mod keys;
pub mod prompts;
pub mod secrets;
pub mod state;
pub mod tenants;
pub mod traces;

use crate::error::{ApiError, Code};
use stockade_core::id::{ComponentName, NameError, Version};

fn name_error(e: NameError) -> ApiError {
    ApiError::new(Code::InvalidRequest, e.to_string())
}

fn component_name(text: &str) -> Result<ComponentName, ApiError> {
    ComponentName::new(text).map_err(name_error)
}

fn component_version(text: &str) -> Result<Version, ApiError> {
    Version::new(text).map_err(name_error)
}

/// Whether a PATCH body names a field at all.
fn has_field(body: &serde_json::Value, name: &str) -> bool {
    body.get(name).is_some()
}
