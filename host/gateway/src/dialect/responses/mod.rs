//! `/v1/responses` in OpenAI's shape: turns whose earlier turns the host keeps.

mod approval;
pub mod background;
mod citations;
pub mod compose;
pub mod file_search;
pub mod items;
mod references;
pub mod request;
pub mod store;
mod truncation;

use crate::app::App;
use crate::auth::Caller;
use crate::body::LateBody;
use crate::chain::{self, Ask};
use crate::dialect::openai::now;
use crate::error::ApiError;
use crate::inference::{self, gather};
use crate::interruption::{self, Resumed};
use crate::layers::RequestInfo;
use crate::reply::Listing;
use crate::run::Run;
use crate::sse::Encode;
use crate::target::Target;
use crate::{reply, sse};
use approval::{approval_id, interruption_id};
use axum::extract::{Path, State};
use axum::response::Response;
use compose::{Composer, Head};
use request::{Delivery, Request};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use stockade_core::chat::{Message, Role};
use stockade_core::registry::{Dialect, Party, Scope, new_document_id};
use store::Keeper;

pub async fn create(
    State(app): State<App>,
    caller: Caller,
    info: RequestInfo,
    body: LateBody,
) -> Result<Response, ApiError> {
    inference::run(&app, &caller, info, "POST /v1/responses", async |run| {
        let mut body = body.read(&app).await?;
        let target = Target::named(&app, &caller.tenant, &body).await?;
        target.fill_in(&mut body, "max_output_tokens");
        let mut request = request::parse(&body)?;
        let earlier = store::earlier(&app, &caller.tenant, &request)?;
        references::resolve(&app, &caller.tenant, &mut request.input, &earlier.items)?;
        let id = new_document_id("resp", getrandom::u32().unwrap_or_default());
        let session = earlier.session.unwrap_or_else(|| id.clone());
        let head = Head {
            id,
            created_at: now(),
            model: body["model"].as_str().unwrap_or_default().into(),
            previous: request.previous.clone(),
            conversation: request.conversation.clone(),
            results: request.results,
            echo: request.echo.clone(),
        };
        let keeper = Keeper {
            app: app.clone(),
            tenant: caller.tenant.clone(),
            input: request.input.clone(),
            conversation: request.conversation.clone(),
            session: session.clone(),
            store: request.store,
        };
        keeper.check()?;
        if request.delivery == Delivery::Background {
            app.background.check(&caller.tenant)?;
        }
        let delivery = request.delivery;
        if let Some((approval, answer)) = request.approval()? {
            let resumed = interruption::take(&run, &interruption_id(&approval), answer).await?;
            return answer_with(&run, head, resumed.ask, keeper, delivery).await;
        }
        run.uses(&target.model);
        let party =
            Party { user: request.user.clone().unwrap_or_else(|| caller.key.id.clone()), session: Some(session) };
        if let Some(search) = &request.search {
            search.check(&app, &caller.tenant).await?;
        }
        target.cast(&run, party, request.overlay()).await?;
        let mut ask = target.bounded(ask(&run, &target, &request, &earlier.items)?);
        if request.truncate {
            let found = request.search.as_ref().map_or(0, |_| file_search::SOURCE_TOKENS);
            ask = truncation::fit(&app, &target.model, ask, found).await?;
        }
        answer_with(&run, head, ask, keeper, delivery).await
    })
    .await
}

fn ask(run: &Run, target: &Target, request: &Request, earlier: &[Value]) -> Result<Ask, ApiError> {
    let instructions = request.instructions.as_ref().map(|text| Message::text(Role::System, text));
    let before = instructions.into_iter().chain(items::messages(earlier)).collect();
    request.ask(&target.model, run.pins(), before)
}

/// An interrupted response goes on as a new one.
pub async fn resume(run: &Arc<Run>, resumed: Resumed, context: Value, stream: bool) -> Result<Response, ApiError> {
    let text = |field: &str| context[field].as_str().map(String::from);
    let id = new_document_id("resp", getrandom::u32().unwrap_or_default());
    let answer = resumed.ask.resume.as_ref().map_or(Value::Null, |r| r.answer.clone());
    let approved = |approve: bool| {
        json!({"id": items::item_id("mcp_approval_response"), "type": "mcp_approval_response",
            "approval_request_id": approval_id(resumed.waiting.interruption.id.as_deref().unwrap_or_default()),
            "approve": approve, "reason": answer["reason"]})
    };
    let input = match answer["approve"].as_bool() {
        Some(approve) => approved(approve),
        None => items::user_text(&answer.as_str().map_or_else(|| answer.to_string(), String::from)),
    };
    let store = context["store"].as_bool().unwrap_or(true);
    let keeper = Keeper {
        app: run.app.clone(),
        tenant: run.tenant.clone(),
        input: vec![input],
        conversation: text("conversation"),
        session: resumed.waiting.party.session.clone().unwrap_or_else(|| id.clone()),
        store,
    };
    let mut echo = context["echo"].as_object().cloned().unwrap_or_default();
    echo.insert("background".into(), false.into());
    let head = Head {
        id,
        created_at: now(),
        model: text("model").unwrap_or_default(),
        previous: text("response").filter(|_| store && keeper.conversation.is_none()),
        conversation: keeper.conversation.clone(),
        results: context["results"].as_bool().unwrap_or(false),
        echo,
    };
    let delivery = if stream { Delivery::Stream } else { Delivery::Whole };
    answer_with(run, head, resumed.ask, keeper, delivery).await
}

async fn answer_with(
    run: &Arc<Run>,
    head: Head,
    mut ask: Ask,
    keeper: Keeper,
    delivery: Delivery,
) -> Result<Response, ApiError> {
    ask.dialect = Dialect::Responses(json!({
        "response": head.id, "model": head.model, "conversation": head.conversation, "store": keeper.store,
        "results": head.results, "echo": head.echo,
    }));
    if delivery == Delivery::Background {
        return Ok(reply::json(&background::start(run, head, ask, keeper).await?));
    }
    let choices = chain::start(run, ask, 1).await?;
    if delivery == Delivery::Stream {
        return sse::reply(run, choices, Composer::new(head, Some(keeper.into_keep()))).await;
    }
    let new = || Composer::new(head.clone(), None);
    let composed = gather(choices, new, |c, event| c.event(0, event, &mut String::new())).await?;
    let response = composed.first().map_or(Value::Null, Composer::response);
    keeper.keep(response.clone()).await?;
    Ok(reply::json(&response))
}

pub async fn get(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    Ok(reply::json(&store::find(&app, &caller.tenant, &id)?.response))
}

pub async fn delete(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    store::delete(&app, &caller.tenant, &id).await?;
    Ok(reply::json(&json!({"id": id, "object": "response", "deleted": true})))
}

/// Ends a background response; one that has ended stays as it is.
pub async fn cancel(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    let response = store::find(&app, &caller.tenant, &id)?.response;
    if response["background"] != true {
        return Err(ApiError::invalid("response_id", "only a background response can be cancelled"));
    }
    if background::is_open(&response) {
        store::advance(&app, &caller.tenant, &background::with_status(response, "cancelled")).await?;
        app.background.stop(&caller.tenant, &id);
    }
    Ok(reply::json(&store::find(&app, &caller.tenant, &id)?.response))
}

/// Llama Stack's list of stored responses.
pub async fn list(State(app): State<App>, caller: Caller, listing: Listing) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    Ok(listing.reply(store::list(&app, &caller.tenant, &listing)?))
}

pub async fn input_items(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    listing: Listing,
) -> Result<Response, ApiError> {
    caller.need(Scope::Inference)?;
    store::find(&app, &caller.tenant, &id)?;
    let found = listing.read::<Value>(&store::input_items(&app, &caller.tenant, &id))?;
    Ok(listing.reply(found.into_iter().map(|d| d.value).collect()))
}

/// Fields that a client may set on a record: at most 16 texts.
pub fn metadata(body: &Value) -> Result<Map<String, Value>, ApiError> {
    let fields = crate::fields::Fields::root(body)?;
    let read = crate::dialect::openai::chat_request::metadata(&fields)?;
    Ok(read.into_iter().map(|(k, v)| (k, Value::String(v))).collect())
}
