//! `POST /mcp`: the tenant's bound tools as an MCP server over streamable HTTP, without sessions: every request stands
//! alone and every answer is one JSON message. Source: Model Context Protocol 2025-06-18.

use super::tools::runtime;
use crate::app::App;
use crate::auth::Caller;
use crate::body::LateBody;
use crate::error::ApiError;
use crate::layers::RequestInfo;
use crate::run::{Run, Status};
use crate::{inference, reply};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use stockade_core::plugin::CallError;

/// Versions of the protocol that are spoken, the newest last.
const VERSIONS: [&str; 3] = ["2025-03-26", "2025-06-18", "2025-11-25"];

/// Codes of JSON-RPC 2.0.
const INVALID_REQUEST: i64 = -32600;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const INTERNAL: i64 = -32603;

type Answer = Result<Value, (i64, String)>;

pub async fn serve(
    State(app): State<App>,
    caller: Caller,
    info: RequestInfo,
    body: LateBody,
) -> Result<Response, ApiError> {
    inference::run(&app, &caller, info, "POST /mcp", async |run| {
        let message = body.read(&app).await?;
        let Some(method) = message["method"].as_str() else {
            let answer = match message.get("result").or(message.get("error")) {
                // An answer to a question that was never asked.
                Some(_) => StatusCode::ACCEPTED.into_response(),
                None => answered(&Value::Null, Err((INVALID_REQUEST, "one message with a method".into()))),
            };
            return Ok(answer);
        };
        let Some(id) = message.get("id").filter(|id| id.is_string() || id.is_number()) else {
            run.ended(Status::Ok);
            return Ok(StatusCode::ACCEPTED.into_response());
        };
        let params = &message["params"];
        let answer = match method {
            "initialize" => Ok(initialize(params)),
            "ping" => Ok(json!({})),
            "tools/list" => list(&run).await,
            "tools/call" => call(&run, params).await,
            other => Err((METHOD_NOT_FOUND, format!("no method `{}`", other.chars().take(64).collect::<String>()))),
        };
        run.ended(Status::Ok);
        Ok(answered(id, answer))
    })
    .await
}

fn answered(id: &Value, answer: Answer) -> Response {
    reply::json(&match answer {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err((code, message)) => json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}),
    })
}

fn initialize(params: &Value) -> Value {
    let asked = params["protocolVersion"].as_str().unwrap_or_default();
    let version = if VERSIONS.contains(&asked) { asked } else { VERSIONS[VERSIONS.len() - 1] };
    json!({
        "protocolVersion": version,
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "stockade", "version": env!("CARGO_PKG_VERSION")},
    })
}

async fn list(run: &Run) -> Answer {
    let mut tools = Vec::new();
    for (name, pinned) in run.pins().tools() {
        match run.app.plugins.tools(run.call(pinned)).await {
            Ok(specs) => tools.extend(specs.into_iter().map(|spec| {
                json!({"name": spec.name, "description": spec.description, "inputSchema": object(spec.parameters)})
            })),
            // One that cannot be asked must not take the others with it.
            Err(error) => run.note(format!("the tools of {name} are left out: {error}")),
        }
    }
    Ok(json!({"tools": tools}))
}

/// The protocol wants a schema of an object.
fn object(mut schema: Value) -> Value {
    if schema["type"] != "object" {
        schema = json!({"type": "object"});
    }
    schema
}

async fn call(run: &Run, params: &Value) -> Answer {
    let name = params["name"].as_str().ok_or((INVALID_PARAMS, "params.name is missing".into()))?;
    let arguments = match &params["arguments"] {
        Value::Null => json!({}),
        arguments @ Value::Object(_) => arguments.clone(),
        _ => return Err((INVALID_PARAMS, "params.arguments has to be an object".into())),
    };
    let (text, failed) = match runtime::call(run, name, arguments).await {
        Ok(output) => (output.content, output.is_error),
        Err(CallError::NoFunction { function, .. }) => {
            return Err((INVALID_PARAMS, format!("Unknown tool: {function}")));
        }
        Err(CallError::Host { .. }) => return Err((INTERNAL, "the host failed".into())),
        Err(error) => (runtime::blocked(run, &error).unwrap_or_else(|| error.to_string()), true),
    };
    Ok(json!({"content": [{"type": "text", "text": text}], "isError": failed}))
}
