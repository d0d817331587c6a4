//! Causal attention of query rows over paged keys and values.
//!
//! Each row and head runs an online softmax over pages of 32 keys, counted from position 0 and merged in
//! order. What a row computes depends on its position alone, so decode, prefill in any chunks and a reused
//! prefix agree bit for bit. Query heads of one kv head share the decoded page.
//!
//! Source: Milakov & Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022, "FlashAttention", arXiv:2205.14135.

use std::cell::Cell;

use crate::isa::isa;
use crate::kv::{KvCache, KvType, PAGE_TOKENS};
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

/// `out[n, h] = sum over j of softmax_j(q[n, h] . k[j] / sqrt(D)) v[j]` for the rows of all segments.
///
/// Keys and values of the rows themselves must have been written before.
///
/// # Shapes
/// - `q`, `out`: `[n, heads, head_dim]`; rows of no segment are left alone
///
/// # Panics
/// If a row lies outside `q`, a position outside its segment's pages, a page outside the cache, a window
/// is 0, or segments share rows.
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
        assert!(
            segment.first_row >= next_row,
            "segments are in order of rows and do not overlap"
        );
        next_row = segment.first_row + segment.rows;
        assert!(next_row * width <= q.len(), "rows are inside the queries");
        let end = segment.start_position + segment.rows;
        assert!(
            end <= segment.pages.len() * PAGE_TOKENS,
            "positions are inside the pages"
        );
        assert_ne!(
            segment.window,
            Some(0),
            "a window sees at least its own row"
        );
    }
    let blocks = |segment: &AttentionSegment<'_>| segment.rows.div_ceil(ROWS_PER_TASK);
    let tasks = segments.iter().map(blocks).sum::<usize>() * shape.kv_heads;
    let shards = Shards::new(out);
    pool.run(tasks, &|task| {
        let (mut block, kv_head) = (task / shape.kv_heads, task % shape.kv_heads);
        let Some(segment) = segments.iter().find(|segment| {
            let here = block < blocks(segment);
            block -= if here { 0 } else { blocks(segment) };
            here
        }) else {
            return;
        };
        let first = block * ROWS_PER_TASK;
        let rows = first..segment.rows.min(first + ROWS_PER_TASK);
        let mut scratch = SCRATCH.take();
        attend(
            &mut scratch,
            cache,
            layer,
            kv_head,
            segment,
            rows,
            q,
            &shards,
        );
        SCRATCH.set(scratch);
    });
}

thread_local! {
    static SCRATCH: Cell<Scratch> = const { Cell::new(Scratch { keys: Vec::new(), values: Vec::new(), states: Vec::new() }) };
}

#[derive(Default)]
struct Scratch {
    /// `[D][32]`
    keys: Vec<f32>,
    /// `[32][D]`
    values: Vec<f32>,
    states: Vec<State>,
}

/// One row and head on its way over the pages.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct State {
    /// The query, scaled: `[D]`.
    pub q: Vec<f32>,
    /// Sum of the values, each weighted with `e^(score - largest)`.
    pub out: Vec<f32>,
    pub largest: f32,
    /// Sum of the weights.
    pub total: f32,
}

#[allow(
    clippy::too_many_arguments,
    reason = "one task of `attention`, cut out for readability"
)]
fn attend(
    scratch: &mut Scratch,
    cache: &KvCache,
    layer: usize,
    kv_head: usize,
    segment: &AttentionSegment<'_>,
    rows: std::ops::Range<usize>,
    q: &[f32],
    out: &Shards<'_, f32>,
) {
    let shape = cache.shape();
    let dim = shape.head_dim;
    let group = shape.heads / shape.kv_heads;
    let scale = 1.0 / (dim as f32).sqrt();
    let at = |row: usize, g: usize| {
        ((segment.first_row + row) * shape.heads + kv_head * group + g) * dim
    };
    scratch.keys.resize(dim * PAGE_TOKENS, 0.0);
    scratch.values.resize(dim * PAGE_TOKENS, 0.0);
    let blank = State {
        q: Vec::new(),
        out: Vec::new(),
        largest: f32::NEG_INFINITY,
        total: 0.0,
    };
    scratch.states.resize(rows.len() * group, blank);
    for (i, state) in scratch.states.iter_mut().enumerate() {
        let q = &q[at(rows.start + i / group, i % group)..][..dim];
        state.q.clear();
        state.q.extend(q.iter().map(|q| q * scale));
        state.out.clear();
        state.out.resize(dim, 0.0);
        (state.largest, state.total) = (f32::NEG_INFINITY, 0.0);
    }

    let seen = |row: usize| {
        let position = segment.start_position + row;
        let first = segment
            .window
            .map_or(0, |window| (position + 1).saturating_sub(window as usize));
        first..position + 1
    };
    let (first_key, end_key) = (seen(rows.start).start, seen(rows.end - 1).end);
    for page in first_key / PAGE_TOKENS..end_key.div_ceil(PAGE_TOKENS) {
        let (keys, values) = cache.planes(layer, segment.pages[page], kv_head);
        load(shape.kv_type, keys, &mut scratch.keys);
        load(shape.kv_type, values, &mut scratch.values);
        let base = page * PAGE_TOKENS;
        for (i, state) in scratch.states.iter_mut().enumerate() {
            let seen = seen(rows.start + i / group);
            let (from, to) = (
                seen.start.saturating_sub(base),
                seen.end.saturating_sub(base).min(PAGE_TOKENS),
            );
            if from < to {
                // SAFETY: the table is that of this processor; the page holds 32 keys and values of D.
                unsafe { (isa().attend)(state, &scratch.keys, &scratch.values, from..to) };
            }
        }
    }
    for (i, state) in scratch.states.iter().enumerate() {
        // SAFETY: the rows and heads of different tasks differ, since segments share no rows.
        let out = unsafe { out.range(at(rows.start + i / group, i % group), dim) };
        let inverse = 1.0 / state.total;
        out.iter_mut()
            .zip(&state.out)
            .for_each(|(out, sum)| *out = sum * inverse);
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
                (0..len)
                    .map(|i| ((i * 7919 + seed * 31) % 1009) as f32 / 200.0 - 2.5)
                    .collect()
            };
            let (keys, values) = (noise(1, 32 * dim), noise(2, 32 * dim));
            let mut got = State {
                q: noise(3, dim),
                out: vec![0.0; dim],
                largest: f32::NEG_INFINITY,
                total: 0.0,
            };
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
