//! Responses that are made apart from the request that asked for them: stored before the reply to it, read by id until they
//! have ended.
//!
//! Invariants: a status that is an end never changes; whoever reads `queued` or `in_progress` of a response that nobody
//! works on, since the host was stopped meanwhile, reads that it has failed.

use super::compose::{self, Composer, Head};
use super::store::{Keeper, advance};
use crate::chain::{self, Ask};
use crate::error::{ApiError, Code};
use crate::inference::gather;
use crate::run::Run;
use crate::sse::Encode;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use stockade_core::TenantId;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// Most of a tenant's background responses under way.
const MAX_UNDER_WAY: usize = 64;
/// Statuses of a response that is to go on.
const OPEN: [&str; 2] = ["queued", "in_progress"];

/// What this process works on. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Background(Arc<Mutex<HashMap<TenantId, Running>>>);

/// A tenant's responses under way, by id; the handle is there once the work has begun.
type Running = HashMap<String, Option<AbortHandle>>;

impl Background {
    /// Whether the response is worked on. Ask before reading it: what has ended since then is stored.
    pub fn holds(&self, tenant: &TenantId, id: &str) -> bool {
        self.0.lock().get(tenant).is_some_and(|running| running.contains_key(id))
    }

    /// Ends the work on a response, which then stays as it is stored.
    pub fn stop(&self, tenant: &TenantId, id: &str) {
        if let Some(Some(work)) = self.0.lock().get(tenant).and_then(|running| running.get(id)) {
            work.abort();
        }
    }

    /// Ends all work: the host stops.
    pub fn stop_all(&self) {
        self.0.lock().values().flat_map(HashMap::values).flatten().for_each(AbortHandle::abort);
    }

    /// Whether the tenant may begin one more.
    pub fn check(&self, tenant: &TenantId) -> Result<(), ApiError> {
        room(self.0.lock().get(tenant).map_or(0, HashMap::len))
    }

    fn enter(&self, tenant: &TenantId, id: &str) -> Result<Place, ApiError> {
        let mut all = self.0.lock();
        room(all.get(tenant).map_or(0, HashMap::len))?;
        all.entry(tenant.clone()).or_default().insert(id.into(), None);
        Ok(Place { background: self.clone(), tenant: tenant.clone(), id: id.into() })
    }

    fn works(&self, tenant: &TenantId, id: &str, work: AbortHandle) {
        // It may have ended already.
        if let Some(handle) = self.0.lock().get_mut(tenant).and_then(|running| running.get_mut(id)) {
            *handle = Some(work);
        }
    }
}

fn room(running: usize) -> Result<(), ApiError> {
    if running >= MAX_UNDER_WAY {
        let reason = format!("{MAX_UNDER_WAY} background responses are under way");
        return Err(ApiError::new(Code::RateLimited, reason));
    }
    Ok(())
}

/// A response's place among those under way, until it is dropped.
struct Place {
    background: Background,
    tenant: TenantId,
    id: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.background.0.lock();
        if let Some(running) = all.get_mut(&self.tenant) {
            running.remove(&self.id);
            if running.is_empty() {
                all.remove(&self.tenant);
            }
        }
    }
}

/// Whether a response is still to go on.
pub fn is_open(response: &Value) -> bool {
    OPEN.iter().any(|status| response["status"] == *status)
}

/// A stored response as it is to be read; `held`: this process works on it.
pub fn seen(mut response: Value, held: bool) -> Value {
    if is_open(&response) && !held {
        let reason = "the host was stopped, or failed, before the response had ended";
        compose::fail(&mut response, &ApiError::new(Code::Internal, reason));
    }
    response
}

/// Stores the response as queued, begins to work on it and answers with it.
pub async fn start(run: &Arc<Run>, head: Head, ask: Ask, keeper: Keeper) -> Result<Value, ApiError> {
    let queued = with_status(Composer::new(head.clone(), None).response(), "queued");
    let (all, tenant, id) = (run.app.background.clone(), run.tenant.clone(), head.id.clone());
    let place = all.enter(&tenant, &id)?;
    keeper.open(&queued).await?;
    let run = run.clone();
    let work = tokio::spawn(async move {
        // To the end of the work, after which what is stored is the end.
        let _place = place;
        work(&run, head, ask, keeper).await;
    });
    all.works(&tenant, &id, work.abort_handle());
    Ok(queued)
}

/// Makes the response and keeps how that ended. Dropped in the middle, it cancels what it began.
async fn work(run: &Arc<Run>, head: Head, ask: Ask, keeper: Keeper) {
    let limit = run.app.settings.request_timeout;
    let made = match timeout(limit, reply(run, &head, ask)).await {
        Ok(made) => made,
        Err(_) => Err(ApiError::new(Code::Overloaded, format!("the response took longer than {} s", limit.as_secs()))),
    };
    let failed = |e: &ApiError| {
        run.failed();
        let mut response = Composer::new(head.clone(), None).response();
        compose::fail(&mut response, e);
        response
    };
    let response = made.unwrap_or_else(|e| failed(&e));
    if let Err(e) = keeper.close(&response).await {
        tracing::warn!(tenant = %run.tenant, response = head.id, error = %e.detail, "a response is not kept as it is");
        // One that is too large to be kept has failed.
        if let Err(e) = keeper.close(&failed(&e)).await {
            tracing::error!(tenant = %run.tenant, response = head.id, error = %e.detail, "a response's end is not kept");
        }
    }
}

async fn reply(run: &Arc<Run>, head: &Head, ask: Ask) -> Result<Value, ApiError> {
    let choices = chain::start(run, ask, 1).await?;
    let new = || Composer::new(head.clone(), None);
    if !advance(&run.app, &run.tenant, &new().response()).await? {
        return Err(ApiError::new(Code::Conflict, "the response was cancelled or deleted"));
    }
    let composed = gather(choices, new, |c, event| c.event(0, event, &mut String::new())).await?;
    composed.first().map(Composer::response).ok_or_else(ApiError::internal)
}

/// The response with another status.
pub fn with_status(mut response: Value, status: &str) -> Value {
    response["status"] = status.into();
    response
}
