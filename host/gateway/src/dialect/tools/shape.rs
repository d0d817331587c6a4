//! Wire shapes: tools and tool groups as clients of 0.2 and of 0.6 read them.

use super::Group;
use serde_json::{Value, json};
use stockade_core::chat::ToolSpec;

/// `ToolDef` of both, and `Tool` of 0.2.
pub fn tool(spec: &ToolSpec, group: &Group) -> Value {
    json!({
        "name": spec.name,
        "description": spec.description,
        "toolgroup_id": group.id,
        "parameters": parameters(&spec.parameters),
        "input_schema": spec.parameters,
        "output_schema": null,
        "metadata": null,
        "identifier": spec.name,
        "provider_id": group.pinned.component.name,
        "provider_resource_id": spec.name,
        "type": "tool",
    })
}

/// A JSON Schema as 0.2's list of parameters.
fn parameters(schema: &Value) -> Vec<Value> {
    let required = |name: &str| schema["required"].as_array().is_some_and(|r| r.iter().any(|n| n == name));
    let properties = schema["properties"].as_object();
    let parameter = |(name, property): (&String, &Value)| {
        json!({
            "name": name,
            "parameter_type": property["type"].as_str().unwrap_or("object"),
            "description": property["description"].as_str().unwrap_or_default(),
            "required": required(name),
            "default": property["default"],
        })
    };
    properties.into_iter().flatten().map(parameter).collect()
}

pub fn group(group: &Group) -> Value {
    let config = &group.pinned.config;
    let endpoint = config["url"].as_str().map(|uri| json!({"uri": uri}));
    json!({
        "identifier": group.id,
        "provider_id": group.pinned.component.name,
        "provider_resource_id": group.bound,
        "type": "tool_group",
        "mcp_endpoint": endpoint,
        "args": if endpoint.is_some() || config.is_null() { Value::Null } else { config.clone() },
    })
}
