//! Decides what runs in the next step and who holds which pages.
//!
//! Running decodes come first, one row each; what is left of the step goes to prompt chunks, the tenant served least
//! first; then waiting sequences are admitted. When pages run out the youngest sequence gives its pages up and is
//! computed again later, which changes nothing in its result. Invariant: a page is held by running sequences only,
//! and a sequence that is dropped here has released its pages.

use crate::fairness::{DECODE_COST, Fairness};
use crate::pages::Pages;
use crate::sequence::{Constraining, Sequence, Work};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;
use stockade_core::id::TenantId;
use stockade_core::infer::InferError;
use stockade_model::decoder::{LogitRows, PAGE_TOKENS};

/// Rows of prompt chunks come in multiples of this, the height of a kernel's tile.
const ROW_TILE: usize = 8;

/// What a step may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepBudget {
    pub rows: usize,
    /// Of `rows`, how many prompt rows may run beside a decode.
    pub prompt_rows_beside_decodes: usize,
    pub score_rows: usize,
}

/// A sequence's part of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Run {
    pub id: u64,
    pub count: usize,
    pub logits: LogitRows,
}

pub(crate) struct Scheduler {
    pages: Pages,
    fairness: Fairness,
    waiting: BTreeMap<TenantId, VecDeque<Sequence>>,
    /// Wait for their grammar.
    compiling: Vec<Sequence>,
    /// In order of arrival.
    running: Vec<Sequence>,
    max_running: usize,
    watermark: usize,
}

impl Scheduler {
    pub fn new(pages: usize, max_running: usize, watermark_permille: usize) -> Self {
        Self {
            pages: Pages::new(pages),
            fairness: Fairness::default(),
            waiting: BTreeMap::new(),
            compiling: Vec::new(),
            running: Vec::new(),
            max_running: max_running.max(1),
            watermark: pages * watermark_permille / 1000,
        }
    }

    /// Queues a sequence, behind its tenant's others.
    pub fn submit(&mut self, sequence: Sequence) {
        self.fairness.enter(&sequence.tenant);
        if is_compiling(&sequence) {
            self.compiling.push(sequence);
        } else {
            self.waiting.entry(sequence.tenant.clone()).or_default().push_back(sequence);
        }
    }

    /// A grammar is there for a sequence that waits for it.
    pub fn compiled(&mut self, id: u64, grammar: crate::constrain::Grammar) {
        let Some(at) = self.compiling.iter().position(|s| s.id == id) else {
            return;
        };
        let mut sequence = self.compiling.swap_remove(at);
        if let Work::Generate(generation) = &mut sequence.work {
            generation.grammar = Constraining::Ready(grammar);
        }
        self.waiting.entry(sequence.tenant.clone()).or_default().push_back(sequence);
    }

    /// Ends a sequence that waits for its grammar.
    pub fn not_compiled(&mut self, id: u64, error: InferError) -> Option<Sequence> {
        let at = self.compiling.iter().position(|s| s.id == id)?;
        let mut sequence = self.compiling.swap_remove(at);
        self.fairness.leave(&sequence.tenant);
        sequence.fail(error);
        Some(sequence)
    }

    /// Drops what was cancelled, delivers what readers have room for, and returns those whose grammar is late.
    pub fn sweep(&mut self) -> Vec<Sequence> {
        let cancelled: Vec<u64> = self.running.iter().filter(|s| s.is_cancelled()).map(|s| s.id).collect();
        for id in cancelled {
            self.remove(id);
        }
        self.running.iter_mut().for_each(Sequence::flush);
        let fairness = &mut self.fairness;
        let mut stays = |sequence: &Sequence| {
            let stays = !sequence.is_cancelled();
            if !stays {
                fairness.leave(&sequence.tenant);
            }
            stays
        };
        self.waiting.retain(|_, queue| {
            queue.retain(&mut stays);
            queue.iter_mut().for_each(Sequence::flush);
            !queue.is_empty()
        });
        self.compiling.retain(stays);
        let now = Instant::now();
        let late: Vec<u64> = self.compiling.iter().filter(|s| is_late(s, now)).map(|s| s.id).collect();
        late.into_iter()
            .filter_map(|id| self.not_compiled(id, InferError::Constraint("compiling took too long".into())))
            .collect()
    }

    /// The next step; empty when nothing can run.
    pub fn plan(&mut self, budget: StepBudget) -> Vec<Run> {
        let mut runs = Vec::new();
        let mut rows = budget.rows;
        let mut score_rows = budget.score_rows;
        let decodes: Vec<u64> = self.running.iter().filter(|s| s.decodes() && !s.is_parked()).map(|s| s.id).collect();
        for id in decodes {
            // An earlier one may have taken this one's pages.
            let Some(at) = self.index(id).filter(|_| rows > 0) else {
                continue;
            };
            if self.grow(at) {
                let tenant = self.sequence(id).expect("it got its page").tenant.clone();
                self.fairness.charge(&tenant, DECODE_COST);
                runs.push(Run { id, count: 1, logits: LogitRows::Last });
                rows -= 1;
            }
        }
        if !runs.is_empty() {
            rows = rows.min(budget.prompt_rows_beside_decodes);
        }
        // A tenant's prompt must not wait until another tenant's long one is through: one of each comes in first.
        let is_prompt = |s: &&Sequence| !s.decodes() && !s.is_parked();
        let mut busy: BTreeSet<TenantId> = self.running.iter().filter(is_prompt).map(|s| s.tenant.clone()).collect();
        while rows > 0
            && let Some(id) = self.admit(&busy)
        {
            busy.extend(self.sequence(id).map(|s| s.tenant.clone()));
        }
        let mut prompts: Vec<(u64, u64)> =
            self.running.iter().filter(is_prompt).map(|s| (self.fairness.served(&s.tenant), s.id)).collect();
        prompts.sort_unstable();
        for (_, id) in prompts {
            self.plan_prompt(id, &mut rows, &mut score_rows, &mut runs);
        }
        while rows > 0
            && let Some(id) = self.admit(&BTreeSet::new())
        {
            self.plan_prompt(id, &mut rows, &mut score_rows, &mut runs);
        }
        // Neighbours of one adapter are computed together.
        runs.sort_by_key(|run| self.sequence(run.id)?.adapter.as_ref().map(Arc::as_ptr));
        runs
    }

    fn plan_prompt(&mut self, id: u64, rows: &mut usize, score_rows: &mut usize, runs: &mut Vec<Run>) {
        let Some(sequence) = self.sequence(id) else {
            return;
        };
        let Some((mut count, mut logits)) = sequence.chunk(*rows, *score_rows) else {
            return;
        };
        // A chunk that does not end the prompt ends on a whole tile, so that the next one starts a whole tile.
        if logits == LogitRows::None && count > ROW_TILE && count < sequence.pending() {
            (count, logits) = sequence.chunk(count - count % ROW_TILE, *score_rows).unwrap_or((count, logits));
        }
        let tenant = sequence.tenant.clone();
        *rows -= count;
        if logits == LogitRows::All {
            *score_rows -= count;
        }
        self.fairness.charge(&tenant, count as u64);
        runs.push(Run { id, count, logits });
    }

    /// Lets the next waiting sequence run, with pages for all its tokens; none of the tenants in `busy`.
    fn admit(&mut self, busy: &BTreeSet<TenantId>) -> Option<u64> {
        if self.running.len() >= self.max_running {
            return None;
        }
        let (tenant, at) = self
            .waiting
            .iter()
            .filter(|(tenant, _)| !busy.contains(tenant))
            .filter_map(|(tenant, queue)| Some((tenant, queue.iter().position(|s| !s.is_parked())?)))
            .min_by_key(|(tenant, _)| self.fairness.served(tenant))
            .map(|(tenant, at)| (tenant.clone(), at))?;
        let sequence = self.waiting.get_mut(&tenant)?.get_mut(at)?;
        let needed = sequence.pages_needed();
        let (known, kept) = self.pages.peek(sequence.reusable_keys());
        let watermark = if self.running.is_empty() { 0 } else { self.watermark };
        if needed - known + watermark > self.pages.available() - kept {
            // A reader that does not read must not keep others waiting.
            let parked = self.running.iter().rposition(Sequence::is_parked)?;
            self.preempt(parked);
            return self.admit(busy);
        }
        let queue = self.waiting.get_mut(&tenant)?;
        let mut sequence = queue.remove(at)?;
        if queue.is_empty() {
            self.waiting.remove(&tenant);
        }
        sequence.pages = self.pages.reuse(sequence.reusable_keys());
        sequence.published = sequence.pages.len();
        sequence.computed = sequence.pages.len() * PAGE_TOKENS;
        sequence.cached.get_or_insert(sequence.computed);
        while sequence.pages.len() < sequence.pages_needed() {
            let page = self.pages.take().expect("counted before");
            sequence.pages.push(page);
        }
        sequence.times.admitted.get_or_insert_with(Instant::now);
        sequence.ticket = None;
        let id = sequence.id;
        let place = self.running.partition_point(|s| s.id < id);
        self.running.insert(place, sequence);
        Some(id)
    }

    /// Makes sure of a page for the next position. False when the sequence had to give way itself.
    fn grow(&mut self, mut at: usize) -> bool {
        loop {
            if self.running[at].pages.len() >= self.running[at].pages_needed() {
                return true;
            }
            if let Some(page) = self.pages.take() {
                self.running[at].pages.push(page);
                continue;
            }
            let parked = self.running.iter().rposition(|s| s.is_parked());
            let victim = parked.unwrap_or(self.running.len() - 1);
            self.preempt(victim);
            if victim == at {
                return false;
            }
            if victim < at {
                at -= 1;
            }
        }
    }

    /// Takes a running sequence's pages; it will be computed again, from what the cache still has.
    fn preempt(&mut self, at: usize) {
        let mut sequence = self.running.remove(at);
        tracing::debug!(parent: &sequence.span, "preempted");
        self.pages.release(&sequence.pages);
        sequence.pages.clear();
        (sequence.computed, sequence.published) = (0, 0);
        self.waiting.entry(sequence.tenant.clone()).or_default().push_front(sequence);
    }

    pub fn sequence(&self, id: u64) -> Option<&Sequence> {
        self.index(id).map(|at| &self.running[at])
    }

    pub fn sequence_mut(&mut self, id: u64) -> Option<&mut Sequence> {
        self.index(id).map(|at| &mut self.running[at])
    }

    fn index(&self, id: u64) -> Option<usize> {
        self.running.binary_search_by_key(&id, |s| s.id).ok()
    }

    /// Makes the pages known that became full.
    pub fn publish(&mut self, id: u64) {
        let Some(at) = self.index(id) else { return };
        let sequence = &mut self.running[at];
        let full = sequence.computed / PAGE_TOKENS;
        for index in sequence.published..full {
            let key = sequence.key(index);
            self.pages.publish(sequence.pages[index], key);
        }
        sequence.published = sequence.published.max(full);
    }

    /// Takes a running sequence out; its pages are free at once.
    pub fn remove(&mut self, id: u64) -> Option<Sequence> {
        let mut sequence = self.running.remove(self.index(id)?);
        self.pages.release(&sequence.pages);
        sequence.pages.clear();
        self.fairness.leave(&sequence.tenant);
        Some(sequence)
    }

    /// Takes out all that `wanted` picks, running or not.
    pub fn remove_all(&mut self, wanted: impl Fn(&Sequence) -> bool) -> Vec<Sequence> {
        let ids: Vec<u64> = self.running.iter().filter(|s| wanted(s)).map(|s| s.id).collect();
        let mut all: Vec<Sequence> = ids.into_iter().filter_map(|id| self.remove(id)).collect();
        let mut idle: Vec<Sequence> = self.compiling.extract_if(.., |s| wanted(s)).collect();
        self.waiting.retain(|_, queue| {
            let (picked, left) = std::mem::take(queue).into_iter().partition(&wanted);
            *queue = left;
            idle.extend::<VecDeque<Sequence>>(picked);
            !queue.is_empty()
        });
        idle.iter().for_each(|sequence| self.fairness.leave(&sequence.tenant));
        all.append(&mut idle);
        all
    }

    /// Takes everything out, for the end.
    pub fn drain(&mut self) -> Vec<Sequence> {
        self.remove_all(|_| true)
    }

    pub fn is_empty(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty() && self.compiling.is_empty()
    }

    pub fn running(&self) -> usize {
        self.running.len()
    }
    pub fn waiting(&self) -> usize {
        self.compiling.len() + self.waiting.values().map(VecDeque::len).sum::<usize>()
    }
    pub fn pages(&self) -> &Pages {
        &self.pages
    }
}

fn is_compiling(sequence: &Sequence) -> bool {
    matches!(&sequence.work, Work::Generate(g) if matches!(g.grammar, Constraining::Pending { .. }))
}

fn is_late(sequence: &Sequence, now: Instant) -> bool {
    matches!(&sequence.work, Work::Generate(g) if matches!(g.grammar, Constraining::Pending { deadline } if now > deadline))
}
