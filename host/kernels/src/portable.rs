//! The tile kernels in plain Rust: the reference that SIMD variants equal bit for bit, and what machines
//! without one use.
//!
//! Int8: a unit of 32 columns is summed exactly in i32, scaled once and added to the output's one chain of
//! fused multiply-adds over the units. Float: 4 columns are chained, and these sums are added in order.

use std::ops::Range;

use half::f16;

use crate::activation::{FloatBlock, Int8Block};
use crate::attention::State;
use crate::elementwise::fold;
use crate::exp::exp;
use crate::format::WeightType;
use crate::isa::{Int8Kernels, TileKernel, per_type};
use crate::kv::PAGE_TOKENS;
use crate::layout::{TILE, TileLayout, UNIT, UnitCodes, decode_unit};

/// The int8 kernel of a type; those of the float types are never run.
pub(crate) fn int8(ty: WeightType) -> Int8Kernels {
    Int8Kernels { tile: per_type!(ty, int8_tile), unit: per_type!(ty, int8_unit) }
}

/// The f32 kernel of a type.
pub(crate) fn float(ty: WeightType) -> TileKernel<FloatBlock> {
    per_type!(ty, float_tile)
}

fn int8_tile<const TY: usize>(tile: &[u8], activations: &[Int8Block], sums: &mut [[f32; TILE]]) {
    let n = sums.len();
    sums.fill([0.0; TILE]);
    let mut rows = activations.chunks_exact(n);
    for_units(WeightType::ALL[TY], tile, |block, j| {
        let unit = UnitCodes::read(WeightType::ALL[TY], block, j);
        for (x, sum) in rows.next().unwrap_or_default().iter().zip(sums.iter_mut()) {
            add_product(&unit, x, sum);
        }
    });
}

fn int8_unit<const TY: usize>(
    tile: &[u8],
    unit: usize,
    activations: &[Int8Block],
    rows: &[usize],
    sums: &mut [[f32; TILE]],
) {
    let layout = TileLayout::of(WeightType::ALL[TY]);
    let block = &tile[unit / layout.units * layout.block_bytes()..][..layout.block_bytes()];
    let unit = UnitCodes::read(WeightType::ALL[TY], block, unit % layout.units);
    for (x, &m) in activations.iter().zip(rows) {
        add_product(&unit, x, &mut sums[m]);
    }
}

fn add_product(unit: &UnitCodes, x: &Int8Block, sum: &mut [f32; TILE]) {
    let mut dots = [0i32; TILE];
    for (k, codes) in unit.codes.iter().enumerate() {
        for r in 0..TILE {
            let scaled = i32::from(codes[r]) * i32::from(unit.halves[k / 16][r]);
            dots[r] = dots[r].wrapping_add(scaled.wrapping_mul(i32::from(x.codes[k])));
        }
    }
    for r in 0..TILE {
        sum[r] = (dots[r] as f32).mul_add(unit.scale[r] * x.scale, sum[r]);
        if let Some(min) = unit.min {
            sum[r] = min[r].mul_add(x.scaled_sum, sum[r]);
        }
    }
}

fn float_tile<const TY: usize>(tile: &[u8], activations: &[FloatBlock], sums: &mut [[f32; TILE]]) {
    let n = sums.len();
    sums.fill([0.0; TILE]);
    let mut rows = activations.chunks_exact(n);
    let mut weights = [[0.0; TILE]; UNIT];
    for_units(WeightType::ALL[TY], tile, |block, j| {
        decode_unit(WeightType::ALL[TY], block, j, &mut weights);
        for (x, sum) in rows.next().unwrap_or_default().iter().zip(sums.iter_mut()) {
            for (weights, x) in weights.as_chunks::<4>().0.iter().zip(x.values.as_chunks::<4>().0) {
                for r in 0..TILE {
                    let mut part = weights[0][r] * x[0];
                    for i in 1..4 {
                        part = weights[i][r].mul_add(x[i], part);
                    }
                    sum[r] += part;
                }
            }
        }
    });
}

/// Widens f16 to f32; both hold the same number of values.
pub(crate) fn widen(halves: &[u8], out: &mut [f32]) {
    for (out, &bytes) in out.iter_mut().zip(halves.as_chunks::<2>().0) {
        *out = f16::from_le_bytes(bytes).to_f32();
    }
}

/// 32 activations to int8 with one scale.
pub(crate) fn quantize(values: &[f32; UNIT]) -> Int8Block {
    let largest = values.iter().fold(0.0f32, |a, b| if b.abs() > a { b.abs() } else { a });
    // Zero for finite values, NaN for others.
    let poison: f32 = values.iter().map(|v| v * 0.0).sum();
    // Below this, the inverse would overflow; such activations are zero for every purpose.
    let (inverse, scale) = if largest > 1e-35 { (127.0 / largest, largest / 127.0) } else { (0.0, 0.0) };
    let scale = scale + poison;
    let codes = values.map(|v| (v * inverse).round_ties_even() as i8);
    let sums = [0, 16].map(|from| codes[from..from + 16].iter().map(|&c| i16::from(c)).sum());
    let sum = i32::from(sums[0]) + i32::from(sums[1]);
    Int8Block { codes, scale, sums, sum_8: sum.wrapping_mul(8), scaled_sum: scale * sum as f32 }
}

/// Merges keys and values of a page into a state: the online softmax.
pub(crate) fn attend(state: &mut State, keys: &[f32], values: &[f32], seen: Range<usize>) {
    let mut scores = [0.0f32; PAGE_TOKENS];
    for (q, keys) in state.q.iter().zip(keys.as_chunks::<PAGE_TOKENS>().0) {
        for (score, key) in scores.iter_mut().zip(keys) {
            *score = q.mul_add(*key, *score);
        }
    }
    let mut largest = state.largest;
    for (t, score) in scores.iter_mut().enumerate() {
        if !seen.contains(&t) {
            *score = f32::NEG_INFINITY;
        }
        largest = if *score > largest { *score } else { largest };
    }
    let mut lanes = [0.0f32; 8];
    for (t, score) in scores.iter_mut().enumerate() {
        *score = exp(*score - largest);
        lanes[t % 8] += *score;
    }
    let shrink = exp(state.largest - largest);
    state.largest = largest;
    state.total = state.total.mul_add(shrink, fold(lanes));
    let dim = state.out.len();
    for (d, out) in state.out.iter_mut().enumerate() {
        *out = seen.clone().fold(*out * shrink, |sum, t| scores[t].mul_add(values[t * dim + d], sum));
    }
}

/// Calls `f(block, j)` for every unit of a tile, in order of columns.
fn for_units(ty: WeightType, tile: &[u8], mut f: impl FnMut(&[u8], usize)) {
    let layout = TileLayout::of(ty);
    for block in tile.chunks_exact(layout.block_bytes()) {
        (0..layout.units).for_each(|j| f(block, j));
    }
}
