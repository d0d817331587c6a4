//! Stored traces: what happened in a request, newest first, a bounded number a tenant.

use super::{Recording, Registry, RegistryError, keys, parse, to_bytes, values};
use crate::event::Usage;
use crate::id::{RequestId, TenantId};
use crate::plugin::{ComponentCall, PromptUse};
use crate::store::Batch;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Largest stored trace; a larger one loses its components' log lines, then the later calls.
const MAX_TRACE_BYTES: usize = 256 << 10;

/// A request as it ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TraceRecord {
    /// Also in the reply's `stockade-trace` header.
    pub id: String,
    pub request: RequestId,
    /// Method and route, for example `POST /v1/chat/completions`.
    pub route: String,
    /// `ok`, `blocked`, `failed` or `cancelled`.
    pub status: String,
    pub model: String,
    pub tokens: Usage,
    pub components: Vec<ComponentCall>,
    /// Versions of stored prompts that were rendered for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<PromptUse>,
    pub spans: Vec<Span>,
    /// What the host decided beside the components, for example to let a request pass a failed shield.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Microseconds since 1970 at which the request came in.
    pub created_us: u64,
}

/// A stretch of a request's time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    pub name: String,
    /// Microseconds from the request's start.
    pub start_us: u64,
    pub duration_us: u64,
    /// Name of the span around it.
    pub parent: Option<String>,
    /// What a component says of a span of its own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// A fresh trace id for now: inverted time first, so that ids sort newest first, then 32 of the caller's random bits.
pub fn new_trace_id(random: u32) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64);
    format!("tr_{:016x}{random:08x}", u64::MAX - now)
}

/// How many traces each tenant has; counted once, then kept.
#[derive(Default)]
pub(super) struct Counts {
    tenants: Mutex<HashMap<TenantId, usize>>,
}

impl Counts {
    pub(super) fn forget(&self, tenant: &TenantId) {
        self.change(|counts| counts.remove(tenant));
    }
    fn change<T>(&self, f: impl FnOnce(&mut HashMap<TenantId, usize>) -> T) -> T {
        f(&mut self.tenants.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Registry {
    pub fn trace(&self, tenant: &TenantId, id: &str) -> Result<Option<TraceRecord>, RegistryError> {
        if id.len() > 64 || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Ok(None);
        }
        let found = self.read_value(&keys::trace(tenant, id))?;
        found.map(|v| parse("trace", &v.value)).transpose()
    }

    /// Newest first, older than the one named `after`.
    pub fn traces(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<TraceRecord>, RegistryError> {
        let prefix = keys::traces(tenant);
        let after = after.map(|a| [&prefix[..], a.as_bytes()].concat());
        let mut out = Vec::new();
        for row in self.store().scan(&prefix, after.as_deref(), limit)? {
            let id = String::from_utf8_lossy(&row.key[prefix.len()..]).into_owned();
            out.extend(self.trace(tenant, &id)?);
        }
        Ok(out)
    }

    /// Adds a trace to a batch.
    pub(super) fn append_trace(&self, batch: Batch, r: &Recording) -> Result<Batch, RegistryError> {
        let place = keys::trace(&r.tenant, &r.trace.id);
        let bytes = fit(&r.trace)?;
        let mut added = values::place_value(&place, None, Some(&bytes))?;
        added = added.put(keys::trace_age(&r.tenant, r.trace.created_us, &r.trace.id), Vec::new());
        let mut batch = batch;
        batch.expects.extend(added.expects);
        batch.writes.extend(added.writes);
        Ok(batch)
    }

    /// Deletes a tenant's oldest traces over `keep`, after `added` more were written.
    pub(super) async fn trim_traces(&self, tenant: &TenantId, added: usize, keep: usize) -> Result<(), RegistryError> {
        let known = self.inner.counts.change(|c| c.get(tenant).copied());
        let mut count = match known {
            Some(n) => n + added,
            None => self.count_traces(tenant)?,
        };
        let prefix = keys::trace_ages(tenant);
        while count > keep {
            let rows = self.store().scan(&prefix, None, (count - keep).min(16))?;
            if rows.is_empty() {
                count = 0;
                break;
            }
            for row in rows {
                self.delete_trace(tenant, &prefix, &row.key).await?;
                count -= 1;
            }
        }
        self.inner.counts.change(|c| {
            if c.len() >= 4096 {
                c.clear();
            }
            c.insert(tenant.clone(), count)
        });
        Ok(())
    }

    async fn delete_trace(&self, tenant: &TenantId, prefix: &[u8], age_key: &[u8]) -> Result<(), RegistryError> {
        let text = String::from_utf8_lossy(&age_key[prefix.len()..]).into_owned();
        let id = text.split_once('-').map_or("", |(_, id)| id);
        let place = keys::trace(tenant, id);
        let age_key = age_key.to_vec();
        self.write_value(&place, None, None, |b| b.delete(age_key.clone())).await?;
        Ok(())
    }

    fn count_traces(&self, tenant: &TenantId) -> Result<usize, RegistryError> {
        let prefix = keys::trace_ages(tenant);
        let (mut count, mut after) = (0, None);
        loop {
            let rows = self.store().scan(&prefix, after.as_deref(), 1000)?;
            let Some(last) = rows.last() else {
                return Ok(count);
            };
            count += rows.len();
            after = Some(last.key.clone());
        }
    }
}

/// A trace as JSON within its bound.
fn fit(trace: &TraceRecord) -> Result<Vec<u8>, RegistryError> {
    let bytes = to_bytes(trace)?;
    if bytes.len() <= MAX_TRACE_BYTES {
        return Ok(bytes);
    }
    let mut small = trace.clone();
    for call in &mut small.components {
        call.logs.clear();
    }
    loop {
        let bytes = to_bytes(&small)?;
        if bytes.len() <= MAX_TRACE_BYTES || (small.components.is_empty() && small.spans.is_empty()) {
            return Ok(bytes);
        }
        small.components.truncate(small.components.len() / 2);
        small.spans.truncate(small.spans.len() / 2);
        small.notes.truncate(16);
        if !small.notes.iter().any(|n| n == "truncated") {
            small.notes.insert(0, "truncated".into());
        }
    }
}

impl Recording {
    /// Rows that it takes in a batch at most.
    pub(super) fn rows(&self) -> usize {
        2 + MAX_TRACE_BYTES / crate::store::MAX_VALUE_BYTES
    }
}
