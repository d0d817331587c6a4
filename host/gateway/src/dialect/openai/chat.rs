//! `POST /v1/chat/completions`.

use super::chat_reply::{ChatChunks, Gathered, Head, whole};
use super::chat_request;
use crate::app::App;
use crate::auth::Caller;
use crate::body::LateBody;
use crate::chain;
use crate::error::ApiError;
use crate::inference::{self, gather};
use crate::layers::RequestInfo;
use crate::{reply, sse};
use axum::extract::State;
use axum::response::Response;
use stockade_core::infer::ModelKind;

pub async fn create(
    State(app): State<App>,
    caller: Caller,
    info: RequestInfo,
    body: LateBody,
) -> Result<Response, ApiError> {
    let route = "POST /v1/chat/completions";
    inference::run(&app, &caller, info, route, async |run| {
        let request = chat_request::parse(&body.read(&app).await?)?;
        let model = app.model_of(&caller.tenant, &request.model, ModelKind::Generator)?;
        run.uses(&model);
        let fingerprint = format!("fp_{}", &model.digest.to_string()[..12]);
        let head = Head::new(&request.model, fingerprint);
        let (stream, n, include_usage) = (request.stream, request.n, request.include_usage);
        let ask = request.ask(&model, &run.pins)?;
        let logprobs = ask.sampling.logprobs.is_some();
        let choices = chain::start(&run, ask, n).await?;
        if stream {
            let request = run.request.to_string();
            let encoder = ChatChunks::new(head, request, n, include_usage, logprobs);
            return sse::reply(&run, choices, encoder).await;
        }
        let choices = gather(choices, Gathered::default, Gathered::add).await?;
        Ok(reply::json(&whole(&head, choices, logprobs)))
    })
    .await
}
