//! The tile kernels for AVX2 with FMA and F16C; same bits as `portable`.
//!
//! A unit of weights is unpacked into eight registers once and multiplied with every row. Codes of at most
//! 6 bits are unsigned bytes for `vpmaddubsw`, whose 16-bit sums hold 8, 4 or 2 groups of 4-, 5- or 6-bit
//! codes (15, 31, 63 times 127 times two a group) before they must be widened; offsets are taken off by the
//! activations' sum. Q8_0 moves the weight's sign to the activation and widens each group.

use std::arch::x86_64::*;
use std::ops::Range;

use crate::activation::{FloatBlock, Int8Block};
use crate::attention::State;
use crate::format::WeightType;
use crate::isa::{TileKernel, per_type};
use crate::layout::{TILE, TileLayout};

/// The int8 kernel of a type; those of the float types are never run.
pub(crate) fn int8(ty: WeightType) -> TileKernel<Int8Block> {
    per_type!(ty, int8_tile)
}

/// The f32 kernel of a type.
pub(crate) fn float(ty: WeightType) -> TileKernel<FloatBlock> {
    per_type!(ty, float_tile)
}

/// Bytes ahead of the current unit to fetch; weights are read once, from memory.
const AHEAD: usize = 1536;

/// # Safety
/// As [`TileKernel`] demands.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn int8_tile<const TY: usize>(
    tile: &[u8],
    activations: &[Int8Block],
    sums: &mut [[f32; TILE]],
) {
    let n = sums.len();
    let layout = const { TileLayout::of(WeightType::ALL[TY]) };
    debug_assert_eq!(
        activations.len(),
        tile.len() / layout.block_bytes() * layout.units * n
    );
    let mut x = activations.as_ptr();
    let blocks = tile.chunks_exact(layout.block_bytes());
    // SAFETY: loads stay inside a block by the layout, and there are `n` activations for every unit. The
    // helpers are inlined here, where the features are on.
    unsafe {
        if let [sum] = sums {
            let mut total = _mm256_setzero_ps();
            for block in blocks {
                let header = Header::load::<TY>(block.as_ptr());
                for j in 0..layout.units {
                    let unit = block.as_ptr().add(layout.unit_offset(j));
                    prefetch(unit, layout.scales + layout.planes);
                    let weights = Unit::load::<TY>(&header, unit);
                    total = weights.add_product::<TY>(&*x, total);
                    x = x.add(1);
                }
            }
            _mm256_storeu_ps(sum.as_mut_ptr(), total);
            return;
        }
        sums.fill([0.0; TILE]);
        for block in blocks {
            let header = Header::load::<TY>(block.as_ptr());
            for j in 0..layout.units {
                let weights = Unit::load::<TY>(&header, block.as_ptr().add(layout.unit_offset(j)));
                for sum in sums.iter_mut() {
                    let total = weights.add_product::<TY>(&*x, _mm256_loadu_ps(sum.as_ptr()));
                    _mm256_storeu_ps(sum.as_mut_ptr(), total);
                    x = x.add(1);
                }
            }
        }
    }
}

/// # Safety
/// As [`TileKernel`] demands.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn float_tile<const TY: usize>(
    tile: &[u8],
    activations: &[FloatBlock],
    sums: &mut [[f32; TILE]],
) {
    let n = sums.len();
    let layout = const { TileLayout::of(WeightType::ALL[TY]) };
    debug_assert_eq!(
        activations.len(),
        tile.len() / layout.block_bytes() * layout.units * n
    );
    let mut x = activations.as_ptr();
    sums.fill([0.0; TILE]);
    // SAFETY: as in `int8_tile`.
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
                let unit =
                    FloatUnit::load::<TY>(&header, block.as_ptr().add(layout.unit_offset(j)));
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

/// Widens f16 to f32; both hold the same number of values.
///
/// # Safety
/// The processor has F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn widen(halves: &[u8], out: &mut [f32]) {
    for (halves, out) in halves
        .as_chunks::<16>()
        .0
        .iter()
        .zip(out.as_chunks_mut::<8>().0)
    {
        // SAFETY: 16 bytes are read and 8 floats written.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), halves8(halves.as_ptr())) };
    }
}

/// 32 activations to int8 with one scale.
///
/// # Safety
/// The processor has AVX2.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn quantize(values: &[f32; 32]) -> Int8Block {
    let zero = _mm256_setzero_ps();
    // SAFETY: four eighths of the 32 values.
    let x: [__m256; 4] = unsafe { values.as_ptr().cast::<[__m256; 4]>().read_unaligned() };
    let (mut largest, mut poison) = (zero, zero);
    for x in x {
        // The second operand is taken where the first is NaN.
        largest = _mm256_max_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0), x), largest);
        poison = _mm256_add_ps(poison, _mm256_mul_ps(x, zero));
    }
    let four = _mm_max_ps(
        _mm256_castps256_ps128(largest),
        _mm256_extractf128_ps::<1>(largest),
    );
    let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    let largest = _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)));
    let (inverse, scale) = if largest > 1e-35 {
        (127.0 / largest, largest / 127.0)
    } else {
        (0.0, 0.0)
    };
    let scale = scale + fold(poison);
    let mut words = [_mm256_setzero_si256(); 4];
    for i in 0..4 {
        words[i] = _mm256_cvtps_epi32(_mm256_mul_ps(x[i], _mm256_set1_ps(inverse)));
    }
    let codes = _mm256_packs_epi16(
        _mm256_packs_epi32(words[0], words[1]),
        _mm256_packs_epi32(words[2], words[3]),
    );
    // Packing works within 128 bits and left the fours of values in the order 0 2 4 6 1 3 5 7.
    let codes = _mm256_permutevar8x32_epi32(codes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), codes);
    let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    let eights = _mm256_hadd_epi32(fours, fours);
    let halves = _mm256_hadd_epi32(eights, eights);
    let sums = [
        _mm256_extract_epi32::<0>(halves),
        _mm256_extract_epi32::<4>(halves),
    ];
    let sum = sums[0].wrapping_add(sums[1]);
    let mut block = Int8Block {
        codes: [0; 32],
        scale,
        sums: [sums[0] as i16, sums[1] as i16],
        sum_8: sum.wrapping_mul(8),
        scaled_sum: scale * sum as f32,
    };
    // SAFETY: 32 bytes are written to 32 codes.
    unsafe { _mm256_storeu_si256(block.codes.as_mut_ptr().cast(), codes) };
    block
}

/// Merges keys and values of a page into a state: the online softmax.
///
/// # Safety
/// The processor has AVX2, FMA and F16C; `keys` and `values` hold 32 times the state's `D`, a multiple of 8.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn attend(state: &mut State, keys: &[f32], values: &[f32], seen: Range<usize>) {
    let dim = state.q.len();
    assert!(
        keys.len() >= 32 * dim
            && values.len() >= 32 * dim
            && seen.end <= 32
            && dim == state.out.len()
    );
    let mut scores = [_mm256_setzero_ps(); 4];
    for (d, &q) in state.q.iter().enumerate() {
        let q = _mm256_set1_ps(q);
        for (v, score) in scores.iter_mut().enumerate() {
            // SAFETY: `keys` holds 32 floats for every `d`.
            let keys = unsafe { _mm256_loadu_ps(keys.as_ptr().add(32 * d + 8 * v)) };
            *score = _mm256_fmadd_ps(q, keys, *score);
        }
    }
    let infinity = _mm256_set1_ps(f32::NEG_INFINITY);
    let mut largest = _mm256_set1_ps(state.largest);
    let (from, to) = (
        _mm256_set1_epi32(seen.start as i32),
        _mm256_set1_epi32(seen.end as i32),
    );
    for (v, score) in scores.iter_mut().enumerate() {
        let t = _mm256_add_epi32(
            _mm256_set1_epi32(8 * v as i32),
            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
        );
        let inside = _mm256_andnot_si256(_mm256_cmpgt_epi32(from, t), _mm256_cmpgt_epi32(to, t));
        *score = _mm256_blendv_ps(infinity, *score, _mm256_castsi256_ps(inside));
        // The second operand is taken where the first is NaN.
        largest = _mm256_max_ps(*score, largest);
    }
    let four = _mm_max_ps(
        _mm256_castps256_ps128(largest),
        _mm256_extractf128_ps::<1>(largest),
    );
    let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    let largest = _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)));
    let mut weights = [0.0f32; 32];
    let mut total = _mm256_setzero_ps();
    for (v, score) in scores.iter().enumerate() {
        let weight = exp(_mm256_sub_ps(*score, _mm256_set1_ps(largest)));
        total = _mm256_add_ps(total, weight);
        // SAFETY: 8 of the 32 weights.
        unsafe { _mm256_storeu_ps(weights.as_mut_ptr().add(8 * v), weight) };
    }
    let shrink = exp(_mm256_set1_ps(state.largest - largest));
    state.largest = largest;
    state.total = state.total.mul_add(_mm256_cvtss_f32(shrink), fold(total));
    // SAFETY: `out` and each of the 32 values hold `dim` floats, and `seen` ends at 32 or before.
    unsafe {
        let mut d = 0;
        while d + 64 <= dim {
            add_values::<8>(
                &weights,
                values.as_ptr().add(d),
                dim,
                &seen,
                shrink,
                state.out.as_mut_ptr().add(d),
            );
            d += 64;
        }
        while d < dim {
            add_values::<1>(
                &weights,
                values.as_ptr().add(d),
                dim,
                &seen,
                shrink,
                state.out.as_mut_ptr().add(d),
            );
            d += 8;
        }
    }
}

/// `out = out * shrink + sum over t of weights[t] * values[t]`, for `8 N` channels.
///
/// # Safety
/// The features are there; `values` has `8 N` floats at every stride, and so has `out`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_values<const N: usize>(
    weights: &[f32; 32],
    values: *const f32,
    stride: usize,
    seen: &Range<usize>,
    shrink: __m256,
    out: *mut f32,
) {
    // SAFETY: by the contract above.
    unsafe {
        let mut sums = [_mm256_setzero_ps(); N];
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = _mm256_mul_ps(_mm256_loadu_ps(out.add(8 * i)), shrink);
        }
        for t in seen.clone() {
            let weight = _mm256_set1_ps(weights[t]);
            let values = values.add(t * stride);
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = _mm256_fmadd_ps(weight, _mm256_loadu_ps(values.add(8 * i)), *sum);
            }
        }
        for (i, &sum) in sums.iter().enumerate() {
            _mm256_storeu_ps(out.add(8 * i), sum);
        }
    }
}

/// `exp::exp` of 8 lanes, operation by operation.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn exp(x: __m256) -> __m256 {
    use crate::exp::{HIGH, LN2_HIGH, LN2_LOW, LOW, POLYNOMIAL, ROUND};
    let all = |value: f32| _mm256_set1_ps(value);
    let clamped = _mm256_min_ps(all(HIGH), _mm256_max_ps(all(LOW), x));
    let shifted = _mm256_fmadd_ps(clamped, all(std::f32::consts::LOG2_E), all(ROUND));
    let n = _mm256_sub_ps(shifted, all(ROUND));
    let r = _mm256_fmadd_ps(
        n,
        all(-LN2_LOW),
        _mm256_fmadd_ps(n, all(-LN2_HIGH), clamped),
    );
    let mut p = all(POLYNOMIAL[0]);
    for coefficient in &POLYNOMIAL[1..] {
        p = _mm256_fmadd_ps(p, r, all(*coefficient));
    }
    let p = _mm256_add_ps(_mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r), all(1.0));
    let power = _mm256_add_epi32(
        _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted)),
        _mm256_set1_epi32(0x3f80_0000),
    );
    let result = _mm256_mul_ps(p, _mm256_castsi256_ps(power));
    _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(x, all(LOW)), result)
}

/// Sum of 8 lanes in the order of `elementwise::fold`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn fold(lanes: __m256) -> f32 {
    let four = _mm_add_ps(
        _mm256_castps256_ps128(lanes),
        _mm256_extractf128_ps::<1>(lanes),
    );
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}

/// Scales of a block of the K types; `zero` in the others.
struct Header {
    scale: __m256,
    /// Negated, so that minima are added.
    min: __m256,
}

impl Header {
    #[inline(always)]
    unsafe fn load<const TY: usize>(block: *const u8) -> Self {
        // SAFETY: the caller gives a whole block; blocks with a header begin with these halves.
        unsafe {
            let zero = _mm256_setzero_ps();
            match WeightType::ALL[TY] {
                WeightType::Q4_K | WeightType::Q5_K => Self {
                    scale: halves8(block),
                    min: _mm256_xor_ps(halves8(block.add(16)), _mm256_set1_ps(-0.0)),
                },
                WeightType::Q6_K => Self {
                    scale: halves8(block),
                    min: zero,
                },
                _ => Self {
                    scale: zero,
                    min: zero,
                },
            }
        }
    }
}

/// A unit of 32 columns of quantized weights in registers.
struct Unit {
    /// Codes of 4 columns of 8 rows each, unsigned but for Q8_0.
    groups: [__m256i; 8],
    scale: __m256,
    min: __m256,
    /// Q6_K: the i16 scale of each half, twice in every lane, and both halves' side by side.
    halves: [__m256i; 2],
    pair: __m256i,
}

impl Unit {
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller has the features.
        unsafe {
            let (floats, words) = (_mm256_setzero_ps(), _mm256_setzero_si256());
            Self {
                groups: [words; 8],
                scale: floats,
                min: floats,
                halves: [words; 2],
                pair: words,
            }
        }
    }

    #[inline(always)]
    unsafe fn load<const TY: usize>(header: &Header, unit: *const u8) -> Self {
        let layout = const { TileLayout::of(WeightType::ALL[TY]) };
        // SAFETY: the caller gives a whole unit of this type.
        unsafe {
            let zero = _mm256_setzero_si256();
            let (mut scale, mut min) = (header.scale, header.min);
            let (mut halves, mut pair) = ([zero; 2], zero);
            match WeightType::ALL[TY] {
                WeightType::Q4_1 | WeightType::Q5_1 => {
                    (scale, min) = (halves8(unit), halves8(unit.add(16)))
                }
                WeightType::Q4_K | WeightType::Q5_K => {
                    scale = _mm256_mul_ps(scale, bytes8(unit));
                    min = _mm256_mul_ps(min, bytes8(unit.add(8)));
                }
                WeightType::Q6_K => {
                    let low = _mm256_cvtepi8_epi32(_mm_loadl_epi64(unit.cast()));
                    let high = _mm256_cvtepi8_epi32(_mm_loadl_epi64(unit.add(8).cast()));
                    halves = [twice(low), twice(high)];
                    pair = _mm256_blend_epi16::<0b1010_1010>(low, _mm256_slli_epi32::<16>(high));
                }
                _ => scale = halves8(unit),
            }
            let planes = unit.add(layout.scales);
            let vector = |i: usize| _mm256_loadu_si256(planes.add(32 * i).cast());
            let mut groups = [zero; 8];
            if TY == WeightType::Q8_0 as usize {
                for (g, group) in groups.iter_mut().enumerate() {
                    *group = vector(g);
                }
                return Self {
                    groups,
                    scale,
                    min,
                    halves,
                    pair,
                };
            }
            let nibble = _mm256_set1_epi8(15);
            for v in 0..4 {
                let both = vector(v);
                groups[2 * v] = _mm256_and_si256(both, nibble);
                groups[2 * v + 1] = _mm256_and_si256(_mm256_srli_epi16::<4>(both), nibble);
            }
            match WeightType::ALL[TY] {
                WeightType::Q5_0 | WeightType::Q5_1 | WeightType::Q5_K => {
                    let bits = vector(4);
                    let moved = [
                        _mm256_slli_epi16::<4>(bits),
                        _mm256_slli_epi16::<3>(bits),
                        _mm256_slli_epi16::<2>(bits),
                        _mm256_slli_epi16::<1>(bits),
                        bits,
                        _mm256_srli_epi16::<1>(bits),
                        _mm256_srli_epi16::<2>(bits),
                        _mm256_srli_epi16::<3>(bits),
                    ];
                    let fifth = _mm256_set1_epi8(0x10);
                    for g in 0..8 {
                        groups[g] = _mm256_or_si256(groups[g], _mm256_and_si256(moved[g], fifth));
                    }
                }
                WeightType::Q6_K => {
                    let high = _mm256_set1_epi8(0x30);
                    for v in 0..2 {
                        let bits = vector(4 + v);
                        let moved = [
                            _mm256_slli_epi16::<4>(bits),
                            _mm256_slli_epi16::<2>(bits),
                            bits,
                            _mm256_srli_epi16::<2>(bits),
                        ];
                        for i in 0..4 {
                            let group = &mut groups[4 * v + i];
                            *group = _mm256_or_si256(*group, _mm256_and_si256(moved[i], high));
                        }
                    }
                }
                _ => {}
            }
            Self {
                groups,
                scale,
                min,
                halves,
                pair,
            }
        }
    }

    /// `total` plus the product of these weights with one row of activations.
    #[inline(always)]
    unsafe fn add_product<const TY: usize>(&self, x: &Int8Block, total: __m256) -> __m256 {
        // SAFETY: only registers and `x` are touched; the caller has the features.
        unsafe {
            let dots = _mm256_cvtepi32_ps(self.dots::<TY>(x));
            let scale = _mm256_mul_ps(self.scale, _mm256_set1_ps(x.scale));
            let total = _mm256_fmadd_ps(dots, scale, total);
            match WeightType::ALL[TY] {
                WeightType::Q4_1 | WeightType::Q5_1 | WeightType::Q4_K | WeightType::Q5_K => {
                    _mm256_fmadd_ps(self.min, _mm256_set1_ps(x.scaled_sum), total)
                }
                _ => total,
            }
        }
    }

    /// The integer products of 8 rows, offsets taken off.
    #[inline(always)]
    unsafe fn dots<const TY: usize>(&self, x: &Int8Block) -> __m256i {
        // SAFETY: as `add_product`; the 32 codes of `x` are read as eight words.
        unsafe {
            let ones = _mm256_set1_epi16(1);
            let word = |g: usize| {
                _mm256_set1_epi32(x.codes.as_ptr().add(4 * g).cast::<i32>().read_unaligned())
            };
            let product = |g: usize| _mm256_maddubs_epi16(self.groups[g], word(g));
            let two = |g: usize| _mm256_add_epi16(product(g), product(g + 1));
            let four = |g: usize| _mm256_add_epi16(two(g), two(g + 2));
            let sum_8 = || _mm256_set1_epi32(x.sum_8);
            match WeightType::ALL[TY] {
                WeightType::Q8_0 => {
                    let signed = |g: usize| {
                        let weights = self.groups[g];
                        let x = _mm256_sign_epi8(word(g), weights);
                        _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(weights), x), ones)
                    };
                    let mut dots = signed(0);
                    for g in 1..8 {
                        dots = _mm256_add_epi32(dots, signed(g));
                    }
                    dots
                }
                WeightType::Q5_0 | WeightType::Q5_1 | WeightType::Q5_K => {
                    let dots = _mm256_add_epi32(
                        _mm256_madd_epi16(four(0), ones),
                        _mm256_madd_epi16(four(4), ones),
                    );
                    if TY == WeightType::Q5_0 as usize {
                        _mm256_sub_epi32(dots, _mm256_add_epi32(sum_8(), sum_8()))
                    } else {
                        dots
                    }
                }
                WeightType::Q6_K => {
                    let [low, high] = self.halves;
                    let half = |g: usize, scale| {
                        _mm256_add_epi32(
                            _mm256_madd_epi16(two(g), scale),
                            _mm256_madd_epi16(two(g + 2), scale),
                        )
                    };
                    let dots = _mm256_add_epi32(half(0, low), half(4, high));
                    let sums = _mm256_set1_epi32(x.sums.as_ptr().cast::<i32>().read_unaligned());
                    _mm256_sub_epi32(
                        dots,
                        _mm256_slli_epi32::<5>(_mm256_madd_epi16(self.pair, sums)),
                    )
                }
                _ => {
                    let dots = _mm256_madd_epi16(_mm256_add_epi16(four(0), four(4)), ones);
                    if TY == WeightType::Q4_0 as usize {
                        _mm256_sub_epi32(dots, sum_8())
                    } else {
                        dots
                    }
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
            let codes = if const { WeightType::ALL[TY].is_float() } {
                Unit::zero()
            } else {
                Unit::load::<TY>(header, unit)
            };
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
                [
                    first,
                    first.add(bytes),
                    first.add(2 * bytes),
                    first.add(3 * bytes),
                ]
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
#[allow(
    clippy::needless_range_loop,
    reason = "closures of iterators would not be compiled for AVX2"
)]
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
                    parts[m] = _mm256_fmadd_ps(
                        weights[i],
                        _mm256_set1_ps((*x.add(m)).values[i]),
                        parts[m],
                    );
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

/// Fetches the lines of the unit that is [`AHEAD`] bytes on; an address behind the matrix does no harm.
#[inline(always)]
unsafe fn prefetch(unit: *const u8, bytes: usize) {
    for line in 0..bytes.div_ceil(64) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(unit.wrapping_add(AHEAD + 64 * line).cast()) };
    }
}

/// 8 halves as f32.
#[inline(always)]
unsafe fn halves8(at: *const u8) -> __m256 {
    // SAFETY: the caller gives 16 readable bytes and has the features.
    unsafe { _mm256_cvtph_ps(_mm_loadu_si128(at.cast())) }
}

/// 8 unsigned bytes as f32.
#[inline(always)]
unsafe fn bytes8(at: *const u8) -> __m256 {
    // SAFETY: the caller gives 8 readable bytes and has the features.
    unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(at.cast()))) }
}

/// The low i16 of every i32 in both halves of it.
#[inline(always)]
unsafe fn twice(words: __m256i) -> __m256i {
    // SAFETY: the caller has the features.
    unsafe { _mm256_blend_epi16::<0b1010_1010>(words, _mm256_slli_epi32::<16>(words)) }
}
