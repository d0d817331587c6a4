//! Paged attention against a plain f64 softmax, and the rule that any cut of a sequence gives the same bits.

use proptest::prelude::*;
use stockade_kernels::{AttentionSegment, KernelError, KvCache, KvShape, KvType, PAGE_TOKENS, Pool, attention};

fn noise(seed: u64, len: usize) -> Vec<f32> {
    (0..len as u64)
        .map(|i| {
            let mut x = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed.wrapping_mul(0xd134_2543_de82_ef95);
            x = (x ^ x >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (x >> 40) as f32 / (1u64 << 22) as f32 - 2.0
        })
        .collect()
}

/// Queries, keys and values of one sequence.
struct Sequence {
    shape: KvShape,
    tokens: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Sequence {
    fn new(shape: KvShape, tokens: usize, seed: u64) -> Self {
        let kv = tokens * shape.kv_heads * shape.head_dim;
        // Sharper scores than mild noise gives.
        let q = noise(seed, tokens * shape.heads * shape.head_dim).iter().map(|q| q * 2.0).collect();
        Self { shape, tokens, q, k: noise(seed ^ 1, kv), v: noise(seed ^ 2, kv) }
    }

    fn write(&self, cache: &mut KvCache, layer: usize, pages: &[u32], positions: std::ops::Range<usize>) {
        let width = self.shape.kv_heads * self.shape.head_dim;
        for t in positions {
            let (k, v) = (&self.k[t * width..][..width], &self.v[t * width..][..width]);
            cache.write(layer, pages[t / PAGE_TOKENS], t % PAGE_TOKENS, k, v);
        }
    }

    fn plain(&self, window: Option<u32>) -> Vec<f32> {
        let KvShape { heads, kv_heads, head_dim, .. } = self.shape;
        let mut out = Vec::new();
        for i in 0..self.tokens {
            for h in 0..heads {
                let q = &self.q[(i * heads + h) * head_dim..][..head_dim];
                let at = |j: usize| (j * kv_heads + h / (heads / kv_heads)) * head_dim;
                let seen = window.map_or(0, |w| (i + 1).saturating_sub(w as usize))..i + 1;
                let scores: Vec<f64> = seen
                    .clone()
                    .map(|j| {
                        let k = &self.k[at(j)..][..head_dim];
                        q.iter().zip(k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
                            / (head_dim as f64).sqrt()
                    })
                    .collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
                let total: f64 = weights.iter().sum();
                for d in 0..head_dim {
                    let sum: f64 = seen.clone().zip(&weights).map(|(j, w)| w * f64::from(self.v[at(j) + d])).sum();
                    out.push((sum / total) as f32);
                }
            }
        }
        out
    }
}

/// A cache whose every slot of every page holds NaN.
fn poisoned(shape: KvShape, pages: usize) -> KvCache {
    let mut cache = KvCache::new(shape, pages).unwrap();
    let bad = vec![f32::NAN; shape.kv_heads * shape.head_dim];
    for layer in 0..shape.layers {
        for slot in 0..pages * PAGE_TOKENS {
            cache.write(layer, (slot / PAGE_TOKENS) as u32, slot % PAGE_TOKENS, &bad, &bad);
        }
    }
    cache
}

fn shape(heads: usize, kv_heads: usize, head_dim: usize, kv_type: KvType) -> KvShape {
    KvShape { layers: 2, heads, kv_heads, head_dim, kv_type }
}

#[test]
fn attention_agrees_with_a_plain_softmax() {
    let pool = Pool::new(2);
    for (heads, kv_heads, head_dim) in [(1, 1, 8), (9, 3, 64), (4, 4, 16), (8, 2, 128), (6, 1, 40)] {
        for (tokens, window) in [(1, None), (31, None), (33, Some(1)), (100, Some(32)), (70, Some(33)), (96, None)] {
            for (kv_type, tolerance) in [(KvType::F32, 1e-5), (KvType::F16, 1e-2)] {
                let shape = shape(heads, kv_heads, head_dim, kv_type);
                let sequence = Sequence::new(shape, tokens, 7);
                let mut cache = poisoned(shape, 8);
                let pages = [5, 0, 7, 2];
                sequence.write(&mut cache, 1, &pages, 0..tokens);
                let mut out = vec![f32::NAN; sequence.q.len()];
                let segment = AttentionSegment { first_row: 0, rows: tokens, start_position: 0, pages: &pages, window };
                attention(&pool, &cache, 1, &sequence.q, &[segment], &mut out);
                for (i, (got, want)) in out.iter().zip(sequence.plain(window)).enumerate() {
                    assert!(
                        (got - want).abs() <= tolerance,
                        "{heads}/{kv_heads} x {head_dim}, {tokens} tokens, {window:?}, {kv_type:?}: [{i}] {got} for {want}"
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_cut_into_steps_gives_the_same_bits(
        cuts in prop::collection::vec(1..50usize, 1..6),
        group in 1..4usize, kv_heads in 1..4usize, dim in 1..10usize,
        window in prop::option::of(1..80u32), f32_cache: bool, seed: u64,
    ) {
        let kv_type = if f32_cache { KvType::F32 } else { KvType::F16 };
        let shape = shape(group * kv_heads, kv_heads, dim * 8, kv_type);
        let tokens = cuts.iter().sum();
        let width = shape.heads * shape.head_dim;
        let sequence = Sequence::new(shape, tokens, seed);
        let other = Sequence::new(shape, 40, seed ^ 9);
        let other_pages = [14, 15];

        // All at once, on one thread.
        let pages: Vec<u32> = (0..8).collect();
        let mut cache = poisoned(shape, 16);
        sequence.write(&mut cache, 0, &pages, 0..tokens);
        let mut want = vec![f32::NAN; sequence.q.len()];
        let segment = AttentionSegment { first_row: 0, rows: tokens, start_position: 0, pages: &pages, window };
        attention(&Pool::new(1), &cache, 0, &sequence.q, &[segment], &mut want);

        // In steps, in other pages, beside another sequence's decode, on two threads.
        let pool = Pool::new(2);
        let pages: Vec<u32> = (0..8).map(|i| 13 - i).collect();
        let mut cache = poisoned(shape, 16);
        other.write(&mut cache, 0, &other_pages, 0..40);
        let mut got = Vec::new();
        let mut start = 0;
        for rows in cuts {
            sequence.write(&mut cache, 0, &pages, start..start + rows);
            let mut q = other.q[39 * width..].to_vec();
            q.extend(vec![f32::NAN; width]);
            q.extend(&sequence.q[start * width..][..rows * width]);
            let mut out = vec![f32::NAN; q.len()];
            let segments = [
                AttentionSegment { first_row: 0, rows: 1, start_position: 39, pages: &other_pages, window: None },
                AttentionSegment { first_row: 2, rows, start_position: start, pages: &pages, window },
            ];
            attention(&pool, &cache, 0, &q, &segments, &mut out);
            prop_assert!(out[..width].iter().all(|v| v.is_finite()));
            prop_assert!(out[width..2 * width].iter().all(|v| v.is_nan()), "rows of no segment are left alone");
            got.extend_from_slice(&out[2 * width..]);
            start += rows;
        }
        prop_assert_eq!(got, want);
    }
}

#[test]
fn long_contexts_give_the_same_bits_in_prefill_and_decode() {
    for (window, threads) in [(None, 1), (None, 2), (Some(700), 2), (Some(20), 1)] {
        let shape = shape(6, 2, 16, KvType::F16);
        let tokens = 1100;
        let sequence = Sequence::new(shape, tokens, 5);
        let pages: Vec<u32> = (0..35).collect();
        let mut cache = poisoned(shape, 35);
        sequence.write(&mut cache, 0, &pages, 0..tokens);
        let pool = Pool::new(threads);
        let mut prefill = vec![f32::NAN; sequence.q.len()];
        let segment = AttentionSegment { first_row: 0, rows: tokens, start_position: 0, pages: &pages, window };
        attention(&pool, &cache, 0, &sequence.q, &[segment], &mut prefill);
        for (got, want) in prefill.iter().zip(sequence.plain(window)) {
            assert!((got - want).abs() <= 1e-2, "{got} for {want}");
        }
        let width = shape.heads * shape.head_dim;
        for (start, rows) in [(1099, 1), (1024, 1), (1023, 4), (511, 3), (512, 1), (40, 2), (600, 300)] {
            // Twice the same rows in one call, so that partial results of several segments stand side by side.
            let q = [&sequence.q[start * width..][..rows * width]; 2].concat();
            let mut out = vec![f32::NAN; q.len()];
            let segments = [0, rows].map(|first_row| AttentionSegment {
                first_row,
                rows,
                start_position: start,
                pages: &pages,
                window,
            });
            attention(&pool, &cache, 0, &q, &segments, &mut out);
            let want = &prefill[start * width..][..rows * width];
            assert_eq!(&out[..rows * width], want, "{rows} rows at {start}, window {window:?}");
            assert_eq!(&out[rows * width..], want, "{rows} rows at {start}, window {window:?}");
        }
    }
}

#[test]
fn copied_page_reads_like_the_original() {
    let shape = shape(4, 2, 32, KvType::F16);
    let sequence = Sequence::new(shape, 20, 3);
    let mut cache = poisoned(shape, 3);
    (0..2).for_each(|layer| sequence.write(&mut cache, layer, &[0], 0..20));
    cache.copy_page(0, 2);
    for layer in 0..2 {
        let mut outs = [vec![0.0; sequence.q.len()], vec![0.0; sequence.q.len()]];
        for (page, out) in [0, 2].iter().zip(&mut outs) {
            let pages = std::slice::from_ref(page);
            let segment = AttentionSegment { first_row: 0, rows: 20, start_position: 0, pages, window: None };
            attention(&Pool::new(1), &cache, layer, &sequence.q, &[segment], out);
        }
        assert_eq!(outs[0], outs[1]);
        assert!(outs[0].iter().all(|v| v.is_finite()));
    }
}

#[test]
fn odd_cache_shapes_are_refused() {
    for (heads, kv_heads, head_dim) in [(3, 2, 64), (0, 1, 64), (1, 0, 64), (1, 1, 0), (1, 1, 12), (1, 1, 264)] {
        let shape = shape(heads, kv_heads, head_dim, KvType::F16);
        assert!(matches!(KvCache::new(shape, 1), Err(KernelError::KvShape(_))), "{heads} {kv_heads} {head_dim}");
    }
    let shape = shape(8, 8, 64, KvType::F16);
    assert!(matches!(KvCache::new(shape, usize::MAX / 100), Err(KernelError::KvShape(_))));
    assert!(matches!(KvCache::new(shape, 1 << 40), Err(KernelError::Memory { .. })));
    assert_eq!(shape.page_bytes(), Some(2 * 2 * 8 * 64 * 32 * 2));
    assert_eq!(KvCache::new(shape, 3).unwrap().size_bytes(), 3 * shape.page_bytes().unwrap());
}
