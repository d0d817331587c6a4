//! Disentangled attention: content to content, content to distance, distance to content.
//!
//! With `d = row(q - k)` the score of query `q` and key `k` is
//! `(Q[q] . K[k] + Q[q] . PK[d] + K[k] . PQ[d]) / sqrt(3 D)`, where `PK` and `PQ` are the distance embeddings through
//! the layer's own key and query projections.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::positions::Buckets;

/// The row of the distance embeddings for each distance in a text of `T` tokens.
pub(super) struct Distances {
    /// Index: `query - key + T - 1`.
    rows: Vec<usize>,
}

impl Distances {
    pub(super) fn new(buckets: &Buckets, tokens: usize) -> Self {
        let last = tokens.saturating_sub(1) as isize;
        Self { rows: (-last..=last).map(|distance| buckets.row(distance)).collect() }
    }

    fn row(&self, query: usize, key: usize) -> usize {
        self.rows[query + self.rows.len() / 2 - key]
    }
}

/// What one layer attends with. `H` heads of `D` channels, `R` rows of distances.
pub(super) struct Attention<'a> {
    /// `[B, H, T, D]`, contiguous, as `key` and `value`.
    pub query: Tensor,
    pub key: Tensor,
    pub value: Tensor,
    /// `[H, R, D]`: the distances through the key projection.
    pub distance_keys: &'a Tensor,
    /// `[H, R, D]`: the distances through the query projection.
    pub distance_queries: &'a Tensor,
    pub distances: &'a Distances,
    /// Tokens of each text; what comes after is padding.
    pub lengths: &'a [usize],
}

impl Attention<'_> {
    /// `[B, H, T, D]`
    pub(super) fn attend(&self) -> candle_core::Result<Tensor> {
        let (b, h, t, d) = self.query.dims4()?;
        let (_, r, _) = self.distance_keys.dims3()?;
        let key = self.key.t()?.contiguous()?; // [B, H, D, T]
        let content = self.query.matmul(&key)?; // [B, H, T, T]
        let to_distance = self.query.broadcast_matmul(&self.distance_keys.t()?.contiguous()?)?; // [B, H, T, R]
        let from_distance = self.distance_queries.broadcast_left(b)?.contiguous()?.matmul(&key)?; // [B, H, R, T]

        let mut scores: Vec<f32> = content.flatten_all()?.to_vec1()?;
        let to_distance: Vec<f32> = to_distance.flatten_all()?.to_vec1()?;
        let from_distance: Vec<f32> = from_distance.flatten_all()?.to_vec1()?;
        let scale = 1.0 / ((3 * d) as f32).sqrt();
        scores.par_chunks_mut(t).enumerate().for_each(|(row, scores)| {
            let (head, query) = (row / t, row % t); // `head` counts over texts and heads
            let to_distance = &to_distance[row * r..][..r];
            let from_distance = &from_distance[head * r * t..][..r * t];
            let (real, padding) = scores.split_at_mut(self.lengths[head / h]);
            for (key, score) in real.iter_mut().enumerate() {
                let distance = self.distances.row(query, key);
                *score = (*score + to_distance[distance] + from_distance[distance * t + key]) * scale;
            }
            softmax(real);
            padding.fill(0.0);
        });
        Tensor::from_vec(scores, (b, h, t, t), &Device::Cpu)?.matmul(&self.value)
    }
}

fn softmax(scores: &mut [f32]) {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - largest).exp();
        sum += *score;
    }
    scores.iter_mut().for_each(|score| *score /= sum);
}
