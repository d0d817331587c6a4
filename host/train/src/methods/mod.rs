//! What each method makes of a batch: which passes it needs, and how its loss reaches them.
//!
//! An [`Objective`] turns the examples of a step into passes of the network, passes into losses, and losses back into
//! gradients. Without gradients the same code evaluates. Invariant: what is divided by the number of label tokens (or
//! pairs, answers, rows) is divided by that of the whole step, which is counted before the first backward, so that
//! accumulation changes nothing but memory.

mod batch;
mod classes;
mod documents;
mod group;
mod pairs;
mod reference;
mod rewards;
mod similar;
mod unpaired;

pub use group::{Answered, Rollouts};
pub(crate) use group::{log_probs_of, pass_tokens};
pub use reference::References;
pub use similar::Pooling;

use crate::data::{Example, Sequence, StepData};
use crate::job::{self, DpoLoss, EmbedPooling, Job, Method};
use crate::loss::{GroupPolicy, Preference, Reduction, Unpaired};
use crate::network::{Gradients, Mode, Network, Output, Packed, Pass};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use stockade_core::train::TrainError;

/// What a job optimises.
#[derive(Debug, Clone, PartialEq)]
pub enum Objective {
    /// The next token: pretrain, continue, sft.
    Documents {
        z_loss: f64,
    },
    /// dpo, ipo, orpo, simpo
    Pairs(Preference),
    /// kto
    Unpaired(Unpaired),
    /// Bradley-Terry with a pull towards 0.
    Reward {
        center: f64,
    },
    /// A head of so many labels on the last token.
    Classes {
        labels: usize,
    },
    Similar {
        temperature: f64,
        pooling: Pooling,
    },
    /// grpo: its examples are prompts, its steps are answers to them ([`Objective::answers`]).
    Group {
        policy: GroupPolicy,
        /// That answers are sampled at.
        temperature: f32,
    },
}

/// Where a step or an evaluation is computed.
pub struct Turn<'a> {
    pub network: &'a Network,
    pub references: &'a References,
    /// Added to; `None` evaluates.
    pub gradients: Option<&'a mut Gradients>,
    pub seed: u64,
    /// From 0; of dropout's draws.
    pub step: u64,
}

/// What a step or an evaluation came to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tally {
    /// Mean over `weight`.
    pub loss: f64,
    /// Label tokens, pairs or rows; 0: there was nothing to learn from.
    pub weight: f64,
    /// Tokens that went through the network.
    pub tokens: u64,
    /// Further means with the weights they were taken over.
    means: BTreeMap<&'static str, (f64, f64)>,
}

impl Tally {
    /// Adds one observation of a mean.
    fn observe(&mut self, name: &'static str, value: f64) {
        self.observe_all(name, value, 1.0);
    }

    /// Adds the sum of as many observations as `count`.
    pub(crate) fn observe_all(&mut self, name: &'static str, sum: f64, count: f64) {
        let mean = self.means.entry(name).or_default();
        *mean = (mean.0 + sum, mean.1 + count);
    }

    /// Adds a tally of other examples.
    pub fn merge(&mut self, other: &Self) {
        let weight = self.weight + other.weight;
        if weight > 0.0 {
            self.loss = (self.loss * self.weight + other.loss * other.weight) / weight;
        }
        self.weight = weight;
        self.tokens += other.tokens;
        for (name, (sum, count)) in &other.means {
            self.observe_all(name, *sum, *count);
        }
    }

    /// The further means by name.
    pub fn means(&self) -> Map<String, Value> {
        let means = self.means.iter().filter(|(_, (_, count))| *count > 0.0);
        means.map(|(name, (sum, count))| ((*name).to_owned(), Value::from(sum / count))).collect()
    }
}

impl Objective {
    /// That of a job; `labels` is the number of a classifier's.
    pub fn of(job: &Job, labels: usize) -> Self {
        let mean = |reduction| reduction == job::Reduction::Mean;
        match job.method {
            Method::Pretrain | Method::Continue | Method::Sft => Self::Documents { z_loss: job.optim.z_loss },
            Method::Dpo => {
                let dpo = section(&job.dpo);
                let (beta, smoothing) = (dpo.beta, dpo.label_smoothing);
                Self::Pairs(match dpo.loss {
                    DpoLoss::Sigmoid | DpoLoss::Conservative => Preference::Dpo { beta, smoothing },
                    DpoLoss::Robust => Preference::Robust { beta, smoothing },
                    DpoLoss::Hinge => Preference::Hinge { beta },
                })
            }
            Method::Ipo => {
                let ipo = section(&job.ipo);
                Self::Pairs(Preference::Ipo { beta: ipo.beta, mean: mean(ipo.reduction) })
            }
            Method::Orpo => Self::Pairs(Preference::Orpo { lambda: section(&job.orpo).lambda, nll: 1.0 }),
            Method::Simpo => {
                let simpo = section(&job.simpo);
                let (beta, gamma, by_length, nll) = (simpo.beta, simpo.gamma, simpo.length_normalised, simpo.nll);
                Self::Pairs(Preference::Simpo { beta, gamma, by_length, nll })
            }
            Method::Kto => {
                let kto = section(&job.kto);
                Self::Unpaired(Unpaired {
                    beta: kto.beta,
                    desirable_weight: kto.desirable_weight,
                    undesirable_weight: kto.undesirable_weight,
                })
            }
            Method::Reward => Self::Reward { center: section(&job.reward).center },
            Method::Classify => Self::Classes { labels },
            Method::Embed => {
                let embed = section(&job.embed);
                let pooling = match embed.pooling {
                    EmbedPooling::Mean => Pooling::Mean,
                    EmbedPooling::Last => Pooling::Last,
                };
                Self::Similar { temperature: embed.temperature, pooling }
            }
            Method::Grpo => {
                let grpo = section(&job.grpo);
                let (reduction, by_sequence) = match grpo.loss {
                    job::GrpoLoss::Grpo => (Reduction::Answer, false),
                    job::GrpoLoss::Bnpo => (Reduction::MicroBatch, false),
                    job::GrpoLoss::Dapo => (Reduction::Step, false),
                    job::GrpoLoss::DrGrpo => (Reduction::Longest, false),
                    job::GrpoLoss::Gspo => (Reduction::Answer, true),
                };
                let policy = GroupPolicy {
                    reduction,
                    clip_low: grpo.epsilon,
                    clip_high: grpo.epsilon_high,
                    beta: grpo.beta,
                    by_sequence,
                    max_tokens: grpo.max_tokens,
                };
                Self::Group { policy, temperature: grpo.temperature as f32 }
            }
        }
    }

    /// What the network has to answer with.
    pub fn output(&self) -> Output {
        match self {
            Self::Documents { .. } | Self::Pairs(_) | Self::Unpaired(_) | Self::Group { .. } => Output::Language,
            Self::Reward { .. } => Output::Scores(1),
            Self::Classes { labels } => Output::Scores(*labels),
            Self::Similar { .. } => Output::States,
        }
    }

    /// Runs the examples of a step, or of an evaluation.
    ///
    /// # Errors
    /// Examples that are not the method's, or that the network cannot take.
    pub fn run(&self, turn: &mut Turn<'_>, data: &StepData) -> Result<Tally, TrainError> {
        match self {
            Self::Documents { z_loss } => documents::run(turn, *z_loss, data),
            Self::Pairs(loss) => pairs::run(turn, *loss, data),
            Self::Unpaired(loss) => unpaired::run(turn, loss, data),
            Self::Reward { center } => rewards::run(turn, *center, data),
            Self::Classes { labels } => classes::run(turn, *labels, data),
            Self::Similar { temperature, pooling } => similar::run(turn, *temperature, *pooling, data),
            Self::Group { .. } => Err(foreign("prompts have to be answered first")),
        }
    }

    /// The sequences of a micro-batch whose log-probability under the reference the loss reads.
    fn referenced(&self, rows: &[Vec<Example>]) -> Result<Vec<Sequence>, TrainError> {
        match self {
            Self::Pairs(loss) if loss.has_reference() => {
                Ok(pairs::of(rows)?.into_iter().flat_map(|(chosen, rejected, _)| [chosen, rejected]).cloned().collect())
            }
            Self::Unpaired(_) => {
                let own = unpaired::of(rows)?;
                let crossed = unpaired::crossed(&own);
                Ok(own.into_iter().map(|(sequence, _)| sequence.clone()).chain(crossed).collect())
            }
            _ => Ok(Vec::new()),
        }
    }
}

impl Turn<'_> {
    /// A pass over the documents of one micro-batch, checked. `row` tells the passes of a step apart.
    fn forward(&self, packed: &Packed, row: usize) -> Result<Pass, TrainError> {
        packed.check(self.network.config())?;
        let mode = match self.gradients {
            Some(_) => Mode::Train { seed: self.seed, step: self.step, row: row as u64 },
            None => Mode::Eval,
        };
        self.network.forward(packed, mode, true)
    }
}

fn section<T>(section: &Option<T>) -> &T {
    section.as_ref().expect("a checked job has the section of its method")
}

fn foreign(reason: &str) -> TrainError {
    TrainError::Data { name: "batch".into(), reason: reason.into() }
}
