//! Which examples each step sees: a pure function of seed and step.
//!
//! An epoch's examples are put in order (the seed's, or the file's), packed into rows, the rows gathered into
//! micro-batches and those into steps. No step spans two epochs: the last one of each may be smaller.
//!
//! Packing is first-fit over a bounded number of open rows: an example goes into the first open row with room for it;
//! where there is none, a row is opened, and beyond the bound the oldest one is closed. Rows leave in the order in which
//! they are closed.

use super::cache::Cache;
use super::{Source, StepData};
use crate::job::OptimSpec;
use crate::random::permutation;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use stockade_core::train::TrainError;

/// Rows that packing keeps open.
const OPEN_ROWS: usize = 64;

/// How examples are arranged.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrangement {
    pub seed: u64,
    pub shuffle: bool,
    /// Row length in tokens where several examples share a row.
    pub packing: Option<usize>,
    /// Rows a micro-batch, unless `batch_tokens` is set.
    pub batch: usize,
    /// Tokens a micro-batch; one row at least.
    pub batch_tokens: Option<usize>,
    /// Micro-batches a step.
    pub accumulate: usize,
    pub length: Length,
}

/// How far the steps go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Length {
    Steps(u64),
    Epochs(f64),
}

impl Arrangement {
    pub fn training(optim: &OptimSpec, seed: u64, shuffle: bool, packing: Option<usize>) -> Self {
        let length = match optim.steps {
            Some(steps) => Length::Steps(steps),
            None => Length::Epochs(optim.epochs.unwrap_or(1.0)),
        };
        let (batch, batch_tokens, accumulate) = (optim.batch, optim.batch_tokens, optim.accumulate);
        Self { seed, shuffle, packing, batch, batch_tokens, accumulate, length }
    }

    /// Once through, in file order, a micro-batch a step.
    pub fn evaluation(optim: &OptimSpec, packing: Option<usize>) -> Self {
        let (batch, batch_tokens) = (optim.batch, optim.batch_tokens);
        let length = Length::Epochs(1.0);
        Self { seed: 0, shuffle: false, packing, batch, batch_tokens, accumulate: 1, length }
    }

    /// Whether epochs differ in nothing but the order of rows of one example each.
    fn even(&self) -> bool {
        !self.shuffle || (self.packing.is_none() && self.batch_tokens.is_none())
    }

    /// The rows of an epoch over examples of these lengths.
    fn plan(&self, epoch: u64, lengths: &[u32]) -> Plan {
        let order: Vec<u32> = if self.shuffle {
            permutation(self.seed, epoch, lengths.len())
        } else {
            (0..lengths.len() as u32).collect()
        };
        let mut plan = match self.packing {
            Some(max) => pack(&order, lengths, max),
            None => Plan { row_ends: (1..=order.len() as u32).collect(), order, micro_batch_ends: Vec::new() },
        };
        let rows = plan.row_ends.len();
        match self.batch_tokens {
            None => {
                plan.micro_batch_ends =
                    (1..=rows.div_ceil(self.batch)).map(|i| (i * self.batch).min(rows) as u32).collect();
            }
            Some(limit) => {
                let mut taken = 0;
                for row in 0..rows {
                    let tokens: usize = plan.row(row).iter().map(|&i| lengths[i as usize] as usize).sum();
                    if taken > 0 && taken + tokens > limit {
                        plan.micro_batch_ends.push(row as u32);
                        taken = 0;
                    }
                    taken += tokens;
                }
                plan.micro_batch_ends.push(rows as u32);
            }
        }
        plan
    }

    fn steps_of(&self, plan: &Plan) -> u64 {
        plan.micro_batch_ends.len().div_ceil(self.accumulate) as u64
    }
}

/// An epoch: examples in order, ends of rows among them, ends of micro-batches among the rows.
#[derive(Debug, PartialEq)]
struct Plan {
    order: Vec<u32>,
    row_ends: Vec<u32>,
    micro_batch_ends: Vec<u32>,
}

impl Plan {
    fn row(&self, row: usize) -> &[u32] {
        let start = if row == 0 { 0 } else { self.row_ends[row - 1] };
        &self.order[start as usize..self.row_ends[row] as usize]
    }

    fn micro_batch(&self, i: usize) -> std::ops::Range<usize> {
        let start = if i == 0 { 0 } else { self.micro_batch_ends[i - 1] };
        start as usize..self.micro_batch_ends[i] as usize
    }
}

fn pack(order: &[u32], lengths: &[u32], max: usize) -> Plan {
    struct OpenRow {
        examples: Vec<u32>,
        left: usize,
    }
    let mut plan = Plan { order: Vec::with_capacity(order.len()), row_ends: Vec::new(), micro_batch_ends: Vec::new() };
    let mut open: VecDeque<OpenRow> = VecDeque::with_capacity(OPEN_ROWS + 1);
    let mut close = |row: OpenRow| {
        plan.order.extend(row.examples);
        plan.row_ends.push(plan.order.len() as u32);
    };
    for &example in order {
        let length = lengths[example as usize] as usize;
        match open.iter_mut().find(|row| row.left >= length) {
            Some(row) => {
                row.examples.push(example);
                row.left -= length;
            }
            None => {
                open.push_back(OpenRow { examples: vec![example], left: max.saturating_sub(length) });
                if open.len() > OPEN_ROWS
                    && let Some(oldest) = open.pop_front()
                {
                    close(oldest);
                }
            }
        }
    }
    open.into_iter().for_each(close);
    plan
}

/// Steps over examples on disk.
pub struct Batches {
    cache: Cache,
    arrangement: Arrangement,
    steps: u64,
    /// Of the first epoch; of every one where all are even.
    steps_of_first: u64,
    digest: String,
    epochs: Mutex<Epochs>,
}

/// What is remembered of epochs; it can always be computed again.
struct Epochs {
    /// Steps before each epoch, as far as they are known.
    starts: Vec<u64>,
    newest: Option<(u64, Arc<Plan>)>,
}

impl Batches {
    /// `cache` has at least one example; `digest` is of its records.
    pub fn new(cache: Cache, arrangement: Arrangement, digest: &[u8; 32]) -> Self {
        use sha2::{Digest as _, Sha256};
        let mut hasher = Sha256::new();
        hasher.update(digest);
        hasher.update(format!("{arrangement:?}"));
        let digest = super::text::hex(&hasher.finalize());
        let epochs = Mutex::new(Epochs { starts: vec![0], newest: None });
        let mut batches = Self { cache, arrangement, steps: 0, steps_of_first: 0, digest, epochs };
        batches.steps_of_first = batches.arrangement.steps_of(&batches.plan(0));
        batches.steps = batches.count_steps().max(1);
        batches
    }

    pub fn examples(&self) -> usize {
        self.cache.len()
    }

    /// No micro-batch has more tokens.
    pub fn most_tokens(&self) -> u64 {
        let longest = self.cache.lengths().iter().copied().max().map_or(0, u64::from);
        let Arrangement { packing, batch, batch_tokens, .. } = self.arrangement;
        let row = packing.map_or(longest, |row| longest.max(row as u64));
        let bound = match batch_tokens {
            Some(limit) => row.max(limit as u64),
            None => row.saturating_mul(batch as u64),
        };
        bound.min(self.cache.lengths().iter().copied().map(u64::from).sum())
    }

    fn count_steps(&self) -> u64 {
        match self.arrangement.length {
            Length::Steps(steps) => steps,
            Length::Epochs(epochs) => {
                let whole = epochs.floor() as u64;
                let part = (epochs.fract() * self.steps_of_epoch(whole) as f64).ceil() as u64;
                self.start(whole) + part
            }
        }
    }

    /// Steps before `epoch`.
    fn start(&self, epoch: u64) -> u64 {
        if self.arrangement.even() {
            return epoch.saturating_mul(self.steps_of_first);
        }
        loop {
            let known = self.remembered().starts.len() as u64;
            if epoch < known {
                return self.remembered().starts[epoch as usize];
            }
            let steps = self.steps_of_epoch(known - 1);
            let mut epochs = self.remembered();
            if epochs.starts.len() as u64 == known {
                let next = epochs.starts.last().copied().unwrap_or(0) + steps;
                epochs.starts.push(next);
            }
        }
    }

    fn steps_of_epoch(&self, epoch: u64) -> u64 {
        if epoch == 0 || self.arrangement.even() {
            return self.steps_of_first;
        }
        self.arrangement.steps_of(&self.plan(epoch))
    }

    fn plan(&self, epoch: u64) -> Arc<Plan> {
        // In file order all epochs are alike.
        let epoch = if self.arrangement.shuffle { epoch } else { 0 };
        if let Some((known, plan)) = &self.remembered().newest
            && *known == epoch
        {
            return plan.clone();
        }
        let plan = Arc::new(self.arrangement.plan(epoch, self.cache.lengths()));
        self.remembered().newest = Some((epoch, plan.clone()));
        plan
    }

    /// The epoch that `step` lies in, and its first step.
    fn epoch_of(&self, step: u64) -> (u64, u64) {
        if self.arrangement.even() {
            let epoch = step / self.steps_of_first;
            return (epoch, epoch * self.steps_of_first);
        }
        let mut epoch = {
            let epochs = self.remembered();
            (epochs.starts.partition_point(|&start| start <= step) - 1) as u64
        };
        while self.start(epoch + 1) <= step {
            epoch += 1;
        }
        (epoch, self.start(epoch))
    }

    fn remembered(&self) -> MutexGuard<'_, Epochs> {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Batches {
    fn steps(&self) -> u64 {
        self.steps
    }

    fn step(&self, step: u64) -> Result<StepData, TrainError> {
        let (epoch, first) = self.epoch_of(step);
        let plan = self.plan(epoch);
        let accumulate = self.arrangement.accumulate;
        let start = (step - first) as usize * accumulate;
        let end = (start + accumulate).min(plan.micro_batch_ends.len());
        let row = |row: usize| plan.row(row).iter().map(|&i| self.cache.get(i as usize)).collect();
        let micro_batches =
            (start..end).map(|i| plan.micro_batch(i).map(row).collect()).collect::<Result<_, TrainError>>()?;
        Ok(StepData { micro_batches, epoch })
    }

    fn digest(&self) -> &str {
        &self.digest
    }
}

#[cfg(test)]
mod tests;
