//! Gradients of a network's parameters.

use std::ops::Range;
use std::sync::Arc;

use stockade_kernels::Pool;

use super::parallel::each;
use super::simd::simd;

/// Values summed at once: borders of partial sums, whatever the threads.
const RUN: usize = 1 << 14;

/// A gradient for each parameter, in the parameters' order. Passes add to them.
#[derive(Debug, Clone)]
pub struct Gradients {
    values: Vec<f32>,
    ranges: Arc<[Range<usize>]>,
    pool: Arc<Pool>,
}

impl Gradients {
    pub(super) fn new(len: usize, ranges: Arc<[Range<usize>]>, pool: Arc<Pool>) -> Self {
        Self { values: vec![0.0; len], ranges, pool }
    }

    pub fn zero(&mut self) {
        each(&self.pool, self.values.chunks_mut(RUN), |_, run| run.fill(0.0));
    }

    /// Of parameter `i`.
    pub fn get(&self, i: usize) -> &[f32] {
        &self.values[self.ranges[i].clone()]
    }

    pub fn get_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.values[self.ranges[i].clone()]
    }

    /// The length of all of them as one vector: partial sums in f64, added in order.
    pub fn norm(&self) -> f64 {
        let mut sums = vec![0.0; self.values.len().div_ceil(RUN)];
        each(&self.pool, self.values.chunks(RUN).zip(&mut sums), |_, (run, sum)| *sum = square_sum(run));
        sums.iter().sum::<f64>().sqrt()
    }

    /// Multiplies all of them.
    pub fn scale(&mut self, by: f32) {
        each(&self.pool, self.values.chunks_mut(RUN), |_, run| run.iter_mut().for_each(|x| *x *= by));
    }

    /// Those of the parameters `first..=last`, which lie side by side.
    pub(super) fn span_mut(&mut self, first: usize, last: usize) -> &mut [f32] {
        &mut self.values[self.ranges[first].start..self.ranges[last].end]
    }
}

simd! {
fn square_sum(values: &[f32]) -> f64 {
    let mut lanes = [0.0f64; 8];
    let (parts, tail) = values.as_chunks::<8>();
    for part in parts {
        for i in 0..8 {
            let x = f64::from(part[i]);
            lanes[i] = x.mul_add(x, lanes[i]);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(tail) {
        *lane += f64::from(x) * f64::from(x);
    }
    lanes.iter().sum()
}
}
