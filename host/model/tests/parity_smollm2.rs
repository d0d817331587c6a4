//! The default model, SmolLM2-135M-Instruct in Q4_1, against values of the reference in f32.

mod support;

use serde_json::Value;
use stockade_kernels::MatmulPrecision;
use stockade_model::llama::LlamaDecoder;
use stockade_model::{Decoder, LogitRows};
use support::*;

fn smollm2(precision: MatmulPrecision) -> LlamaDecoder {
    load(&real_models().join("SmolLM2-135M-Instruct.Q4_1.gguf"), precision, 2)
}

fn cases() -> Vec<(String, Value)> {
    let expected = expected("smollm2-135m");
    let named = |kind: &str| expected[kind].as_object().unwrap().clone().into_iter().collect::<Vec<_>>();
    [named("chat"), named("raw")].concat()
}

/// Log-probabilities of the 20 likeliest next tokens, of the prompt as a whole, and greedy ids.
fn compare(precision: MatmulPrecision, top_tolerance: f32, margin: f32, sum_tolerance: f32) {
    let mut decoder = smollm2(precision);
    let vocab = decoder.spec().vocab;
    for (name, case) in cases() {
        let ids = ids(&case["ids"]);
        let logits = logits(&mut decoder, &ids);
        let last = log_softmax(&logits[logits.len() - vocab..]);
        let top: Vec<_> = case["last_top20"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| (pair[0].as_u64().unwrap(), pair[1].as_f64().unwrap()))
            .collect();
        let got: Vec<f32> = top.iter().map(|&(id, _)| last[id as usize]).collect();
        let want: Vec<f32> = top.iter().map(|&(_, logprob)| logprob as f32).collect();
        assert_close(&format!("{name} top 20"), &got, &want, top_tolerance);
        let sum: f32 =
            ids[1..].iter().zip(logits.chunks_exact(vocab)).map(|(&id, row)| log_softmax(row)[id as usize]).sum();
        let want = case["prompt_logprob_sum"].as_f64().unwrap() as f32;
        eprintln!("{name}: prompt {sum:.3}, reference {want:.3}");
        assert!((sum - want).abs() <= sum_tolerance * want.abs(), "{name}: prompt sums to {sum}, not {want}");
        let greedy_ids = support::ids(&case["greedy_ids"]);
        let got = greedy(&mut decoder, &ids, greedy_ids.len()).0;
        assert_greedy(&name, &got, &greedy_ids, &floats(&case["greedy_top1_margin"]), margin);
    }
}

#[test]
fn smollm2_with_int8_activations_stays_inside_the_recorded_tolerance() {
    compare(MatmulPrecision::Int8, 0.3, 0.5, 0.02);
}

#[test]
fn smollm2_in_f32_agrees() {
    compare(MatmulPrecision::F32, 2e-3, 1e-2, 1e-4);
}

#[test]
fn smollm2_batched_chunked_and_reused_runs_are_bit_equal() {
    let mut decoder = smollm2(MatmulPrecision::Int8);
    let prompts: Vec<_> = cases().iter().take(4).map(|(_, case)| ids(&case["ids"])).collect();
    let single: Vec<f32> = prompts.iter().flat_map(|p| logits(&mut decoder, p)).collect();

    let mut sequences: Vec<_> = prompts.iter().zip(0..).map(|(p, i)| Sequence::new(p, 8 * i)).collect();
    let mut first_halves = Vec::new();
    let segments: Vec<_> = sequences.iter().map(|s| s.segment(s.tokens.len() / 2, LogitRows::All)).collect();
    decoder.step(&segments, &mut first_halves, &|| false).unwrap();
    sequences.iter_mut().for_each(|s| s.done = s.tokens.len() / 2);
    let mut second_halves = Vec::new();
    let segments: Vec<_> = sequences.iter().map(|s| s.segment(s.tokens.len(), LogitRows::All)).collect();
    decoder.step(&segments, &mut second_halves, &|| false).unwrap();

    let vocab = decoder.spec().vocab;
    let (mut whole, mut first, mut second) = (&single[..], &first_halves[..], &second_halves[..]);
    for prompt in &prompts {
        let (half, rest) = (prompt.len() / 2 * vocab, prompt.len().div_ceil(2) * vocab);
        assert!(whole[..half] == first[..half] && whole[half..half + rest] == second[..rest]);
        (whole, first, second) = (&whole[half + rest..], &first[half..], &second[rest..]);
    }
    assert!(whole.is_empty() && first.is_empty() && second.is_empty());
}
