//! Tile kernels with f32 activations: floats, and quantized weights decoded on the way.

use std::arch::x86_64::*;

use super::{Header, Unit, halves8, prefetch};
use crate::activation::FloatBlock;
use crate::format::WeightType;
use crate::isa::{TileKernel, per_type};
use crate::layout::{TILE, TileLayout};

/// The f32 kernel of a type.
pub(crate) fn float(ty: WeightType) -> TileKernel<FloatBlock> {
    per_type!(ty, float_tile)
}

/// # Safety
/// As [`TileKernel`] demands.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn float_tile<const TY: usize>(tile: &[u8], activations: &[FloatBlock], sums: &mut [[f32; TILE]]) {
    let n = sums.len();
    let layout = const { TileLayout::of(WeightType::ALL[TY]) };
    debug_assert_eq!(activations.len(), tile.len() / layout.block_bytes() * layout.units * n);
    let mut x = activations.as_ptr();
    sums.fill([0.0; TILE]);
    // SAFETY: loads stay inside a block by the layout, and there are `n` activations for every unit. The
    // helpers are inlined here, where the features are on.
    unsafe {
        if let [sum] = sums {
            let mut total = _mm256_setzero_ps();
            for block in tile.chunks_exact(layout.block_bytes()) {
                let header = Header::load::<TY>(block.as_ptr());
                for j in 0..layout.units {
                    let unit = block.as_ptr().add(layout.unit_offset(j));
                    prefetch(unit, layout.scales + layout.planes);
                    let weights = FloatUnit::load::<TY>(&header, unit);
                    for g in 0..8 {
                        let [a, b, c, d] = weights.four::<TY>(g);
                        let x = (*x).values.as_ptr().add(4 * g);
                        let part = _mm256_mul_ps(a, _mm256_set1_ps(*x));
                        let part = _mm256_fmadd_ps(b, _mm256_set1_ps(*x.add(1)), part);
                        let part = _mm256_fmadd_ps(c, _mm256_set1_ps(*x.add(2)), part);
                        let part = _mm256_fmadd_ps(d, _mm256_set1_ps(*x.add(3)), part);
                        total = _mm256_add_ps(total, part);
                    }
                    x = x.add(1);
                }
            }
            _mm256_storeu_ps(sum.as_mut_ptr(), total);
            return;
        }
        let mut weights = [_mm256_setzero_ps(); 32];
        for block in tile.chunks_exact(layout.block_bytes()) {
            let header = Header::load::<TY>(block.as_ptr());
            for j in 0..layout.units {
                let unit = FloatUnit::load::<TY>(&header, block.as_ptr().add(layout.unit_offset(j)));
                for g in 0..8 {
                    weights[4 * g..4 * g + 4].copy_from_slice(&unit.four::<TY>(g));
                }
                let (fours, rest) = sums.as_chunks_mut::<4>();
                for sums in fours {
                    add_float_products(&weights, x, sums);
                    x = x.add(4);
                }
                for sum in rest {
                    add_float_products(&weights, x, std::array::from_mut(sum));
                    x = x.add(1);
                }
            }
        }
    }
}

/// A unit of weights of any type, as far as it is unpacked before its columns are wanted as f32.
struct FloatUnit {
    unit: *const u8,
    codes: Unit,
}

impl FloatUnit {
    #[inline(always)]
    unsafe fn load<const TY: usize>(header: &Header, unit: *const u8) -> Self {
        // SAFETY: the caller gives a whole unit and has the features.
        unsafe {
            let codes =
                if const { WeightType::ALL[TY].is_float() } { Unit::zero() } else { Unit::load::<TY>(header, unit) };
            Self { unit, codes }
        }
    }

    /// Columns `4 g..4 g + 4` of 8 rows, rounded as `layout::decode_unit` rounds.
    #[inline(always)]
    unsafe fn four<const TY: usize>(&self, g: usize) -> [__m256; 4] {
        // SAFETY: as for `load`; columns of float units lie one after the other.
        unsafe {
            let at = |bytes: usize| {
                let first = self.unit.add(4 * g * bytes);
                [first, first.add(bytes), first.add(2 * bytes), first.add(3 * bytes)]
            };
            match WeightType::ALL[TY] {
                WeightType::F32 => {
                    let [a, b, c, d] = at(32);
                    let load = |at: *const u8| _mm256_loadu_ps(at.cast());
                    return [load(a), load(b), load(c), load(d)];
                }
                WeightType::F16 => {
                    let [a, b, c, d] = at(16);
                    return [halves8(a), halves8(b), halves8(c), halves8(d)];
                }
                WeightType::BF16 => {
                    let [a, b, c, d] = at(16);
                    let load = |at: *const u8| {
                        let words = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast()));
                        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words))
                    };
                    return [load(a), load(b), load(c), load(d)];
                }
                _ => {}
            }
            let codes = self.codes.groups[g];
            let [a, b, c, d] = if TY == WeightType::Q8_0 as usize {
                [
                    _mm256_srai_epi32::<24>(_mm256_slli_epi32::<24>(codes)),
                    _mm256_srai_epi32::<24>(_mm256_slli_epi32::<16>(codes)),
                    _mm256_srai_epi32::<24>(_mm256_slli_epi32::<8>(codes)),
                    _mm256_srai_epi32::<24>(codes),
                ]
            } else {
                let byte = _mm256_set1_epi32(255);
                [
                    _mm256_and_si256(codes, byte),
                    _mm256_and_si256(_mm256_srli_epi32::<8>(codes), byte),
                    _mm256_and_si256(_mm256_srli_epi32::<16>(codes), byte),
                    _mm256_srli_epi32::<24>(codes),
                ]
            };
            let mut scale = self.codes.scale;
            if TY == WeightType::Q6_K as usize {
                let half = _mm256_srai_epi32::<16>(self.codes.halves[g / 4]);
                scale = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(half));
            }
            let offset = match WeightType::ALL[TY] {
                WeightType::Q4_0 => 8,
                WeightType::Q5_0 => 16,
                WeightType::Q6_K => 32,
                _ => 0,
            };
            let value = |codes: __m256i| {
                let codes = _mm256_sub_epi32(codes, _mm256_set1_epi32(offset));
                let value = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(codes));
                match WeightType::ALL[TY] {
                    WeightType::Q4_1 | WeightType::Q5_1 | WeightType::Q4_K | WeightType::Q5_K => {
                        _mm256_add_ps(value, self.codes.min)
                    }
                    _ => value,
                }
            };
            [value(a), value(b), value(c), value(d)]
        }
    }
}

/// Adds the products of a decoded unit with `N` rows: each 4 columns are a chain, added in order.
#[allow(clippy::needless_range_loop, reason = "closures of iterators would not be compiled for AVX2")]
#[inline(always)]
unsafe fn add_float_products<const N: usize>(
    weights: &[__m256; 32],
    x: *const FloatBlock,
    sums: &mut [[f32; TILE]; N],
) {
    // SAFETY: the caller has the features and gives `N` blocks.
    unsafe {
        let mut totals = [_mm256_setzero_ps(); N];
        for m in 0..N {
            totals[m] = _mm256_loadu_ps(sums[m].as_ptr());
        }
        for g in 0..8 {
            let mut parts = [_mm256_setzero_ps(); N];
            for m in 0..N {
                parts[m] = _mm256_mul_ps(weights[4 * g], _mm256_set1_ps((*x.add(m)).values[4 * g]));
            }
            for i in 4 * g + 1..4 * g + 4 {
                for m in 0..N {
                    parts[m] = _mm256_fmadd_ps(weights[i], _mm256_set1_ps((*x.add(m)).values[i]), parts[m]);
                }
            }
            for m in 0..N {
                totals[m] = _mm256_add_ps(totals[m], parts[m]);
            }
        }
        for m in 0..N {
            _mm256_storeu_ps(sums[m].as_mut_ptr(), totals[m]);
        }
    }
}
