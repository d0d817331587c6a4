//! `/v1/tool-runtime/*` and `/v1/tools`: the bound tools, listed and called.

use super::{Group, MCP, mcp_headers, resolve, shape, shortened, with_headers};
use crate::app::App;
use crate::auth::Caller;
use crate::body::LateBody;
use crate::error::{ApiError, Code};
use crate::fields::Fields;
use crate::layers::RequestInfo;
use crate::run::{Run, Status};
use crate::{inference, reply};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use stockade_core::plugin::CallError;

#[derive(Deserialize)]
pub struct Wanted {
    /// `toolgroup_id` on one route, `tool_group_id` on the other.
    #[serde(alias = "tool_group_id")]
    toolgroup_id: Option<String>,
    /// JSON, or a deep object as the clients write it.
    mcp_endpoint: Option<String>,
    #[serde(rename = "mcp_endpoint[uri]")]
    mcp_uri: Option<String>,
    authorization: Option<String>,
}

impl Wanted {
    fn endpoint(&self) -> Option<String> {
        let json = self.mcp_endpoint.as_deref().and_then(|e| serde_json::from_str::<Value>(e).ok());
        self.mcp_uri.clone().or_else(|| json?["uri"].as_str().map(str::to_string))
    }
}

pub async fn list(
    State(app): State<App>,
    caller: Caller,
    info: RequestInfo,
    headers: HeaderMap,
    Query(wanted): Query<Wanted>,
) -> Result<Response, ApiError> {
    inference::run(&app, &caller, info, "GET /v1/tool-runtime/list-tools", async |run| {
        let groups = match (&wanted.toolgroup_id, wanted.endpoint()) {
            (Some(id), _) => vec![Group::find(run.pins(), id)?],
            (None, Some(url)) => {
                let registered = Group::all(run.pins()).into_iter().find(|g| g.pinned.config["url"] == *url);
                vec![registered.ok_or_else(|| ApiError::not_found("tool group at", &url))?]
            }
            (None, None) => Group::all(run.pins()),
        };
        let one = wanted.toolgroup_id.is_some() || wanted.endpoint().is_some();
        let mut data = Vec::new();
        for group in groups {
            let url = group.pinned.config["url"].as_str().map(str::to_string);
            let own = mcp_headers(wanted.authorization.as_deref(), provider_data(&headers), url.as_deref());
            let group = group.with_headers(&own);
            match group.tools(&run).await {
                Ok(tools) => data.extend(tools.iter().map(|tool| shape::tool(tool, &group))),
                Err(error) if one => return Err(told(error)),
                // One server that is away must not take the other tools with it.
                Err(error) => run.note(format!("the tools of {} are left out: {}", group.id, error.detail)),
            }
        }
        run.ended(Status::Ok);
        Ok(reply::json(&json!({"data": data})))
    })
    .await
}

pub async fn get(
    State(app): State<App>,
    caller: Caller,
    info: RequestInfo,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    inference::run(&app, &caller, info, "GET /v1/tools/{name}", async |run| {
        for group in Group::all(run.pins()) {
            let tools = group.tools(&run).await.unwrap_or_default();
            if let Some(tool) = tools.iter().find(|t| t.name == name) {
                run.ended(Status::Ok);
                return Ok(reply::json(&shape::tool(tool, &group)));
            }
        }
        Err(ApiError::not_found("tool", &name))
    })
    .await
}

pub async fn invoke(
    State(app): State<App>,
    caller: Caller,
    info: RequestInfo,
    headers: HeaderMap,
    body: LateBody,
) -> Result<Response, ApiError> {
    inference::run(&app, &caller, info, "POST /v1/tool-runtime/invoke", async |run| {
        let body = body.read(&app).await?;
        let f = Fields::root(&body)?;
        let name = f.need_str("tool_name")?;
        let arguments = f.object("kwargs")?.map_or_else(|| json!({}), |k| Value::Object(k.map().clone()));
        let authorization = f.str("authorization")?;
        let (pinned, tool) = resolve(&run, name).await?;
        let own = mcp_headers(authorization, provider_data(&headers), pinned.config["url"].as_str());
        let call = run.call(&with_headers(pinned, &own));
        let output = match app.plugins.call_tool(call, tool, arguments).await {
            Ok(output) => output,
            Err(error) => {
                return Err(match blocked(&run, &error) {
                    Some(refusal) => ApiError::new(Code::Forbidden, refusal),
                    None => told(error.into()),
                });
            }
        };
        run.ended(Status::Ok);
        let failed = output.is_error;
        Ok(reply::json(&json!({
            "content": output.content,
            "error_message": failed.then_some(&output.content),
            "error_code": failed.then_some(1),
            "metadata": null,
        })))
    })
    .await
}

/// The refusal of a call that a shield stands against, or of its result.
pub fn blocked(run: &Run, error: &CallError) -> Option<String> {
    let CallError::Component { code: "blocked", message, .. } = error else { return None };
    run.ended(Status::Blocked);
    Some(message.clone())
}

/// What went wrong with a tool is for the caller to know, where the tool has a word for it.
fn told(error: ApiError) -> ApiError {
    match error.field("component_code").and_then(Value::as_str) {
        Some("not-found") => ApiError { code: Code::NotFound, ..error },
        Some("invalid" | "too-large") => ApiError { code: Code::InvalidRequest, ..error },
        _ => error,
    }
}

fn provider_data(headers: &HeaderMap) -> Option<&str> {
    ["x-llamastack-provider-data", "x-ogx-provider-data"].iter().find_map(|name| headers.get(*name)?.to_str().ok())
}

/// Runs a tool by the name that models are told.
pub async fn call(run: &Run, name: &str, arguments: Value) -> Result<stockade_core::chat::ToolOutput, CallError> {
    let found = run.pins().tool(name).map(|(pinned, tool)| (pinned.clone(), tool));
    let unknown = || CallError::NoFunction { component: MCP.into(), function: shortened(name) };
    let (pinned, tool) = found.ok_or_else(unknown)?;
    run.app.plugins.call_tool(run.call(&pinned), tool, arguments).await
}
