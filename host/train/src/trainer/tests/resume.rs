//! Runs that are paused, killed, damaged or changed, against one that was left alone.

use super::methods::methods;
use super::*;
use crate::random::{Purpose, bits};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command as Process};
use std::time::Duration;
use stockade_core::train::Ending;

const STEPS: u64 = 24;
/// Folder of the child of [`a_killed_run_ends_as_one_that_was_left_alone`].
const CHILD: &str = "STOCKADE_TRAIN_CHILD";

fn settings_of(extra: Value) -> Job {
    let adapter =
        json!({ "adapter": { "kind": "lora", "rank": 4, "dropout": 0.1, "targets": ["q_proj", "down_proj"] } });
    let mut more = json!({
        "model": adapter,
        "optim": { "schedule": "cosine", "warmup_steps": 3, "weight_decay": 0.1 },
        "checkpoint": { "every": 4, "keep": 2 },
        "eval": { "every": 5 },
    });
    for (section, values) in extra.as_object().unwrap() {
        more[section] = values.clone();
    }
    job("sft", more)
}

fn source(seed: u32) -> Steps {
    let step = |step: u32| {
        let document = |i: u32| {
            Example::Text(sequence(&(0..20).map(|t| (seed + step * 29 + i * 13 + t * t) % 200).collect::<Vec<_>>(), 3))
        };
        step_of((0..4).map(document).collect(), 2)
    };
    Steps((0..STEPS as u32).map(step).collect())
}

/// Trains to the end or to `interrupt`; gives the ending, the digest of the weights, and the log without times.
fn train(
    job: &Job,
    folder: &Path,
    interrupt: Option<(u64, Command)>,
    seed: u32,
) -> (Result<Ending, TrainError>, String, Vec<StepMetrics>) {
    let objective = Objective::Documents { z_loss: 0.0 };
    let network = open("llama-micro", job, &objective).expect("looked for before");
    let (source, evaluation) =
        (source(seed), Steps(vec![step_of(vec![Example::Text(sequence(&[4, 9, 16, 25], 1))], 1)]));
    let listener = Listener { interrupt, ..Listener::default() };
    let mut run = run(job, objective, network, &source, folder, &listener);
    run.evaluation = Some(&evaluation);
    run.identity.data = format!("{seed}");
    let ending = run.train();
    (ending, digest(&run.network), log(folder))
}

fn log(folder: &Path) -> Vec<StepMetrics> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap_or_default();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.map(|line| StepMetrics { tokens_per_second: 0.0, ..line }).collect()
}

fn missing() -> bool {
    reference_file("fixtures/llama-micro").is_none()
}

#[test]
fn a_paused_run_ends_as_one_that_was_left_alone() {
    if missing() {
        return;
    }
    let job = settings_of(json!({}));
    let (alone, paused) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ending, weights, lines) = train(&job, alone.path(), None, 1);
    assert!(matches!(ending.unwrap(), Ending::Finished { steps: STEPS, .. }));
    assert_eq!(lines.iter().map(|line| line.step).collect::<Vec<_>>(), (1..=STEPS).collect::<Vec<_>>());
    for at in [1, 7, 8, 23] {
        let (ending, ..) = train(&job, paused.path(), Some((at, Command::Pause)), 1);
        assert_eq!(ending.unwrap(), Ending::Paused { step: at });
    }
    let (ending, again, paused_lines) = train(&job, paused.path(), None, 1);
    assert!(matches!(ending.unwrap(), Ending::Finished { steps: STEPS, .. }));
    assert_eq!(again, weights);
    assert_eq!(paused_lines, lines);
}

/// What a run may be made of, each with a method of its own kind.
fn kinds() -> Vec<(&'static str, Value, Option<&'static str>)> {
    vec![
        ("sft", json!({ "optim": { "kind": "muon", "schedule": "wsd" } }), None),
        ("sft", json!({ "optim": { "precision": "bf16", "checkpointing": true } }), Some("lora")),
        ("pretrain", json!({ "optim": { "precision": "bf16" } }), None),
        ("continue", json!({}), Some("qlora")),
        ("dpo", json!({}), Some("dora")),
        ("ipo", json!({}), None),
        ("kto", json!({}), Some("lora")),
        ("orpo", json!({ "optim": { "kind": "muon" } }), None),
        ("simpo", json!({}), None),
        ("reward", json!({}), Some("lora")),
        ("classify", json!({}), None),
        ("embed", json!({}), Some("dora")),
    ]
}

/// A run of any method, which dies without warning in the step `dies`; `None` if it did.
fn train_kind(job: &Job, step: &StepData, folder: &Path, pause: Option<u64>, dies: Option<u64>) -> Option<String> {
    struct Mortal(Listener, Option<u64>);
    impl Observer for Mortal {
        fn step(&self, metrics: &StepMetrics) {
            assert!(Some(metrics.step) != self.1, "as wished");
            self.0.step(metrics);
        }
        fn checkpoint(&self, saved: &Saved) {
            self.0.checkpoint(saved);
        }
        fn note(&self, text: &str) {
            self.0.note(text);
        }
        fn command(&self) -> Command {
            self.0.command()
        }
    }
    let objective = Objective::of(job, 3);
    let network = open("llama-micro", job, &objective).expect("looked for before");
    let source = Steps(vec![step.clone(); 10]);
    let interrupt = pause.map(|at| (at, Command::Pause));
    let observer = Mortal(Listener { interrupt, ..Listener::default() }, dies);
    let mut run = run(job, objective, network, &source, folder, &observer);
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.train().map(|_| digest(&run.network))));
    ended.ok().map(Result::unwrap)
}

#[test]
fn every_kind_of_run_goes_on_to_the_same_bits_after_pauses_and_sudden_ends() {
    if missing() {
        return;
    }
    for (method, more, adapter) in kinds() {
        let (_, example, _, step) = methods().into_iter().find(|(name, ..)| *name == method).unwrap();
        let mut settings = example.to_json();
        settings["optim"]["steps"] = 10.into();
        settings["checkpoint"] = json!({ "every": 3, "keep": 2 });
        settings["output"] = json!({});
        if let Some(kind) = adapter {
            settings["model"]["adapter"] = json!({ "kind": kind, "rank": 4, "dropout": 0.1 });
        }
        for (key, value) in more["optim"].as_object().into_iter().flatten() {
            settings["optim"][key] = value.clone();
        }
        let job = Job::from_json(&settings).unwrap();
        let (alone, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let want = train_kind(&job, &step, alone.path(), None, None).unwrap();
        assert!(train_kind(&job, &step, cut.path(), Some(4), None).is_some());
        assert!(train_kind(&job, &step, cut.path(), None, Some(6)).is_none());
        assert!(train_kind(&job, &step, cut.path(), None, Some(8)).is_none());
        assert_eq!(train_kind(&job, &step, cut.path(), None, None).unwrap(), want, "{method} {adapter:?} {more}");
    }
}

#[test]
fn a_finished_run_that_is_run_again_changes_nothing() {
    if missing() {
        return;
    }
    let job = settings_of(json!({}));
    let folder = tempfile::tempdir().unwrap();
    let first = train(&job, folder.path(), None, 1);
    let second = train(&job, folder.path(), None, 1);
    assert_eq!((first.0.unwrap(), first.1, first.2), (second.0.unwrap(), second.1, second.2));
}

#[test]
fn a_cancelled_run_says_where() {
    if missing() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (ending, ..) = train(&settings_of(json!({})), folder.path(), Some((6, Command::Cancel)), 1);
    assert_eq!(ending.unwrap(), Ending::Cancelled { step: 6 });
}

#[test]
fn changed_data_is_refused_with_both_digests() {
    if missing() {
        return;
    }
    let job = settings_of(json!({}));
    let folder = tempfile::tempdir().unwrap();
    train(&job, folder.path(), Some((9, Command::Pause)), 1).0.unwrap();
    let error = train(&job, folder.path(), None, 2).0.unwrap_err();
    assert_eq!(error.to_string(), "cannot resume: the data was 1 and is 2");
}

#[test]
fn a_damaged_checkpoint_costs_steps_and_nothing_else() {
    if missing() {
        return;
    }
    let job = settings_of(json!({}));
    let (alone, damaged) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_, weights, lines) = train(&job, alone.path(), None, 1);
    train(&job, damaged.path(), Some((13, Command::Pause)), 1).0.unwrap();
    std::fs::write(damaged.path().join("checkpoints/step-00000013/moments.safetensors"), "nothing").unwrap();
    let (_, again, damaged_lines) = train(&job, damaged.path(), None, 1);
    assert_eq!((again, damaged_lines), (weights, lines));
}

#[test]
fn a_killed_run_ends_as_one_that_was_left_alone() {
    let job = settings_of(json!({}));
    if let Some(folder) = std::env::var_os(CHILD) {
        train(&job, Path::new(&folder), None, 1).0.unwrap();
        return;
    }
    if missing() {
        return;
    }
    let (alone, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_, weights, lines) = train(&job, alone.path(), None, 1);
    let mut kills = 0;
    for attempt in 0.. {
        assert!(attempt < 200, "the run makes no progress");
        let mut child = child("a_killed_run_ends_as_one_that_was_left_alone", killed.path(), &[]);
        // Until some step is logged and then at any moment: in a step, in a save, in the export.
        let before = log_length(killed.path());
        while log_length(killed.path()) <= before && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(bits(1, Purpose::Sampling, attempt, 0) % 60_000));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    assert!(kills > 0, "the child was never killed");
    let (_, again, killed_lines) = train(&job, killed.path(), None, 1);
    assert_eq!(again, weights, "after {kills} kills");
    assert_eq!(killed_lines, lines);
}

#[test]
fn a_full_disk_fails_the_save_and_not_the_run() {
    let name = "a_full_disk_fails_the_save_and_not_the_run";
    let job = settings_of(json!({ "model": {} }));
    if let Some(folder) = std::env::var_os(CHILD) {
        let (ending, _, lines) = train(&job, Path::new(&folder), None, 1);
        assert!(matches!(ending.unwrap(), Ending::Finished { .. }));
        assert_eq!(lines.len() as u64, STEPS);
        return;
    }
    if missing() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // Files end at 64 KiB, which is less than the weights take: what a full disk is to a writer.
    let status = child(name, folder.path(), &["trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\""]).wait().unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(std::fs::read_dir(folder.path().join("checkpoints")).unwrap().count(), 0);
}

/// This test in a process of its own, which trains in `folder`.
fn child(test: &str, folder: &Path, shell: &[&str]) -> Child {
    let this = std::env::current_exe().unwrap();
    let name = format!("trainer::tests::resume::{test}");
    let mut process = match shell {
        [script] => {
            let mut process = Process::new("bash");
            process.args(["-c", script]).arg(&this);
            process
        }
        _ => Process::new(&this),
    };
    process.args(["--exact", &name]).env(CHILD, folder).stdout(std::process::Stdio::null());
    process.process_group(0);
    process.spawn().unwrap()
}

fn log_length(folder: &Path) -> u64 {
    std::fs::metadata(folder.join("metrics.jsonl")).map_or(0, |file| file.len())
}

#[test]
fn the_best_weights_are_the_result_where_a_run_may_stop_early() {
    if missing() {
        return;
    }
    // A rate this high makes the evaluation worse at once.
    let job = settings_of(json!({
        "optim": { "learning_rate": 0.5, "schedule": "constant", "clip_norm": 0.0 },
        "eval": { "every": 2, "patience": 3 },
    }));
    let folder = tempfile::tempdir().unwrap();
    let (ending, _, lines) = train(&job, folder.path(), None, 1);
    let Ending::Finished { steps, eval_loss, .. } = ending.unwrap() else { panic!("it ended") };
    assert!(steps < STEPS, "it stopped early");
    let best = lines.iter().filter_map(|line| line.eval_loss).fold(f64::INFINITY, f64::min);
    assert_eq!(eval_loss, Some(best));
}
