//! Causal attention of query rows over paged keys and values.
//!
//! Each row and head runs an online softmax over pages of 32 keys counted from position 0; every 16 pages
//! are a *span* with a softmax of its own, and spans are merged in order. What a row computes depends on its
//! position alone, so decode, prefill in any chunks and a reused prefix agree bit for bit. Few rows over a
//! long context are shared out by spans, many rows by rows; the arithmetic is the same. Query heads of one
//! kv head share the widened page.
//!
//! Source: Milakov & Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022, "FlashAttention", arXiv:2205.14135.

use std::cell::Cell;
use std::ops::Range;

use crate::exp::exp;
use crate::isa::{isa, simd};
use crate::kv::{KvCache, KvShape, KvType, PAGE_TOKENS};
use crate::pool::{Pool, Shards};

/// Consecutive rows of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct AttentionSegment<'a> {
    /// Index of the first row in `q` and `out`.
    pub first_row: usize,
    pub rows: usize,
    /// Position of the first row, in tokens.
    pub start_position: usize,
    /// The sequence's pages from position 0 on; those wholly before every row's window are not read.
    pub pages: &'a [u32],
    /// Row i sees keys `i - window < j <= i`, itself included; `None` sees all up to itself.
    pub window: Option<u32>,
}

/// Query rows that share one walk over the pages.
const ROWS_PER_TASK: usize = 16;
/// Pages with a softmax of their own: the unit in which the context of few rows is shared out.
const SPAN_PAGES: usize = 16;
/// Segments of at most so many rows (decode, drafts) are shared out by spans.
const FEW_ROWS: usize = 4;

/// `out[n, h] = sum over j of softmax_j(q[n, h] . k[j] / sqrt(D)) v[j]` for the rows of all segments.
///
/// Keys and values of the rows themselves must have been written before.
///
/// # Shapes
/// - `q`, `out`: `[n, heads, head_dim]`; rows of no segment are left alone
///
/// # Panics
/// If a row lies outside `q`, a position outside its segment's pages, a page outside the cache, a window
/// is 0, or segments are not in order of rows without overlap.
pub fn attention(
    pool: &Pool,
    cache: &KvCache,
    layer: usize,
    q: &[f32],
    segments: &[AttentionSegment<'_>],
    out: &mut [f32],
) {
    let shape = *cache.shape();
    let width = shape.heads * shape.head_dim;
    assert_eq!(q.len(), out.len(), "queries and output agree");
    let mut next_row = 0;
    for segment in segments {
        assert!(segment.first_row >= next_row, "segments are in order of rows and do not overlap");
        next_row = segment.first_row + segment.rows;
        assert!(next_row * width <= q.len(), "rows are inside the queries");
        let end = segment.start_position + segment.rows;
        assert!(end <= segment.pages.len() * PAGE_TOKENS, "positions are inside the pages");
        assert_ne!(segment.window, Some(0), "a window sees at least its own row");
    }

    let mut pieces = Vec::new();
    let mut partials_len = 0;
    for segment in segments {
        for first in (0..segment.rows).step_by(ROWS_PER_TASK) {
            let rows = first..segment.rows.min(first + ROWS_PER_TASK);
            let spans = segment.spans(&rows);
            if segment.rows <= FEW_ROWS && spans.len() > 1 {
                for span in spans {
                    let partials = Some(partials_len);
                    pieces.push(Piece { segment, rows: rows.clone(), spans: span..span + 1, partials });
                    partials_len += rows.len() * shape.heads * (shape.head_dim + 2);
                }
            } else {
                pieces.push(Piece { segment, rows, spans, partials: None });
            }
        }
    }
    let mut partials = PARTIALS.take();
    partials.resize(partials_len, 0.0);
    let shared_out = Shards::new(out);
    let shared_partials = Shards::new(&mut partials);
    pool.run(pieces.len() * shape.kv_heads, &|task| {
        let (piece, kv_head) = (&pieces[task / shape.kv_heads], task % shape.kv_heads);
        let mut scratch = SCRATCH.take();
        piece.walk(&mut scratch, cache, layer, kv_head, q);
        for (i, state) in scratch.totals.iter().enumerate() {
            // SAFETY: pieces differ in rows or in their place among the partial results, tasks of one piece
            // in heads, since segments share no rows.
            unsafe {
                match piece.partials {
                    None => state.finish(shared_out.range(piece.output(&shape, kv_head, i), shape.head_dim)),
                    Some(first) => {
                        let at = first + (kv_head * scratch.totals.len() + i) * (shape.head_dim + 2);
                        state.save(shared_partials.range(at, shape.head_dim + 2));
                    }
                }
            }
        }
        SCRATCH.set(scratch);
    });
    merge_partials(&shape, &pieces, &partials, out);
    PARTIALS.set(partials);
}

thread_local! {
    // Memory of one task, and of the partial results of one call, used again by the next.
    static SCRATCH: Cell<Scratch> = const { Cell::new(Scratch::EMPTY) };
    static PARTIALS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

struct Scratch {
    /// `[D][32]`
    keys: Vec<f32>,
    /// `[32][D]`
    values: Vec<f32>,
    /// Of the current span, and of all before: `[row][query head of the group]`.
    states: Vec<State>,
    totals: Vec<State>,
}

impl Scratch {
    const EMPTY: Self = Self { keys: Vec::new(), values: Vec::new(), states: Vec::new(), totals: Vec::new() };
}

impl Default for Scratch {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// One row and head on its way over the keys.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct State {
    /// The query, scaled: `[D]`; empty in totals.
    pub q: Vec<f32>,
    /// Sum of the values, each weighted with `e^(score - largest)`.
    pub out: Vec<f32>,
    pub largest: f32,
    /// Sum of the weights.
    pub total: f32,
}

impl State {
    const EMPTY: Self = Self { q: Vec::new(), out: Vec::new(), largest: f32::NEG_INFINITY, total: 0.0 };

    fn reset(&mut self, dim: usize) {
        self.out.clear();
        self.out.resize(dim, 0.0);
        (self.largest, self.total) = (f32::NEG_INFINITY, 0.0);
    }

    fn finish(&self, out: &mut [f32]) {
        let inverse = 1.0 / self.total;
        out.iter_mut().zip(&self.out).for_each(|(out, sum)| *out = sum * inverse);
    }

    fn save(&self, out: &mut [f32]) {
        (out[0], out[1]) = (self.largest, self.total);
        out[2..].copy_from_slice(&self.out);
    }
}

/// Rows of a segment and spans of its keys that one task per kv head walks.
struct Piece<'a> {
    segment: &'a AttentionSegment<'a>,
    rows: Range<usize>,
    spans: Range<usize>,
    /// Where `[kv head][row][query head of the group][largest, total, out]` go, if spans are merged later.
    partials: Option<usize>,
}

impl AttentionSegment<'_> {
    /// Keys that a row sees.
    fn seen(&self, row: usize) -> Range<usize> {
        let end = self.start_position + row + 1;
        self.window.map_or(0, |window| end.saturating_sub(window as usize))..end
    }

    /// Spans that some of the rows see.
    fn spans(&self, rows: &Range<usize>) -> Range<usize> {
        const TOKENS: usize = SPAN_PAGES * PAGE_TOKENS;
        self.seen(rows.start).start / TOKENS..self.seen(rows.end - 1).end.div_ceil(TOKENS)
    }
}

impl Piece<'_> {
    /// Leaves the merged spans of every row and head of the group in `scratch.totals`.
    fn walk(&self, scratch: &mut Scratch, cache: &KvCache, layer: usize, kv_head: usize, q: &[f32]) {
        let shape = cache.shape();
        let dim = shape.head_dim;
        let group = shape.heads / shape.kv_heads;
        let scale = 1.0 / (dim as f32).sqrt();
        let count = self.rows.len() * group;
        scratch.keys.resize(dim * PAGE_TOKENS, 0.0);
        scratch.values.resize(dim * PAGE_TOKENS, 0.0);
        scratch.states.resize(count, State::EMPTY);
        scratch.totals.resize(count, State::EMPTY);
        for (i, state) in scratch.states.iter_mut().enumerate() {
            state.q.clear();
            state.q.extend(q[self.output(shape, kv_head, i)..][..dim].iter().map(|q| q * scale));
        }
        scratch.totals.iter_mut().for_each(|total| total.reset(dim));

        let first_page = self.segment.seen(self.rows.start).start / PAGE_TOKENS;
        let end_page = self.segment.seen(self.rows.end - 1).end.div_ceil(PAGE_TOKENS);
        for span in self.spans.clone() {
            scratch.states.iter_mut().for_each(|state| state.reset(dim));
            for page in first_page.max(span * SPAN_PAGES)..end_page.min((span + 1) * SPAN_PAGES) {
                let (keys, values) = cache.planes(layer, self.segment.pages[page], kv_head);
                load(shape.kv_type, keys, &mut scratch.keys);
                load(shape.kv_type, values, &mut scratch.values);
                let base = page * PAGE_TOKENS;
                for (i, state) in scratch.states.iter_mut().enumerate() {
                    let seen = self.segment.seen(self.rows.start + i / group);
                    let (from, to) = (seen.start.saturating_sub(base), seen.end.saturating_sub(base).min(PAGE_TOKENS));
                    if from < to {
                        // SAFETY: the table is that of this processor; the page holds 32 keys and values of D.
                        unsafe { (isa().attend)(state, &scratch.keys, &scratch.values, from..to) };
                    }
                }
            }
            for (total, state) in scratch.totals.iter_mut().zip(&scratch.states) {
                merge(total, state.largest, state.total, &state.out);
            }
        }
    }

    /// Index in queries and output of the `i`th row and head of a kv head's group.
    fn output(&self, shape: &KvShape, kv_head: usize, i: usize) -> usize {
        let group = shape.heads / shape.kv_heads;
        let row = self.segment.first_row + self.rows.start + i / group;
        (row * shape.heads + kv_head * group + i % group) * shape.head_dim
    }
}

/// Merges the spans of pieces that were shared out, in order.
fn merge_partials(shape: &KvShape, pieces: &[Piece<'_>], partials: &[f32], out: &mut [f32]) {
    let stride = shape.head_dim + 2;
    let mut total = State::EMPTY;
    for run in pieces.chunk_by(|a, b| b.partials.is_some() && std::ptr::eq(a.segment, b.segment)) {
        if run[0].partials.is_none() {
            continue;
        }
        let count = run[0].rows.len() * shape.heads / shape.kv_heads;
        for (i, kv_head) in (0..count).flat_map(|i| (0..shape.kv_heads).map(move |head| (i, head))) {
            total.reset(shape.head_dim);
            for first in run.iter().filter_map(|piece| piece.partials) {
                let part = &partials[first + (kv_head * count + i) * stride..][..stride];
                merge(&mut total, part[0], part[1], &part[2..]);
            }
            total.finish(&mut out[run[0].output(shape, kv_head, i)..][..shape.head_dim]);
        }
    }
}

simd! {
/// Merges the softmax of one span into that of the spans before; a span without keys changes nothing.
fn merge(total: &mut State, largest: f32, weight: f32, out: &[f32]) {
    if weight == 0.0 {
        return;
    }
    let common = if largest > total.largest { largest } else { total.largest };
    let (before, now) = (exp(total.largest - common), exp(largest - common));
    total.largest = common;
    total.total = total.total.mul_add(before, weight * now);
    for (sum, out) in total.out.iter_mut().zip(out) {
        *sum = sum.mul_add(before, out * now);
    }
}
}

fn load(ty: KvType, bytes: &[u8], out: &mut [f32]) {
    match ty {
        // SAFETY: the table is that of this processor.
        KvType::F16 => unsafe { (isa().widen)(bytes, out) },
        KvType::F32 => {
            for (out, &bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *out = f32::from_le_bytes(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::PORTABLE;

    #[test]
    fn simd_step_equals_the_portable_one_bit_for_bit() {
        for dim in [8, 24, 64, 72, 128] {
            let noise = |seed: usize, len: usize| -> Vec<f32> {
                (0..len).map(|i| ((i * 7919 + seed * 31) % 1009) as f32 / 200.0 - 2.5).collect()
            };
            let (keys, values) = (noise(1, 32 * dim), noise(2, 32 * dim));
            let mut got = State { q: noise(3, dim), out: vec![0.0; dim], largest: f32::NEG_INFINITY, total: 0.0 };
            let mut want = got.clone();
            for seen in [0..32, 5..6, 31..32, 0..17, 9..30] {
                // SAFETY: the table is that of this processor, the sizes are right.
                unsafe { (isa().attend)(&mut got, &keys, &values, seen.clone()) };
                // SAFETY: the portable table runs anywhere.
                unsafe { (PORTABLE.attend)(&mut want, &keys, &values, seen) };
                assert_eq!(got, want, "D = {dim}");
            }
        }
    }
}
