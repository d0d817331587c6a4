//! What a row computes may not depend on the batch, the chunks, the pages or the threads: compared with `==`.

mod support;

use std::path::PathBuf;

use stockade_kernels::MatmulPrecision;
use stockade_model::llama::{self, LoadOptions, MemoryBudget};
use stockade_model::{Checkpoint, Decoder, LogitRows, ModelError, PAGE_TOKENS, Segment};
use support::*;

/// Every family in f32, and quantized files with int8 activations.
fn models() -> Vec<(PathBuf, MatmulPrecision)> {
    let mut models: Vec<_> =
        ["llama32-tiny", "llama32-tiny-bf16", "llama-micro", "mistral-tiny", "qwen2-tiny", "qwen3-tiny"]
            .into_iter()
            .map(|name| (fixture(name), MatmulPrecision::F32))
            .collect();
    for kind in ["Q4_0", "Q8_0", "Q4_K_M"] {
        let file = fixture("llama32-tiny-gguf").join(format!("llama32-tiny-{kind}.gguf"));
        models.extend([MatmulPrecision::Int8, MatmulPrecision::F32].map(|precision| (file.clone(), precision)));
    }
    models
}

/// Ids that differ in every position.
fn prompt(n: usize, salt: u32) -> Vec<u32> {
    (0..n as u32).map(|i| (i * 37 + salt * 101 + 11) % 1000).collect()
}

#[test]
fn batched_rows_equal_single_ones() {
    for (path, precision) in models() {
        let mut decoder = load(&path, precision, 1);
        let prompts: Vec<_> = [1, 7, 33, 64, 100].into_iter().zip(1..).map(|(n, salt)| prompt(n, salt)).collect();
        let single: Vec<f32> = prompts.iter().flat_map(|p| logits(&mut decoder, p)).collect();
        let sequences: Vec<_> = prompts.iter().zip(0..).map(|(p, i)| Sequence::new(p, 8 * i)).collect();
        let segments: Vec<_> = sequences.iter().map(|s| s.segment(s.tokens.len(), LogitRows::All)).collect();
        let mut batched = Vec::new();
        decoder.step(&segments, &mut batched, &|| false).unwrap();
        assert!(batched == single, "{} {precision:?}", path.display());
    }
}

#[test]
fn decoding_in_a_batch_beside_a_prefill_equals_decoding_alone() {
    for (path, precision) in models() {
        let mut decoder = load(&path, precision, 1);
        let alone = Sequence::new(&prompt(50, 1), 0).run_in_steps(&mut decoder, &[49, 50]);
        let mut victim = Sequence::new(&prompt(50, 1), 0);
        victim.run(&mut decoder, 49, LogitRows::None);
        let other = Sequence::new(&prompt(80, 2), 10);
        let mut mixed = Vec::new();
        let segments = [other.segment(80, LogitRows::None), victim.segment(50, LogitRows::Last)];
        decoder.step(&segments, &mut mixed, &|| false).unwrap();
        assert!(mixed == alone, "{} {precision:?}", path.display());
    }
}

#[test]
fn chunked_prefill_equals_a_whole_one() {
    for (path, precision) in models() {
        let mut decoder = load(&path, precision, 1);
        let tokens = prompt(101, 3);
        let whole = logits(&mut decoder, &tokens);
        for ends in [&[1, 2, 3, 101][..], &[32, 64, 96, 101], &[31, 63, 100, 101], &[50, 101]] {
            let mut sequence = Sequence::new(&tokens, 20);
            let chunked: Vec<f32> =
                ends.iter().flat_map(|&end| sequence.run(&mut decoder, end, LogitRows::All)).collect();
            assert!(chunked == whole, "{} {precision:?} cut at {ends:?}", path.display());
        }
        let mut sequence = Sequence::new(&tokens, 40);
        let stepped: Vec<f32> = (1..=101).flat_map(|end| sequence.run(&mut decoder, end, LogitRows::All)).collect();
        assert!(stepped == whole, "{} {precision:?} one by one", path.display());
    }
}

#[test]
fn reused_prefix_pages_equal_recomputed_ones() {
    for (path, precision) in models() {
        let mut decoder = load(&path, precision, 1);
        let shared = prompt(PAGE_TOKENS * 2 + 5, 4);
        let with = |tail: &[u32]| [&shared[..], tail].concat();
        let (first, second) = (with(&[5, 6, 7]), with(&[900, 901, 902, 903]));
        let recomputed = {
            let mut sequence = Sequence::new(&second, 30);
            sequence.run(&mut decoder, shared.len(), LogitRows::None);
            sequence.run(&mut decoder, second.len(), LogitRows::All)
        };
        let mut owner = Sequence::new(&first, 0);
        owner.run(&mut decoder, first.len(), LogitRows::None);
        // The two full pages are shared, the third is copied on write.
        let mut reuser = Sequence::new(&second, 10);
        reuser.pages[..2].copy_from_slice(&owner.pages[..2]);
        decoder.copy_page(owner.pages[2], reuser.pages[2]);
        reuser.done = shared.len();
        let reused = reuser.run(&mut decoder, second.len(), LogitRows::All);
        assert!(reused == recomputed, "{} {precision:?}", path.display());
    }
}

#[test]
fn one_thread_equals_two_and_three() {
    for (path, precision) in models() {
        let run = |threads| logits(&mut load(&path, precision, threads), &prompt(90, 5));
        let one = run(1);
        assert!(one == run(2) && one == run(3), "{} {precision:?}", path.display());
    }
}

#[test]
fn asked_rows_come_in_segment_order() {
    let mut decoder = load(&fixture("llama-micro"), MatmulPrecision::F32, 1);
    let vocab = decoder.spec().vocab;
    let (a, b, c) = (prompt(5, 1), prompt(3, 2), prompt(4, 3));
    let (all_a, all_c) = (logits(&mut decoder, &a), logits(&mut decoder, &c));
    let [a, b, c] = [(&a, 0), (&b, 8), (&c, 16)].map(|(p, page)| Sequence::new(p, page));
    let segments = [a.segment(5, LogitRows::Last), b.segment(3, LogitRows::None), c.segment(4, LogitRows::All)];
    let mut got = vec![f32::NAN; 3];
    decoder.step(&segments, &mut got, &|| false).unwrap();
    assert!(got == [&all_a[4 * vocab..], &all_c[..]].concat());
}

#[test]
fn foreign_steps_are_refused_and_the_next_one_works() {
    let mut decoder = load(&fixture("llama-micro"), MatmulPrecision::F32, 1);
    let context = decoder.spec().context_tokens;
    let good = Segment { tokens: &[1, 2], start: 0, pages: &[0], logits: LogitRows::All, adapter: None };
    let mut out = Vec::new();
    decoder.step(&[good], &mut out, &|| false).unwrap();
    let want = out.clone();
    for (what, bad) in [
        ("unknown token", Segment { tokens: &[1008], ..good }),
        ("no tokens", Segment { tokens: &[], ..good }),
        ("page outside the cache", Segment { pages: &[64], ..good }),
        ("too few pages", Segment { start: 31, ..good }),
        ("beyond the context", Segment { start: context - 1, ..good }),
        ("position overflows", Segment { start: usize::MAX, ..good }),
    ] {
        let error = decoder.step(&[good, bad], &mut out, &|| false).unwrap_err();
        assert!(matches!(error, ModelError::Input(_)), "{what}: {error}");
    }
    decoder.step(&[good], &mut out, &|| false).unwrap();
    assert!(out == want);
}

#[test]
fn a_step_stops_between_layers_when_cancelled() {
    let mut decoder = load(&fixture("llama32-tiny"), MatmulPrecision::F32, 1);
    let asked = std::cell::Cell::new(0);
    let cancelled = || {
        asked.set(asked.get() + 1);
        asked.get() == 2
    };
    let sequence = Sequence::new(&prompt(9, 1), 0);
    let error = decoder.step(&[sequence.segment(9, LogitRows::Last)], &mut Vec::new(), &cancelled).unwrap_err();
    assert!(matches!(error, ModelError::Cancelled));
    assert_eq!(asked.get(), 2, "the third layer did not run");
}

#[test]
fn a_budget_that_is_too_small_is_refused_with_the_sum() {
    let checkpoint = Checkpoint::open(&fixture("llama32-tiny")).unwrap();
    let config = checkpoint.config().unwrap();
    let spec = llama::spec(&checkpoint, &config, Default::default()).unwrap();
    let load = |bytes| {
        let budget = Some(MemoryBudget { bytes, rows: 0, pages: 2 });
        let pool = std::sync::Arc::new(stockade_kernels::Pool::new(1));
        llama::load(&checkpoint, &config, pool, &LoadOptions { budget, ..Default::default() }, &|_, _| ())
    };
    let needed = (spec.weight_bytes + 2 * spec.page_bytes) as u64;
    assert_eq!(load(needed).map(|d| d.spec().clone()).ok(), Some(spec));
    let Err(ModelError::TooLarge { sum, .. }) = load(needed - 1) else { panic!("one byte less is refused") };
    assert!(sum.contains("MiB of weights") && sum.contains("2 pages"), "{sum}");
}

#[test]
fn progress_counts_every_byte_once() {
    let checkpoint = Checkpoint::open(&fixture("qwen2-tiny")).unwrap();
    let config = checkpoint.config().unwrap();
    let largest = std::sync::Mutex::new((0, 0));
    let pool = std::sync::Arc::new(stockade_kernels::Pool::new(2));
    let seen = |done, all| {
        let mut largest = largest.lock().unwrap();
        *largest = (largest.0.max(done), all);
    };
    llama::load(&checkpoint, &config, pool, &LoadOptions::default(), &seen).unwrap();
    let (done, all) = *largest.lock().unwrap();
    assert!(done == all && all > 100_000, "{done} of {all}");
}

impl Sequence {
    /// Runs to each of `ends` and gives the last step's last row.
    fn run_in_steps(mut self, decoder: &mut dyn Decoder, ends: &[usize]) -> Vec<f32> {
        ends.iter().map(|&end| self.run(decoder, end, LogitRows::Last)).last().unwrap()
    }
}
