//! Turns that wait for an answer: kept durably until somebody answers or their time is over.
//!
//! Invariant: an interruption is taken at most once; whoever takes it goes on with the turn, nobody else can.

use super::collections::{Collection, Full, new_document_id};
use super::{AssistantVersion, Party, Registry, RegistryError, now};
use crate::event::Interruption;
use crate::id::{ComponentRef, TenantId};
use crate::plugin::Turn;
use crate::store::Expect;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most turns of a tenant that wait at once; the oldest go first.
const MAX_WAITING: usize = 1_000;
/// Expired ones that are removed when another is kept.
const SWEEP: usize = 4;

/// A turn that waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// As the orchestrator told it, state included.
    pub interruption: Interruption,
    /// As the orchestrator was asked, `resume` apart.
    pub turn: Turn,
    /// The exact component that the turn ran in, and its configuration.
    pub orchestrator: ComponentRef,
    pub config: Value,
    /// The assistant's version, whole: it goes on also when the assistant has changed or is gone.
    pub assistant: Option<AssistantVersion>,
    pub party: Party,
    /// Which dialect asked, and what it needs to answer in its own shape.
    pub dialect: Dialect,
    /// Seconds since 1970.
    pub created_at: u64,
    pub expires_at: u64,
}

/// The dialect of a request.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "name", content = "context", rename_all = "kebab-case")]
pub enum Dialect {
    #[default]
    Chat,
    Responses(Value),
    Agents(Value),
}

impl Registry {
    fn waiting(&self, tenant: &TenantId) -> Collection {
        self.collection(tenant, "interruptions", MAX_WAITING, Full::DropOldest).with_below(STATES)
    }

    /// Keeps a turn and answers with its id. `random`: bits of the caller's.
    pub async fn keep_interruption(
        &self,
        tenant: &TenantId,
        random: u32,
        waiting: &Waiting,
    ) -> Result<String, RegistryError> {
        let all = self.waiting(tenant);
        for oldest in all.list::<Waiting>(None, SWEEP)? {
            if oldest.value.expires_at <= now() {
                all.delete(&oldest.id, Expect::Present).await?;
            }
        }
        let id = new_document_id("intr", random);
        // A state of up to 1 MiB and a turn of as much are a value each.
        let mut head = waiting.clone();
        let state = std::mem::take(&mut head.interruption.state);
        self.states(tenant, &id).add(&new_document_id("state", random), &state).await?;
        all.add(&id, &head).await?;
        Ok(id)
    }

    /// An interruption that still waits; its state apart.
    pub fn interruption(&self, tenant: &TenantId, id: &str) -> Result<Option<Waiting>, RegistryError> {
        let found = self.waiting(tenant).get::<Waiting>(id)?;
        Ok(found.map(|f| f.value).filter(|w| w.expires_at > now()))
    }

    /// Oldest first, at most `limit`, after the one named `after`; their states apart.
    pub fn interruptions(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Waiting)>, RegistryError> {
        let found = self.waiting(tenant).list::<Waiting>(after, limit)?;
        let waits = found.into_iter().map(|d| (d.id, d.value)).filter(|(_, w)| w.expires_at > now());
        Ok(waits.collect())
    }

    /// Takes an interruption, state included; `None` when it is unknown, expired or already taken.
    pub async fn take_interruption(&self, tenant: &TenantId, id: &str) -> Result<Option<Waiting>, RegistryError> {
        let all = self.waiting(tenant);
        let Some(found) = all.get::<Waiting>(id)? else { return Ok(None) };
        let state = self.states(tenant, id).list::<Value>(None, 1)?.pop();
        let expired = found.value.expires_at <= now();
        let taken = all.delete(id, Expect::Revision(found.revision)).await?;
        let Some(state) = state.filter(|_| taken && !expired) else { return Ok(None) };
        let mut waiting = found.value;
        waiting.interruption.state = state.value;
        Ok(Some(waiting))
    }

    fn states(&self, tenant: &TenantId, id: &str) -> Collection {
        self.collection(tenant, format!("{STATES}/{id}"), 1, Full::Refuse)
    }
}

const STATES: &str = "interruption-states";

#[cfg(test)]
#[path = "interruptions_tests.rs"]
mod tests;
