//! `POST /v1/chat/completions`.

use super::chat_reply::{ChatChunks, Gathered, Head, whole};
use super::chat_request;
use crate::app::App;
use crate::auth::Caller;
use crate::body::LateBody;
use crate::chain::{self, Ask};
use crate::error::ApiError;
use crate::inference::{self, gather};
use crate::interruption::Resumed;
use crate::layers::RequestInfo;
use crate::run::Run;
use crate::target::Target;
use crate::{reply, sse};
use axum::extract::State;
use axum::response::Response;
use std::sync::Arc;
use stockade_core::infer::ModelInfo;

pub async fn create(
    State(app): State<App>,
    caller: Caller,
    info: RequestInfo,
    body: LateBody,
) -> Result<Response, ApiError> {
    let route = "POST /v1/chat/completions";
    inference::run(&app, &caller, info, route, async |run| {
        let mut body = body.read(&app).await?;
        let target = Target::named(&app, &caller.tenant, &body).await?;
        target.fill_in(&mut body, "max_tokens");
        let request = chat_request::parse(&body)?;
        let model = &target.model;
        run.uses(model);
        target.cast(&run, request.party(&caller), request.overlay()).await?;
        let head = Head::new(&request.model, fingerprint(model));
        let (stream, n, include_usage) = (request.stream, request.n, request.include_usage);
        let ask = target.bounded(request.ask(model, run.pins())?);
        answer(&run, head, ask, n, stream.then_some(include_usage)).await
    })
    .await
}

/// An interrupted chat goes on.
pub async fn resume(run: &Arc<Run>, resumed: Resumed, stream: bool) -> Result<Response, ApiError> {
    let name = resumed.waiting.assistant.as_ref().map_or(resumed.model.id.as_str(), |a| a.name.as_str());
    let head = Head::new(name, fingerprint(&resumed.model));
    answer(run, head, resumed.ask, 1, stream.then_some(true)).await
}

/// `stream`: whether the stream ends with usage; `None`: one object.
async fn answer(run: &Arc<Run>, head: Head, ask: Ask, n: usize, stream: Option<bool>) -> Result<Response, ApiError> {
    let logprobs = ask.sampling.logprobs.is_some();
    let choices = chain::start(run, ask, n).await?;
    if let Some(include_usage) = stream {
        let request = run.request.to_string();
        let encoder = ChatChunks::new(head, request, n, include_usage, logprobs);
        return sse::reply(run, choices, encoder).await;
    }
    let choices = gather(choices, Gathered::default, Gathered::add).await?;
    Ok(reply::json(&whole(&head, choices, logprobs)))
}

fn fingerprint(model: &ModelInfo) -> String {
    format!("fp_{}", &model.digest.to_string()[..12])
}
