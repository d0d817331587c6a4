//! `/openapi.json`: exactly the served routes, from the table that serves them, with hand-written body schemas.

use crate::reply;
use crate::routes::{self, Route};
use axum::response::Response;
use serde_json::{Map, Value, json};
use std::sync::OnceLock;

/// Body schemas by name.
const SCHEMAS: &str = include_str!("openapi_schemas.json");

pub async fn document() -> Response {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    reply::json(DOCUMENT.get_or_init(build))
}

pub fn build() -> Value {
    let mut paths = Map::new();
    for route in routes::all() {
        let path = path(&route);
        let entry = paths.entry(path).or_insert_with(|| json!({}));
        entry[route.method.as_str().to_lowercase()] = operation(&route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Stockade",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "OpenAI's dialect and the Llama Stack's under /v1, the host's own routes under /stockade/v1.",
            "license": {"name": "Apache-2.0"},
        },
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": serde_json::from_str::<Value>(SCHEMAS).unwrap_or_default(),
        },
    })
}

/// `{*rest}` is `{rest}`; the rollback of a role is a path of its own to its callers.
fn path(route: &Route) -> String {
    let path = route.path.replace("{*", "{");
    match (route.path, route.method.as_str()) {
        ("/stockade/v1/bindings/{*role}", "POST") => path + "/rollback",
        _ => path,
    }
}

fn operation(route: &Route) -> Value {
    let names = route.path.split('{').skip(1).filter_map(|p| p.split('}').next());
    let mut parameters: Vec<Value> = names
        .map(|n| {
            json!({
                "name": n.trim_start_matches('*'),
                "in": "path",
                "required": true,
                "schema": {"type": "string"},
            })
        })
        .collect();
    let lists = [
        "tenants",
        "keys",
        "components",
        "bindings",
        "traces",
        "secrets",
        "usage",
        "{bucket}",
        "assistants",
        "versions",
        "interruptions",
        "prompts",
        "jobs",
        "datasets",
    ];
    let last = route.path.rsplit('/').next().unwrap_or_default();
    if route.method == "GET" && route.path.starts_with("/stockade") && lists.contains(&last) {
        for (name, kind) in [("limit", "integer"), ("after", "string")] {
            parameters.push(json!({"name": name, "in": "query", "schema": {"type": kind}}));
        }
    }
    let error = match route.path.starts_with("/stockade") {
        true => json!({"application/problem+json": {"schema": schema("Problem")}}),
        false => json!({"application/json": {"schema": schema("Error")}}),
    };
    let mut out = json!({
        "summary": route.summary,
        "parameters": parameters,
        "responses": {
            "2XX": {"description": "Done"},
            "default": {"description": "Refused or failed", "content": error},
        },
    });
    if let Some(body) = route.body {
        let media = match body {
            "Component" => "application/wasm",
            "FileForm" => "multipart/form-data",
            _ => "application/json",
        };
        out["requestBody"] = json!({
            "required": true,
            "content": {media: {"schema": schema(body)}},
        });
    }
    if !route.key {
        out["security"] = json!([]);
    }
    out
}

fn schema(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_schema_exists_and_every_reference_resolves() {
        let document = build();
        let text = document.to_string();
        let schemas = &document["components"]["schemas"];
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(schemas[name].is_object(), "{name}");
        }
        assert!(schemas["ChatCompletionRequest"]["properties"]["messages"].is_object());
    }
}
