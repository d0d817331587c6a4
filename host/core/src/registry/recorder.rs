//! Writes traces and usage behind the requests: one batch for many of them, a fraction of a second after their end.
//!
//! Invariant: a request never waits for its trace. When the store cannot keep up, traces are dropped and counted;
//! usage is kept in memory and written later.

use super::usage::day;
use super::{Registry, RegistryError, TraceRecord, UsageDelta, UsageRow, keys, now, parse, to_bytes};
use crate::id::TenantId;
use crate::store::{Batch, Expect, MAX_BATCH_OPS, StoreError};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// Requests that may wait for being written.
const QUEUE: usize = 4096;
/// How long the first of a batch waits for more.
const GATHER: Duration = Duration::from_millis(100);
/// Most requests of one round.
const ROUND: usize = 256;
/// Most usage rows that wait for a store that fails.
const MAX_PENDING: usize = 10_000;

/// A finished request.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    pub tenant: TenantId,
    pub trace: TraceRecord,
    /// `None` for a request that called no model.
    pub usage: Option<UsageDelta>,
}

/// Takes finished requests. The writer ends, having written everything, once all clones are dropped.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Recording>,
    dropped: Arc<AtomicU64>,
}

impl Recorder {
    /// The recorder and its writer, a future to be driven beside the requests. Each tenant keeps its newest
    /// `keep_traces` traces.
    pub fn new(registry: Registry, keep_traces: usize) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, inbox) = mpsc::channel(QUEUE);
        let recorder = Self { queue, dropped: Arc::default() };
        (recorder, write(registry, inbox, keep_traces))
    }

    pub fn record(&self, recording: Recording) {
        if self.queue.try_send(recording).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Requests that left no trace because the store could not keep up.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

type UsageKey = (TenantId, String, String);

async fn write(registry: Registry, mut inbox: mpsc::Receiver<Recording>, keep: usize) {
    let mut usage: BTreeMap<UsageKey, UsageDelta> = BTreeMap::new();
    while let Some(first) = inbox.recv().await {
        let mut round = vec![first];
        let deadline = tokio::time::sleep(GATHER);
        tokio::pin!(deadline);
        while round.len() < ROUND {
            tokio::select! {
                more = inbox.recv() => match more {
                    Some(more) => round.push(more),
                    None => break,
                },
                () = &mut deadline => break,
            }
        }
        for r in &round {
            if let Some(delta) = r.usage {
                let key = (r.tenant.clone(), day(now()), r.trace.model.clone());
                let sum = usage.get(&key).copied().unwrap_or_default().plus(delta);
                if usage.len() < MAX_PENDING || usage.contains_key(&key) {
                    usage.insert(key, sum);
                }
            }
        }
        if let Err(e) = write_usage(&registry, &mut usage).await {
            tracing::error!(error = %e, "usage could not be written; it is kept for the next round");
        }
        if let Err(e) = write_traces(&registry, &round, keep).await {
            tracing::error!(error = %e, "traces could not be written");
        }
    }
}

async fn write_usage(registry: &Registry, usage: &mut BTreeMap<UsageKey, UsageDelta>) -> Result<(), RegistryError> {
    while let Some(entry) = usage.first_entry() {
        let (tenant, day, model) = entry.key().clone();
        // Of a deleted tenant nothing is kept.
        if registry.tenant(&tenant)?.is_some() {
            add_usage(registry, &tenant, &day, &model, *entry.get()).await?;
        }
        usage.pop_first();
    }
    Ok(())
}

async fn add_usage(
    registry: &Registry,
    tenant: &TenantId,
    day: &str,
    model: &str,
    delta: UsageDelta,
) -> Result<(), RegistryError> {
    let key = keys::usage(tenant, day, model);
    loop {
        let row = registry.store().get(&key)?;
        let (expect, total) = match row {
            Some(row) => {
                let old: UsageRow = parse("usage", &row.value)?;
                (Expect::Revision(row.revision), old.total.plus(delta))
            }
            None => (Expect::Absent, delta),
        };
        let row = UsageRow { day: day.into(), model: model.into(), total };
        let batch = Batch::new().expect(key.clone(), expect).put(key.clone(), to_bytes(&row)?);
        match registry.store().commit(batch).await {
            Ok(_) => return Ok(()),
            Err(StoreError::Conflict { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

async fn write_traces(registry: &Registry, round: &[Recording], keep: usize) -> Result<(), RegistryError> {
    let mut added: HashMap<&TenantId, usize> = HashMap::new();
    let mut batch = Batch::new();
    for recording in round {
        if registry.tenant(&recording.tenant)?.is_none() {
            continue;
        }
        if batch.writes.len() + recording.rows() > MAX_BATCH_OPS {
            registry.store().commit(std::mem::take(&mut batch)).await?;
        }
        batch = registry.append_trace(batch, recording)?;
        *added.entry(&recording.tenant).or_default() += 1;
    }
    if !batch.writes.is_empty() {
        registry.store().commit(batch).await?;
    }
    for (tenant, added) in added {
        registry.trim_traces(tenant, added, keep).await?;
    }
    Ok(())
}
