//! `/health` and `/metrics`: for load balancers and scrapers, without a key.

use crate::app::App;
use crate::reply;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

pub async fn health(State(app): State<App>) -> Response {
    let status = match app.readiness.is_ready() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let models: Vec<String> = app.inference.models().iter().map(|m| m.id.to_string()).collect();
    reply::json_as(status, &json!({"status": app.readiness.as_str(), "models": models, "load": app.inference.load()}))
}

pub async fn metrics(State(app): State<App>) -> Response {
    let media = "text/plain; version=0.0.4; charset=utf-8";
    let text = app.metrics.render(&app);
    ([(header::CONTENT_TYPE, media)], text).into_response()
}
