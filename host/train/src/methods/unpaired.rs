//! KTO on single answers.
//!
//! The reference point is estimated on answers to prompts that are not theirs: those of a micro-batch, moved on by one.
//! It is the mean over the whole step and costs a pass without gradient.

use super::batch::{Batch, sum};
use super::{Tally, Turn, foreign};
use crate::data::{Example, IGNORE, Sequence, StepData};
use crate::loss::Unpaired;
use crate::network::Mode;
use stockade_core::train::TrainError;

pub(super) fn run(turn: &mut Turn<'_>, loss: &Unpaired, data: &StepData) -> Result<Tally, TrainError> {
    let micro_batches = data.micro_batches.iter().map(|rows| of(rows)).collect::<Result<Vec<_>, _>>()?;
    let answers: usize = micro_batches.iter().map(Vec::len).sum();
    let mut tally = Tally { weight: answers as f64, ..Tally::default() };
    let share = 1.0 / answers.max(1) as f64;
    let divergence = divergence(turn, &micro_batches)?;
    for (row, of_row) in micro_batches.into_iter().enumerate() {
        if of_row.is_empty() {
            continue;
        }
        let mut batch = Batch::default();
        for (sequence, _) in &of_row {
            batch.push(sequence)?;
        }
        let mut pass = turn.forward(&batch.packed, row)?;
        let log_probs = turn.network.log_probs(&mut pass)?.log_probs;
        let mut derivative = vec![0.0; log_probs.len()];
        for ((sequence, desirable), span) in of_row.iter().zip(&batch.spans) {
            let policy = sum(&log_probs[span.clone()]);
            let result = loss.evaluate(policy, turn.references.of(sequence)?, *desirable, divergence);
            tally.loss += share * result.loss;
            derivative[span.clone()].fill((share * result.d_policy) as f32);
            tally.observe(if *desirable { "rewards_chosen" } else { "rewards_rejected" }, result.reward);
        }
        tally.tokens += batch.packed.tokens.len() as u64;
        if let Some(gradients) = &mut turn.gradients {
            turn.network.backward(pass, &derivative, None, gradients)?;
        }
    }
    tally.observe("kl", divergence);
    Ok(tally)
}

fn divergence(turn: &Turn<'_>, micro_batches: &[Vec<(&Sequence, bool)>]) -> Result<f64, TrainError> {
    let mut ratios = Vec::new();
    for of_row in micro_batches {
        let crossed = crossed(of_row);
        if crossed.is_empty() {
            continue;
        }
        let mut batch = Batch::default();
        for sequence in &crossed {
            batch.push(sequence)?;
        }
        batch.packed.check(turn.network.config())?;
        let mut pass = turn.network.forward(&batch.packed, Mode::Eval, true)?;
        let log_probs = turn.network.log_probs(&mut pass)?.log_probs;
        for (sequence, span) in crossed.iter().zip(&batch.spans) {
            ratios.push(sum(&log_probs[span.clone()]) - turn.references.of(sequence)?);
        }
    }
    Ok(Unpaired::divergence(&ratios))
}

/// The answers of a micro-batch, and whether they are desirable.
pub(super) fn of(rows: &[Vec<Example>]) -> Result<Vec<(&Sequence, bool)>, TrainError> {
    let answers = rows.iter().flatten().map(|example| match example {
        Example::Unpaired { sequence, desirable } => Ok((sequence, *desirable)),
        _ => Err(foreign("this method trains on single answers")),
    });
    answers.collect()
}

/// Each prompt with the answer to the next one; none for a lone answer. No longer than the longest of the two, since
/// the pair is only there to be compared with.
pub(super) fn crossed(answers: &[(&Sequence, bool)]) -> Vec<Sequence> {
    if answers.len() < 2 {
        return Vec::new();
    }
    let begin = |sequence: &Sequence| {
        sequence.labels.iter().position(|&label| label != IGNORE).unwrap_or(sequence.tokens.len()).max(1)
    };
    let next = answers.iter().cycle().skip(1);
    let crossed = answers.iter().zip(next).map(|((prompt, _), (answer, _))| {
        let (prompt_len, answer_begin) = (begin(prompt), begin(answer));
        let longest = prompt.tokens.len().max(answer.tokens.len());
        let mut tokens = prompt.tokens[..prompt_len.min(prompt.tokens.len())].to_vec();
        let mut labels = vec![IGNORE; tokens.len()];
        tokens.extend(answer.tokens.get(answer_begin..).unwrap_or_default());
        labels.extend(answer.labels.get(answer_begin..).unwrap_or_default());
        tokens.truncate(longest);
        labels.truncate(longest);
        Sequence { tokens, labels }
    });
    crossed.collect()
}
