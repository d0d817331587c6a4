//! The engine thread of one model: takes requests from a mailbox, runs step after step, hands tokens out.
//!
//! It owns the decoder and the scheduler and nothing else touches them. Invariants: it never waits for a reader; an error
//! in one sequence ends that sequence; a failed step ends the requests that were in it, and the thread goes on.

use crate::constrain::{Grammar, Mask};
use crate::scheduler::{Run, Scheduler, StepBudget};
use crate::sequence::{Constraining, Sequence, Work};
use crate::settings::Settings;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};
use stockade_core::infer::{InferError, Load};
use stockade_model::Adapter;
use stockade_model::decoder::{Decoder, LogitRows, Segment};

/// How often cancelled or slow readers are looked after while nothing runs.
const IDLE_POLL: Duration = Duration::from_millis(2);
/// Fewest prompt rows beside a decode, so that prompts always move.
const MIN_PROMPT_ROWS: usize = 8;

pub(crate) enum Message {
    Submit(Box<Sequence>),
    Compiled {
        id: u64,
        grammar: Result<Grammar, InferError>,
    },
    /// An adapter is served no longer.
    Retire(Arc<Adapter>),
}

pub(crate) struct Worker {
    decoder: Box<dyn Decoder>,
    scheduler: Scheduler,
    mailbox: Receiver<Message>,
    settings: Settings,
    gauges: Arc<Mutex<Load>>,
    /// Done, with events that their readers have no room for yet.
    draining: Vec<Sequence>,
    logits: Vec<f32>,
    /// Seconds that a row takes in a step of many, averaged over the last ones; a lone decode costs more and says
    /// nothing about prompts.
    row_seconds: f64,
}

impl Worker {
    /// `pages` have been allocated in `decoder`.
    pub fn new(
        decoder: Box<dyn Decoder>,
        pages: usize,
        mailbox: Receiver<Message>,
        settings: Settings,
        gauges: Arc<Mutex<Load>>,
    ) -> Self {
        let scheduler = Scheduler::new(pages, settings.max_running, settings.watermark_permille);
        Self {
            decoder,
            scheduler,
            mailbox,
            settings,
            gauges,
            draining: Vec::new(),
            logits: Vec::new(),
            row_seconds: 0.0,
        }
    }

    /// Runs until every sender of the mailbox is gone; what is unfinished then ends as cancelled.
    pub fn run(mut self) {
        let mut idle = true;
        while self.intake(idle) {
            let late = self.scheduler.sweep();
            self.draining.extend(late);
            self.drain();
            let plan = self.scheduler.plan(self.budget());
            idle = plan.is_empty();
            if !idle {
                self.step(&plan);
            }
            self.report();
        }
        self.scheduler.drain().iter_mut().for_each(Sequence::cancel);
        self.report();
    }

    /// Takes all mail, waiting for some when `idle`. False when the host lets go of the model.
    fn intake(&mut self, idle: bool) -> bool {
        if idle {
            let alone = self.scheduler.is_empty() && self.draining.is_empty();
            let first = if alone {
                self.mailbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.mailbox.recv_timeout(IDLE_POLL)
            };
            match first {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        loop {
            match self.mailbox.try_recv() {
                Ok(message) => self.take(message),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Submit(sequence) => self.scheduler.submit(*sequence),
            Message::Compiled { id, grammar: Ok(grammar) } => self.scheduler.compiled(id, grammar),
            Message::Compiled { id, grammar: Err(error) } => {
                let failed = self.scheduler.not_compiled(id, error);
                self.draining.extend(failed);
            }
            Message::Retire(adapter) => {
                let mut ended = self.scheduler.remove_all(|sequence| sequence.has_adapter(&adapter));
                ended.iter_mut().for_each(Sequence::cancel);
                self.draining.append(&mut ended);
            }
        }
    }

    fn budget(&self) -> StepBudget {
        let rows = self.settings.max_step_tokens.max(self.settings.max_running).max(1);
        let fit = if self.row_seconds > 0.0 {
            (self.settings.inter_token_target.as_secs_f64() / self.row_seconds) as usize
        } else {
            MIN_PROMPT_ROWS
        };
        let beside = (fit - fit % MIN_PROMPT_ROWS).clamp(MIN_PROMPT_ROWS, rows.max(MIN_PROMPT_ROWS));
        StepBudget { rows, prompt_rows_beside_decodes: beside, score_rows: self.settings.score_rows.max(1) }
    }

    fn step(&mut self, plan: &[Run]) {
        let begin = Instant::now();
        let vocab = self.decoder.spec().vocab;
        let grammars = self.borrow_grammars(plan);
        let (result, masks) = self.compute(plan, grammars);
        let result = result.and_then(|()| {
            let rows: usize = plan.iter().map(Run::logit_rows).sum();
            if self.logits.len() == rows * vocab {
                Ok(())
            } else {
                Err(format!("{} logits for {rows} rows of {vocab}", self.logits.len()))
            }
        });
        let mut masks = self.return_grammars(masks);
        if let Err(reason) = result {
            return self.fail_step(plan, &reason);
        }
        let count: usize = plan.iter().map(|run| run.count).sum();
        if count >= MIN_PROMPT_ROWS {
            self.learn(begin.elapsed().as_secs_f64() / count as f64);
        }
        let logits = std::mem::take(&mut self.logits);
        let mut rest = &logits[..];
        for run in plan {
            let rows;
            (rows, rest) = rest.split_at(run.logit_rows() * vocab);
            self.absorb(run, rows, vocab, masks.remove(&run.id));
        }
        self.logits = logits;
    }

    /// Runs the network; masks are computed on a second thread meanwhile, since they need only the tokens so far.
    fn compute(&mut self, plan: &[Run], grammars: Vec<(u64, Grammar)>) -> (Result<(), String>, Vec<Masked>) {
        let Self { decoder, scheduler, logits, .. } = self;
        let sequences: Vec<&Sequence> =
            plan.iter().map(|run| scheduler.sequence(run.id).expect("a planned sequence runs")).collect();
        let segments: Vec<Segment<'_>> = plan
            .iter()
            .zip(&sequences)
            .map(|(run, sequence)| Segment {
                tokens: &sequence.tokens[sequence.computed..sequence.computed + run.count],
                start: sequence.computed,
                pages: &sequence.pages,
                logits: run.logits,
                adapter: sequence.adapter.as_deref(),
            })
            .collect();
        let cancelled = || sequences.iter().all(|sequence| sequence.is_cancelled());
        logits.clear();
        let mut forward = || {
            let step = catch_unwind(AssertUnwindSafe(|| decoder.step(&segments, logits, &cancelled)));
            match step {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(_) => Err("the network panicked".to_owned()),
            }
        };
        if grammars.is_empty() {
            return (forward(), Vec::new());
        }
        std::thread::scope(|scope| {
            let masking = scope.spawn(move || {
                let masked = grammars.into_iter().map(|(id, mut grammar)| {
                    let mask = grammar.mask();
                    (id, grammar, mask)
                });
                masked.collect::<Vec<_>>()
            });
            let result = forward();
            (result, masking.join().unwrap_or_default())
        })
    }

    /// Takes the grammars of all that will draw a token in this step.
    fn borrow_grammars(&mut self, plan: &[Run]) -> Vec<(u64, Grammar)> {
        let mut grammars = Vec::new();
        for run in plan.iter().filter(|run| run.logits == LogitRows::Last) {
            let Some(Sequence { work: Work::Generate(generation), .. }) = self.scheduler.sequence_mut(run.id) else {
                continue;
            };
            match std::mem::replace(&mut generation.grammar, Constraining::Lent) {
                Constraining::Ready(grammar) => grammars.push((run.id, grammar)),
                other => generation.grammar = other,
            }
        }
        grammars
    }

    fn return_grammars(&mut self, masked: Vec<Masked>) -> HashMap<u64, Result<Mask, InferError>> {
        let mut masks = HashMap::new();
        for (id, grammar, mask) in masked {
            if let Some(Sequence { work: Work::Generate(generation), .. }) = self.scheduler.sequence_mut(id) {
                generation.grammar = Constraining::Ready(grammar);
            }
            masks.insert(id, mask);
        }
        masks
    }

    fn absorb(&mut self, run: &Run, rows: &[f32], vocab: usize, mask: Option<Result<Mask, InferError>>) {
        let Some(sequence) = self.scheduler.sequence_mut(run.id) else {
            return;
        };
        let lost = matches!(&sequence.work, Work::Generate(g) if matches!(g.grammar, Constraining::Lent));
        let result = match mask.transpose() {
            _ if lost => Err(backend("constraining", "the grammar was lost")),
            Ok(mask) => sequence.absorb(run.count, rows, vocab, mask),
            Err(error) => Err(error),
        };
        match result {
            Ok(false) => self.scheduler.publish(run.id),
            Ok(true) => {
                self.scheduler.publish(run.id);
                self.end(run.id);
            }
            Err(error) => {
                sequence.fail(error);
                self.end(run.id);
            }
        }
    }

    fn end(&mut self, id: u64) {
        let ended = self.scheduler.remove(id);
        self.draining.extend(ended.filter(Sequence::is_parked));
    }

    /// A step that stopped because all of it was cancelled is no failure: the sweep drops what was cancelled, and
    /// what was not runs again.
    fn fail_step(&mut self, plan: &[Run], reason: &str) {
        let cancelled = |run: &Run| self.scheduler.sequence(run.id).is_none_or(Sequence::is_cancelled);
        if plan.iter().all(cancelled) {
            return;
        }
        tracing::error!(reason, requests = plan.len(), "a step failed");
        for run in plan {
            if let Some(sequence) = self.scheduler.sequence_mut(run.id) {
                sequence.fail(backend("step", reason));
                self.end(run.id);
            }
        }
    }

    fn drain(&mut self) {
        self.draining.retain_mut(|sequence| {
            sequence.flush();
            sequence.is_parked()
        });
    }

    fn learn(&mut self, seconds: f64) {
        let old = if self.row_seconds > 0.0 { self.row_seconds } else { seconds };
        self.row_seconds = 0.8 * old + 0.2 * seconds;
    }

    fn report(&self) {
        *self.gauges.lock() = Load {
            sequences_running: self.scheduler.running() as u32,
            sequences_waiting: self.scheduler.waiting() as u32,
            kv_pages_used: self.scheduler.pages().held() as u32,
            kv_pages_total: self.scheduler.pages().total() as u32,
        };
    }
}

type Masked = (u64, Grammar, Result<Mask, InferError>);

impl Run {
    fn logit_rows(&self) -> usize {
        match self.logits {
            LogitRows::None => 0,
            LogitRows::Last => 1,
            LogitRows::All => self.count,
        }
    }
}

fn backend(stage: &'static str, reason: &str) -> InferError {
    InferError::Backend { stage, source: reason.into() }
}
