//! Workers: a thread takes a job, runs it, says every half second how far it is and hears what is asked of it.
//!
//! Invariants:
//! - what a worker writes carries its fencing number; one that has lost its job stops, writes and publishes nothing
//! - a job's folder is one run's at a time: who takes a job over waits until the run before has let go of the folder
//! - a host that goes down pauses its runs and lets go of the jobs; killed, it takes them back at its next start
//! - threads of a run are below all others in priority, so that a request is served first

use super::components::BoundComponents;
use super::evaluators::ComponentEvaluators;
use super::janitor;
use super::resolver::JobResolver;
use super::rewards::ComponentRewards;
use super::watcher::{Stop, Watcher};
use crate::lock::FolderLock;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use stockade_core::plugin::Plugins;
use stockade_core::registry::{Claimed, Job, JobEnd, JobError, Registry, RegistryError, Report, Wish, Worker};
use stockade_core::train::{Command, Ending, Observer, Publication, Publisher, StepMetrics, Task, TrainError, Trainer};
use stockade_infer::Engine;
use stockade_train::checkpoint::Checkpoints;
use tokio::runtime::Handle;

/// How long a worker that says nothing keeps its job.
const LEASE: Duration = Duration::from_secs(30);
/// How often it speaks.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How often a worker without a job looks for one.
const IDLE: Duration = Duration::from_millis(250);
/// How often what no record names is removed.
const SWEEP: Duration = Duration::from_secs(60);

/// What workers are made of.
#[derive(Clone)]
pub struct Parts {
    pub registry: Registry,
    pub trainer: Arc<dyn Trainer>,
    pub publisher: Arc<dyn Publisher>,
    pub plugins: Arc<dyn Plugins>,
    /// Whose models jobs train on; `None`: none.
    pub engine: Option<Arc<Engine>>,
    /// Of all jobs; see [`super::folder`].
    pub folder: PathBuf,
    /// Of trained models; see [`super::trained`].
    pub trained: PathBuf,
    /// Threads of a run.
    pub threads: usize,
    /// Of a run's threads; 0 to 19, higher yields more.
    pub nice: i32,
    /// For what waits.
    pub runtime: Handle,
}

/// Threads that work on jobs.
pub struct Workers {
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `at_once` of them.
    pub fn start(parts: &Parts, at_once: usize) -> std::io::Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        let run = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        let mut threads = Vec::new();
        for n in 0..at_once {
            let bench = Bench {
                parts: parts.clone(),
                me: Worker { name: format!("worker-{n}"), run },
                stopping: stopping.clone(),
            };
            threads.push(std::thread::Builder::new().name(format!("job-{n}")).spawn(move || bench.work(n == 0))?);
        }
        Ok(Self { stopping, threads })
    }

    /// Begins their end: whoever has this flag raises it when the host begins to go down.
    pub fn stopping(&self) -> Arc<AtomicBool> {
        self.stopping.clone()
    }

    /// Lets every run save a checkpoint and let go of its job, for as long as `patience` lasts.
    pub fn stop(self, patience: Duration) {
        self.stopping.store(true, Ordering::Release);
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline && self.threads.iter().any(|t| !t.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
        }
        for thread in self.threads.into_iter().filter(|t| t.is_finished()) {
            let _ = thread.join();
        }
    }
}

/// One worker.
struct Bench {
    parts: Parts,
    me: Worker,
    stopping: Arc<AtomicBool>,
}

impl Bench {
    fn work(&self, sweeps: bool) {
        lower_priority(self.parts.nice);
        let mut swept = None::<Instant>;
        while !self.stopping.load(Ordering::Acquire) {
            if sweeps && swept.is_none_or(|at| at.elapsed() >= SWEEP) {
                janitor::sweep(&self.parts.registry, self.parts.engine.as_deref(), &self.parts.folder);
                swept = Some(Instant::now());
            }
            let claim = self.parts.registry.claim_job(&self.me, now_ms(), LEASE.as_millis() as u64);
            match self.parts.runtime.block_on(claim) {
                Ok(Some(claimed)) => self.run(&claimed),
                Ok(None) => std::thread::sleep(IDLE),
                Err(e) => {
                    tracing::error!(error = %e, "jobs cannot be read");
                    std::thread::sleep(SWEEP.min(Duration::from_secs(5)));
                }
            }
        }
    }

    fn run(&self, claimed: &Claimed) {
        let (tenant, id) = (&claimed.tenant, &claimed.job.id);
        tracing::info!(%tenant, job = id, fence = claimed.job.fence, "a job runs");
        let watcher = Watcher::default();
        // From here on somebody speaks for the job, also while its result is loaded.
        let end = std::thread::scope(|scope| {
            let heart = scope.spawn(|| self.beat(claimed, &watcher));
            let end = catch_unwind(AssertUnwindSafe(|| self.train(claimed, &watcher)));
            watcher.finish();
            let _ = heart.join();
            end
        });
        let end = end.unwrap_or_else(|_| failed("internal", "the trainer panicked"));
        if watcher.stop() == Some(Stop::Lost) {
            tracing::warn!(%tenant, job = id, "the job has passed to another worker");
            return;
        }
        let mut report = watcher.take();
        loop {
            let more = watcher.take();
            let whole = more == Report::default();
            let written = if whole {
                self.parts.runtime.block_on(self.parts.registry.end_job(claimed, &report, &end, now_ms())).map(|_| ())
            } else {
                self.report(claimed, &std::mem::replace(&mut report, more)).map(|_| ())
            };
            match written {
                Ok(()) if whole => break,
                Ok(()) => {}
                Err(e) => {
                    tracing::error!(%tenant, job = id, error = %e, "a job's end could not be written; it will run again");
                    break;
                }
            }
        }
        tracing::info!(%tenant, job = id, end = ?std::mem::discriminant(&end), "a job's run has ended");
    }

    /// Tells the registry what the run tells, and the run what is asked of the job.
    fn beat(&self, claimed: &Claimed, watcher: &Watcher) {
        while watcher.wait(HEARTBEAT) {
            match self.report(claimed, &watcher.take()) {
                Ok(job) => watcher.ask(self.wanted(claimed, &job, watcher)),
                Err(RegistryError::LeaseLost { .. }) => return watcher.ask(Some(Stop::Lost)),
                // The lease outlasts many heartbeats; what was not written is gone from the log, not from the run.
                Err(e) => tracing::error!(job = claimed.job.id, error = %e, "a job's progress could not be written"),
            }
        }
    }

    fn report(&self, claimed: &Claimed, report: &Report) -> Result<Job, RegistryError> {
        let lease_ms = LEASE.as_millis() as u64;
        self.parts.runtime.block_on(self.parts.registry.report_job(claimed, report, now_ms(), lease_ms))
    }

    fn wanted(&self, claimed: &Claimed, job: &Job, watcher: &Watcher) -> Option<Stop> {
        if self.stopping.load(Ordering::Acquire) {
            return Some(Stop::HostEnds);
        }
        match job.wish {
            Some(Wish::Cancel) => return Some(Stop::Cancelled),
            Some(Wish::Pause) => return Some(Stop::Paused),
            _ => {}
        }
        match self.parts.registry.spent_job_quota(&claimed.tenant) {
            Ok(Some((quota, limit))) => {
                if watcher.stop().is_none() {
                    watcher
                        .tell(&format!("today's budget is used up: {quota} is {limit}; resume it when there is more"));
                }
                Some(Stop::Paused)
            }
            Ok(None) => None,
            Err(_) => watcher.stop(),
        }
    }

    fn train(&self, claimed: &Claimed, watcher: &Watcher) -> JobEnd {
        let (job, tenant) = (&claimed.job, &claimed.tenant);
        let folder = self.parts.folder.join(tenant.as_str()).join(&job.id);
        if let Err(e) = std::fs::create_dir_all(&folder) {
            tracing::error!(job = job.id, error = %e, folder = %folder.display(), "a job's folder cannot be made");
            return failed("internal", "the job's folder cannot be made");
        }
        let _lock = match hold(&folder, watcher) {
            Ok(Ok(lock)) => lock,
            Ok(Err(Stop::HostEnds)) => return JobEnd::Released,
            Ok(Err(Stop::Paused)) => return JobEnd::Paused,
            Ok(Err(Stop::Cancelled | Stop::Lost)) => return JobEnd::Cancelled,
            Err(e) => {
                tracing::error!(job = job.id, error = %e, folder = %folder.display(), "a job's folder cannot be locked");
                return failed("internal", "the job's folder cannot be locked");
            }
        };
        retell(&folder, job, watcher);
        let resolver = JobResolver { parts: &self.parts, tenant, folder: &folder };
        let components = match BoundComponents::pin(&self.parts, tenant, job, watcher) {
            Ok(components) => components,
            Err(e) => return refusal(&e),
        };
        if let Err(end) = self.hear(claimed, watcher, Report { scorers: components.scorers(), ..Report::default() }) {
            return end;
        }
        let task = Task {
            spec: &job.spec,
            folder: &folder,
            resolver: &resolver,
            observer: watcher,
            rewards: &ComponentRewards(&components),
            evaluators: &ComponentEvaluators(&components),
            threads: self.parts.threads,
        };
        match self.parts.trainer.run(task) {
            Ok(Ending::Finished { path, steps, tokens, loss, eval_loss, .. }) => {
                let result = json!({"steps": steps, "tokens": tokens, "loss": loss, "eval_loss": eval_loss});
                self.publish(claimed, watcher, path, result)
            }
            Ok(Ending::Paused { .. }) if watcher.stop() == Some(Stop::HostEnds) => JobEnd::Released,
            Ok(Ending::Paused { .. }) => JobEnd::Paused,
            Ok(Ending::Cancelled { .. }) => JobEnd::Cancelled,
            Err(e) => refusal(&e),
        }
    }

    /// Reports aside from the heartbeat, and hears so that the job is still this worker's; else how its run ends.
    fn hear(&self, claimed: &Claimed, watcher: &Watcher, report: Report) -> Result<(), JobEnd> {
        match self.report(claimed, &report) {
            Ok(_) => Ok(()),
            Err(RegistryError::LeaseLost { .. }) => {
                watcher.ask(Some(Stop::Lost));
                Err(JobEnd::Cancelled)
            }
            Err(e) => {
                tracing::error!(job = claimed.job.id, error = %e, "a job cannot be written");
                Err(failed("internal", "the job's record cannot be written"))
            }
        }
    }

    /// Serves the result under the job's name for it. The folder's lock is held: whoever has taken the job over since the
    /// last look at its record comes after this, to the same result.
    fn publish(&self, claimed: &Claimed, watcher: &Watcher, path: PathBuf, mut outcome: Value) -> JobEnd {
        if let Err(end) = self.hear(claimed, watcher, Report::default()) {
            return end;
        }
        let job = &claimed.job;
        let name = job.outline.output.clone().unwrap_or_else(|| job.id.clone());
        let publication = Publication {
            tenant: claimed.tenant.clone(),
            name: name.clone(),
            path,
            base: job.outline.base.clone(),
            job: job.id.clone(),
            step: None,
        };
        match self.parts.runtime.block_on(self.parts.publisher.publish(publication)) {
            Ok(_) => {
                outcome["model"] = name.into();
                JobEnd::Succeeded(outcome)
            }
            Err(e) => refusal(&e),
        }
    }
}

/// The job's folder for this run alone, or why the run is to end before it has it.
fn hold(folder: &Path, watcher: &Watcher) -> std::io::Result<Result<FolderLock, Stop>> {
    let mut told = false;
    loop {
        if let Some(lock) = FolderLock::try_take(folder)? {
            return Ok(Ok(lock));
        }
        if let Some(stop) = watcher.stop() {
            return Ok(Err(stop));
        }
        if !told {
            watcher.tell("an earlier run has not let go of the job's folder yet");
            told = true;
        }
        std::thread::sleep(IDLE);
    }
}

/// Tells what a run before this one has logged and saved and its host did not live to tell: the run goes on behind the
/// newest checkpoint and makes those steps no more. What it does make again the registry knows already.
fn retell(folder: &Path, job: &Job, watcher: &Watcher) {
    if let Ok(log) = File::open(folder.join("metrics.jsonl")) {
        let lines = BufReader::new(log).lines().map_while(Result::ok);
        let steps = lines.filter_map(|line| serde_json::from_str::<StepMetrics>(&line).ok());
        steps.filter(|metrics| metrics.step > job.progress.step).for_each(|metrics| watcher.step(&metrics));
    }
    let told = job.checkpoints.last().map_or(0, |newest| newest.saved.step);
    let saved = Checkpoints::open(&folder.join("checkpoints")).and_then(|checkpoints| checkpoints.saved());
    // What cannot be read here is the run's to report.
    let saved = saved.unwrap_or_default();
    saved.iter().filter(|saved| saved.step > told).for_each(|saved| watcher.checkpoint(saved));
}

fn failed(code: &str, message: &str) -> JobEnd {
    JobEnd::Failed(JobError { code: code.into(), message: message.into() })
}

/// What a client is told; causes inside the host go to the log alone.
fn refusal(error: &TrainError) -> JobEnd {
    let code = match error {
        TrainError::Reward { .. } | TrainError::Evaluator { .. } => "component_failed",
        TrainError::Memory { .. } => "too_large",
        TrainError::Io { .. } => "internal",
        _ => "invalid_request",
    };
    tracing::warn!(error = ?error, "a job has failed");
    failed(code, &error.to_string())
}

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// Makes the calling thread, and those that it starts, yield to threads of a lower niceness.
fn lower_priority(nice: i32) {
    // SAFETY: setpriority reads no memory; `who` 0 with PRIO_PROCESS is the calling thread on Linux. A refusal leaves the
    // priority as it is, which costs latency only.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS as _, 0, nice);
    }
}

impl From<Stop> for Command {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Paused | Stop::HostEnds => Self::Pause,
            Stop::Cancelled | Stop::Lost => Self::Cancel,
        }
    }
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
