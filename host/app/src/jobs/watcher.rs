//! What stands between a run, which speaks after every step, and the registry, which hears of it twice a second.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use stockade_core::registry::Report;
use stockade_core::train::{Command, Observer, Saved, StepMetrics};

/// Most reports that wait to be written; a run that is quicker waits for them.
const MAX_WAITING: usize = 16;

/// Why a run is to end before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Somebody asked for it, or the budget is used up.
    Paused,
    Cancelled,
    /// The host goes down.
    HostEnds,
    /// The job is another worker's now.
    Lost,
}

pub struct Watcher {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// In order; all but the last are full.
    waiting: Vec<Report>,
    /// When time was last accounted for.
    since: Instant,
    stop: Option<Stop>,
    over: bool,
}

impl Default for Watcher {
    fn default() -> Self {
        let state = State { waiting: Vec::new(), since: Instant::now(), stop: None, over: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl Watcher {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, put: impl FnOnce(&mut Report)) {
        let mut state = self.lock();
        while state.waiting.len() >= MAX_WAITING && !state.over && state.stop.is_none() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.waiting.last().is_none_or(Report::is_full) {
            state.waiting.push(Report::default());
            self.changed.notify_all();
        }
        if let Some(last) = state.waiting.last_mut() {
            put(last);
        }
    }

    /// Adds a note of the worker's own.
    pub fn tell(&self, text: &str) {
        self.add(|r| r.notes.push(text.into()));
    }

    /// The oldest of what is to be written, with the time since the last: nothing when there is nothing and no time has
    /// gone by.
    pub fn take(&self) -> Report {
        let mut state = self.lock();
        let mut report = if state.waiting.is_empty() { Report::default() } else { state.waiting.remove(0) };
        let spent = state.since.elapsed().as_millis() as u64;
        state.since += Duration::from_millis(spent);
        report.milliseconds = spent;
        self.changed.notify_all();
        report
    }

    /// Waits until there is reason to write: `time` is over, or several reports wait. False once the run is over.
    pub fn wait(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut state = self.lock();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if state.over {
                return false;
            }
            if left.is_zero() || state.waiting.len() > 1 {
                return true;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The run has ended.
    pub fn finish(&self) {
        self.lock().over = true;
        self.changed.notify_all();
    }

    pub fn ask(&self, stop: Option<Stop>) {
        self.lock().stop = stop;
        self.changed.notify_all();
    }

    pub fn stop(&self) -> Option<Stop> {
        self.lock().stop
    }
}

impl Observer for Watcher {
    fn step(&self, metrics: &StepMetrics) {
        self.add(|r| r.steps.push(metrics.clone()));
    }
    fn checkpoint(&self, saved: &Saved) {
        self.add(|r| r.checkpoints.push(saved.clone()));
    }
    fn note(&self, text: &str) {
        self.tell(text);
    }
    fn command(&self) -> Command {
        self.stop().map_or(Command::Continue, Command::from)
    }
}
