//! GRPO's steps on answers that have been sampled and scored.

use super::batch::Batch;
use super::{Objective, Tally, Turn, foreign};
use crate::data::{IGNORE, Sequence};
use crate::loss::Answer;
use crate::network::{Mode, Network};
use stockade_core::train::TrainError;

/// An answer to a prompt, ready to learn from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answered {
    /// Prompt and answer; labels on the answer.
    pub sequence: Sequence,
    /// `None` masks the answer.
    pub advantage: Option<f64>,
    /// Log-probabilities of the answer's tokens under the policy that wrote it. `None`: that is the policy as it is, and
    /// the ratio is 1.
    pub old: Option<Vec<f32>>,
    /// The same under the reference; `None` without divergence.
    pub reference: Option<Vec<f32>>,
}

/// The answers of a step, by micro-batch.
pub type Rollouts = Vec<Vec<Answered>>;

impl Answered {
    pub fn new(prompt: &[u32], answer: &[u32]) -> Self {
        let mut sequence = Sequence { tokens: prompt.to_vec(), labels: vec![IGNORE; prompt.len()] };
        sequence.tokens.extend_from_slice(answer);
        // Ids stay below 2^31: a vocabulary is bounded far below.
        sequence.labels.extend(answer.iter().map(|&token| token as i32));
        Self { sequence, ..Self::default() }
    }
}

impl Objective {
    /// Runs a step on answers.
    ///
    /// # Errors
    /// As [`Objective::run`].
    pub fn answers(&self, turn: &mut Turn<'_>, rollouts: &Rollouts) -> Result<Tally, TrainError> {
        let Self::Group(policy) = self else {
            return Err(foreign("this method does not learn from answers of its own"));
        };
        let answers: usize = rollouts.iter().map(Vec::len).sum();
        let active = rollouts.iter().flatten().filter(|answer| answer.advantage.is_some());
        let active_tokens: usize = active.map(|answer| answer.sequence.labelled()).sum();
        let mut tally = Tally { weight: active_tokens as f64, ..Tally::default() };
        for (row, answered) in rollouts.iter().enumerate() {
            if answered.iter().all(|answer| answer.advantage.is_none()) {
                continue;
            }
            let mut batch = Batch::default();
            for answer in answered {
                batch.push(&answer.sequence)?;
            }
            if batch.packed.targets.is_empty() {
                continue;
            }
            let mut pass = turn.forward(&batch.packed, row)?;
            let seen = turn.network.log_probs(&mut pass);
            let of_row = views(answered, &batch, &seen.log_probs)?;
            let loss = policy.evaluate(&of_row, answers, active_tokens as u64, rollouts.len());
            tally.loss += loss.loss;
            tally.tokens += batch.packed.tokens.len() as u64;
            tally.observe_all("clip_ratio", loss.clipped as f64, loss.tokens as f64);
            if policy.beta > 0.0 {
                tally.observe_all("kl", loss.divergence, loss.tokens as f64);
            }
            let entropy = seen.entropy.iter().map(|&x| f64::from(x)).sum::<f64>();
            tally.observe_all("entropy", entropy, seen.entropy.len() as f64);
            if let Some(gradients) = &mut turn.gradients {
                turn.network.backward(pass, &loss.d_new.concat(), None, gradients);
            }
        }
        Ok(tally)
    }
}

/// Answers as their loss sees them.
fn views<'a>(answered: &'a [Answered], batch: &Batch, log_probs: &'a [f32]) -> Result<Vec<Answer<'a>>, TrainError> {
    let views = answered.iter().zip(&batch.spans).map(|(answer, span)| {
        let new = &log_probs[span.clone()];
        let old = answer.old.as_deref().unwrap_or(new);
        let reference = answer.reference.as_deref();
        if old.len() != new.len() || reference.is_some_and(|reference| reference.len() != new.len()) {
            return Err(foreign("an answer has not one log-probability for each token"));
        }
        Ok(Answer { new, old, reference, advantage: answer.advantage })
    });
    views.collect()
}

/// The log-probabilities of answers, micro-batch by micro-batch, with the network as it is; `adapter` false: its base.
pub(crate) fn log_probs_of(
    network: &Network,
    answered: &[Answered],
    adapter: bool,
) -> Result<Vec<Vec<f32>>, TrainError> {
    let mut batch = Batch::default();
    for answer in answered {
        batch.push(&answer.sequence)?;
    }
    if batch.packed.targets.is_empty() {
        return Ok(vec![Vec::new(); answered.len()]);
    }
    batch.packed.check(network.config())?;
    let mut pass = network.forward(&batch.packed, Mode::Eval, adapter);
    let log_probs = network.log_probs(&mut pass).log_probs;
    Ok(batch.spans.iter().map(|span| log_probs[span.clone()].to_vec()).collect())
}
