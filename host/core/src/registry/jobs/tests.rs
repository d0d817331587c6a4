use super::*;
use crate::registry::{MemoryStore, Quotas};
use crate::train::ShownSample;
use serde_json::{Map, json};
use std::path::PathBuf;
use std::sync::Arc;

const LEASE: u64 = 10_000;

async fn registry() -> Registry {
    let store = Arc::new(MemoryStore::new());
    let registry = Registry::new(store.clone(), store);
    registry.ensure_default_tenant().await.unwrap();
    registry
}

fn tenant() -> TenantId {
    TenantId::default_tenant()
}

fn worker(name: &str, run: u64) -> Worker {
    Worker { name: name.into(), run }
}

fn new(kind: JobKind) -> NewJob {
    let outline = Outline {
        method: "sft".into(),
        base: Some("m".into()),
        data: vec!["file_1".into()],
        steps: Some(100),
        output: Some("mine".into()),
        rewards: Vec::new(),
        evaluators: Vec::new(),
        effective: json!({"seed": 1}),
    };
    NewJob { kind, name: None, spec: json!({"method": "sft"}), outline, dialect: Value::Null, component: None }
}

async fn queued(registry: &Registry) -> Job {
    registry.create_job(&tenant(), new(JobKind::Train), 8, 7).await.unwrap()
}

fn step(n: u64, eval_loss: Option<f64>) -> StepMetrics {
    StepMetrics {
        step: n,
        steps: 100_000,
        loss: 1.0 / n as f64,
        lr: 1e-3,
        grad_norm: 1.0,
        tokens: n * 10,
        tokens_per_second: 5.0,
        eval_loss,
        samples: Vec::new(),
        more: Map::new(),
    }
}

fn steps(range: std::ops::RangeInclusive<u64>) -> Report {
    Report { steps: range.map(|n| step(n, None)).collect(), milliseconds: 100, ..Report::default() }
}

fn saved(n: u64) -> Saved {
    Saved { step: n, path: PathBuf::from(format!("step-{n}")), eval_loss: None }
}

fn is_lost(result: Result<Job, RegistryError>) -> bool {
    matches!(result, Err(RegistryError::LeaseLost { .. }))
}

#[tokio::test]
async fn one_of_two_workers_gets_a_job_and_the_other_gets_it_once_the_lease_is_over() {
    let registry = registry().await;
    let job = queued(&registry).await;
    let (a, b) = (worker("a", 1), worker("b", 1));
    let first = registry.claim_job(&a, 1_000, LEASE).await.unwrap().unwrap();
    assert_eq!((first.job.id.as_str(), first.job.fence, first.job.status), (&*job.id, 1, JobStatus::Running));
    assert!(registry.claim_job(&b, 1_000 + LEASE - 1, LEASE).await.unwrap().is_none());
    // A heartbeat moves the end of the lease.
    registry.report_job(&first, &steps(1..=2), 5_000, LEASE).await.unwrap();
    assert!(registry.claim_job(&b, 1_000 + LEASE, LEASE).await.unwrap().is_none());
    let second = registry.claim_job(&b, 5_000 + LEASE, LEASE).await.unwrap().unwrap();
    assert_eq!((second.job.fence, second.job.progress.step), (2, 2));

    // The first, which was only slow, can write nothing any more: no step, no end.
    let before = registry.job(&tenant(), &job.id).unwrap();
    assert!(is_lost(registry.report_job(&first, &steps(3..=9), 5_001, LEASE).await));
    assert!(is_lost(registry.end_job(&first, &Report::default(), &JobEnd::Succeeded(json!(1)), 5_002).await));
    assert_eq!(registry.job(&tenant(), &job.id).unwrap(), before);
    let ended = registry.end_job(&second, &steps(3..=4), &JobEnd::Succeeded(json!({"n": 2})), 16_000).await.unwrap();
    assert_eq!((ended.status, ended.progress.step, ended.lease), (JobStatus::Succeeded, 4, None));
    assert_eq!(ended.finished_at, Some(16));
    assert!(is_lost(registry.end_job(&second, &Report::default(), &JobEnd::Cancelled, 16_001).await));
    assert!(registry.claim_job(&a, 1 << 40, LEASE).await.unwrap().is_none());
}

#[tokio::test]
async fn two_claims_at_once_give_one_job_to_one_worker() {
    let registry = registry().await;
    queued(&registry).await;
    let workers: Vec<Worker> = (0..8).map(|n| worker(&format!("w{n}"), 1)).collect();
    let claims = workers.iter().map(|w| registry.claim_job(w, 1, LEASE));
    let claims = futures_of(claims.collect()).await;
    assert_eq!(claims.into_iter().filter(|c| c.as_ref().unwrap().is_some()).count(), 1);
}

/// All futures, polled in turn until each is done.
async fn futures_of<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.into_iter().map(|f| (Box::pin(f), None)).collect();
    std::future::poll_fn(|cx| {
        for (future, done) in &mut running {
            if done.is_none()
                && let std::task::Poll::Ready(output) = future.as_mut().poll(cx)
            {
                *done = Some(output);
            }
        }
        if running.iter().all(|(_, d)| d.is_some()) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    running.into_iter().filter_map(|(_, d)| d).collect()
}

#[tokio::test]
async fn a_restarted_worker_takes_its_own_jobs_back_at_once() {
    let registry = registry().await;
    queued(&registry).await;
    registry.claim_job(&worker("host", 1), 1_000, LEASE).await.unwrap().unwrap();
    assert!(registry.claim_job(&worker("host", 1), 1_001, LEASE).await.unwrap().is_none());
    let again = registry.claim_job(&worker("host", 2), 1_001, LEASE).await.unwrap().unwrap();
    assert_eq!(again.job.fence, 2);
}

#[tokio::test]
async fn a_job_that_ends_its_host_again_and_again_is_given_up() {
    let registry = registry().await;
    let job = queued(&registry).await;
    let claim = async |run| registry.claim_job(&worker("host", run), run * 1_000, LEASE).await.unwrap();
    let state = || registry.job(&tenant(), &job.id).unwrap().unwrap();
    let first = claim(1).await.unwrap();
    registry.report_job(&first, &steps(1..=5), 1_500, LEASE).await.unwrap();
    // Lost, but it had come further. The next one makes nothing that is new, and lets go in good order.
    let second = claim(2).await.unwrap();
    registry.report_job(&second, &steps(3..=5), 2_500, LEASE).await.unwrap();
    assert_eq!(state().attempts, 1);
    claim(3).await.unwrap();
    let fourth = claim(4).await.unwrap();
    assert_eq!(state().attempts, 3);
    registry.end_job(&fourth, &Report::default(), &JobEnd::Released, 4_500).await.unwrap();
    // From here on every run dies. A checkpoint is a step further, once.
    let fifth = claim(5).await.unwrap();
    let report = Report { checkpoints: vec![saved(5)], ..Report::default() };
    registry.report_job(&fifth, &report, 5_500, LEASE).await.unwrap();
    for run in 6..=8 {
        let again = claim(run).await.unwrap();
        registry.report_job(&again, &report, run * 1_000 + 500, LEASE).await.unwrap();
    }
    assert!(claim(9).await.is_none());
    let ended = state();
    assert_eq!((ended.status, ended.fence, ended.lease), (JobStatus::Failed, 8, None));
    let error = ended.error.unwrap();
    assert!(error.code == "host_lost" && error.message.contains("more memory"), "{error:?}");
    assert!(claim(10).await.is_none());
    let events = registry.job_events(&tenant(), &job.id, 0, 100).unwrap();
    assert!(events.last().unwrap().event.message.contains("3 runs in a row"), "{events:?}");
    // Its tenant's next job is not held up.
    let next = queued(&registry).await;
    assert_eq!(claim(11).await.unwrap().job.id, next.id);
}

#[tokio::test]
async fn steps_that_a_run_repeats_after_a_crash_count_once() {
    let registry = registry().await;
    let job = queued(&registry).await;
    let first = registry.claim_job(&worker("host", 1), 1_000, LEASE).await.unwrap().unwrap();
    let mut report = steps(1..=20);
    report.checkpoints.push(saved(10));
    registry.report_job(&first, &report, 2_000, LEASE).await.unwrap();
    // The host dies; the run goes on from step 10 and tells of the steps and the checkpoint again.
    let second = registry.claim_job(&worker("host", 2), 3_000, LEASE).await.unwrap().unwrap();
    let mut report = steps(11..=25);
    report.checkpoints = vec![saved(10), saved(20)];
    let now = registry.report_job(&second, &report, 4_000, LEASE).await.unwrap();
    assert_eq!((now.progress.step, now.progress.tokens, now.progress.milliseconds), (25, 250, 200));
    assert_eq!(now.checkpoints.iter().map(|c| c.saved.step).collect::<Vec<_>>(), [10, 20]);
    let events = registry.job_events(&tenant(), &job.id, 0, 1000).unwrap();
    let told: Vec<u64> = events
        .iter()
        .filter(|e| e.event.kind == EventKind::Metrics)
        .map(|e| e.event.data["step"].as_u64().unwrap())
        .collect();
    assert_eq!(told, (1..=25).collect::<Vec<_>>());
    assert_eq!(events.iter().map(|e| e.id).collect::<Vec<_>>(), (1..=events.len() as u64).collect::<Vec<_>>());
    assert_eq!(events.iter().filter(|e| e.event.kind == EventKind::Checkpoint).count(), 2);
    let today = now.created_at;
    assert_eq!(registry.job_usage(&tenant(), today).unwrap(), JobUsage { tokens: 250, milliseconds: 200 });
}

#[tokio::test]
async fn pause_resume_and_cancel_follow_the_status() {
    let registry = registry().await;
    let job = queued(&registry).await;
    let ask = async |wish| registry.ask_job(&tenant(), &job.id, wish).await;
    let conflict = |r: Result<Job, RegistryError>| matches!(r, Err(RegistryError::Conflict(_)));
    assert_eq!(ask(Wish::Pause).await.unwrap().status, JobStatus::Paused);
    assert!(registry.claim_job(&worker("a", 1), 1, LEASE).await.unwrap().is_none());
    assert_eq!(ask(Wish::Resume).await.unwrap().status, JobStatus::Queued);
    let claimed = registry.claim_job(&worker("a", 1), 1, LEASE).await.unwrap().unwrap();
    assert_eq!(ask(Wish::Pause).await.unwrap().wish, Some(Wish::Pause));
    // The worker hears of it with its next report, and a resume takes it back.
    let heard = registry.report_job(&claimed, &steps(1..=1), 2, LEASE).await.unwrap();
    assert_eq!(heard.wish, Some(Wish::Pause));
    assert_eq!(ask(Wish::Resume).await.unwrap().wish, None);
    ask(Wish::Pause).await.unwrap();
    let paused = registry.end_job(&claimed, &Report::default(), &JobEnd::Paused, 3).await.unwrap();
    assert_eq!((paused.status, paused.wish, paused.finished_at), (JobStatus::Paused, None, None));
    ask(Wish::Resume).await.unwrap();
    let claimed = registry.claim_job(&worker("a", 1), 4, LEASE).await.unwrap().unwrap();
    ask(Wish::Cancel).await.unwrap();
    assert!(conflict(ask(Wish::Pause).await), "a wish to cancel stands");
    // A host that goes down lets go of the job; what it was asked meanwhile holds.
    let released = registry.end_job(&claimed, &Report::default(), &JobEnd::Released, 5).await.unwrap();
    assert_eq!(released.status, JobStatus::Cancelled);
    assert!(conflict(ask(Wish::Resume).await));
    assert!(conflict(ask(Wish::Pause).await));
    assert_eq!(ask(Wish::Cancel).await.unwrap().status, JobStatus::Cancelled);
    assert!(matches!(
        registry.ask_job(&tenant(), "job_none", Wish::Cancel).await,
        Err(RegistryError::NotFound { what: "job", .. })
    ));
}

#[tokio::test]
async fn a_long_log_is_thinned_evenly_and_keeps_its_ends() {
    let registry = registry().await;
    let job = queued(&registry).await;
    let claimed = registry.claim_job(&worker("a", 1), 1, LEASE).await.unwrap().unwrap();
    let last = 20_000;
    for from in (1..=last).step_by(100) {
        let mut report = steps(from..=from + 99);
        for step in &mut report.steps {
            step.steps = last;
            step.eval_loss = (step.step % 10 == 0).then_some(0.5);
        }
        report.notes = vec![format!("note {from}"), "x".repeat(5_000)];
        registry.report_job(&claimed, &report, 2, LEASE).await.unwrap();
    }
    let events = registry.job_events(&tenant(), &job.id, 0, 10_000).unwrap();
    let of = |kind, evaluated: bool| {
        let of_kind = events.iter().filter(move |e| e.event.kind == kind);
        of_kind.filter(move |e| e.event.data["eval_loss"].is_null() != evaluated).collect::<Vec<_>>()
    };
    let number = |e: &&JobEvent| e.event.data["step"].as_u64().unwrap();
    let plain: Vec<u64> = of(EventKind::Metrics, false).iter().map(number).collect();
    let evaluated: Vec<u64> = of(EventKind::Metrics, true).iter().map(number).collect();
    assert!((200..=600).contains(&plain.len()), "{}", plain.len());
    assert!((100..=300).contains(&evaluated.len()), "{}", evaluated.len());
    assert_eq!((plain[0], *evaluated.last().unwrap()), (1, last));
    let gaps = plain.windows(2).map(|w| w[1] - w[0]);
    let (least, most) = gaps.fold((u64::MAX, 0), |(a, b), g| (a.min(g), b.max(g)));
    assert!(most <= 2 * least + 2, "gaps of {least} to {most} steps");
    assert!(events.len() < 1_200, "{}", events.len());
    assert!(events.iter().all(|e| e.event.message.len() <= 1_000));
    assert!(registry.job_events(&tenant(), &job.id, events[9].id, 1).unwrap()[0].id == events[10].id);
}

#[tokio::test]
async fn samples_are_an_event_for_each_evaluation_told_once_and_always_fit() {
    let registry = registry().await;
    let job = queued(&registry).await;
    let claimed = registry.claim_job(&worker("a", 1), 1, LEASE).await.unwrap().unwrap();
    let sample = |step: u64, answer: &str| ShownSample {
        step,
        prompt: "\u{1}\u{e9}".repeat(500),
        answer: answer.into(),
        expected: Some("\"".repeat(900)),
        scores: (0..40).map(|n| (format!("evaluator/metric-{n}"), 0.5)).collect(),
    };
    let mut first = steps(1..=3);
    first.steps[0].samples = vec![sample(0, "before"), sample(1, "after")];
    first.steps[2].samples = vec![ShownSample { prompt: "p".into(), expected: None, ..sample(3, "\u{1}[2J") }];
    for _ in 0..2 {
        // The second time as after a crash.
        registry.report_job(&claimed, &first, 2, LEASE).await.unwrap();
    }
    let told = async || {
        let events = registry.job_events(&tenant(), &job.id, 0, 10_000).unwrap();
        events.into_iter().filter(|e| e.event.kind == EventKind::Samples).map(|e| e.event).collect::<Vec<_>>()
    };
    let events = told().await;
    let of: Vec<(u64, usize)> = events
        .iter()
        .map(|e| (e.data["step"].as_u64().unwrap(), e.data["samples"].as_array().unwrap().len()))
        .collect();
    assert_eq!(of, [(0, 1), (1, 1), (3, 1)]);
    assert_eq!(events[0].data["samples"][0]["answer"], "before");
    assert_eq!(events[2].message, "step 3: \"p\" -> \"\\u{1}[2J\"", "nothing that steers a terminal");
    assert_eq!(events[2].data["samples"][0]["scores"]["evaluator/metric-39"], 0.5);
    // Sixteen of the largest, and more evaluations than are kept.
    for n in 4..=400 {
        let mut report = steps(n..=n);
        report.steps[0].eval_loss = Some(0.5);
        report.steps[0].samples = vec![sample(n, &"\u{1}".repeat(1000)); 16];
        registry.report_job(&claimed, &report, 2, LEASE).await.unwrap();
    }
    let events = told().await;
    assert!((60..=130).contains(&events.len()), "{}", events.len());
    assert!(events.iter().all(|e| e.data.to_string().len() <= 2_500 && !e.data["samples"][0].is_null()));
    let whole = registry.job_events(&tenant(), &job.id, 0, 10_000).unwrap();
    assert!(whole.iter().filter(|e| e.event.kind == EventKind::Metrics).all(|e| e.event.data["samples"].is_null()));
}

#[tokio::test]
async fn bounds_hold_and_other_kinds_are_refused_by_name() {
    let registry = registry().await;
    let create = async |new, unfinished| registry.create_job(&tenant(), new, unfinished, 1).await;
    for kind in [JobKind::Eval, JobKind::Generate, JobKind::Batch] {
        assert!(matches!(create(new(kind), 9).await, Err(RegistryError::NotServed(_))));
    }
    let spec = json!({"pad": "x".repeat(MAX_JOB_SPEC_BYTES)});
    let large = create(NewJob { spec, ..new(JobKind::Train) }, 9).await;
    assert!(matches!(large, Err(RegistryError::TooLarge { what: "job specification", .. })));
    let named = create(NewJob { name: Some("a\nb".into()), ..new(JobKind::Train) }, 9).await;
    assert!(matches!(named, Err(RegistryError::Invalid { .. })));
    let first = create(new(JobKind::Train), 1).await.unwrap();
    let over = create(new(JobKind::Train), 1).await;
    assert!(matches!(over, Err(RegistryError::TooLarge { what: "set of unfinished jobs", limit: 1, .. })));
    assert!(matches!(registry.delete_job(&tenant(), &first.id).await, Err(RegistryError::Conflict(_))));
    registry.ask_job(&tenant(), &first.id, Wish::Cancel).await.unwrap();
    create(new(JobKind::Train), 1).await.unwrap();
    assert!(registry.delete_job(&tenant(), &first.id).await.unwrap());
    assert!(registry.job_events(&tenant(), &first.id, 0, 9).unwrap().is_empty());
    assert!(!registry.delete_job(&tenant(), &first.id).await.unwrap());
}

#[tokio::test]
async fn the_tenant_that_was_worked_for_least_goes_first_and_a_deleted_one_leaves_nothing() {
    let registry = registry().await;
    let alice = TenantId::new("alice").unwrap();
    registry.create_tenant(alice.clone(), Quotas::default()).await.unwrap();
    queued(&registry).await;
    queued(&registry).await;
    let hers = registry.create_job(&alice, new(JobKind::Train), 8, 1).await.unwrap();
    let a = worker("a", 1);
    let at = now() * 1000;
    let first = registry.claim_job(&a, at, LEASE).await.unwrap().unwrap();
    registry.report_job(&first, &steps(1..=2), at, LEASE).await.unwrap();
    let second = registry.claim_job(&a, at, LEASE).await.unwrap().unwrap();
    assert_eq!((second.tenant, second.job.id), (alice.clone(), hers.id.clone()));
    registry.delete_tenant(&alice).await.unwrap();
    assert!(registry.claim_job(&worker("b", 1), at + LEASE, LEASE).await.unwrap().is_some());
    registry.create_tenant(alice.clone(), Quotas::default()).await.unwrap();
    assert!(registry.job(&alice, &hers.id).unwrap().is_none());
}
