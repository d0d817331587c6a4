//! Questions at an evaluation: the weights as they are answer held-out prompts, evaluator components score the answers, and
//! the first of them are shown.
//!
//! Invariant: nothing that fails here ends a run that has begun: the evaluation then lacks what failed, and a note says
//! why. What is wrong from the start (a component that is not there, a metric that nobody reports) is refused before the
//! first step.

use super::sampler::{Completion, Sampler};
use crate::data::Question;
use crate::job::{EvalSpec, label};
use crate::network::Network;
use crate::random::{Purpose, bits};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::Instant;
use stockade_core::infer::Sampling;
use stockade_core::train::{Evaluators, Metric, Observer, Sample, Score, ShownSample, TrainError};

/// Answers that a component is given at once.
const CALL_SAMPLES: usize = 16;
/// Most metrics of a component, and their longest name in bytes.
const MAX_METRICS: usize = 16;
const MAX_METRIC_BYTES: usize = 64;
/// Bytes of a text that is shown.
const SHOWN_BYTES: usize = 1024;

/// Asks, and has the answers scored.
pub struct Examiner<'a> {
    spec: &'a EvalSpec,
    seed: u64,
    questions: Vec<Question>,
    sampler: &'a dyn Sampler,
    evaluators: &'a dyn Evaluators,
    /// Of each component of the job, in its order.
    metrics: Vec<Vec<Metric>>,
}

/// What an evaluation's answers came to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Examined {
    /// Mean of each metric under `EVALUATOR/METRIC`, over the answers that it applies to.
    pub means: BTreeMap<String, f64>,
    /// The job's `eval.best_by`, turned so that lower is better; `None` where it was not found out.
    pub judged: Option<f64>,
    pub shown: Vec<ShownSample>,
}

impl Examined {
    /// The means for a line of the log.
    pub fn metrics(&self) -> Map<String, Value> {
        self.means.iter().map(|(name, mean)| (format!("eval/{name}"), Value::from(*mean))).collect()
    }

    /// The means in a sentence.
    pub fn describe(&self) -> String {
        let means: Vec<String> = self.means.iter().map(|(name, mean)| format!("{name} {mean:.4}")).collect();
        means.join(", ")
    }
}

impl<'a> Examiner<'a> {
    /// Asks each component of the job for its metrics.
    ///
    /// # Errors
    /// [`TrainError::Evaluator`] for a component that cannot be called or whose metrics have no sound names,
    /// [`TrainError::Spec`] where `eval.best_by` is none of them.
    pub fn new(
        spec: &'a EvalSpec,
        seed: u64,
        questions: Vec<Question>,
        sampler: &'a dyn Sampler,
        evaluators: &'a dyn Evaluators,
    ) -> Result<Self, TrainError> {
        let metrics = spec.evaluators.iter().map(|name| sound(name, evaluators.metrics(name)?));
        let examiner = Self { spec, seed, questions, sampler, evaluators, metrics: metrics.collect::<Result<_, _>>()? };
        match &spec.best_by {
            Some(wanted) if examiner.higher_is_better(wanted).is_none() => {
                let known: Vec<String> = examiner.names().map(|(name, _)| name).collect();
                Err(TrainError::spec("eval.best_by", format!("there are {}", known.join(", "))))
            }
            _ => Ok(examiner),
        }
    }

    /// All metrics under their names in the log.
    fn names(&self) -> impl Iterator<Item = (String, &Metric)> {
        let of = self.spec.evaluators.iter().zip(&self.metrics);
        of.flat_map(|(component, metrics)| metrics.iter().map(|metric| (named(component, &metric.name), metric)))
    }

    fn higher_is_better(&self, wanted: &str) -> Option<bool> {
        self.names().find(|(name, _)| name == wanted).map(|(_, metric)| metric.higher_is_better)
    }

    /// Asks the weights that have made `step` steps.
    pub fn examine(&self, network: &Network, step: u64, observer: &dyn Observer) -> Examined {
        let begin = Instant::now();
        let answers = match self.answers(network) {
            Ok(answers) => answers,
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                observer.note(&format!("the weights after step {step} could not be asked: {error}{cause}"));
                return Examined::default();
            }
        };
        tracing::debug!(step, answers = answers.len(), seconds = begin.elapsed().as_secs_f64(), "prompts are answered");
        let shown = self.questions.iter().zip(&answers).take(self.spec.show);
        let mut examined = Examined {
            shown: shown.map(|(question, answer)| show(step, question, answer)).collect(),
            ..Default::default()
        };
        for (component, metrics) in self.spec.evaluators.iter().zip(&self.metrics) {
            match self.scores(component, metrics, &answers) {
                Ok(scores) => examined.take(component, &scores),
                Err(error) => observer.note(&format!("after step {step}: {error}")),
            }
        }
        let wanted = self.spec.best_by.as_ref().and_then(|name| Some((name, self.higher_is_better(name)?)));
        examined.judged = wanted.and_then(|(name, higher)| {
            let mean = examined.means.get(name)?;
            Some(if higher { -mean } else { *mean })
        });
        examined
    }

    fn answers(&self, network: &Network) -> Result<Vec<Completion>, TrainError> {
        let sampling = Sampling {
            max_tokens: u32::try_from(self.spec.max_tokens).ok(),
            temperature: self.spec.temperature as f32,
            ..Sampling::default()
        };
        let prompts: Vec<&[u32]> = self.questions.iter().map(|question| question.tokens.as_slice()).collect();
        // The same draws in every evaluation, so that a change is one of the weights.
        let seeds: Vec<u64> = (0..prompts.len() as u64).map(|i| bits(self.seed, Purpose::Asking, 0, i)).collect();
        self.sampler.take(network)?;
        self.sampler.sample(&prompts, &seeds, &sampling)
    }

    /// The scores of each answer by one component.
    fn scores(
        &self,
        component: &str,
        metrics: &[Metric],
        answers: &[Completion],
    ) -> Result<Vec<Vec<Score>>, TrainError> {
        let samples: Vec<Sample> = self.questions.iter().zip(answers).map(|(q, answer)| sample(q, answer)).collect();
        let mut all = Vec::with_capacity(samples.len());
        for samples in samples.chunks(CALL_SAMPLES) {
            let scores = self.evaluators.evaluate(component, samples)?;
            let fail = |reason: String| TrainError::Evaluator { component: component.into(), reason };
            if scores.len() != samples.len() {
                return Err(fail(format!("{} lists of scores for {} samples", scores.len(), samples.len())));
            }
            for score in scores.iter().flatten() {
                if !metrics.iter().any(|metric| metric.name == score.metric) {
                    let shown: String = score.metric.chars().take(64).collect();
                    return Err(fail(format!("`{shown}` is none of its metrics")));
                }
                if !score.value.is_finite() {
                    return Err(fail(format!("{} of {} is no finite number", score.value, score.metric)));
                }
            }
            all.extend(scores);
        }
        Ok(all)
    }
}

impl Examined {
    /// Takes in the scores of a component.
    fn take(&mut self, component: &str, scores: &[Vec<Score>]) {
        let mut sums: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        for score in scores.iter().flatten() {
            let sum = sums.entry(&score.metric).or_default();
            *sum = (sum.0 + score.value, sum.1 + 1.0);
        }
        self.means.extend(sums.into_iter().map(|(metric, (sum, count))| (named(component, metric), sum / count)));
        for (shown, scores) in self.shown.iter_mut().zip(scores) {
            shown.scores.extend(scores.iter().map(|score| (named(component, &score.metric), score.value)));
        }
    }
}

/// As the log calls a component's metric.
fn named(component: &str, metric: &str) -> String {
    format!("{}/{metric}", label(component))
}

/// Metrics whose names can stand in a log.
fn sound(component: &str, metrics: Vec<Metric>) -> Result<Vec<Metric>, TrainError> {
    let fail = |reason: String| Err(TrainError::Evaluator { component: component.into(), reason });
    if metrics.is_empty() || metrics.len() > MAX_METRICS {
        return fail(format!("it reports {} metrics, not 1 to {MAX_METRICS}", metrics.len()));
    }
    let visible =
        |name: &str| (1..=MAX_METRIC_BYTES).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
    if !metrics.iter().all(|metric| visible(&metric.name)) {
        return fail(format!("a metric's name is not 1 to {MAX_METRIC_BYTES} visible ASCII characters"));
    }
    Ok(metrics)
}

fn sample(question: &Question, answer: &Completion) -> Sample {
    Sample {
        input: question.input.clone(),
        messages: question.messages.clone(),
        output: answer.text.clone(),
        expected: question.expected.clone(),
    }
}

fn show(step: u64, question: &Question, answer: &Completion) -> ShownSample {
    let expected = question.expected.as_ref().map(|expected| match expected {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    let mut shown = ShownSample {
        step,
        prompt: question.messages.last().map(stockade_core::chat::Message::joined_text).unwrap_or_default(),
        answer: answer.text.clone(),
        expected,
        scores: BTreeMap::new(),
    };
    shown.shorten(SHOWN_BYTES);
    shown
}
