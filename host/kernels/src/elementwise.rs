//! The small operations between products: norms, rotary positions, gating, softmax.
//!
//! All work on rows `[n, width]`, each row by itself, so that a batch equals its rows. Sums run in 8 lanes
//! by column and are folded pairwise. Many rows are shared out over the pool.

use crate::exp::exp;
use crate::isa::simd;
use crate::pool::{Pool, Shards};

/// Elements below which sharing out costs more than it gains.
const PER_TASK: usize = 1 << 14;

/// `out[n, c] = x[n, c] * weight[c] / sqrt(mean over c of x[n, c]^2 + eps)`.
///
/// # Panics
/// If `x` and `out` are not both `[n, weight.len()]`.
pub fn rms_norm(pool: &Pool, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let width = weight.len();
    assert_eq!(x.len(), out.len(), "input and output agree");
    rows(pool, out, width, &|first, out| {
        rms_norm_rows(&x[first..][..out.len()], weight, eps, out)
    });
}

simd! {
fn rms_norm_rows(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let width = weight.len();
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let mut lanes = [0.0f32; 8];
        let (parts, tail) = x.as_chunks::<8>();
        for part in parts {
            for i in 0..8 {
                lanes[i] = part[i].mul_add(part[i], lanes[i]);
            }
        }
        for (lane, x) in lanes.iter_mut().zip(tail) {
            *lane = x.mul_add(*x, *lane);
        }
        let scale = 1.0 / (fold(lanes) / width as f32 + eps).sqrt();
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * scale * weight;
        }
    }
}
}

/// Sum of 8 lanes, pairwise.
#[inline(always)]
pub(crate) fn fold(l: [f32; 8]) -> f32 {
    ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
}

/// Rotates each head by its position (RoPE), pairing channel `i` with `i + D/2`.
///
/// Source: Su et al. 2021, "RoFormer", arXiv:2104.09864, which pairs `2i` with `2i + 1` instead.
///
/// # Shapes
/// - `x`: `[n, heads, D]`, in place, D = `2 * half`
/// - `positions`: `[n]`, in tokens
/// - `cos`, `sin`: `[T_max, half]`
///
/// # Panics
/// If the shapes do not agree or a position is not in the tables.
pub fn rope(pool: &Pool, x: &mut [f32], positions: &[u32], half: usize, cos: &[f32], sin: &[f32]) {
    if positions.is_empty() {
        return;
    }
    let width = x.len() / positions.len();
    assert!(
        half > 0 && width.is_multiple_of(2 * half),
        "rows hold whole heads"
    );
    rows(pool, x, width, &|first, x| {
        for (x, &position) in x.chunks_exact_mut(width).zip(&positions[first / width..]) {
            let at = position as usize * half;
            rope_row(x, &cos[at..][..half], &sin[at..][..half]);
        }
    });
}

simd! {
fn rope_row(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    for head in x.chunks_exact_mut(2 * cos.len()) {
        let (low, high) = head.split_at_mut(cos.len());
        for (((a, b), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}
}

/// `gate = silu(gate) * up`, `silu(x) = x / (1 + e^-x)`; both `[n, width]`.
///
/// # Panics
/// If the lengths differ.
pub fn silu_mul(pool: &Pool, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "gate and up agree");
    rows(pool, gate, 1, &|first, gate| {
        silu_mul_run(gate, &up[first..][..gate.len()])
    });
}

simd! {
fn silu_mul_run(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp(-*gate)) * up;
    }
}
}

simd! {
/// `x += y`.
///
/// # Panics
/// If the lengths differ.
pub fn add_assign(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len(), "both sides agree");
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
}

simd! {
/// Adds `bias [width]` to every row of `x [n, width]`.
pub fn add_bias(x: &mut [f32], bias: &[f32]) {
    for row in x.chunks_exact_mut(bias.len()) {
        for (x, bias) in row.iter_mut().zip(bias) {
            *x += bias;
        }
    }
}
}

simd! {
/// Softmax of one row in place; all zeros of weight if every entry is minus infinity.
pub fn softmax(x: &mut [f32]) {
    let largest = maximum(x);
    if largest == f32::NEG_INFINITY {
        x.fill(0.0);
        return;
    }
    for x in x.iter_mut() {
        *x = exp(*x - largest);
    }
    let inverse = 1.0 / sum(x);
    for x in x.iter_mut() {
        *x *= inverse;
    }
}
}

simd! {
/// `log softmax(x)` of one row into `out`, e.g. log-probabilities of raw logits.
///
/// # Panics
/// If the lengths differ.
pub fn log_softmax(x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "input and output agree");
    let largest = maximum(x);
    for (out, x) in out.iter_mut().zip(x) {
        *out = exp(*x - largest);
    }
    let shift = largest + sum(out).ln();
    for (out, x) in out.iter_mut().zip(x) {
        *out = x - shift;
    }
}
}

#[inline(always)]
fn maximum(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; 8];
    let (parts, tail) = x.as_chunks::<8>();
    for part in parts {
        for i in 0..8 {
            lanes[i] = larger(lanes[i], part[i]);
        }
    }
    lanes
        .iter()
        .chain(tail)
        .fold(f32::NEG_INFINITY, |a, &b| larger(a, b))
}

#[inline(always)]
fn sum(x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (parts, tail) = x.as_chunks::<8>();
    for part in parts {
        for i in 0..8 {
            lanes[i] += part[i];
        }
    }
    for (lane, x) in lanes.iter_mut().zip(tail) {
        *lane += x;
    }
    fold(lanes)
}

/// Calls `f(first element, rows)` over runs of whole rows of `out`.
fn rows(pool: &Pool, out: &mut [f32], width: usize, f: &(dyn Fn(usize, &mut [f32]) + Sync)) {
    assert!(
        width > 0 && out.len().is_multiple_of(width),
        "whole rows of {width}"
    );
    let len = out.len();
    let run = PER_TASK.div_ceil(width) * width;
    let shards = Shards::new(out);
    pool.run(len.div_ceil(run), &|task| {
        let first = task * run;
        // SAFETY: runs of different tasks do not overlap.
        f(first, unsafe { shards.range(first, run.min(len - first)) });
    });
}
