//! Products of activations with packed matrices.
//!
//! All matrices that share an input are one region of the pool, cut into runs of tiles; the input is
//! prepared once. A task walks its tiles for one chunk of rows after the other, so that the chunk stays in
//! cache while weights stream by. Each output is one chain over the columns, whatever the cut.

use std::cell::Cell;

use crate::activation::{Activation, FloatBlock, Int8Block, MAX_CHUNK, Prepared};
use crate::format::WeightType;
use crate::isa::{Isa, TileKernel, isa};
use crate::layout::TILE;
use crate::outliers::{Correction, Outliers};
use crate::packed::PackedMatrix;
use crate::pool::{Pool, Shards};

/// How products with quantized weights are computed. Float weights multiply in f32 either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MatmulPrecision {
    /// Activations are rounded to 8 bits with a scale per 32 of them: the fast way.
    #[default]
    Int8,
    /// Weights are decoded and multiplied in f32.
    F32,
}

/// `out[n, r] = sum over c of weights[r, c] * x[n, c]` for several matrices that share the input.
///
/// Activations that are not finite give outputs that are not finite.
///
/// Beside the output it keeps, per calling thread, 1.5 bytes an activation (int8) or 4 (f32), for the largest
/// `x` so far.
///
/// # Shapes
/// - `x`: `[n, cols]`, n = `x.len() / cols`
/// - each output: `[n, rows]` of its matrix, overwritten
///
/// # Panics
/// If the shapes do not agree.
pub fn matmul(pool: &Pool, precision: MatmulPrecision, x: &[f32], outputs: &mut [(&PackedMatrix, &mut [f32])]) {
    matmul_with(isa(), pool, precision, x, outputs);
}

thread_local! {
    // Memory of the prepared activations, one set per engine thread, used again by every product.
    static INT8: Cell<Prepared<Int8Block>> = const { Cell::new(Prepared::empty()) };
    static FLOAT: Cell<Prepared<FloatBlock>> = const { Cell::new(Prepared::empty()) };
}

/// [`matmul`] on a chosen instruction set, for comparisons.
pub(crate) fn matmul_with(
    isa: &Isa,
    pool: &Pool,
    precision: MatmulPrecision,
    x: &[f32],
    outputs: &mut [(&PackedMatrix, &mut [f32])],
) {
    let Some(cols) = outputs.first().map(|(matrix, _)| matrix.cols()) else {
        return;
    };
    let n = x.len() / cols;
    assert_eq!(x.len(), n * cols, "activations are [n, {cols}]");
    for (matrix, out) in outputs.iter() {
        assert_eq!(matrix.cols(), cols, "matrices share their input");
        assert_eq!(out.len(), n * matrix.rows(), "output is [n, rows]");
    }
    if n == 0 {
        return;
    }
    let by_int8 = |ty: WeightType| precision == MatmulPrecision::Int8 && !ty.is_float();
    let mut int8 = INT8.replace(Prepared::empty());
    let mut float = FLOAT.replace(Prepared::empty());
    let any_int8 = outputs.iter().any(|(matrix, _)| by_int8(matrix.weight_type()));
    if any_int8 {
        int8.fill(pool, x, n, cols);
    }
    if outputs.iter().any(|(matrix, _)| !by_int8(matrix.weight_type())) {
        float.fill(pool, x, n, cols);
    }

    let outliers = any_int8.then(|| Outliers::find(isa, pool, x, cols, &int8));

    let products: Vec<_> = outputs.iter_mut().map(|(matrix, out)| (&**matrix, Shards::new(out))).collect();
    let tiles: usize = products.iter().map(|(matrix, _)| matrix.tiles()).sum();
    // Enough tasks to even out a worker that lost its core; pairs of tiles, since a tile's outputs are half a cache
    // line, and since some kernels take two at once.
    let per_task = (tiles / (pool.workers() * 8)).clamp(2, 64) & !1;
    pool.run(tiles.div_ceil(per_task), &|task| {
        let (mut first, mut left) = (task * per_task, per_task);
        for (matrix, out) in &products {
            let count = matrix.tiles().saturating_sub(first).min(left);
            if count > 0 {
                let ty = matrix.weight_type();
                let run = first..first + count;
                if by_int8(ty) {
                    let (one, two) = ((isa.int8)(ty), isa.int8_pair.map(|pair| pair(ty)));
                    let correct = |chunk: usize, tiles: &[u8], count: usize, sums: &mut [[f32; TILE]]| {
                        let unit_kernel = two.filter(|_| count == 2).unwrap_or(one).unit;
                        let corrections = outliers.iter().flat_map(|outliers| outliers.of_chunk(chunk));
                        for Correction { unit, rows, activations } in corrections {
                            // SAFETY: as for the tile's kernel; rows are those of the chunk.
                            unsafe { unit_kernel(tiles, unit, activations, rows, sums) };
                        }
                    };
                    multiply_tiles(one.tile, two.map(|two| two.tile), matrix, run, &int8, correct, out);
                } else {
                    multiply_tiles((isa.float)(ty), None, matrix, run, &float, |_, _, _, _| (), out);
                }
            }
            left -= count;
            first = first.saturating_sub(matrix.tiles());
            if left == 0 {
                break;
            }
        }
    });
    drop(products);
    INT8.set(int8);
    FLOAT.set(float);
}

/// `pair` takes two tiles where two are left. `correct` adds, for a chunk and one or two tiles, what is to be multiplied
/// besides.
fn multiply_tiles<A: Activation>(
    kernel: TileKernel<A>,
    pair: Option<TileKernel<A>>,
    matrix: &PackedMatrix,
    tiles: std::ops::Range<usize>,
    x: &Prepared<A>,
    correct: impl Fn(usize, &[u8], usize, &mut [[f32; TILE]]),
    out: &Shards<'_, f32>,
) {
    let rows = matrix.rows();
    let mut sums = [[0.0; TILE]; 2 * MAX_CHUNK];
    for (chunk, (first, n, blocks)) in x.chunks().enumerate() {
        let mut next = tiles.start;
        while next < tiles.end {
            let (kernel, count) = match pair {
                Some(pair) if next + 1 < tiles.end => (pair, 2),
                _ => (kernel, 1),
            };
            let (bytes, sums) = (matrix.tile_run(next, count), &mut sums[..n * count]);
            // SAFETY: the kernel comes from the table of this processor for the matrix's type, the matrix
            // gives whole tiles, and the chunk has `n` blocks for each unit of its columns.
            unsafe { kernel(bytes, blocks, sums) };
            correct(chunk, bytes, count, sums);
            for (i, tile) in (next..next + count).enumerate() {
                let present = TILE.min(rows - tile * TILE);
                for (m, sums) in sums[i..].iter().step_by(count).enumerate() {
                    // SAFETY: a tile belongs to one task, and so do its columns of the output.
                    let out = unsafe { out.range((first + m) * rows + tile * TILE, present) };
                    out.copy_from_slice(&sums[..present]);
                }
            }
            next += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{PORTABLE, available};

    #[test]
    fn simd_kernels_equal_the_portable_ones_bit_for_bit() {
        let pool = Pool::new(2);
        for ty in WeightType::ALL {
            for (rows, blocks, n) in [(1, 1, 1), (8, 2, 2), (19, 3, 1), (24, 2, 7), (11, 5, 70)] {
                let cols = if ty.is_float() { blocks * 37 } else { blocks * ty.block_weights() };
                // Every byte value occurs; exponents of floats and scales stay moderate.
                let mut bytes: Vec<u8> = (0..rows * ty.row_bytes(cols).unwrap_or(0))
                    .map(|i| (i.wrapping_mul(0x9e37_79b1) >> 13) as u8)
                    .collect();
                tame(ty, &mut bytes);
                let matrix = PackedMatrix::pack(&pool, ty, rows, cols, &bytes).unwrap();
                let value = |i: usize| ((i * 7919 % 1009) as f32 - 500.0) / 37.0;
                // Some stand out, and are looked at again.
                let x: Vec<f32> = (0..n * cols).map(|i| value(i) * if i % 97 == 5 { 30.0 } else { 1.0 }).collect();
                for precision in [MatmulPrecision::Int8, MatmulPrecision::F32] {
                    let mut want = vec![f32::NAN; n * rows];
                    matmul_with(&PORTABLE, &pool, precision, &x, &mut [(&matrix, &mut want)]);
                    assert!(want.iter().all(|v| v.is_finite()));
                    for isa in available() {
                        let mut got = vec![f32::NAN; n * rows];
                        matmul_with(isa, &pool, precision, &x, &mut [(&matrix, &mut got)]);
                        assert_eq!(got, want, "{}, {ty} [{rows}, {cols}] x {n} {precision:?}", isa.name);
                    }
                }
            }
        }
    }

    #[test]
    fn sums_of_extreme_codes_do_not_saturate() {
        let pool = Pool::new(1);
        for ty in WeightType::ALL.into_iter().filter(|ty| !ty.is_float()) {
            for fill in [0x00, 0x7f, 0x80, 0xff] {
                let mut bytes = vec![fill; 17 * ty.row_bytes(512).unwrap()];
                tame(ty, &mut bytes);
                let matrix = PackedMatrix::pack(&pool, ty, 17, 512, &bytes).unwrap();
                for sign in [1.0, -1.0] {
                    let mut want = [f32::NAN; 34];
                    let x = [sign; 1024];
                    matmul_with(&PORTABLE, &pool, MatmulPrecision::Int8, &x, &mut [(&matrix, &mut want)]);
                    for isa in available() {
                        let mut got = [f32::NAN; 34];
                        matmul_with(isa, &pool, MatmulPrecision::Int8, &x, &mut [(&matrix, &mut got)]);
                        assert_eq!(got, want, "{}, {ty} of {fill:#x}", isa.name);
                    }
                }
            }
        }
    }

    /// Bounds the exponents of the scales or floats in file bytes.
    fn tame(ty: WeightType, bytes: &mut [u8]) {
        let at: &[usize] = match ty {
            WeightType::F32 => &[3],
            WeightType::F16 | WeightType::BF16 | WeightType::Q4_0 | WeightType::Q5_0 | WeightType::Q8_0 => &[1],
            WeightType::Q4_1 | WeightType::Q5_1 | WeightType::Q4_K | WeightType::Q5_K => &[1, 3],
            WeightType::Q6_K => &[209],
        };
        for block in bytes.chunks_exact_mut(ty.block_bytes()) {
            for &at in at {
                block[at] = block[at] & 0x80 | 0x2c;
            }
        }
    }
}
