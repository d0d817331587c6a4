//! The loop.

use super::examiner::{Examined, Examiner};
use super::log::Log;
use super::rollouts::Roller;
use crate::checkpoint::{Checkpoints, Evaluated, Found, Identity, State, failed, read_tensors, write_tensors};
use crate::data::Source;
use crate::job::Job;
use crate::methods::{Objective, References, Tally, Turn};
use crate::network::{Gradients, Network};
use crate::optimizer::{Optimizer, Schedule, clip_scale};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use stockade_core::train::{Command, Ending, Observer, ShownSample, StepMetrics, TrainError};

/// Writes what can be served into a folder: a model, or an adapter.
pub type Export<'a> = dyn Fn(&Network, &Path) -> Result<(), TrainError> + 'a;

/// Everything that a run is made of.
pub struct Run<'a> {
    pub job: &'a Job,
    /// With the weights that the run starts from.
    pub network: Network,
    pub objective: Objective,
    pub optimizer: Optimizer,
    pub schedule: Schedule,
    pub train: &'a dyn Source,
    pub evaluation: Option<&'a dyn Source>,
    /// Samples and scores answers, where the method learns from them.
    pub roller: Option<Roller<'a>>,
    /// Asks the weights at evaluations.
    pub examiner: Option<Examiner<'a>>,
    pub identity: Identity,
    pub folder: &'a Path,
    pub observer: &'a dyn Observer,
    /// For checkpoints.
    pub export: &'a Export<'a>,
    /// For the result.
    pub finish: &'a Export<'a>,
}

/// What a step came to.
struct Done {
    tally: Tally,
    /// The schedule's share of the learning rate.
    share: f64,
    grad_norm: f64,
    skipped: Option<&'static str>,
    /// Without evaluation.
    seconds: f64,
    evaluation: Evaluation,
}

/// What an evaluation came to; empty where none was due.
#[derive(Default)]
struct Evaluation {
    /// On the evaluation data; `None` where it gave no loss.
    tally: Option<Tally>,
    examined: Examined,
}

impl Run<'_> {
    /// Trains from the newest checkpoint, or from the start, to the end or until the observer commands otherwise.
    pub fn train(&mut self) -> Result<Ending, TrainError> {
        let checkpoints = Checkpoints::open(&self.folder.join("checkpoints"))?;
        let found = checkpoints.newest(&|note| self.observer.note(note))?;
        if let Some(found) = &found {
            self.identity.same_as(&found.state.identity)?;
        }
        // The network holds the weights of the start now, and only now.
        let Some(references) = self.references()? else {
            let step = found.map_or(0, |found| found.state.step);
            return Ok(if self.observer.command() == Command::Pause {
                Ending::Paused { step }
            } else {
                Ending::Cancelled { step }
            });
        };
        let mut state = self.restore(found)?;
        let mut log = Log::open(&self.folder.join("metrics.jsonl"), state.step)?;
        let mut gradients = self.network.gradients();
        let mut saved = state.step;
        let mut shown = if state.step == 0 { self.examine_start() } else { Vec::new() };

        while state.step < self.schedule.steps && !self.stops_early(&state) {
            let begin = Instant::now();
            let share = self.schedule.factor(state.step);
            gradients.zero();
            let tally = self.forward_and_backward(state.step, &references, &mut gradients)?;
            let grad_norm = gradients.norm();
            let skipped = self.judge(&tally, grad_norm, &mut state)?;
            if skipped.is_none() {
                self.update(share, clip_scale(grad_norm, self.job.optim.clip_norm), &gradients)?;
                state.loss = tally.loss;
            }
            state.applied = self.optimizer.applied();
            state.step += 1;
            state.tokens += tally.tokens;
            let seconds = begin.elapsed().as_secs_f64();
            let mut evaluation = self.evaluate_when_due(&mut state, &references)?;
            let improved = state.best.is_some_and(|best| best.step == state.step);
            shown.append(&mut evaluation.examined.shown);
            let samples = std::mem::take(&mut shown);
            let done = Done { tally, share, grad_norm, skipped, seconds, evaluation };
            let metrics = StepMetrics { samples, ..self.metrics(&state, done) };
            // A full disk is no reason to lose the run: it goes on, and the next save may succeed.
            log.write(&metrics).unwrap_or_else(|error| self.tell("a line of the log is lost", state.step, &error));
            self.observer.step(&metrics);

            let command = if self.between_rollouts(state.step) { self.observer.command() } else { Command::Continue };
            if self.between_rollouts(state.step)
                && (state.step - saved >= self.job.checkpoint.every || improved || command == Command::Pause)
            {
                match self.save(&checkpoints, &state, &mut log) {
                    Ok(()) => saved = state.step,
                    Err(error) if command == Command::Pause => return Err(error),
                    Err(error) => self.tell("no checkpoint was saved", state.step, &error),
                }
            }
            match command {
                Command::Continue => {}
                Command::Pause => return Ok(Ending::Paused { step: state.step }),
                Command::Cancel => return Ok(Ending::Cancelled { step: state.step }),
            }
        }
        if saved != state.step
            && let Err(error) = self.save(&checkpoints, &state, &mut log)
        {
            self.tell("the last checkpoint was not saved", state.step, &error);
        }
        self.finish(&checkpoints, &state)
    }

    fn references(&self) -> Result<Option<References>, TrainError> {
        let sources: Vec<&dyn Source> = std::iter::once(self.train).chain(self.evaluation).collect();
        let Identity { job, base, data, evaluation } = &self.identity;
        let digest = format!("{job} {base} {data} {evaluation:?}");
        let file = self.folder.join("reference.bin");
        References::prepare(&self.objective, &self.network, &sources, &file, &digest, self.observer)
    }

    /// The state to go on from, with weights and moments in place.
    fn restore(&mut self, found: Option<Found>) -> Result<State, TrainError> {
        let program = format!("Stockade {} ({})", env!("CARGO_PKG_VERSION"), self.network.kernel());
        let Some(Found { path, mut state }) = found else {
            return Ok(State::start(self.identity.clone(), program));
        };
        if state.program != program {
            let was = std::mem::replace(&mut state.program, program.clone());
            self.observer
                .note(&format!("the checkpoint was made by {was}, this is {program}: the last bits may differ"));
        }
        self.read_weights(&path)?;
        let moments = self.optimizer.restore(state.applied);
        read_tensors(&path.join("moments.safetensors"), moments).map_err(|e| failed("checkpoint", e))?;
        self.observer.note(&format!("going on from the checkpoint of step {}", state.step));
        Ok(state)
    }

    fn forward_and_backward(
        &mut self,
        step: u64,
        references: &References,
        gradients: &mut Gradients,
    ) -> Result<Tally, TrainError> {
        let Self { job, network, objective, train, roller, observer, .. } = self;
        if let Some(roller) = roller {
            if step.is_multiple_of(roller.inner_steps()) || roller.is_empty() {
                let prompts = train.step(step / roller.inner_steps())?;
                roller.roll(network, &prompts, step, *observer)?;
            }
            let mut turn = Turn { network, references, gradients: Some(gradients), seed: job.seed, step };
            return objective.answers(&mut turn, roller.rollouts());
        }
        let data = train.step(step)?;
        let mut turn = Turn { network, references, gradients: Some(gradients), seed: job.seed, step };
        objective.run(&mut turn, &data)
    }

    /// Why a step does not move the weights, if so.
    fn judge(&self, tally: &Tally, grad_norm: f64, state: &mut State) -> Result<Option<&'static str>, TrainError> {
        if tally.weight == 0.0 {
            return Ok(Some("nothing to learn from"));
        }
        let reason = match (tally.loss.is_finite(), grad_norm.is_finite()) {
            (true, true) => {
                state.skipped_in_row = 0;
                return Ok(None);
            }
            (false, _) => "the loss is not finite",
            (true, false) => "the gradient is not finite",
        };
        state.skipped_in_row += 1;
        self.observer.note(&format!("step {} was skipped: {reason}", state.step + 1));
        if state.skipped_in_row > self.job.optim.max_skipped {
            let reason = format!("{reason}, {} times in a row", state.skipped_in_row);
            return Err(TrainError::Diverged { step: state.step + 1, reason });
        }
        Ok(Some(reason))
    }

    fn update(&mut self, share: f64, scale: f32, gradients: &Gradients) -> Result<(), TrainError> {
        let pool = Arc::clone(self.network.pool());
        self.optimizer.begin(share);
        for i in 0..self.network.parameters().len() {
            self.optimizer.update(i, self.network.values_mut(i), gradients.get(i), scale, &pool);
        }
        self.network.updated()
    }

    /// What the weights that the run starts from answer, for comparison.
    fn examine_start(&self) -> Vec<ShownSample> {
        let Some(examiner) = &self.examiner else { return Vec::new() };
        let examined = examiner.examine(&self.network, 0, self.observer);
        if !examined.means.is_empty() {
            self.observer.note(&format!("before the first step: {}", examined.describe()));
        }
        examined.shown
    }

    fn evaluate_when_due(&mut self, state: &mut State, references: &References) -> Result<Evaluation, TrainError> {
        let due = self.is_due(state.step);
        let Some(source) = self.evaluation.filter(|_| due) else {
            return Ok(Evaluation::default());
        };
        let mut tally = Tally::default();
        if let Some(roller) = &self.roller {
            roller.take(&self.network)?;
        }
        for step in 0..source.steps() {
            let data = source.step(step)?;
            if let Some(roller) = &self.roller {
                tally.merge(&roller.evaluate(&data, step, self.observer)?);
                continue;
            }
            let mut turn =
                Turn { network: &self.network, references, gradients: None, seed: self.job.seed, step: state.step };
            tally.merge(&self.objective.run(&mut turn, &data)?);
        }
        let examiner = self.examiner.as_ref();
        let examined =
            examiner.map(|examiner| examiner.examine(&self.network, state.step, self.observer)).unwrap_or_default();
        if tally.weight == 0.0 || !tally.loss.is_finite() {
            self.observer.note(&format!("the evaluation after step {} gave no loss", state.step));
            return Ok(Evaluation { tally: None, examined });
        }
        self.compare(state, tally.loss, examined.judged);
        Ok(Evaluation { tally: Some(tally), examined })
    }

    /// Whether this evaluation is the best so far. One that `eval.best_by` cannot be told of is not compared.
    fn compare(&self, state: &mut State, loss: f64, judged: Option<f64>) {
        let judged = if self.job.eval.best_by.is_some() { judged } else { Some(loss) };
        let evaluated = Evaluated { step: state.step, loss, judged: judged.unwrap_or(f64::INFINITY) };
        state.evaluation = Some(evaluated);
        if judged.is_none() {
            return;
        }
        if state.best.is_none_or(|best| evaluated.judged < best.judged - self.job.eval.min_delta) {
            state.best = Some(evaluated);
            state.without_better = 0;
        } else {
            state.without_better += 1;
        }
    }

    fn metrics(&self, state: &State, done: Done) -> StepMetrics {
        let Done { tally, share, grad_norm, skipped, seconds, evaluation } = done;
        let mut more = tally.means();
        if let Some(roller) = &self.roller {
            more.extend(roller.facts().clone());
        }
        if let Some(reason) = skipped {
            more.insert("skipped".into(), reason.into());
        }
        for (name, mean) in evaluation.tally.iter().flat_map(Tally::means) {
            more.insert(format!("eval_{name}"), mean);
        }
        more.extend(evaluation.examined.metrics());
        StepMetrics {
            step: state.step,
            steps: self.schedule.steps,
            // JSON has no number for what is not finite: then the last loss that was stands here, beside `skipped`.
            loss: if tally.loss.is_finite() { tally.loss } else { state.loss },
            lr: share * self.job.optim.learning_rate,
            grad_norm: if grad_norm.is_finite() { grad_norm } else { 0.0 },
            tokens: state.tokens,
            tokens_per_second: tally.tokens as f64 / seconds.max(1e-9),
            eval_loss: evaluation.tally.map(|tally| tally.loss),
            samples: Vec::new(),
            more,
        }
    }

    fn stops_early(&self, state: &State) -> bool {
        self.job.eval.patience > 0 && state.without_better >= self.job.eval.patience
    }

    /// Answers are not part of a checkpoint, so there is none while some are still to be learnt from.
    fn between_rollouts(&self, step: u64) -> bool {
        step.is_multiple_of(self.inner_steps()) || step == self.schedule.steps
    }

    /// Steps on the same answers.
    fn inner_steps(&self) -> u64 {
        self.roller.as_ref().map_or(1, Roller::inner_steps)
    }

    /// Evaluations stand where a checkpoint can: at the end of the answers in which their step falls.
    fn is_due(&self, step: u64) -> bool {
        let every = self.job.eval.every;
        let passed = step / every != step.saturating_sub(self.inner_steps()) / every;
        step == self.schedule.steps || (passed && self.between_rollouts(step))
    }

    fn save(&self, checkpoints: &Checkpoints, state: &State, log: &mut Log) -> Result<(), TrainError> {
        log.sync()?;
        let network = &self.network;
        let path = checkpoints.save(state, &|folder| {
            let names = network.parameters().iter().map(|parameter| parameter.name.clone());
            let weights = names.enumerate().map(|(i, name)| (name, network.values(i)));
            write_tensors(&folder.join("weights.safetensors"), weights)
                .and_then(|()| write_tensors(&folder.join("moments.safetensors"), self.optimizer.moments()))
                .map_err(|e| failed("checkpoint", e))?;
            (self.export)(network, &folder.join("model"))
        })?;
        checkpoints.prune(self.job.checkpoint.keep, state.best.map(|best| best.step))?;
        self.observer.checkpoint(&state.saved(&path));
        Ok(())
    }

    fn read_weights(&mut self, path: &Path) -> Result<(), TrainError> {
        let path = path.join("weights.safetensors");
        let names: Vec<String> = self.network.parameters().iter().map(|parameter| parameter.name.clone()).collect();
        let mut weights: Vec<Vec<f32>> = (0..names.len()).map(|i| self.network.values(i).to_vec()).collect();
        read_tensors(&path, names.into_iter().zip(weights.iter_mut().map(Vec::as_mut_slice)))
            .map_err(|e| failed("checkpoint", e))?;
        for (i, values) in weights.iter().enumerate() {
            self.network.values_mut(i).copy_from_slice(values);
        }
        self.network.updated()?;
        Ok(())
    }

    fn tell(&self, what: &str, step: u64, error: &TrainError) {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        self.observer.note(&format!("{what} after step {step}: {error}{cause}"));
    }

    /// Exports the last weights or, where the run may stop early, the best ones.
    fn finish(&mut self, checkpoints: &Checkpoints, state: &State) -> Result<Ending, TrainError> {
        let best = state.best.filter(|best| self.job.eval.patience > 0 && best.step != state.step);
        if let Some(best) = best {
            match checkpoints.load(best.step) {
                Ok(found) => {
                    let by = match &self.job.eval.best_by {
                        None => "whose loss was the lowest".to_owned(),
                        Some(metric) => format!("which was the best by {metric}"),
                    };
                    self.observer.note(&format!("the result is that of step {}, {by}", best.step));
                    self.read_weights(&found.path)?;
                }
                Err(error) => {
                    self.observer.note(&format!("the best checkpoint cannot be read, the last weights stand: {error}"));
                }
            }
        }
        (self.finish)(&self.network, self.folder)?;
        let eval_loss = if best.is_some() { state.best } else { state.evaluation }.map(|evaluated| evaluated.loss);
        Ok(Ending::Finished {
            path: PathBuf::from(self.folder),
            base: None,
            steps: state.step,
            tokens: state.tokens,
            loss: state.loss,
            eval_loss,
        })
    }
}
