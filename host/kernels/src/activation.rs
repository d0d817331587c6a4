//! Activations prepared for the tile kernels, once per region however many matrices share them.
//!
//! Rows are cut into chunks that stay in the second-level cache; inside a chunk the order is `[unit][row]`,
//! so that a kernel that holds a unit of weights reads its rows one after the other.

use crate::isa::isa;
use crate::layout::UNIT;
use crate::pool::{Pool, Shards};

/// 32 activations as i8 with one scale, and the sums that weight offsets and minima multiply.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub(crate) struct Int8Block {
    /// Rounded to nearest, ties to even, in -127..=127.
    pub codes: [i8; UNIT],
    /// Largest magnitude / 127; NaN if an activation is not finite.
    pub scale: f32,
    /// Sums of `codes` over each half.
    pub sums: [i16; 2],
    /// Eight times the sum of all, the offset of Q4_0.
    pub sum_8: i32,
    /// `scale` times the sum of all.
    pub scaled_sum: f32,
}

/// 32 activations, zeros behind the last column.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(32))]
pub(crate) struct FloatBlock {
    pub values: [f32; UNIT],
}

/// What a kernel reads instead of 32 plain activations.
pub(crate) trait Activation: Copy + Send + Sync {
    const ZERO: Self;
    /// Prepares one row, `out(unit)` at a stride.
    fn prepare(row: &[f32], out: &mut [Self], stride: usize);
}

impl Activation for Int8Block {
    const ZERO: Self = Self { codes: [0; UNIT], scale: 0.0, sums: [0; 2], sum_8: 0, scaled_sum: 0.0 };
    fn prepare(row: &[f32], out: &mut [Self], stride: usize) {
        let quantize = isa().quantize;
        for (values, out) in row.as_chunks().0.iter().zip(out.iter_mut().step_by(stride)) {
            // SAFETY: the table is that of this processor.
            *out = unsafe { quantize(values) };
        }
    }
}

impl Activation for FloatBlock {
    const ZERO: Self = Self { values: [0.0; UNIT] };
    fn prepare(row: &[f32], out: &mut [Self], stride: usize) {
        for (values, out) in row.chunks(UNIT).zip(out.iter_mut().step_by(stride)) {
            out.values = [0.0; UNIT];
            out.values[..values.len()].copy_from_slice(values);
        }
    }
}

/// Bytes of activations that a chunk of rows may take: half of a small second-level cache.
const CHUNK_BYTES: usize = 192 << 10;
/// Most rows of a chunk; a kernel keeps 8 sums of each.
pub(crate) const MAX_CHUNK: usize = 64;

/// Prepared activations `[n, cols]`.
pub(crate) struct Prepared<A> {
    blocks: Vec<A>,
    units: usize,
    chunk: usize,
    n: usize,
}

impl<A> Prepared<A> {
    pub const fn empty() -> Self {
        Self { blocks: Vec::new(), units: 0, chunk: 1, n: 0 }
    }
}

impl<A: Activation> Prepared<A> {
    /// Prepares `x [n, cols]`; memory of earlier calls is used again.
    pub fn fill(&mut self, pool: &Pool, x: &[f32], n: usize, cols: usize) {
        let units = cols.div_ceil(UNIT);
        let fitting = CHUNK_BYTES / (units * size_of::<A>());
        let chunk = fitting.clamp(8, MAX_CHUNK).min(n.max(1));
        (self.units, self.chunk, self.n) = (units, chunk, n);
        self.blocks.resize(n * units, A::ZERO);
        let shards = Shards::new(&mut self.blocks);
        // One row costs about a microsecond a thousand columns: not worth a region below some rows.
        let chunks_per_task = if n * cols < 1 << 15 { n.div_ceil(chunk) } else { 1 };
        pool.run(n.div_ceil(chunk * chunks_per_task.max(1)), &|task| {
            for c in task * chunks_per_task..(task + 1) * chunks_per_task {
                let first = c * chunk;
                let rows = chunk.min(n - first);
                // SAFETY: every chunk belongs to one task.
                let out = unsafe { shards.range(first * units, rows * units) };
                for m in 0..rows {
                    A::prepare(&x[(first + m) * cols..][..cols], &mut out[m..], rows);
                }
            }
        });
    }

    /// Chunks as (first row, rows, blocks `[unit][row]`).
    pub fn chunks(&self) -> impl Iterator<Item = (usize, usize, &[A])> {
        (0..self.n).step_by(self.chunk.max(1)).map(|first| {
            let rows = self.chunk.min(self.n - first);
            (first, rows, &self.blocks[first * self.units..][..rows * self.units])
        })
    }
}
