//! Embeddings: texts that belong together lie nearer than others of their micro-batch.

use super::batch::Batch;
use super::{Tally, Turn, foreign};
use crate::data::{Example, StepData};
use crate::loss::info_nce;
use std::ops::Range;
use stockade_core::train::TrainError;

/// How the states of a text become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    Mean,
    /// The last token, which has seen all others.
    Last,
}

/// Negatives are those of an anchor's own micro-batch, so here the size of micro-batches is part of the objective.
pub(super) fn run(
    turn: &mut Turn<'_>,
    temperature: f64,
    pooling: Pooling,
    data: &StepData,
) -> Result<Tally, TrainError> {
    let anchors: usize = data.micro_batches.iter().flatten().map(Vec::len).sum();
    let mut tally = Tally { weight: anchors as f64, ..Tally::default() };
    let share = 1.0 / anchors.max(1) as f64;
    let width = turn.network.config().hidden_size;
    for (row, examples) in data.micro_batches.iter().enumerate() {
        let batch = texts(examples)?;
        let n = examples.iter().map(Vec::len).sum::<usize>();
        if n == 0 {
            continue;
        }
        let pass = turn.forward(&batch.packed, row)?;
        let states = turn.network.states(&pass)?;
        let pooled: Vec<f32> = pooled(&batch, pooling).flat_map(|tokens| mean(&states, tokens, width)).collect();
        let (first, candidates) = pooled.split_at(n * width);
        let loss = info_nce(first, candidates, width, temperature);
        tally.loss += share * loss.loss;
        tally.observe_all("accuracy", loss.hits as f64, n as f64);
        tally.tokens += batch.packed.tokens.len() as u64;
        if let Some(gradients) = &mut turn.gradients {
            let mut derivative = vec![0.0f32; batch.packed.tokens.len() * width];
            let rows = loss.d_anchors.chunks_exact(width).chain(loss.d_candidates.chunks_exact(width));
            for (tokens, d_row) in self::pooled(&batch, pooling).zip(rows) {
                let scale = share / tokens.len() as f64;
                for state in derivative[tokens.start * width..tokens.end * width].chunks_exact_mut(width) {
                    state.iter_mut().zip(d_row).for_each(|(state, d)| *state = (scale * d) as f32);
                }
            }
            turn.network.backward_states(pass, &derivative, gradients)?;
        }
    }
    Ok(tally)
}

/// Anchors, then their positives, then the hard negatives that there are.
fn texts(examples: &[Vec<Example>]) -> Result<Batch, TrainError> {
    let mut columns: [Vec<&[u32]>; 3] = Default::default();
    for example in examples.iter().flatten() {
        let Example::Similar { anchor, positive, negative } = example else {
            return Err(foreign("this method trains on texts that belong together"));
        };
        columns[0].push(anchor);
        columns[1].push(positive);
        columns[2].extend(negative.as_deref());
    }
    let mut batch = Batch::default();
    for tokens in columns.into_iter().flatten() {
        batch.push_tokens(tokens)?;
    }
    Ok(batch)
}

/// The positions of each text that its vector is the mean of.
fn pooled(batch: &Batch, pooling: Pooling) -> impl Iterator<Item = Range<usize>> {
    let begins = std::iter::once(0).chain(batch.packed.ends.iter().copied());
    begins.zip(&batch.packed.ends).map(move |(begin, &end)| match pooling {
        Pooling::Mean => begin..end,
        Pooling::Last => end - 1..end,
    })
}

fn mean(states: &[f32], tokens: Range<usize>, width: usize) -> Vec<f32> {
    let mut total = vec![0.0f64; width];
    for state in states[tokens.start * width..tokens.end * width].chunks_exact(width) {
        total.iter_mut().zip(state).for_each(|(total, &x)| *total += f64::from(x));
    }
    total.into_iter().map(|total| (total / tokens.len() as f64) as f32).collect()
}
