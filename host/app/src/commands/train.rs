//! `stockade train`: a job file, data and a base become a model folder, in this process; with `--submit` a server's job.

mod local;
mod screen;
mod submit;

use crate::cli::Train;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::jobs::components::ComponentFiles;
use crate::jobs::evaluators::ComponentEvaluators;
use crate::jobs::rewards::ComponentRewards;
use crate::lock::FolderLock;
use crate::output::{Output, fields};
use local::LocalResolver;
pub use screen::Screen;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use stockade_core::train::{Command, Ending, Observer, Saved, StepMetrics, Task, TrainError, Trainer};
use stockade_train::trainer::HostTrainer;

/// Largest job file in bytes.
const MAX_JOB_BYTES: u64 = 16 << 20;

pub fn run(options: &Train, client: &Client, output: Output) -> Result<ExitCode, Failure> {
    let spec = read(&options.job)?;
    let trainer = HostTrainer::default();
    if options.submit {
        trainer.check(&spec).map_err(|e| refused(&e))?;
        return submit::run(options, spec, client, output);
    }
    let outline = trainer.check(&spec).map_err(|e| refused(&e))?;
    let folder = folder(options, &spec, outline.output.as_deref());
    std::fs::create_dir_all(&folder)?;
    let _lock = FolderLock::take(&folder)?;
    if !options.resume && holds_a_run(&folder) {
        let message = format!("{} holds a run; --resume goes on with it, --out names another folder", folder.display());
        return Err(Failure::new(Exit::Refused, message));
    }
    let beside = options.job.parent().unwrap_or(Path::new("."));
    let resolver = LocalResolver { beside, data: options.data.clone(), offline: options.offline };
    let components = ComponentFiles::load(outline.rewards.iter().chain(&outline.evaluators), beside)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    pause_on_interrupt(interrupted.clone())?;
    let watch = Watch { screen: Screen::new(options.watch, output), interrupted };
    let task = Task {
        spec: &spec,
        folder: &folder,
        resolver: &resolver,
        observer: &watch,
        rewards: &ComponentRewards(&components),
        evaluators: &ComponentEvaluators(&components),
        threads: options.threads.unwrap_or(0),
    };
    let ended = trainer.run(task).map_err(|e| refused(&e))?;
    watch.screen.finish();
    match ended {
        Ending::Finished { path, steps, tokens, loss, eval_loss, .. } => {
            let result = json!({"path": path, "steps": steps, "tokens": tokens, "loss": loss, "eval_loss": eval_loss});
            output.line(&result, fields);
            let name = outline.output.as_deref().unwrap_or("NAME");
            eprintln!("Serve it: stockade serve --model {name}={}", path.display());
            Ok(ExitCode::SUCCESS)
        }
        Ending::Paused { step } | Ending::Cancelled { step } => {
            eprintln!("A checkpoint of step {step} is saved; go on with --resume.");
            Ok(ExitCode::from(Exit::Interrupted as u8))
        }
    }
}

fn read(path: &Path) -> Result<Value, Failure> {
    let wrong = |e: &dyn std::fmt::Display| Failure::usage(format!("{}: {e}", path.display()));
    let size = match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Failure::not_found(format!("there is no job file {}", path.display())));
        }
        found => found.map_err(|e| wrong(&e))?.len(),
    };
    if size > MAX_JOB_BYTES {
        return Err(wrong(&format!("{size} bytes exceed the limit of {MAX_JOB_BYTES}")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| wrong(&e))?;
    let table: toml::Table = text.parse().map_err(|e| wrong(&e))?;
    serde_json::to_value(table).map_err(|e| wrong(&e))
}

/// `--out`, else the job's own folder, else one beside it of the model's name.
fn folder(options: &Train, spec: &Value, name: Option<&str>) -> PathBuf {
    let stem = || options.job.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let given = options.out.clone().or_else(|| spec["output"]["dir"].as_str().map(PathBuf::from));
    given.unwrap_or_else(|| PathBuf::from(name.map_or_else(stem, |n| n.replace(['/', ':'], "-"))))
}

fn holds_a_run(folder: &Path) -> bool {
    folder.join("metrics.jsonl").exists() || folder.join("checkpoints").exists()
}

/// The first SIGINT or SIGTERM saves a checkpoint, the second ends at once.
fn pause_on_interrupt(interrupted: Arc<AtomicBool>) -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::Builder::new().name("interrupt".into()).spawn(move || {
        runtime.block_on(async {
            loop {
                let heard = tokio::select! {
                    heard = interrupt.recv() => heard,
                    heard = terminate.recv() => heard,
                };
                if heard.is_none() {
                    return;
                }
                if interrupted.swap(true, Ordering::AcqRel) {
                    std::process::exit(Exit::Interrupted as i32);
                }
                eprintln!("\nSaving a checkpoint; once more ends at once.");
            }
        });
    })?;
    Ok(())
}

fn refused(error: &TrainError) -> Failure {
    let exit = match error {
        TrainError::Spec { .. } => Exit::Usage,
        TrainError::NotFound { .. } => Exit::NotFound,
        TrainError::Changed { .. } => Exit::Refused,
        _ => Exit::Failed,
    };
    let cause = std::error::Error::source(error).map(|c| format!(": {c}")).unwrap_or_default();
    Failure::new(exit, format!("{error}{cause}"))
}

/// Shows a run to whoever sits before it.
struct Watch {
    screen: Screen,
    interrupted: Arc<AtomicBool>,
}

impl Observer for Watch {
    fn step(&self, metrics: &StepMetrics) {
        self.screen.step(&json!(metrics));
    }
    fn checkpoint(&self, saved: &Saved) {
        self.screen.note(&format!("a checkpoint of step {} is saved", saved.step));
    }
    fn note(&self, text: &str) {
        self.screen.note(text);
    }
    fn command(&self) -> Command {
        if self.interrupted.load(Ordering::Acquire) { Command::Pause } else { Command::Continue }
    }
}
