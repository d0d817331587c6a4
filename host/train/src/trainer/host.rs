//! The trainer seam on this machine.

use super::examiner::Examiner;
use super::result::Results;
use super::rollouts::Roller;
use super::run::Run;
use super::sampler::EngineSampler;
use super::settings;
use super::start::Start;
use crate::checkpoint::{Identity, failed, write_atomically};
use crate::data::{self, ModelText, Prepared, Source};
use crate::job::{Job, Method};
use crate::methods::{Objective, pass_tokens};
use crate::network::{Device, Network};
use crate::optimizer::Optimizer;
use serde_json::Value;
use std::path::Path;
use stockade_core::train::{Command, Ending, Outline, Task, TrainError, Trainer};
use stockade_infer::left_now;

/// Below this a person may have meant more: packing makes a few long rows of many short examples.
const FEW_STEPS: u64 = 10;

/// A job that this program can run.
fn runnable(spec: &Value) -> Result<Job, TrainError> {
    let job = Job::from_json(spec)?;
    settings::device(&job).check()?;
    Ok(job)
}

/// Refuses what this machine has no memory for now. On another device the host holds gradients and moments alone.
fn check_memory(network: &Network, job: &Job, data: &Prepared) -> Result<(), TrainError> {
    let tokens = match (job.method, settings::device(job)) {
        (_, Device::Cuda(_)) => 0,
        // Each answer beside a prompt: as many at once as a pass of the method takes.
        (Method::Grpo, _) => pass_tokens(job.data.max_tokens + job.grpo.as_ref().map_or(0, |g| g.max_tokens)),
        // Every answer once more, beside the next one's prompt.
        (Method::Kto, _) => 2 * data.train.most_tokens(),
        _ => data.train.most_tokens(),
    };
    let (needed, limit) = (network.training_bytes(tokens), left_now());
    if needed > limit { Err(TrainError::Memory { needed, limit }) } else { Ok(()) }
}

/// Trains on this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostTrainer {}

impl Trainer for HostTrainer {
    fn check(&self, spec: &Value) -> Result<Outline, TrainError> {
        Ok(runnable(spec)?.outline())
    }

    fn run(&self, task: Task<'_>) -> Result<Ending, TrainError> {
        let Task { spec, folder, resolver, observer, rewards, evaluators, threads } = task;
        let job = runnable(spec)?;
        std::fs::create_dir_all(folder).map_err(|e| failed("the job's folder", e))?;
        let start = Start::find(&job, resolver, folder)?;
        let text = ModelText::open(&start.tokenizer, &start.config)?;
        let Some(data) = data::prepare(&job, resolver, &text, folder, observer)? else {
            return Ok(match observer.command() {
                Command::Cancel => Ending::Cancelled { step: 0 },
                Command::Pause | Command::Continue => Ending::Paused { step: 0 },
            });
        };
        data.notes.iter().for_each(|note| observer.note(note));
        let identity = Identity {
            job: settings::digest(&job),
            base: start.digest.clone(),
            data: data.train.digest().to_owned(),
            evaluation: data.eval.as_ref().map(|eval| eval.digest().to_owned()),
        };
        write_job(&job, &identity, &data.sources, &folder.join("job.toml"))?;

        let objective = Objective::of(&job, data.labels.len());
        let options = settings::network(&job, objective.output(), threads);
        let network = start.network(&options)?;
        check_memory(&network, &job, &data)?;
        let results = Results::new(&job, &start, objective.output(), &data.labels);
        let export = |network: &Network, folder: &Path| results.write(network, folder);
        let policy = |network: &Network, folder: &Path| results.write_policy(network, folder);
        let finish = |network: &Network, folder: &Path| results.finish(network, folder);
        let adapter = job.model.adapter.is_some();
        let longest = [
            job.grpo.as_ref().map_or(0, |grpo| grpo.max_tokens),
            if job.eval.samples > 0 { job.eval.max_tokens } else { 0 },
        ];
        let longest = longest.into_iter().max().filter(|&longest| longest > 0);
        let sampler = longest.map(|longest| {
            let base = adapter.then_some(start.path.as_path());
            let context = start.config.context_tokens;
            EngineSampler::new(folder.join("policy"), base, &policy, context, text.ends(), longest, threads)
        });
        let sampler = sampler.transpose()?;
        let mut steps = data.train.steps();
        let roller = match (&job.grpo, &sampler) {
            (Some(grpo), Some(sampler)) => {
                steps = job.optim.steps.unwrap_or_else(|| steps.saturating_mul(grpo.inner_steps));
                let reference = (grpo.beta > 0.0 && !adapter).then(|| start.network(&options)).transpose()?;
                Some(Roller::new(grpo, job.seed, rewards, sampler, reference, adapter))
            }
            _ => None,
        };
        let bounded = job.optim.max_steps.filter(|most| *most < steps);
        let steps = bounded.unwrap_or(steps);
        if steps < FEW_STEPS && job.optim.steps.or(bounded).is_none() {
            observer.note(&format!(
                "{steps} steps in all: more `optim.epochs`, a smaller `optim.batch` or `data.packing = false` make more"
            ));
        }
        let examiner = match &sampler {
            Some(sampler) if job.eval.samples > 0 => {
                Some(Examiner::new(&job.eval, job.seed, data.questions, sampler, evaluators)?)
            }
            _ => None,
        };
        let mut run = Run {
            optimizer: Optimizer::new(network.parameters(), settings::optimizer(&job)),
            schedule: settings::schedule(&job, steps),
            train: &data.train,
            evaluation: data.eval.as_ref().map(|eval| eval as &dyn Source),
            job: &job,
            network,
            objective,
            roller,
            examiner,
            identity,
            folder,
            observer,
            export: &export,
            finish: &finish,
        };
        let ending = run.train()?;
        Ok(match ending {
            Ending::Finished { path, steps, tokens, loss, eval_loss, .. } => {
                Ending::Finished { path, base: results.base(), steps, tokens, loss, eval_loss }
            }
            other => other,
        })
    }
}

/// The job with every default filled in, and the digests of what it ran on, as comments: the file is a job again.
fn write_job(job: &Job, identity: &Identity, sources: &[(String, String)], path: &Path) -> Result<(), TrainError> {
    let Identity { base, data, evaluation, .. } = identity;
    let evaluation = evaluation.as_ref().map(|digest| format!("# evaluation examples: {digest}\n")).unwrap_or_default();
    // A name may hold a line's end, which a comment must not.
    let sources: String =
        sources.iter().map(|(name, digest)| format!("# {}: {digest}\n", name.escape_debug())).collect();
    let text = format!(
        "# As it ran, by Stockade {}. Sha256 of what it ran on:\n# base model: {base}\n{sources}# examples: {data}\n{evaluation}\n{}",
        env!("CARGO_PKG_VERSION"),
        job.to_toml()
    );
    write_atomically(path, text.as_bytes()).map_err(|e| failed("job.toml", e))
}
