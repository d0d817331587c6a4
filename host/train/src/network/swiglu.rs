//! The gated feed-forward's middle: `s = silu(g) * u`, `silu(g) = g / (1 + e^-g)`. Rows of g and u lie side by side.

use stockade_kernels::{Pool, exp};

use super::parallel::{ROWS, each};
use super::simd::simd;

/// `gate_up [n, 2 F]` into `s [n, F]`.
pub(super) fn forward(pool: &Pool, gate_up: &[f32], width: usize, s: &mut [f32]) {
    each(pool, gate_up.chunks(ROWS * 2 * width).zip(s.chunks_mut(ROWS * width)), |_, (gate_up, s)| {
        forward_rows(gate_up, width, s);
    });
}

/// With `ds [n, F]`, g and u `[n, 2 F]` to their gradients, in place.
pub(super) fn backward(pool: &Pool, gate_up: &mut [f32], width: usize, ds: &[f32]) {
    each(pool, gate_up.chunks_mut(ROWS * 2 * width).zip(ds.chunks(ROWS * width)), |_, (gate_up, ds)| {
        backward_rows(gate_up, width, ds);
    });
}

simd! {
fn forward_rows(gate_up: &[f32], width: usize, s: &mut [f32]) {
    for (row, s) in gate_up.chunks_exact(2 * width).zip(s.chunks_exact_mut(width)) {
        let (gate, up) = row.split_at(width);
        for ((s, g), u) in s.iter_mut().zip(gate).zip(up) {
            *s = g / (1.0 + exp(-g)) * u;
        }
    }
}
}

simd! {
fn backward_rows(gate_up: &mut [f32], width: usize, ds: &[f32]) {
    for (row, ds) in gate_up.chunks_exact_mut(2 * width).zip(ds.chunks_exact(width)) {
        let (gate, up) = row.split_at_mut(width);
        for ((g, u), ds) in gate.iter_mut().zip(up).zip(ds) {
            let sigmoid = 1.0 / (1.0 + exp(-*g));
            let silu = *g * sigmoid;
            (*g, *u) = (ds * *u * (sigmoid + silu * (1.0 - sigmoid)), ds * silu);
        }
    }
}
}
