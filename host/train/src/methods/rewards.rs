//! The reward model: a score of the last token, higher for the better answer.

use super::batch::Batch;
use super::pairs::of;
use super::{Tally, Turn};
use crate::data::StepData;
use crate::loss::bradley_terry;
use stockade_core::train::TrainError;

pub(super) fn run(turn: &mut Turn<'_>, center: f64, data: &StepData) -> Result<Tally, TrainError> {
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
            batch.push_tokens(&chosen.tokens)?;
            batch.push_tokens(&rejected.tokens)?;
        }
        let positions = batch.lasts();
        let pass = turn.forward(&batch.packed, row)?;
        let scores = turn.network.scores(&pass, &positions)?;
        let mut derivative = Vec::with_capacity(scores.len());
        for ((_, _, margin), scores) in of_row.iter().zip(scores.chunks_exact(2)) {
            let (chosen, rejected) = (f64::from(scores[0]), f64::from(scores[1]));
            let loss = bradley_terry(chosen, rejected, f64::from(margin.unwrap_or(0.0)), center);
            tally.loss += share * loss.loss;
            derivative.extend([(share * loss.d_chosen) as f32, (share * loss.d_rejected) as f32]);
            tally.observe("score_chosen", chosen);
            tally.observe("score_rejected", rejected);
            tally.observe("margin", chosen - rejected);
            tally.observe("accuracy", f64::from(u8::from(chosen > rejected)));
        }
        tally.tokens += batch.packed.tokens.len() as u64;
        if let Some(gradients) = &mut turn.gradients {
            turn.network.backward_scores(pass, &positions, &derivative, gradients)?;
        }
    }
    Ok(tally)
}
