//! Workers with a scripted trainer: it counts steps into a file of the job's folder and goes on from there.

use super::*;
use crate::digest::sha256;
use bytes::Bytes;
use serde_json::Map;
use std::path::Path;
use std::sync::Mutex;
use stockade_core::id::{ComponentName, Version};
use stockade_core::plugin::{Admitted, Grants, Mode, OnFailure, PluginKind, Role};
use stockade_core::registry::{BindingEntry, JobKind, JobStatus, MemoryStore, NewJob, Quotas};
use stockade_core::train::{Outline, Saved, StepMetrics};
use stockade_core::{BoxFuture, ModelId, TenantId};
use stockade_train::checkpoint::{Evaluated, Identity, State};

/// Steps as its specification says: `steps`, `fails_at`, `panics_at`; a checkpoint every `every` steps.
struct Script {
    /// How often each step was made, by job folder name and step.
    made: Mutex<Vec<u64>>,
}

impl Trainer for Script {
    fn check(&self, _: &Value) -> Result<Outline, TrainError> {
        Err(TrainError::spec("method", "not asked here"))
    }

    fn run(&self, task: Task<'_>) -> Result<Ending, TrainError> {
        let number = |name: &str| task.spec[name].as_u64().unwrap_or(u64::MAX);
        if let Some(name) = task.spec["data"].as_str() {
            let text = std::fs::read_to_string(task.resolver.data(name)?).unwrap();
            task.observer.note(&text);
        }
        let saved = task.folder.join("saved");
        let mut step: u64 = std::fs::read_to_string(&saved).map_or(0, |t| t.parse().unwrap());
        let steps = number("steps");
        while step < steps {
            step += 1;
            self.made.lock().unwrap().push(step);
            if step == number("fails_at") {
                return Err(TrainError::Diverged { step, reason: "as scripted".into() });
            }
            assert!(step != number("panics_at"), "as scripted");
            task.observer.step(&metrics(step, steps));
            let command = task.observer.command();
            if step.is_multiple_of(number("every")) || command == Command::Pause {
                std::fs::write(&saved, step.to_string()).unwrap();
                let saved = Saved { step, path: task.folder.to_path_buf(), eval_loss: None };
                task.observer.checkpoint(&saved);
            }
            match command {
                Command::Continue => {}
                Command::Pause => return Ok(Ending::Paused { step }),
                Command::Cancel => return Ok(Ending::Cancelled { step }),
            }
            if task.spec["slow"] == true {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        // At its end it takes its time, and hears nothing of what is asked.
        while task.spec["waits"] == true && !task.folder.join("go").is_file() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let path = task.folder.to_path_buf();
        Ok(Ending::Finished { path, base: None, steps, tokens: steps * 10, loss: 0.5, eval_loss: None })
    }
}

fn metrics(step: u64, steps: u64) -> StepMetrics {
    StepMetrics {
        step,
        steps,
        loss: 1.0,
        lr: 0.1,
        grad_norm: 1.0,
        tokens: step * 10,
        tokens_per_second: 1.0,
        eval_loss: None,
        samples: Vec::new(),
        more: Map::new(),
    }
}

#[derive(Default)]
struct Published(Mutex<Vec<Publication>>);

impl Publisher for Published {
    fn publish(&self, publication: Publication) -> BoxFuture<'_, Result<ModelId, TrainError>> {
        let id = ModelId::new(&publication.name).unwrap();
        self.0.lock().unwrap().push(publication);
        Box::pin(async move { Ok(id) })
    }
    fn withdraw<'a>(&'a self, _: &'a TenantId, _: &'a ModelId) -> BoxFuture<'a, Result<bool, TrainError>> {
        Box::pin(async { Ok(false) })
    }
}

struct Host {
    runtime: tokio::runtime::Runtime,
    parts: Parts,
    script: Arc<Script>,
    published: Arc<Published>,
    _folder: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let store = Arc::new(MemoryStore::new());
        let registry = Registry::new(store.clone(), store);
        runtime.block_on(registry.ensure_default_tenant()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let script = Arc::new(Script { made: Mutex::default() });
        let published = Arc::new(Published::default());
        let parts = Parts {
            plugins: Arc::new(crate::sandbox::runtime(&registry, folder.path()).unwrap()),
            registry,
            trainer: script.clone(),
            publisher: published.clone(),
            engine: None,
            folder: folder.path().to_path_buf(),
            trained: folder.path().join("trained"),
            threads: 1,
            nice: 5,
            runtime: runtime.handle().clone(),
        };
        Self { runtime, parts, script, published, _folder: folder }
    }

    /// A version of the component `judge`, whose bytes are its version.
    fn put(&self, version: &str) -> Version {
        let admitted = Admitted {
            digest: sha256(version.as_bytes()),
            size_bytes: version.len() as u64,
            roles: vec![PluginKind::Evaluator],
            imports: Vec::new(),
            exports: Vec::new(),
            grants_wanted: Grants::default(),
            compile_ms: 1,
            warnings: Vec::new(),
            manifest: Value::Null,
        };
        let bytes = Bytes::copy_from_slice(version.as_bytes());
        let version = Version::new(version).unwrap();
        let (tenant, name) = (tenant(), judge());
        self.runtime.block_on(self.parts.registry.put_version(&tenant, &name, &version, admitted, bytes)).unwrap();
        version
    }

    fn bind(&self, version: &Version, config: Value) {
        let entry = BindingEntry {
            component: judge(),
            version: version.clone(),
            config,
            mode: Mode::Enforce,
            on_failure: OnFailure::Block,
            refusal: None,
            canary: None,
        };
        let role = Role::Evaluator(ComponentName::new("words").unwrap());
        self.runtime.block_on(self.parts.registry.bind(&tenant(), &role, vec![entry], None)).unwrap();
    }

    fn queue(&self, spec: Value) -> Job {
        let outline = Outline {
            method: "sft".into(),
            base: Some("m".into()),
            data: Vec::new(),
            steps: spec["steps"].as_u64(),
            output: Some("mine".into()),
            rewards: Vec::new(),
            evaluators: spec["evaluators"].as_str().map(String::from).into_iter().collect(),
            effective: Value::Null,
        };
        let new = NewJob { kind: JobKind::Train, name: None, spec, outline, dialect: Value::Null, component: None };
        self.runtime.block_on(self.parts.registry.create_job(&tenant(), new, 9, 1)).unwrap()
    }

    fn job(&self, id: &str) -> Job {
        self.parts.registry.job(&tenant(), id).unwrap().unwrap()
    }

    /// The job once `done` holds of it.
    fn wait(&self, id: &str, done: impl Fn(&Job) -> bool) -> Job {
        let begin = Instant::now();
        loop {
            let job = self.job(id);
            if done(&job) {
                return job;
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "{job:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn ask(&self, id: &str, wish: Wish) {
        self.runtime.block_on(self.parts.registry.ask_job(&tenant(), id, wish)).unwrap();
    }

    fn told_steps(&self, id: &str) -> Vec<u64> {
        let events = self.parts.registry.job_events(&tenant(), id, 0, 5000).unwrap();
        events.iter().filter_map(|e| e.event.data["lr"].as_f64().and(e.event.data["step"].as_u64())).collect()
    }
}

fn tenant() -> TenantId {
    TenantId::default_tenant()
}

fn judge() -> ComponentName {
    ComponentName::new("judge").unwrap()
}

#[test]
fn a_job_runs_to_its_end_and_its_result_is_published() {
    let host = Host::new();
    let id = "file_0000000000000000000000aa";
    let label = stockade_core::registry::FileLabel { filename: "rows.jsonl".into(), ..Default::default() };
    let bytes = Bytes::from_static(b"the data");
    host.runtime.block_on(host.parts.registry.put_file(&tenant(), id, label, &bytes)).unwrap();
    let job = host.queue(json!({"steps": 300, "every": 100, "data": id}));
    let workers = Workers::start(&host.parts, 2).unwrap();
    let done = host.wait(&job.id, |j| j.status.is_terminal());
    assert_eq!((done.status, &done.outcome["model"]), (JobStatus::Succeeded, &json!("mine")));
    assert_eq!((done.progress.step, done.progress.tokens, done.checkpoints.len()), (300, 3000, 3));
    assert_eq!(host.told_steps(&job.id), (1..=300).collect::<Vec<_>>());
    let events = host.parts.registry.job_events(&tenant(), &job.id, 0, 5000).unwrap();
    assert!(events.iter().any(|e| e.event.message == "the data"));
    let published = host.published.0.lock().unwrap();
    assert_eq!((published.len(), published[0].base.as_deref()), (1, Some("m")));
    assert!(published[0].path.ends_with(Path::new("default").join(&job.id)));
    assert!(host.parts.registry.job_usage(&tenant(), now_ms() / 1000).unwrap().tokens == 3000);
    workers.stop(Duration::from_secs(5));
}

#[test]
fn a_checkpoint_that_a_killed_host_did_not_live_to_tell_is_told_by_the_next() {
    let host = Host::new();
    let job = host.queue(json!({"steps": 9}));
    let checkpoints = host.parts.folder.join("default").join(&job.id).join("checkpoints");
    let identity = Identity { job: "j".into(), base: "b".into(), data: "d".into(), evaluation: None };
    let evaluation = Some(Evaluated { step: 7, loss: 0.25, judged: 0.25 });
    let state = State { step: 7, evaluation, ..State::start(identity, "here".into()) };
    let path = Checkpoints::open(&checkpoints).unwrap().save(&state, &|_| Ok(())).unwrap();
    let workers = Workers::start(&host.parts, 1).unwrap();
    let done = host.wait(&job.id, |j| j.status.is_terminal());
    let told: Vec<_> = done.checkpoints.iter().map(|c| c.saved.clone()).collect();
    assert_eq!(told, [Saved { step: 7, path: path.join("model"), eval_loss: Some(0.25) }]);
    workers.stop(Duration::from_secs(5));
}

#[test]
fn pause_resume_and_cancel_reach_the_run() {
    let host = Host::new();
    let job = host.queue(json!({"steps": 100_000, "every": 1_000_000, "slow": true}));
    let workers = Workers::start(&host.parts, 1).unwrap();
    host.wait(&job.id, |j| j.progress.step > 3);
    host.ask(&job.id, Wish::Pause);
    let paused = host.wait(&job.id, |j| j.status == JobStatus::Paused);
    assert!(paused.lease.is_none());
    let at = paused.progress.step;
    host.ask(&job.id, Wish::Resume);
    host.wait(&job.id, |j| j.progress.step > at + 3);
    host.ask(&job.id, Wish::Cancel);
    let ended = host.wait(&job.id, |j| j.status.is_terminal());
    assert_eq!(ended.status, JobStatus::Cancelled);
    let made = host.script.made.lock().unwrap().clone();
    assert!(made.windows(2).all(|w| w[1] == w[0] + 1), "a resumed run repeats nothing");
    assert!(host.published.0.lock().unwrap().is_empty());
    workers.stop(Duration::from_secs(5));
}

#[test]
fn a_host_that_goes_down_lets_go_and_the_next_one_goes_on() {
    let host = Host::new();
    let job = host.queue(json!({"steps": 480, "every": 1_000, "slow": true}));
    let workers = Workers::start(&host.parts, 1).unwrap();
    host.wait(&job.id, |j| j.progress.step > 3);
    workers.stop(Duration::from_secs(5));
    let waiting = host.job(&job.id);
    assert_eq!((waiting.status, waiting.lease), (JobStatus::Queued, None));
    let workers = Workers::start(&host.parts, 1).unwrap();
    let done = host.wait(&job.id, |j| j.status.is_terminal());
    assert_eq!(done.status, JobStatus::Succeeded);
    assert_eq!(host.told_steps(&job.id), (1..=480).collect::<Vec<_>>());
    workers.stop(Duration::from_secs(5));
}

#[test]
fn a_worker_that_has_lost_its_job_stops_and_writes_nothing() {
    let host = Host::new();
    let job = host.queue(json!({"steps": 100_000, "every": 1_000_000, "slow": true}));
    let workers = Workers::start(&host.parts, 1).unwrap();
    host.wait(&job.id, |j| j.progress.step > 3);
    // Somebody else takes the job, as if this worker had been silent for the length of its lease.
    let other = Worker { name: "other".into(), run: 1 };
    let later = now_ms() + 10 * LEASE.as_millis() as u64;
    let claimed = host.runtime.block_on(host.parts.registry.claim_job(&other, later, 1 << 40)).unwrap().unwrap();
    assert_eq!(claimed.job.fence, 2);
    std::thread::sleep(Duration::from_millis(1_500));
    let made = host.script.made.lock().unwrap().len();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(host.script.made.lock().unwrap().len(), made, "the run has ended");
    let now = host.job(&job.id);
    assert_eq!((now.fence, now.progress, now.status), (2, claimed.job.progress, JobStatus::Running));
    workers.stop(Duration::from_secs(5));
}

#[test]
fn a_worker_that_has_lost_its_job_at_its_end_publishes_nothing() {
    let host = Host::new();
    let job = host.queue(json!({"steps": 3, "every": 1, "waits": true}));
    let workers = Workers::start(&host.parts, 1).unwrap();
    host.wait(&job.id, |j| j.progress.step == 3);
    let other = Worker { name: "other".into(), run: 1 };
    let later = now_ms() + 10 * LEASE.as_millis() as u64;
    host.runtime.block_on(host.parts.registry.claim_job(&other, later, 1 << 40)).unwrap().unwrap();
    let folder = host.parts.folder.join("default").join(&job.id);
    std::fs::write(folder.join("go"), "").unwrap();
    // The folder is free once the run has ended.
    let begin = Instant::now();
    while FolderLock::try_take(&folder).unwrap().is_none() {
        assert!(begin.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(host.published.0.lock().unwrap().is_empty());
    assert_eq!(host.job(&job.id).status, JobStatus::Running);
    workers.stop(Duration::from_secs(5));
}

#[test]
fn a_run_begins_once_the_one_before_has_let_go_of_the_folder() {
    let host = Host::new();
    let job = host.queue(json!({"steps": 3, "every": 1}));
    let folder = host.parts.folder.join("default").join(&job.id);
    std::fs::create_dir_all(&folder).unwrap();
    let held = FolderLock::try_take(&folder).unwrap().unwrap();
    let workers = Workers::start(&host.parts, 1).unwrap();
    let noted = || {
        let events = host.parts.registry.job_events(&tenant(), &job.id, 0, 100).unwrap();
        events.iter().filter(|e| e.event.message.contains("has not let go")).count()
    };
    host.wait(&job.id, |_| noted() == 1);
    std::thread::sleep(IDLE * 2);
    assert!(host.script.made.lock().unwrap().is_empty());
    drop(held);
    let done = host.wait(&job.id, |j| j.status.is_terminal());
    assert_eq!((done.status, noted()), (JobStatus::Succeeded, 1));
    workers.stop(Duration::from_secs(5));
}

#[test]
fn what_scores_is_found_once_and_kept_with_the_job() {
    let host = Host::new();
    let (one, two) = (host.put("1.0.0"), host.put("2.0.0"));
    host.bind(&one, json!({"n": 1}));
    let job = host.queue(json!({"steps": 100_000, "every": 1_000_000, "slow": true, "evaluators": "words"}));
    let workers = Workers::start(&host.parts, 1).unwrap();
    let scored = |j: &Job| j.scorers.iter().map(|s| (s.component.to_string(), s.config.clone())).collect::<Vec<_>>();
    let first = host.wait(&job.id, |j| j.progress.step > 3);
    assert_eq!(scored(&first), [("judge@1.0.0".to_string(), json!({"n": 1}))]);
    assert_eq!(first.scorers[0].component.digest, sha256(b"1.0.0"));
    let goes_on = || {
        host.ask(&job.id, Wish::Pause);
        let paused = host.wait(&job.id, |j| j.status == JobStatus::Paused);
        host.ask(&job.id, Wish::Resume);
        host.wait(&job.id, |j| j.progress.step > paused.progress.step + 3)
    };
    // Bound anew, the job keeps what it has begun with; once that is gone, it says so.
    host.bind(&two, json!({"n": 2}));
    assert_eq!(scored(&goes_on()), scored(&first));
    host.runtime.block_on(host.parts.registry.delete_version(&tenant(), &judge(), &one)).unwrap();
    assert_eq!(scored(&goes_on()), [("judge@2.0.0".to_string(), json!({"n": 2}))]);
    let events = host.parts.registry.job_events(&tenant(), &job.id, 0, 5000).unwrap();
    let notes: Vec<_> = events.iter().filter(|e| e.event.message.contains("judge")).map(|e| &e.event.message).collect();
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[0].contains(&format!("evaluator/words is judge@1.0.0, sha256 {}", sha256(b"1.0.0"))), "{notes:?}");
    assert!(notes[1].contains("has changed") && notes[1].contains("judge@2.0.0"), "{notes:?}");
    host.ask(&job.id, Wish::Cancel);
    host.wait(&job.id, |j| j.status.is_terminal());

    let unbound = host.queue(json!({"steps": 1, "evaluators": "none"}));
    let failed = host.wait(&unbound.id, |j| j.status.is_terminal());
    assert_eq!((failed.error.unwrap().code.as_str(), failed.progress.step), ("component_failed", 0));
    workers.stop(Duration::from_secs(5));
}

#[test]
fn failures_and_panics_end_the_job_with_a_reason_and_the_worker_goes_on() {
    let host = Host::new();
    let fails = host.queue(json!({"steps": 10, "fails_at": 5, "every": 100}));
    let panics = host.queue(json!({"steps": 10, "panics_at": 5, "every": 100}));
    let works = host.queue(json!({"steps": 10, "every": 100}));
    let workers = Workers::start(&host.parts, 1).unwrap();
    assert_eq!(host.wait(&works.id, |j| j.status.is_terminal()).status, JobStatus::Succeeded);
    let failed = host.job(&fails.id);
    assert_eq!((failed.status, failed.progress.step), (JobStatus::Failed, 4));
    assert!(failed.error.unwrap().message.contains("diverged at step 5"));
    assert_eq!(host.job(&panics.id).error.unwrap().code, "internal");
    workers.stop(Duration::from_secs(5));
}

#[test]
fn a_used_up_budget_pauses_the_run() {
    let host = Host::new();
    let quotas = Quotas { job_tokens_per_day: Some(200), ..Quotas::default() };
    host.runtime.block_on(host.parts.registry.set_quotas(&tenant(), quotas)).unwrap();
    let job = host.queue(json!({"steps": 100_000, "every": 1_000_000, "slow": true}));
    let workers = Workers::start(&host.parts, 1).unwrap();
    let paused = host.wait(&job.id, |j| j.status == JobStatus::Paused);
    assert!(paused.progress.tokens >= 200);
    let events = host.parts.registry.job_events(&tenant(), &job.id, 0, 5000).unwrap();
    let notes = events.iter().filter(|e| e.event.message.contains("job_tokens_per_day")).count();
    assert_eq!(notes, 1);
    workers.stop(Duration::from_secs(5));
}

#[test]
fn folders_without_a_record_are_swept_and_others_stay() {
    let host = Host::new();
    let job = host.queue(json!({"steps": 1, "every": 1}));
    for name in [job.id.as_str(), "job_0000000000000000000000aa", "stray"] {
        std::fs::create_dir_all(host.parts.folder.join("default").join(name)).unwrap();
    }
    janitor::sweep(&host.parts.registry, None, &host.parts.folder);
    let left: Vec<_> = std::fs::read_dir(host.parts.folder.join("default")).unwrap().flatten().collect();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].file_name().to_string_lossy(), job.id);
}
