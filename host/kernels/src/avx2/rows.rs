//! What is not a product with weights: int8 activations, f16 pages, the online softmax of attention.

use std::arch::x86_64::*;
use std::ops::Range;

use super::halves8;
use crate::activation::Int8Block;
use crate::attention::State;

/// Widens f16 to f32; both hold the same number of values.
///
/// # Safety
/// The processor has F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn widen(halves: &[u8], out: &mut [f32]) {
    for (halves, out) in halves.as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<8>().0) {
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
    let four = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps::<1>(largest));
    let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    let largest = _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)));
    let (inverse, scale) = if largest > 1e-35 { (127.0 / largest, largest / 127.0) } else { (0.0, 0.0) };
    let scale = scale + fold(poison);
    let mut words = [_mm256_setzero_si256(); 4];
    for i in 0..4 {
        words[i] = _mm256_cvtps_epi32(_mm256_mul_ps(x[i], _mm256_set1_ps(inverse)));
    }
    let codes = _mm256_packs_epi16(_mm256_packs_epi32(words[0], words[1]), _mm256_packs_epi32(words[2], words[3]));
    // Packing works within 128 bits and left the fours of values in the order 0 2 4 6 1 3 5 7.
    let codes = _mm256_permutevar8x32_epi32(codes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), codes);
    let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    let eights = _mm256_hadd_epi32(fours, fours);
    let halves = _mm256_hadd_epi32(eights, eights);
    let sums = [_mm256_extract_epi32::<0>(halves), _mm256_extract_epi32::<4>(halves)];
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
    assert!(keys.len() >= 32 * dim && values.len() >= 32 * dim && seen.end <= 32 && dim == state.out.len());
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
    let (from, to) = (_mm256_set1_epi32(seen.start as i32), _mm256_set1_epi32(seen.end as i32));
    for (v, score) in scores.iter_mut().enumerate() {
        let t = _mm256_add_epi32(_mm256_set1_epi32(8 * v as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        let inside = _mm256_andnot_si256(_mm256_cmpgt_epi32(from, t), _mm256_cmpgt_epi32(to, t));
        *score = _mm256_blendv_ps(infinity, *score, _mm256_castsi256_ps(inside));
        // The second operand is taken where the first is NaN.
        largest = _mm256_max_ps(*score, largest);
    }
    let four = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps::<1>(largest));
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
            add_values::<8>(&weights, values.as_ptr().add(d), dim, &seen, shrink, state.out.as_mut_ptr().add(d));
            d += 64;
        }
        while d < dim {
            add_values::<1>(&weights, values.as_ptr().add(d), dim, &seen, shrink, state.out.as_mut_ptr().add(d));
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
    let r = _mm256_fmadd_ps(n, all(-LN2_LOW), _mm256_fmadd_ps(n, all(-LN2_HIGH), clamped));
    let mut p = all(POLYNOMIAL[0]);
    for coefficient in &POLYNOMIAL[1..] {
        p = _mm256_fmadd_ps(p, r, all(*coefficient));
    }
    let p = _mm256_add_ps(_mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r), all(1.0));
    let power = _mm256_add_epi32(_mm256_slli_epi32::<23>(_mm256_castps_si256(shifted)), _mm256_set1_epi32(0x3f80_0000));
    let result = _mm256_mul_ps(p, _mm256_castsi256_ps(power));
    _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(x, all(LOW)), result)
}

/// Sum of 8 lanes in the order of `elementwise::fold`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn fold(lanes: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}
