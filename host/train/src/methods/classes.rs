//! A classifier on the last token.

use super::batch::Batch;
use super::{Tally, Turn, foreign};
use crate::data::{Example, StepData};
use crate::loss::cross_entropy_of_classes;
use stockade_core::train::TrainError;

pub(super) fn run(turn: &mut Turn<'_>, labels: usize, data: &StepData) -> Result<Tally, TrainError> {
    let rows: usize = data.micro_batches.iter().flatten().map(Vec::len).sum();
    let mut tally = Tally { weight: rows as f64, ..Tally::default() };
    let share = 1.0 / rows.max(1) as f64;
    for (row, examples) in data.micro_batches.iter().enumerate() {
        let mut batch = Batch::default();
        let mut wanted = Vec::new();
        for example in examples.iter().flatten() {
            let Example::Labelled { tokens, label } = example else {
                return Err(foreign("this method trains on labelled texts"));
            };
            if *label as usize >= labels {
                return Err(foreign(&format!("label {label} is not below {labels}")));
            }
            batch.push_tokens(tokens)?;
            wanted.push(*label as usize);
        }
        if wanted.is_empty() {
            continue;
        }
        let positions = batch.lasts();
        let pass = turn.forward(&batch.packed, row)?;
        let scores = turn.network.scores(&pass, &positions)?;
        let mut derivative = Vec::with_capacity(scores.len());
        for (&label, scores) in wanted.iter().zip(scores.chunks_exact(labels)) {
            let loss = cross_entropy_of_classes(scores, label);
            tally.loss += share * loss.loss;
            derivative.extend(loss.d_scores.iter().map(|d| (share * d) as f32));
            tally.observe("accuracy", f64::from(u8::from(loss.best == label)));
        }
        tally.tokens += batch.packed.tokens.len() as u64;
        if let Some(gradients) = &mut turn.gradients {
            turn.network.backward_scores(pass, &positions, &derivative, gradients)?;
        }
    }
    Ok(tally)
}
