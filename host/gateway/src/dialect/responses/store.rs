//! Stored responses: the response itself, and each of its input items apart.
//!
//! Invariant: a response that can be read has all of its input items; they are written before it.

use super::background;
use super::request::Request;
use crate::app::App;
use crate::dialect::conversations;
use crate::dialect::openai::chat_request::MAX_MESSAGES;
use crate::dialect::responses::compose::Keep;
use crate::error::{ApiError, Code};
use crate::reply::Listing;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stockade_core::TenantId;
use stockade_core::registry::{Collection, Document, Full, RegistryError};
use stockade_core::store::Expect;

/// Most stored responses of a tenant; the oldest go first.
const MAX_RESPONSES: usize = 10_000;
/// Most responses behind each other.
const MAX_CHAIN: usize = 1_000;
/// Largest input item as JSON text.
const MAX_ITEM_BYTES: usize = 1_000_000;
const INPUT_ITEMS: &str = "response-items";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    pub response: Value,
    /// The conversation, or the first response of the chain.
    pub session: String,
}

pub fn responses(app: &App, tenant: &TenantId) -> Collection {
    app.registry.collection(tenant, "responses", MAX_RESPONSES, Full::DropOldest).with_below(INPUT_ITEMS)
}

pub fn input_items(app: &App, tenant: &TenantId, response: &str) -> Collection {
    app.registry.collection(tenant, format!("{INPUT_ITEMS}/{response}"), MAX_MESSAGES, Full::Refuse)
}

pub fn find(app: &App, tenant: &TenantId, id: &str) -> Result<Stored, ApiError> {
    let held = app.background.holds(tenant, id);
    let Stored { response, session } = responses(app, tenant).get::<Stored>(id)?.ok_or_else(|| unknown(id))?.value;
    Ok(Stored { response: background::seen(response, held), session })
}

pub fn list(app: &App, tenant: &TenantId, listing: &Listing) -> Result<Vec<Value>, ApiError> {
    let found = listing.read::<Stored>(&responses(app, tenant))?.into_iter();
    // One that was open when the page was read may have ended since then: it is read anew.
    let seen = |d: Document<Stored>| match background::is_open(&d.value.response) {
        true => find(app, tenant, &d.id).map(|found| found.response),
        false => Ok(d.value.response),
    };
    found.map(seen).filter(|read| !read.as_ref().is_err_and(|e| e.code == Code::NotFound)).collect()
}

pub async fn delete(app: &App, tenant: &TenantId, id: &str) -> Result<(), ApiError> {
    let deleted = responses(app, tenant).delete(id, Expect::Present).await?;
    app.background.stop(tenant, id);
    match deleted {
        true => Ok(()),
        false => Err(unknown(id)),
    }
}

/// Writes how a stored response has come on; false where it has ended otherwise, or is gone.
pub async fn advance(app: &App, tenant: &TenantId, response: &Value) -> Result<bool, ApiError> {
    let id = response["id"].as_str().unwrap_or_default().to_owned();
    let all = responses(app, tenant);
    loop {
        let Some(found) = all.get::<Stored>(&id)? else { return Ok(false) };
        if !background::is_open(&found.value.response) {
            return Ok(false);
        }
        let next = Stored { response: response.clone(), session: found.value.session };
        match all.replace(&id, &next, Expect::Revision(found.revision)).await {
            Ok(_) => return Ok(true),
            Err(RegistryError::RevisionMismatch { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn unknown(id: &str) -> ApiError {
    ApiError::not_found("response", id)
}

/// Whether a shield has kept the input from the model: it is no part of what is said later, which it would block again.
fn unsaid(response: &Value) -> bool {
    response["incomplete_details"]["reason"] == "content_filter" && response["usage"]["total_tokens"] == 0
}

/// What came before a request.
#[derive(Debug, Default)]
pub struct Earlier {
    pub items: Vec<Value>,
    pub session: Option<String>,
}

/// The items of the conversation, or of the chain of responses, that the request goes on from.
pub fn earlier(app: &App, tenant: &TenantId, request: &Request) -> Result<Earlier, ApiError> {
    if let Some(id) = &request.conversation {
        return Ok(Earlier { items: conversations::all_items(app, tenant, id)?, session: Some(id.clone()) });
    }
    let mut chain = Vec::new();
    let mut session = None;
    let mut next = request.previous.clone();
    let mut items = 0;
    while let Some(id) = next {
        let stored =
            find(app, tenant, &id).map_err(|e| ApiError { param: Some("previous_response_id".into()), ..e })?;
        if background::is_open(&stored.response) {
            return Err(ApiError::invalid("previous_response_id", "has not ended yet"));
        }
        let mut turn: Vec<Value> = Vec::new();
        if !unsaid(&stored.response) {
            let input = input_items(app, tenant, &id).list::<Value>(None, MAX_MESSAGES)?;
            turn.extend(input.into_iter().map(|d| d.value));
            turn.extend(stored.response["output"].as_array().into_iter().flatten().cloned());
        }
        items += turn.len();
        next = stored.response["previous_response_id"].as_str().map(String::from);
        session.get_or_insert(stored.session);
        chain.push(turn);
        if chain.len() > MAX_CHAIN || items > MAX_MESSAGES {
            let reason = format!("more than {MAX_CHAIN} responses or {MAX_MESSAGES} items come before it");
            return Err(ApiError::invalid("previous_response_id", reason));
        }
    }
    Ok(Earlier { items: chain.into_iter().rev().flatten().collect(), session })
}

/// Keeps a response when it is finished.
#[derive(Clone)]
pub struct Keeper {
    pub app: App,
    pub tenant: TenantId,
    /// In normal form.
    pub input: Vec<Value>,
    pub conversation: Option<String>,
    pub session: String,
    pub store: bool,
}

impl Keeper {
    /// Whether the input can be kept, asked before any model is.
    pub fn check(&self) -> Result<(), ApiError> {
        let keeps = self.store || self.conversation.is_some();
        let large = |item: &Value| item.to_string().len() > MAX_ITEM_BYTES;
        if keeps && self.input.iter().any(large) {
            let reason = format!("an item over {MAX_ITEM_BYTES} bytes is taken with `store` false alone");
            return Err(ApiError::invalid("input", reason));
        }
        Ok(())
    }

    pub async fn keep(self, response: Value) -> Result<(), ApiError> {
        self.converse(&response).await?;
        if self.store { self.open(&response).await } else { Ok(()) }
    }

    /// Stores a response, which may be still to be made.
    pub async fn open(&self, response: &Value) -> Result<(), ApiError> {
        let id = response["id"].as_str().unwrap_or_default();
        let items = input_items(&self.app, &self.tenant, id);
        for item in &self.input {
            items.add(item["id"].as_str().unwrap_or_default(), item).await?;
        }
        let stored = Stored { response: response.clone(), session: self.session.clone() };
        responses(&self.app, &self.tenant).add(id, &stored).await?;
        Ok(())
    }

    /// Keeps how a stored response has ended, unless it has ended otherwise meanwhile.
    pub async fn close(&self, response: &Value) -> Result<(), ApiError> {
        let kept = advance(&self.app, &self.tenant, response).await?;
        // As of any request that fails, nothing of it is said later.
        if kept && response["status"] != "failed" { self.converse(response).await } else { Ok(()) }
    }

    /// Adds what was said to the conversation.
    async fn converse(&self, response: &Value) -> Result<(), ApiError> {
        let Some(conversation) = self.conversation.as_ref().filter(|_| !unsaid(response)) else { return Ok(()) };
        let output = response["output"].as_array().cloned().unwrap_or_default();
        let items = self.input.iter().chain(&output).cloned();
        conversations::append(&self.app, &self.tenant, conversation, items.collect()).await
    }

    pub fn into_keep(self) -> Keep {
        Box::new(move |response| Box::pin(self.keep(response)))
    }
}
