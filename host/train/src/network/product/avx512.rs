//! f32 products on AVX-512: panels of 12 rows against panels of 32 columns, 24 registers of sums.

use std::arch::x86_64::*;

use super::panel::{Kernel, Line, Panel};
use super::transpose::transpose;
use super::{Into, View};

/// Rows of a panel of the left matrix.
const ROWS: usize = 12;
/// Lanes of a register.
const LANES: usize = 16;

pub(super) static F32: Kernel = Kernel {
    name: "avx512",
    rows: ROWS,
    depth: 1,
    block: 512,
    lhs_bytes: ROWS * 4,
    rhs_bytes: 2 * LANES * 4,
    pack_lhs,
    pack_rhs,
    product,
    enter: || (),
    leave: || (),
};

/// The first `n` lanes.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    if n >= LANES { !0 } else { (1 << n) - 1 }
}

/// `[k][12]`
///
/// # Safety
/// AVX-512 is there, the panel lies in the view, and `out` has room for it.
#[target_feature(enable = "avx512f")]
unsafe fn pack_lhs(view: View<'_>, panel: Panel, alpha: f32, out: *mut Line) {
    let (out, alpha) = (out.cast::<f32>(), _mm512_set1_ps(alpha));
    let mask = first(ROWS);
    for k in (0..panel.depth).step_by(LANES) {
        let depth = LANES.min(panel.depth - k);
        // SAFETY: masks keep to the panel; 12 values for each of its k are room that the caller gave.
        unsafe {
            let values = block(view, panel.first, panel.count, panel.start + k, depth, view.rows_side());
            for (i, row) in values.iter().take(depth).enumerate() {
                let row = _mm512_mul_ps(_mm512_castsi512_ps(*row), alpha);
                _mm512_mask_storeu_ps(out.add((k + i) * ROWS), mask, row);
            }
        }
    }
}

/// `[k][32]`
///
/// # Safety
/// As [`pack_lhs`].
#[target_feature(enable = "avx512f")]
unsafe fn pack_rhs(view: View<'_>, panel: Panel, out: *mut Line) {
    for k in (0..panel.depth).step_by(LANES) {
        let depth = LANES.min(panel.depth - k);
        for half in 0..2 {
            let (at, count) = (panel.first + half * LANES, panel.count.saturating_sub(half * LANES));
            // SAFETY: as in `pack_lhs`.
            unsafe {
                let values = block(view, at, count, panel.start + k, depth, view.cols_side());
                for (i, row) in values.iter().take(depth).enumerate() {
                    _mm512_store_si512(out.add((k + i) * 2 + half).cast(), *row);
                }
            }
        }
    }
}

/// 16 registers, one for each k, of 16 rows (or columns) from `at` on; 0 outside of `count` and `depth`. `side` is the
/// strides along rows (or columns) and along k, one of which is 1.
///
/// # Safety
/// AVX-512 is there, and what `count` and `depth` span lies in the view.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn block(
    view: View<'_>,
    at: usize,
    count: usize,
    k: usize,
    depth: usize,
    side: (usize, usize),
) -> [__m512i; LANES] {
    let (stride, k_stride) = side;
    let start = view.values.as_ptr();
    let mut values = [_mm512_setzero_si512(); LANES];
    // SAFETY: masks and bounds keep to what the caller promised.
    unsafe {
        if stride == 1 {
            for (i, value) in values.iter_mut().take(depth).enumerate() {
                *value = _mm512_maskz_loadu_epi32(first(count), start.wrapping_add(at + (k + i) * k_stride).cast());
            }
        } else {
            for (i, value) in values.iter_mut().take(count).enumerate() {
                *value = _mm512_maskz_loadu_epi32(first(depth), start.wrapping_add((at + i) * stride + k).cast());
            }
            transpose(&mut values);
        }
    }
    values
}

/// One tile: `c[12, 32] (+)= a^T b` over `depth`.
///
/// # Safety
/// AVX-512 is there, the panels hold `depth` values a row, and `rows` x `cols` values of c may be used.
unsafe fn product(
    a: *const Line,
    b: *const Line,
    depth: usize,
    c: *mut f32,
    stride: usize,
    (rows, cols): (usize, usize),
    into: Into,
) {
    // SAFETY: as for the caller.
    unsafe { tile(a.cast(), b.cast(), depth, c, stride, (rows, cols), into) }
}

#[target_feature(enable = "avx512f")]
unsafe fn tile(
    mut a: *const f32,
    mut b: *const f32,
    depth: usize,
    c: *mut f32,
    stride: usize,
    (rows, cols): (usize, usize),
    into: Into,
) {
    for i in 0..rows {
        let to = c.wrapping_add(i * stride);
        _mm_prefetch::<_MM_HINT_ET0>(to.cast());
        _mm_prefetch::<_MM_HINT_ET0>(to.wrapping_add(cols - 1).cast());
    }
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    for _ in 0..depth {
        // SAFETY: `depth` steps lie in both panels.
        unsafe {
            let (b0, b1) = (_mm512_load_ps(b), _mm512_load_ps(b.add(LANES)));
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = _mm512_set1_ps(*a.add(i));
                sums[0] = _mm512_fmadd_ps(a, b0, sums[0]);
                sums[1] = _mm512_fmadd_ps(a, b1, sums[1]);
            }
            (a, b) = (a.add(ROWS), b.add(2 * LANES));
        }
    }
    let masks = [first(cols), first(cols.saturating_sub(LANES))];
    for (i, sums) in sums.iter().enumerate() {
        if i < rows {
            for (half, mask) in masks.into_iter().enumerate() {
                // SAFETY: masks and the number of rows keep to what the caller gave.
                unsafe {
                    let to = c.wrapping_add(i * stride + half * LANES);
                    let sum = match into {
                        Into::Set => sums[half],
                        Into::Add => _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to), sums[half]),
                    };
                    _mm512_mask_storeu_ps(to, mask, sum);
                }
            }
        }
    }
}
