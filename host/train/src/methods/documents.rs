//! Next-token loss on documents: pretraining and supervised finetuning.

use super::batch::Batch;
use super::{Tally, Turn, foreign};
use crate::data::{Example, Sequence, StepData};
use crate::loss::cross_entropy;
use stockade_core::train::TrainError;

pub(super) fn run(turn: &mut Turn<'_>, z_loss: f64, data: &StepData) -> Result<Tally, TrainError> {
    let micro_batches = data.micro_batches.iter().map(|rows| of(rows)).collect::<Result<Vec<_>, _>>()?;
    let label_tokens: usize = micro_batches.iter().flatten().map(|sequence| sequence.labelled()).sum();
    let mut tally = Tally { weight: label_tokens as f64, ..Tally::default() };
    for (row, sequences) in micro_batches.into_iter().enumerate() {
        let mut batch = Batch::default();
        for sequence in sequences {
            batch.push(sequence)?;
        }
        if batch.packed.targets.is_empty() {
            continue;
        }
        let mut pass = turn.forward(&batch.packed, row)?;
        let seen = turn.network.log_probs(&mut pass)?;
        let loss = cross_entropy(&seen.log_probs, &seen.log_sum_exp, z_loss, label_tokens as u64);
        tally.loss += loss.loss;
        tally.tokens += batch.packed.tokens.len() as u64;
        if let Some(gradients) = &mut turn.gradients {
            turn.network.backward(pass, &loss.d_log_probs, loss.d_log_sum_exp.as_deref(), gradients)?;
        }
    }
    Ok(tally)
}

/// The documents that carry labels. Others are left out: attention does not cross documents, so nothing sees them.
fn of(rows: &[Vec<Example>]) -> Result<Vec<&Sequence>, TrainError> {
    let mut sequences = Vec::new();
    for example in rows.iter().flatten() {
        match example {
            Example::Text(sequence) => sequences.extend((sequence.labelled() > 0).then_some(sequence)),
            _ => return Err(foreign("this method trains on documents")),
        }
    }
    Ok(sequences)
}
