//! The one thread that commits.
//!
//! It takes what is queued as one group: checks each batch against the index and the batches before it, writes one
//! record, makes it durable, applies it to the index, and only then answers anyone, refusals included: a conflict with
//! a commit that is not durable yet must not be told either. Batches that arrive meanwhile form the next group.

use crate::error::OpenError;
use crate::index::{Applied, Changes};
use crate::journal::{Journal, JournalError};
use crate::maintenance::{Compacted, compact};
use crate::record::Frame;
use crate::state::Shared;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use stockade_core::store::{Batch, Expect, Revision, StoreError};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer is asked to do.
pub(crate) enum Command {
    Commit(Pending),
    /// Put all commits so far into sealed segments.
    Seal(Reply<Sealed>),
    /// Seal, then replace the sealed segments by a snapshot on a thread of its own.
    Compact(Reply<Compacted>),
}

/// A batch within the limits of the seam, waiting for its turn.
pub(crate) struct Pending {
    pub batch: Batch,
    pub reply: Reply<Revision>,
    /// Its share of the queue, given back with the answer.
    pub room: OwnedSemaphorePermit,
}

/// A moment between two commits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sealed {
    pub last: Revision,
    /// What the index holds by its own account.
    pub applied: Applied,
    /// Whether its rows are really there.
    pub index_is_whole: bool,
}

/// When segments are sealed and compacted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Thresholds {
    pub segment_bytes: u64,
    pub compact_after_bytes: u64,
}

pub(crate) struct Writer {
    pub shared: Arc<Shared>,
    pub journal: Journal,
    pub applied: Applied,
    pub thresholds: Thresholds,
    /// Bytes in sealed segments that no compaction has been started for.
    pub sealed_bytes: u64,
    /// Why nothing is written any more.
    pub broken: Option<Arc<OpenError>>,
    pub compactions: Vec<JoinHandle<()>>,
}

impl Writer {
    /// Works until every sender is gone, then waits for running compactions and leaves the index current on disk.
    pub fn run(mut self, mut queue: UnboundedReceiver<Command>) {
        let mut next = None;
        while let Some(command) = next.take().or_else(|| queue.blocking_recv()) {
            match command {
                Command::Commit(first) => next = self.commit_group(first, &mut queue),
                Command::Seal(reply) => {
                    let sealed = self.seal().map(|last| Sealed {
                        last,
                        applied: self.applied,
                        index_is_whole: matches!(
                            self.shared.index.check(),
                            Ok(Some(applied)) if applied == self.applied
                        ) || self.applied.last == 0,
                    });
                    let _ = reply.send(sealed);
                }
                Command::Compact(reply) => self.start_compaction(Some(reply)),
            }
        }
        for compaction in self.compactions.drain(..) {
            let _ = compaction.join();
        }
        if let Err(e) = self.shared.index.flush() {
            tracing::warn!(error = &e as &dyn std::error::Error, "index is not on disk, the next open replays");
        }
    }

    /// Commits `first` and what else is queued; answers a command of another kind that it met.
    fn commit_group(&mut self, first: Pending, queue: &mut UnboundedReceiver<Command>) -> Option<Command> {
        if self.journal.segment_bytes() >= self.thresholds.segment_bytes {
            // A failure that matters comes back from `append`.
            let _ = self.seal();
        }
        let mut group = Group::new(self.journal.next_revision());
        group.add(first, self);
        let mut other = None;
        while group.frame.has_room() && other.is_none() {
            match queue.try_recv() {
                Ok(Command::Commit(pending)) => group.add(pending, self),
                Ok(command) => other = Some(command),
                Err(_) => break,
            }
        }
        let result = self.write(group.frame, group.batches, &group.changes);
        for (reply, outcome, room) in group.answers {
            drop(room);
            // A caller that went away does not undo its commit.
            let _ = reply.send(match &result {
                Ok(()) => outcome,
                Err(e) => Err(refusal(e)),
            });
        }
        let waiting = self.sealed_bytes + self.journal.segment_bytes();
        // A snapshot costs its own size, so it must be worth that much journal.
        let worth = self.shared.snapshot_bytes.load(Relaxed);
        if waiting >= self.thresholds.compact_after_bytes.max(worth)
            && self.compactions.iter().all(JoinHandle::is_finished)
        {
            self.start_compaction(None);
        }
        other
    }

    /// Makes a group durable, then visible.
    fn write(&mut self, frame: Frame, batches: u64, changes: &Changes) -> Result<(), Arc<OpenError>> {
        self.check_usable()?;
        if frame.is_empty() {
            return Ok(());
        }
        let crc = self.journal.append(frame, batches).map_err(|e| self.note(e))?;
        let last = self.journal.next_revision() - 1;
        self.shared.index.apply(changes, last, crc, &mut self.applied).map_err(|source| {
            let stage = "apply";
            self.note(JournalError::Broken(OpenError::Index { stage, source }))
        })?;
        self.shared.last.store(last, Relaxed);
        self.shared.rows.store(self.applied.rows.count, Relaxed);
        Ok(())
    }

    /// Puts all commits so far into sealed segments; answers the last of them.
    fn seal(&mut self) -> Result<Revision, StoreError> {
        self.check_usable().map_err(|e| refusal(&e))?;
        let before = self.journal.segment_bytes();
        self.journal.rotate().map_err(|e| refusal(&self.note(e)))?;
        self.sealed_bytes += before.saturating_sub(self.journal.segment_bytes());
        Ok(self.journal.next_revision() - 1)
    }

    fn start_compaction(&mut self, reply: Option<Reply<Compacted>>) {
        self.compactions.retain(|c| !c.is_finished());
        let last = match self.seal() {
            Ok(last) => last,
            Err(e) => {
                if let Some(reply) = reply {
                    let _ = reply.send(Err(e));
                }
                return;
            }
        };
        // A failed compaction is tried again after as much journal more.
        self.sealed_bytes = 0;
        let shared = self.shared.clone();
        let work = move || {
            let result = compact(&shared, last);
            match &result {
                Ok(done) => tracing::info!(?done, "journal is compacted"),
                Err(e) => tracing::error!(error = e as &dyn std::error::Error, "compaction failed"),
            }
            if let Some(reply) = reply {
                let _ = reply.send(result.map_err(StoreError::from));
            }
        };
        // Without a thread the reply is dropped, which its caller sees.
        match std::thread::Builder::new().name("state-compact".into()).spawn(work) {
            Ok(thread) => self.compactions.push(thread),
            Err(e) => tracing::error!(error = &e as &dyn std::error::Error, "no thread to compact on"),
        }
    }

    fn check_usable(&self) -> Result<(), Arc<OpenError>> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// Remembers an error after which nothing may be written.
    fn note(&mut self, error: JournalError) -> Arc<OpenError> {
        match error {
            JournalError::Unchanged(e) => Arc::new(e),
            JournalError::Broken(e) => {
                tracing::error!(
                    error = &e as &dyn std::error::Error,
                    "state takes no more writes until it is reopened"
                );
                let e = Arc::new(e);
                self.broken = Some(e.clone());
                e
            }
        }
    }
}

/// Batches that share an fsync.
struct Group {
    next: Revision,
    frame: Frame,
    batches: u64,
    changes: Changes,
    answers: Vec<(Reply<Revision>, Result<Revision, StoreError>, OwnedSemaphorePermit)>,
}

impl Group {
    fn new(next: Revision) -> Self {
        Self { next, frame: Frame::new(next), batches: 0, changes: Changes::new(), answers: Vec::new() }
    }

    fn add(&mut self, pending: Pending, writer: &Writer) {
        let outcome = self.check(&pending.batch, writer).map(|()| {
            let revision = self.next;
            self.frame.push(&pending.batch.writes);
            for (key, value) in pending.batch.writes {
                self.changes.insert(key, (revision, value));
            }
            self.next += 1;
            self.batches += 1;
            revision
        });
        self.answers.push((pending.reply, outcome, pending.room));
    }

    fn check(&self, batch: &Batch, writer: &Writer) -> Result<(), StoreError> {
        for (key, expect) in &batch.expects {
            let found = self.revision(key, writer)?;
            let holds = match expect {
                Expect::Absent => found.is_none(),
                Expect::Present => found.is_some(),
                Expect::Revision(revision) => found == Some(*revision),
            };
            if !holds {
                let key = key.clone();
                return Err(StoreError::Conflict { key, found });
            }
        }
        Ok(())
    }

    /// The key's revision after the batches before.
    fn revision(&self, key: &Bytes, writer: &Writer) -> Result<Option<Revision>, StoreError> {
        if let Some((revision, value)) = self.changes.get(key) {
            return Ok(value.as_ref().map(|_| *revision));
        }
        let row = writer.shared.index.get(key).map_err(OpenError::reading)?;
        Ok(row.map(|row| row.revision))
    }
}

/// The same error for each caller of a group.
fn refusal(error: &Arc<OpenError>) -> StoreError {
    if error.is_full() {
        return StoreError::Full;
    }
    let stage = match **error {
        OpenError::Io { stage, .. } | OpenError::Index { stage, .. } => stage,
        _ => "journal",
    };
    StoreError::Io { stage, source: Box::new(error.clone()) }
}
