//! Losses over pairs of answers: dpo, ipo, orpo, simpo.

use super::batch::{Batch, sum};
use super::{Tally, Turn, foreign};
use crate::data::{Example, Sequence, StepData};
use crate::loss::{Pair, Preference};
use stockade_core::train::TrainError;

pub(super) fn run(turn: &mut Turn<'_>, loss: Preference, data: &StepData) -> Result<Tally, TrainError> {
    let micro_batches = data.micro_batches.iter().map(|rows| of(rows)).collect::<Result<Vec<_>, _>>()?;
    let pairs: usize = micro_batches.iter().map(Vec::len).sum();
    let mut tally = Tally { weight: pairs as f64, ..Tally::default() };
    let share = 1.0 / pairs.max(1) as f64;
    for (row, of_row) in micro_batches.into_iter().enumerate() {
        if of_row.is_empty() {
            continue;
        }
        let mut batch = Batch::default();
        for (chosen, rejected, _) in &of_row {
            batch.push(chosen)?;
            batch.push(rejected)?;
        }
        let mut pass = turn.forward(&batch.packed, row)?;
        let log_probs = turn.network.log_probs(&mut pass)?.log_probs;
        let mut derivative = vec![0.0; log_probs.len()];
        for ((chosen, rejected, _), spans) in of_row.iter().zip(batch.spans.chunks_exact(2)) {
            let mut pair = Pair {
                chosen: sum(&log_probs[spans[0].clone()]),
                rejected: sum(&log_probs[spans[1].clone()]),
                chosen_tokens: spans[0].len(),
                rejected_tokens: spans[1].len(),
                ..Pair::default()
            };
            if loss.has_reference() {
                pair.reference_chosen = turn.references.of(chosen)?;
                pair.reference_rejected = turn.references.of(rejected)?;
            }
            let result = loss.evaluate(&pair);
            tally.loss += share * result.loss;
            derivative[spans[0].clone()].fill((share * result.d_chosen) as f32);
            derivative[spans[1].clone()].fill((share * result.d_rejected) as f32);
            let margin = result.reward_chosen - result.reward_rejected;
            tally.observe("rewards_chosen", result.reward_chosen);
            tally.observe("rewards_rejected", result.reward_rejected);
            tally.observe("margin", margin);
            tally.observe("accuracy", f64::from(u8::from(margin > 0.0)));
            tally.observe("logp_chosen", pair.chosen);
            tally.observe("logp_rejected", pair.rejected);
        }
        tally.tokens += batch.packed.tokens.len() as u64;
        if let Some(gradients) = &mut turn.gradients {
            turn.network.backward(pass, &derivative, None, gradients)?;
        }
    }
    Ok(tally)
}

/// Chosen, rejected, margin.
type Judged<'a> = (&'a Sequence, &'a Sequence, Option<f32>);

/// The pairs of a micro-batch.
pub(super) fn of(rows: &[Vec<Example>]) -> Result<Vec<Judged<'_>>, TrainError> {
    let pairs = rows.iter().flatten().map(|example| match example {
        Example::Pair { chosen, rejected, margin } => Ok((chosen, rejected, *margin)),
        _ => Err(foreign("this method trains on pairs of answers")),
    });
    pairs.collect()
}
