//! RMS norm: `y[n, c] = x[n, c] * gain[c] / sqrt(mean over c of x[n, c]^2 + eps)`.
//!
//! Backward computes the scale again: a second read of a row that is in the cache anyway, in place of memory.

use stockade_kernels::Pool;

use super::parallel::{ROWS, each};
use super::simd::{LANES, dot, fold, simd};

/// Rows of `x [n, C]` into `y [n, C]`.
pub(super) fn forward(pool: &Pool, x: &[f32], gain: &[f32], eps: f32, y: &mut [f32]) {
    let run = ROWS * gain.len();
    each(pool, x.chunks(run).zip(y.chunks_mut(run)), |_, (x, y)| forward_rows(x, gain, eps, y));
}

/// Adds to `dx [n, C]` and, where there is one, to the gain's gradient `[C]`.
pub(super) fn backward(
    pool: &Pool,
    x: &[f32],
    gain: &[f32],
    eps: f32,
    dy: &[f32],
    dx: &mut [f32],
    d_gain: Option<&mut [f32]>,
) {
    let width = gain.len();
    let run = ROWS * width;
    let mut partial = vec![0.0; x.len().div_ceil(run) * width];
    let pieces = x.chunks(run).zip(dy.chunks(run)).zip(dx.chunks_mut(run)).zip(partial.chunks_mut(width));
    each(pool, pieces, |_, (((x, dy), dx), partial)| backward_rows(x, gain, eps, dy, dx, partial));
    if let Some(d_gain) = d_gain {
        for partial in partial.chunks_exact(width) {
            d_gain.iter_mut().zip(partial).for_each(|(sum, x)| *sum += x);
        }
    }
}

simd! {
pub(super) fn forward_rows(x: &[f32], gain: &[f32], eps: f32, y: &mut [f32]) {
    let width = gain.len();
    for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
        let scale = 1.0 / (dot(x, x) / width as f32 + eps).sqrt();
        for ((y, x), gain) in y.iter_mut().zip(x).zip(gain) {
            *y = x * scale * gain;
        }
    }
}
}

simd! {
/// Adds to `dx` and to `d_gain [C]`.
pub(super) fn backward_rows(x: &[f32], gain: &[f32], eps: f32, dy: &[f32], dx: &mut [f32], d_gain: &mut [f32]) {
    let width = gain.len();
    for ((x, dy), dx) in x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width)) {
        let scale = 1.0 / (dot(x, x) / width as f32 + eps).sqrt();
        for ((sum, x), dy) in d_gain.iter_mut().zip(x).zip(dy) {
            *sum = (x * scale).mul_add(*dy, *sum);
        }
        let inner = dot3(x, dy, gain);
        let pull = scale * scale * scale * inner / width as f32;
        for (((dx, gain), x), dy) in dx.iter_mut().zip(gain).zip(x).zip(dy) {
            *dx += (scale * gain).mul_add(*dy, -(pull * x));
        }
    }
}
}

/// `sum over i of a[i] b[i] c[i]`, by lanes.
#[inline(always)]
fn dot3(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let ((a, a_tail), (b, b_tail), (c, c_tail)) =
        (a.as_chunks::<LANES>(), b.as_chunks::<LANES>(), c.as_chunks::<LANES>());
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        for i in 0..LANES {
            lanes[i] = (a[i] * b[i]).mul_add(c[i], lanes[i]);
        }
    }
    for (((lane, a), b), c) in lanes.iter_mut().zip(a_tail).zip(b_tail).zip(c_tail) {
        *lane = (a * b).mul_add(*c, *lane);
    }
    fold(lanes)
}
