//! bf16 operands, and products of them on AVX-512, for processors that have its dot products but no [`super::amx`].
//!
//! A register holds 32 values of k of one row of the left matrix, or one pair of k of 16 columns of the right one.

use std::arch::x86_64::*;

use super::panel::{COLS, Kernel, Line, Panel};
use super::transpose::transpose;
use super::{Into, View};

/// Rows of a tile, and columns.
pub(super) const TILE: usize = 16;
/// Values of k in a row of a tile.
pub(super) const DEPTH: usize = 32;

pub(super) static BF16: Kernel = Kernel {
    name: "avx512-bf16",
    rows: 2 * TILE,
    depth: DEPTH,
    block: 512,
    lhs_bytes: 2 * TILE * 2,
    rhs_bytes: 2 * TILE * 2,
    pack_lhs,
    pack_rhs,
    product,
    enter: || (),
    leave: || (),
};

/// Whether the processor converts to bf16 and multiplies it.
pub(super) fn available() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512bf16")
}

/// The first `n` lanes.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    if n >= TILE { !0 } else { (1 << n) - 1 }
}

/// For each 32 values of k: 16 rows of 32, then the other 16 rows.
///
/// # Safety
/// AVX-512 with bf16 is there, the panel lies in the view, and `out` has room for it.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn pack_lhs(view: View<'_>, panel: Panel, alpha: f32, out: *mut Line) {
    let alpha = _mm512_set1_ps(alpha);
    // SAFETY: as for the caller.
    unsafe { pack(view, panel, view.rows_side(), alpha, false, out) }
}

/// For each 32 values of k: 16 pairs of k for 16 columns, then for the other 16 columns.
///
/// # Safety
/// As [`pack_lhs`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn pack_rhs(view: View<'_>, panel: Panel, out: *mut Line) {
    let one = _mm512_set1_ps(1.0);
    // SAFETY: as for the caller.
    unsafe { pack(view, panel, view.cols_side(), one, true, out) }
}

/// Blocks of 16 rows (or columns) and 16 pairs of k; `by_pairs`: a register for each pair of k rather than for each
/// row. `side` is the strides along rows (or columns) and along k, one of which is 1.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pack(
    view: View<'_>,
    panel: Panel,
    (stride, k_stride): (usize, usize),
    alpha: __m512,
    by_pairs: bool,
    mut out: *mut Line,
) {
    let start = view.values.as_ptr();
    for k in (0..panel.depth).step_by(DEPTH) {
        let depth = DEPTH.min(panel.depth - k);
        for half in 0..2 {
            let (at, count) = (panel.first + half * TILE, panel.count.saturating_sub(half * TILE).min(TILE));
            let mut values = [_mm512_setzero_si512(); TILE];
            // SAFETY: masks keep to the panel, and the caller gave room for its lines.
            unsafe {
                if stride == 1 {
                    let mask = first(count);
                    for (pair, value) in values.iter_mut().enumerate().take(depth.div_ceil(2)) {
                        let from = start.wrapping_add(at + (panel.start + k + 2 * pair) * k_stride);
                        let even = _mm512_maskz_loadu_ps(mask, from);
                        let mask = if 2 * pair + 1 < depth { mask } else { 0 };
                        let odd = _mm512_maskz_loadu_ps(mask, from.wrapping_add(k_stride));
                        *value = interleave(_mm512_mul_ps(even, alpha), _mm512_mul_ps(odd, alpha));
                    }
                } else {
                    let masks = [first(depth), first(depth.saturating_sub(TILE))];
                    for (i, value) in values.iter_mut().enumerate().take(count) {
                        let from = start.wrapping_add((at + i) * stride + panel.start + k);
                        let low = _mm512_maskz_loadu_ps(masks[0], from);
                        let high = _mm512_maskz_loadu_ps(masks[1], from.wrapping_add(TILE));
                        let run = _mm512_cvtne2ps_pbh(_mm512_mul_ps(high, alpha), _mm512_mul_ps(low, alpha));
                        *value = std::mem::transmute::<__m512bh, __m512i>(run);
                    }
                }
                if by_pairs != (stride == 1) {
                    transpose(&mut values);
                }
                for (i, value) in values.iter().enumerate() {
                    _mm512_store_si512(out.add(i).cast(), *value);
                }
                out = out.add(TILE);
            }
        }
    }
}

/// bf16 of both, side by side in 32 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn interleave(even: __m512, odd: __m512) -> __m512i {
    // SAFETY: both are 512 bits.
    let (even, odd) = unsafe {
        let (even, odd) = (_mm512_cvtneps_pbh(even), _mm512_cvtneps_pbh(odd));
        (std::mem::transmute::<__m256bh, __m256i>(even), std::mem::transmute::<__m256bh, __m256i>(odd))
    };
    _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(odd)))
}

/// Adds or writes the first rows and columns of `sums [32, 32]`.
///
/// # Safety
/// `rows` x `cols` values of c may be used.
pub(super) unsafe fn partial(
    sums: &[Line; 2 * TILE * 2],
    c: *mut f32,
    stride: usize,
    (rows, cols): (usize, usize),
    into: Into,
) {
    for (i, line) in sums.chunks_exact(2).enumerate().take(rows) {
        for (j, sum) in line.iter().flat_map(|line| line.0).enumerate().take(cols) {
            // SAFETY: inside of what the caller gave.
            let to = unsafe { &mut *c.add(i * stride + j) };
            *to = if into == Into::Add { *to + sum } else { sum };
        }
    }
}

/// One tile of 32 x 32.
///
/// # Safety
/// AVX-512 with bf16 is there, the panels hold `depth` values, a multiple of 32, and `rows` x `cols` values of c may be
/// used.
unsafe fn product(
    a: *const Line,
    b: *const Line,
    depth: usize,
    c: *mut f32,
    stride: usize,
    (rows, cols): (usize, usize),
    into: Into,
) {
    let mut sums = [Line([0.0; 16]); 2 * TILE * 2];
    for first in (0..rows).step_by(STRIP) {
        // SAFETY: as for the caller.
        unsafe { strip(a, b, depth / DEPTH, first, &mut sums) };
    }
    // SAFETY: as for the caller.
    unsafe { partial(&sums, c, stride, (rows, cols.min(COLS)), into) };
}

/// Rows that are summed at once: 16 registers of sums.
const STRIP: usize = 8;

/// Rows `first..first + 8` of a tile.
///
/// # Safety
/// As [`product`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn strip(a: *const Line, b: *const Line, steps: usize, first: usize, to: &mut [Line; 2 * TILE * 2]) {
    let mut sums = [[_mm512_setzero_ps(); 2]; STRIP];
    for step in 0..steps {
        for pair in 0..TILE {
            // SAFETY: each step is 32 lines of both panels; a line of the left one is 16 pairs.
            unsafe {
                let right = b.add(step * 2 * TILE + pair);
                let halves = [right, right.add(TILE)].map(|line| as_bf16(_mm512_load_si512(line.cast())));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let left = a.add(step * 2 * TILE + first + i).cast::<i32>().add(pair);
                    let left = as_bf16(_mm512_set1_epi32(*left));
                    sums[0] = _mm512_dpbf16_ps(sums[0], left, halves[0]);
                    sums[1] = _mm512_dpbf16_ps(sums[1], left, halves[1]);
                }
            }
        }
    }
    for (lines, sums) in to[2 * first..].chunks_exact_mut(2).zip(sums) {
        for (line, sum) in lines.iter_mut().zip(sums) {
            // SAFETY: a line is 16 values.
            unsafe { _mm512_store_ps(line.0.as_mut_ptr(), sum) };
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn as_bf16(values: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(values) }
}
