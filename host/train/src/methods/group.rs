//! GRPO's steps on answers that have been sampled and scored.

use super::batch::Batch;
use super::{Objective, Tally, Turn, foreign};
use crate::data::{IGNORE, Sequence};
use crate::loss::{Answer, GroupTotals};
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
        let Self::Group { policy, temperature } = self else {
            return Err(foreign("this method does not learn from answers of its own"));
        };
        let active_tokens = |answered: &[Answered]| {
            let active = answered.iter().filter(|answer| answer.advantage.is_some());
            active.map(|answer| answer.sequence.labelled() as u64).sum::<u64>()
        };
        let tokens = rollouts.iter().map(|answered| active_tokens(answered)).sum();
        let mut totals = GroupTotals {
            answers: rollouts.iter().map(Vec::len).sum(),
            tokens,
            micro_batches: rollouts.len(),
            micro_batch_tokens: 0,
        };
        let mut tally = Tally { weight: tokens as f64, ..Tally::default() };
        let mut row = 0;
        for answered in rollouts {
            totals.micro_batch_tokens = active_tokens(answered);
            for answered in passes(answered) {
                row += 1;
                if active_tokens(answered) == 0 {
                    continue;
                }
                let batch = side_by_side(answered)?;
                let mut pass = turn.forward(&batch.packed, row)?.at_temperature(*temperature);
                let seen = turn.network.log_probs(&mut pass)?;
                let loss = policy.evaluate(&views(answered, &batch, &seen.log_probs)?, totals);
                tally.loss += loss.loss;
                tally.tokens += batch.packed.tokens.len() as u64;
                tally.observe_all("clip_ratio", loss.clipped as f64, loss.tokens as f64);
                if policy.beta > 0.0 {
                    tally.observe_all("kl", loss.divergence, loss.tokens as f64);
                }
                let entropy = seen.entropy.iter().map(|&x| f64::from(x)).sum::<f64>();
                tally.observe_all("entropy", entropy, seen.entropy.len() as f64);
                if let Some(gradients) = &mut turn.gradients {
                    turn.network.backward(pass, &loss.d_new.concat(), None, gradients)?;
                }
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

/// The log-probabilities of answers sampled at `temperature` with the network as it is; `adapter` false: its base.
pub(crate) fn log_probs_of(
    network: &Network,
    answered: &[Answered],
    adapter: bool,
    temperature: f32,
) -> Result<Vec<Vec<f32>>, TrainError> {
    let mut all = Vec::with_capacity(answered.len());
    for answered in passes(answered) {
        let batch = side_by_side(answered)?;
        batch.packed.check(network.config())?;
        let mut pass = network.forward(&batch.packed, Mode::Eval, adapter)?.at_temperature(temperature);
        let log_probs = network.log_probs(&mut pass)?.log_probs;
        all.extend(batch.spans.iter().map(|span| log_probs[span.clone()].to_vec()));
    }
    Ok(all)
}

/// Tokens of answers that go through the network together: a group multiplies what a job calls its batch, and memory
/// must not follow.
const PASS_TOKENS: usize = 4096;

/// Most tokens of a pass over answers that have so many with their prompts.
pub(crate) fn pass_tokens(longest: usize) -> u64 {
    longest.max(PASS_TOKENS) as u64
}

/// Answers in parts of at most so many tokens, or one answer.
fn passes(answered: &[Answered]) -> impl Iterator<Item = &[Answered]> {
    let mut taken = 0;
    answered.chunk_by(move |answer, next| {
        taken += answer.sequence.tokens.len();
        let fits = taken + next.sequence.tokens.len() <= PASS_TOKENS;
        taken = if fits { taken } else { 0 };
        fits
    })
}

fn side_by_side(answered: &[Answered]) -> Result<Batch, TrainError> {
    let mut batch = Batch::default();
    for answer in answered {
        batch.push(&answer.sequence)?;
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_groups_go_through_in_parts() {
        let answers = |lengths: &[usize]| -> Vec<Answered> {
            lengths.iter().map(|&n| Answered::new(&[1], &vec![2; n - 1])).collect()
        };
        for (lengths, want) in [
            (&[][..], &[][..]),
            (&[9], &[1]),
            (&[4096, 1, 4095, 1], &[1, 2, 1]),
            (&[5000, 5000, 2000, 2000, 2000], &[1, 1, 2, 1]),
        ] {
            let answered = answers(lengths);
            let parts: Vec<usize> = passes(&answered).map(<[_]>::len).collect();
            assert_eq!(parts, want, "{lengths:?}");
        }
    }
}
