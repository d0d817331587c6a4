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
    rows(pool, out, width, &|first, out| rms_norm_rows(&x[first..][..out.len()], weight, eps, out));
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
    assert!(half > 0 && width.is_multiple_of(2 * half), "rows hold whole heads");
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
    rows(pool, gate, 1, &|first, gate| silu_mul_run(gate, &up[first..][..gate.len()]));
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
    lanes.iter().chain(tail).fold(f32::NEG_INFINITY, |a, &b| larger(a, b))
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
    assert!(width > 0 && out.len().is_multiple_of(width), "whole rows of {width}");
    let len = out.len();
    let run = PER_TASK.div_ceil(width) * width;
    let shards = Shards::new(out);
    pool.run(len.div_ceil(run), &|task| {
        let first = task * run;
        // SAFETY: runs of different tasks do not overlap.
        f(first, unsafe { shards.range(first, run.min(len - first)) });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 + 13) % 1009) as f32 / 100.0 - 5.0).collect()
    }

    fn assert_close(got: &[f32], want: impl IntoIterator<Item = f64>) {
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            assert!((f64::from(*got) - want).abs() <= 1e-6 + 2e-6 * want.abs(), "[{i}] {got} for {want}");
        }
    }

    #[test]
    fn rms_norm_agrees_with_f64_and_its_rows() {
        let pool = Pool::new(2);
        for (n, width) in [(1, 1), (1, 576), (3, 7), (40, 1025)] {
            let (x, weight) = (noise(n * width), noise(width));
            let mut out = vec![f32::NAN; n * width];
            rms_norm(&pool, &x, &weight, 1e-5, &mut out);
            for (x, out) in x.chunks_exact(width).zip(out.chunks_exact(width)) {
                let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / width as f64;
                let scale = 1.0 / (mean + 1e-5).sqrt();
                assert_close(out, x.iter().zip(&weight).map(|(x, w)| f64::from(*x) * scale * f64::from(*w)));
                let mut single = vec![f32::NAN; width];
                rms_norm(&pool, x, &weight, 1e-5, &mut single);
                assert_eq!(single, out);
            }
        }
    }

    #[test]
    fn rope_turns_pairs_half_a_head_apart() {
        let (heads, half) = (3, 4);
        let angle = |t: usize, i: usize| t as f64 / 10f64.powi(i as i32);
        let table =
            |f: fn(f64) -> f64| -> Vec<f32> { (0..20 * half).map(|i| f(angle(i / half, i % half)) as f32).collect() };
        let (cos, sin) = (table(f64::cos), table(f64::sin));
        let positions = [0u32, 19, 7];
        let x = noise(3 * heads * 2 * half);
        let mut got = x.clone();
        rope(&Pool::new(2), &mut got, &positions, half, &cos, &sin);
        let want = x.chunks_exact(2 * half).enumerate().flat_map(|(row, head)| {
            let position = positions[row / heads] as usize;
            (0..2 * half).map(move |i| {
                let (sin, cos) = angle(position, i % half).sin_cos();
                let (a, b) = (f64::from(head[i % half]), f64::from(head[i % half + half]));
                if i < half { a * cos - b * sin } else { b * cos + a * sin }
            })
        });
        assert_close(&got, want);
        assert_eq!(got[..heads * 2 * half], x[..heads * 2 * half], "position 0 turns nothing");
    }

    #[test]
    fn silu_mul_agrees_with_f64_for_large_inputs_too() {
        let mut gate = noise(40_000);
        gate[..4].copy_from_slice(&[100.0, -100.0, 0.0, -87.0]);
        let up = noise(40_000);
        let want: Vec<f64> =
            gate.iter().zip(&up).map(|(&g, &u)| f64::from(g) / (1.0 + (-f64::from(g)).exp()) * f64::from(u)).collect();
        silu_mul(&Pool::new(2), &mut gate, &up);
        assert_close(&gate, want);
    }

    #[test]
    fn softmax_and_its_logarithm_agree_with_f64() {
        for len in [1, 7, 8, 1000] {
            let mut x = noise(len);
            x[0] = 90.0;
            let largest = x.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(f64::from(b)));
            let total: f64 = x.iter().map(|&x| (f64::from(x) - largest).exp()).sum();
            let mut logs = vec![f32::NAN; len];
            log_softmax(&x, &mut logs);
            assert_close(&logs, x.iter().map(|&x| f64::from(x) - largest - total.ln()));
            let want: Vec<f64> = x.iter().map(|&x| (f64::from(x) - largest).exp() / total).collect();
            softmax(&mut x);
            assert_close(&x, want);
        }
        let mut masked = [f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY];
        softmax(&mut masked);
        assert_eq!(masked, [0.0, 1.0, 0.0]);
    }

    #[test]
    fn additions_are_row_by_row() {
        let mut x = noise(30);
        let before = x.clone();
        add_bias(&mut x, &noise(10));
        assert!(x.iter().zip(&before).enumerate().all(|(i, (x, b))| *x == b + noise(10)[i % 10]));
        add_assign(&mut x, &before);
        assert!(x.iter().zip(&before).enumerate().all(|(i, (x, b))| *x == b + noise(10)[i % 10] + b));
    }
}
