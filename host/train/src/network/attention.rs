//! Causal attention of packed documents, by document and head.
//!
//! A task takes a document and a key-value head and walks over blocks of queries; a block's scores against the keys it
//! sees are all that exists at once, and backward makes them again from the log-sum-exp of each row.

use std::ops::Range;

use stockade_kernels::exp;

use super::parallel::Shards;
use super::product::{Into, Products, STEP, Target, View};
use super::simd::{LANES, dot, fold, simd};

/// Queries of a block.
const BLOCK: usize = 64;

/// Sizes of an attention. q, k and v lie side by side in rows of `(H + 2 Hk) D`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    /// `H`
    pub(super) heads: usize,
    /// `Hk`
    pub(super) kv_heads: usize,
    /// `D`
    pub(super) head_dim: usize,
    /// Query i sees keys `i - window < j <= i`.
    pub(super) window: Option<u32>,
}

/// What backward needs of forward.
#[derive(Clone, Copy)]
pub(super) struct Kept<'a> {
    pub(super) qkv: &'a [f32],
    pub(super) out: &'a [f32],
    pub(super) log_sum_exp: &'a [f32],
}

impl Heads {
    /// Width of a row of q, k and v.
    pub(super) fn width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    pub(super) fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// The rows of the block that begins at row `first` of a document, and the keys that it is multiplied with: those it
    /// sees, from the step below on.
    fn block(&self, first: usize, len: usize) -> (usize, Range<usize>) {
        let rows = BLOCK.min(len - first);
        (rows, self.first_key(first) / STEP * STEP..first + rows)
    }

    /// First key that row `i` of a document sees.
    pub(super) fn first_key(&self, i: usize) -> usize {
        self.window.map_or(0, |window| (i + 1).saturating_sub(window as usize))
    }
}

/// `out [N, H D]` and the log-sum-exp of each row's scores `[H, N]`. `ends` are those of the documents.
pub(super) fn forward(
    products: &Products,
    heads: Heads,
    qkv: &[f32],
    ends: &[usize],
    out: &mut [f32],
    log_sum_exp: &mut [f32],
) {
    let Heads { heads: h, kv_heads, head_dim: d, .. } = heads;
    let (n, width, group) = (qkv.len() / heads.width(), heads.width(), h / kv_heads);
    let (out, sums) = (Shards::new(out), Shards::new(log_sum_exp));
    products.pool.run(ends.len() * kv_heads, &|task| {
        let (document, kv_head) = (task / kv_heads, task % kv_heads);
        let (start, len) = span(ends, document);
        let (_, k, v) = columns(heads, 0, kv_head);
        let seen = products.ready(View::strided(&qkv[start * width + k..], len, d, width).t());
        let values = products.ready(View::strided(&qkv[start * width + v..], len, d, width));
        let mut scores = vec![0.0; BLOCK.min(len) * len];
        for head in kv_head * group..(kv_head + 1) * group {
            let (q, ..) = columns(heads, head, kv_head);
            // SAFETY: one task for each document and key-value head; nobody else writes these rows of its heads.
            let sums = unsafe { sums.part(head * n + start, len) };
            for first in (0..len).step_by(BLOCK) {
                let (rows, keys) = heads.block(first, len);
                let (low, scores) = (keys.start, &mut scores[..rows * keys.len()]);
                let queries = View::strided(&qkv[(start + first) * width + q..], rows, d, width);
                let target = Target::new(scores, rows, keys.len());
                products.multiply_ready(queries, &seen, (0..d, keys.clone()), heads.scale(), Into::Set, target);
                let mut weights = [0.0; BLOCK];
                for (row, scores) in scores.chunks_exact_mut(keys.len()).enumerate() {
                    let i = first + row;
                    let (sum, log_sum_exp) = soften(scores, heads.first_key(i) - low, i + 1 - low);
                    weights[row] = 1.0 / sum;
                    sums[i] = log_sum_exp;
                }
                let at = (start + first) * h * d + head * d;
                // SAFETY: as above.
                let target = unsafe { Target::shared(out, at, rows, d, h * d) };
                let scores = View::new(scores, rows, keys.len());
                products.multiply_ready(scores, &values, (keys, 0..d), 1.0, Into::Set, target);
                for (row, weight) in weights[..rows].iter().enumerate() {
                    // SAFETY: as above.
                    let out = unsafe { out.part(at + row * h * d, d) };
                    out.iter_mut().for_each(|x| *x *= weight);
                }
            }
        }
    });
}

/// Writes the gradients of q, k and v to `d_qkv`, whose rows are as those of `qkv`.
pub(super) fn backward(
    products: &Products,
    heads: Heads,
    kept: Kept<'_>,
    ends: &[usize],
    d_out: &[f32],
    d_qkv: &mut [f32],
) {
    let Kept { qkv, out, log_sum_exp } = kept;
    let Heads { heads: h, kv_heads, head_dim: d, .. } = heads;
    let (n, width, group) = (qkv.len() / heads.width(), heads.width(), h / kv_heads);
    let d_qkv = Shards::new(d_qkv);
    products.pool.run(ends.len() * kv_heads, &|task| {
        let (document, kv_head) = (task / kv_heads, task % kv_heads);
        let (start, len) = span(ends, document);
        let (_, k, v) = columns(heads, 0, kv_head);
        let [all_keys, all_values] = [k, v].map(|column| View::strided(&qkv[start * width + column..], len, d, width));
        let (by_keys, by_values) = (products.ready(all_keys.t()), products.ready(all_values.t()));
        let all_keys = products.ready(all_keys);
        let mut scores = vec![0.0; BLOCK.min(len) * len];
        let mut d_scores = vec![0.0; BLOCK.min(len) * len];
        // SAFETY: one task for each document and key-value head; its query heads follow one another.
        let target = |row: usize, column: usize, rows: usize| unsafe {
            Target::shared(d_qkv, (start + row) * width + column, rows, d, width)
        };
        for head in kv_head * group..(kv_head + 1) * group {
            let (q, ..) = columns(heads, head, kv_head);
            for first in (0..len).step_by(BLOCK) {
                let (rows, keys) = heads.block(first, len);
                let (low, count) = (keys.start, keys.len());
                let (scores, d_scores) = (&mut scores[..rows * count], &mut d_scores[..rows * count]);
                let queries = View::strided(&qkv[(start + first) * width + q..], rows, d, width);
                let at = (start + first) * h * d + head * d;
                let d_rows = View::strided(&d_out[at..], rows, d, h * d);
                for (rows_of, by, scale, to) in
                    [(queries, &by_keys, heads.scale(), &mut *scores), (d_rows, &by_values, 1.0, &mut *d_scores)]
                {
                    let target = Target::new(to, rows, count);
                    products.multiply_ready(rows_of, by, (0..d, keys.clone()), scale, Into::Set, target);
                }
                for (row, (scores, d_scores)) in
                    scores.chunks_exact_mut(count).zip(d_scores.chunks_exact_mut(count)).enumerate()
                {
                    let (i, at) = (first + row, at + row * h * d);
                    let delta = row_dot(&d_out[at..][..d], &out[at..][..d]);
                    let sum = log_sum_exp[head * n + start + i];
                    let visible = (heads.first_key(i) - low, i + 1 - low);
                    differentiate(scores, d_scores, visible, sum, delta, heads.scale());
                }
                let (scores, d_scores) = (View::new(scores, rows, count), View::new(d_scores, rows, count));
                products.multiply_ready(d_scores, &all_keys, (keys, 0..d), 1.0, Into::Set, target(first, q, rows));
                // Keys that no earlier block has seen hold nothing yet.
                let fresh = if head == kv_head * group { first - low } else { count };
                for (weights, by, column) in [(d_scores, queries, k), (scores, d_rows, v)] {
                    let by = products.ready(by);
                    let (old, new) = weights.split_columns(fresh);
                    for (part, row, into) in [(old, low, Into::Add), (new, low + fresh, Into::Set)] {
                        let target = target(row, column, part.cols);
                        products.multiply_ready(part.t(), &by, (0..rows, 0..d), 1.0, into, target);
                    }
                }
            }
        }
    });
}

/// Start and length of a document.
fn span(ends: &[usize], document: usize) -> (usize, usize) {
    let start = if document == 0 { 0 } else { ends[document - 1] };
    (start, ends[document] - start)
}

/// First columns of q, k and v in a row.
fn columns(heads: Heads, head: usize, kv_head: usize) -> (usize, usize, usize) {
    let Heads { heads: h, kv_heads, head_dim: d, .. } = heads;
    (head * d, (h + kv_head) * d, (h + kv_heads + kv_head) * d)
}

simd! {
/// Scores to weights relative to the largest: `e^(s - max)` for the keys `low..high`, 0 for others. Gives the sum and
/// the log-sum-exp.
fn soften(scores: &mut [f32], low: usize, high: usize) -> (f32, f32) {
    scores[..low].fill(0.0);
    scores[high..].fill(0.0);
    let seen = &mut scores[low..high];
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (parts, tail) = seen.as_chunks::<LANES>();
    for part in parts {
        for i in 0..LANES {
            lanes[i] = if part[i] > lanes[i] { part[i] } else { lanes[i] };
        }
    }
    let largest = lanes.iter().chain(tail).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
    let mut lanes = [0.0f32; LANES];
    let (parts, tail) = seen.as_chunks_mut::<LANES>();
    for part in parts {
        for i in 0..LANES {
            part[i] = exp(part[i] - largest);
            lanes[i] += part[i];
        }
    }
    for (lane, x) in lanes.iter_mut().zip(tail) {
        *x = exp(*x - largest);
        *lane += *x;
    }
    let sum = fold(lanes);
    (sum, largest + sum.ln())
}
}

simd! {
/// Scores to weights p, and the weights' gradients to those of q k: `p (dp - delta) scale`.
fn differentiate(
    scores: &mut [f32],
    d_scores: &mut [f32],
    visible: (usize, usize),
    log_sum_exp: f32,
    delta: f32,
    scale: f32,
) {
    let (low, high) = visible;
    for hidden in [0..low, high..scores.len()] {
        scores[hidden.clone()].fill(0.0);
        d_scores[hidden].fill(0.0);
    }
    for (p, d) in scores[low..high].iter_mut().zip(&mut d_scores[low..high]) {
        *p = exp(*p - log_sum_exp);
        *d = *p * (*d - delta) * scale;
    }
}
}

simd! {
fn row_dot(a: &[f32], b: &[f32]) -> f32 {
    dot(a, b)
}
}
