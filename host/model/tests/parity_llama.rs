//! The Llama family against recorded values of the reference implementation.

mod support;

use stockade_kernels::MatmulPrecision;
use stockade_model::{Decoder, LogitRows};
use support::*;

#[test]
fn llama32_in_f32_agrees_in_logits_greedy_ids_and_log_probabilities() {
    let (name, expected, recorded) = ("llama32-tiny", expected("llama32-tiny"), recorded("llama32-tiny"));
    let mut decoder = load(&fixture(name), MatmulPrecision::F32, 1);
    for (prompt, case) in expected["prompts"].as_object().unwrap() {
        let ids = ids(&case["input_ids"]);
        let want = &recorded[&format!("{prompt}.logits")];
        let got = logits(&mut decoder, &ids);
        assert_close(prompt, &got[got.len() - want.len()..], want, 3e-4);
        let (chosen, logprobs) = greedy(&mut decoder, &ids, 32);
        assert_eq!(chosen, support::ids(&case["greedy_32"]), "{prompt}");
        assert_close("log-probabilities", &logprobs, &floats(&case["greedy_logprob"]), 1e-4);
    }
}

#[test]
fn llama32_continuation_has_the_recorded_log_probabilities() {
    let case = &expected("llama32-tiny")["continuation"];
    let mut decoder = load(&fixture("llama32-tiny"), MatmulPrecision::F32, 1);
    let (context, continuation) = (ids(&case["context_ids"]), ids(&case["continuation_ids"]));
    let logits = logits(&mut decoder, &[&context[..], &continuation[..]].concat());
    let vocab = decoder.spec().vocab;
    let row = |i: usize| log_softmax(&logits[(context.len() - 1 + i) * vocab..][..vocab]);
    let got: Vec<f32> = continuation.iter().enumerate().map(|(i, &id)| row(i)[id as usize]).collect();
    assert_close("continuation", &got, &floats(&case["logprobs"]), 1e-4);
    assert!((got.iter().sum::<f32>() - case["sum"].as_f64().unwrap() as f32).abs() < 1e-2);
}

#[test]
fn llama32_batch_agrees_with_the_padded_reference_batch() {
    let case = &expected("llama32-tiny")["batch"];
    let mut decoder = load(&fixture("llama32-tiny"), MatmulPrecision::F32, 2);
    let (rows, masks) = (&case["right"]["input_ids"], &case["right"]["attention_mask"]);
    let real = |row: usize| -> Vec<u32> {
        let mask = ids(&masks[row]);
        ids(&rows[row]).into_iter().zip(mask).filter(|(_, m)| *m == 1).map(|(id, _)| id).collect()
    };
    let mut sequences: Vec<_> = (0..3).map(|row| Sequence::new(&real(row), 8 * row as u32)).collect();
    let mut got = Vec::new();
    let segments: Vec<_> = sequences.iter().map(|s| s.segment(s.tokens.len(), LogitRows::All)).collect();
    decoder.step(&segments, &mut got, &|| false).unwrap();
    assert_close("batch", &got, &recorded("llama32-tiny")["batch.logits"], 3e-4);

    let vocab = decoder.spec().vocab;
    let mut last: Vec<u32> = Vec::new();
    let mut end = 0;
    for s in &mut sequences {
        end += s.tokens.len();
        last.push(argmax(&got[(end - 1) * vocab..end * vocab]));
        s.done = s.tokens.len();
    }
    for _ in 1..16 {
        sequences.iter_mut().zip(&last).for_each(|(s, &id)| s.tokens.push(id));
        let segments: Vec<_> = sequences.iter().map(|s| s.segment(s.tokens.len(), LogitRows::Last)).collect();
        decoder.step(&segments, &mut got, &|| false).unwrap();
        last = got.chunks_exact(vocab).map(argmax).collect();
        sequences.iter_mut().for_each(|s| s.done = s.tokens.len());
    }
    for (row, s) in sequences.iter().enumerate() {
        let chosen = [&s.tokens[real(row).len()..], &last[row..=row]].concat();
        assert_eq!(chosen, ids(&case["greedy_16"][row]), "row {row}");
    }
}

#[test]
fn both_spellings_of_the_configuration_compute_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let from = fixture("llama32-tiny");
    std::fs::copy(from.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    std::fs::copy(from.join("config.transformers-5.json"), folder.path().join("config.json")).unwrap();
    let mut five = load(folder.path(), MatmulPrecision::F32, 1);
    let mut four = load(&from, MatmulPrecision::F32, 1);
    let prompt = ids(&expected("llama32-tiny")["prompts"]["p130"]["input_ids"]);
    assert_eq!(logits(&mut five, &prompt), logits(&mut four, &prompt));
}

#[test]
fn bf16_shards_agree_when_computed_in_f32() {
    let (name, expected, recorded) =
        ("llama32-tiny-bf16", expected("llama32-tiny-bf16"), recorded("llama32-tiny-bf16"));
    let mut decoder = load(&fixture(name), MatmulPrecision::F32, 1);
    for (prompt, case) in expected["prompts"].as_object().unwrap() {
        let ids = ids(&case["input_ids"]);
        let want = &recorded[&format!("{prompt}.logits_f32_compute")];
        let got = logits(&mut decoder, &ids);
        assert_close(prompt, &got[got.len() - want.len()..], want, 3e-4);
        assert_eq!(greedy(&mut decoder, &ids, 32).0, support::ids(&case["greedy_32_f32_compute"]), "{prompt}");
    }
}

#[test]
fn quantized_files_agree_in_f32_and_stay_near_in_int8() {
    let (expected, recorded) = (expected("llama32-tiny-gguf"), recorded("llama32-tiny-gguf"));
    for (file, case) in expected.as_object().unwrap() {
        let path = fixture("llama32-tiny-gguf").join(file);
        let mut exact = load(&path, MatmulPrecision::F32, 1);
        let mut fast = load(&path, MatmulPrecision::Int8, 1);
        for (prompt, case) in case["prompts"].as_object().unwrap() {
            let what = format!("{file} {prompt}");
            let ids = ids(&case["input_ids"]);
            let want = &recorded[&format!("{file}.{prompt}.logits")];
            let tail = |all: Vec<f32>| all[all.len() - want.len()..].to_vec();
            assert_close(&what, &tail(logits(&mut exact, &ids)), want, 5e-4);
            let margins = floats(&case["greedy_margin"]);
            let greedy_16 = support::ids(&case["greedy_16"]);
            assert_greedy(&what, &greedy(&mut exact, &ids, 16).0, &greedy_16, &margins, 1e-3);

            let int8 = tail(logits(&mut fast, &ids));
            let (largest, mean) = difference(&int8, want);
            let reference = case["int8_activation_diff"]["mean"].as_f64().unwrap() as f32;
            eprintln!("{what}: int8 largest {largest:.3}, mean {mean:.4}; the reference's mean {reference:.4}");
            assert!(mean <= 3.0 * reference, "{what}: mean {mean} exceeds 3 x {reference}");
            let bound = case["int8_activation_diff"]["max"].as_f64().unwrap() as f32;
            assert_greedy(&format!("{what} int8"), &greedy(&mut fast, &ids, 16).0, &greedy_16, &margins, 2.0 * bound);
        }
    }
}

#[test]
fn micro_agrees_as_checkpoint_and_as_gguf() {
    let (expected, recorded) = (expected("llama-micro"), recorded("llama-micro"));
    for (file, case) in expected.as_object().unwrap() {
        let mut gguf = load(&fixture("llama-micro").join(file), MatmulPrecision::F32, 1);
        let mut folder = load(&fixture("llama-micro"), MatmulPrecision::F32, 1);
        for (prompt, case) in case["prompts"].as_object().unwrap() {
            let ids = ids(&case["input_ids"]);
            for (decoder, source) in [(&mut gguf, &file[..]), (&mut folder, "safetensors")] {
                let what = format!("{source} {prompt}");
                let want = &recorded[&format!("{source}.{prompt}.logits")];
                let got = logits(decoder, &ids);
                assert_close(&what, &got[got.len() - want.len()..], want, 1e-4);
                let margins = floats(&case["greedy_margin"]);
                assert_greedy(&what, &greedy(decoder, &ids, 16).0, &support::ids(&case["greedy_16"]), &margins, 1e-4);
            }
        }
    }
}

#[test]
fn mistral_qwen2_and_qwen3_agree() {
    for name in ["mistral-tiny", "qwen2-tiny", "qwen3-tiny"] {
        let (expected, recorded) = (expected(name), recorded(name));
        let mut decoder = load(&fixture(name), MatmulPrecision::F32, 1);
        for (prompt, case) in expected.as_object().unwrap() {
            let what = format!("{name} {prompt}");
            let ids = ids(&case["input_ids"]);
            let want = &recorded[&format!("{prompt}.logits")];
            let got = logits(&mut decoder, &ids);
            assert_close(&what, &got[got.len() - want.len()..], want, 1e-4);
            let margins = floats(&case["greedy_margin"]);
            assert_greedy(&what, &greedy(&mut decoder, &ids, 16).0, &support::ids(&case["greedy_16"]), &margins, 1e-4);
        }
    }
}

#[test]
fn reward_head_scores_the_last_token() {
    let (expected, recorded) = (expected("reward-tiny"), recorded("reward-tiny"));
    let mut decoder = load(&fixture("reward-tiny"), MatmulPrecision::F32, 1);
    assert_eq!(decoder.spec().vocab, 1);
    let cases = expected["cases"].as_array().unwrap();
    let sequences: Vec<_> =
        cases.iter().zip(0..).map(|(case, i)| Sequence::new(&ids(&case["input_ids"]), 16 * i)).collect();
    let segments: Vec<_> = sequences.iter().map(|s| s.segment(s.tokens.len(), LogitRows::Last)).collect();
    let mut scores = Vec::new();
    decoder.step(&segments, &mut scores, &|| false).unwrap();
    assert_close("scores", &scores, &recorded["scores"], 1e-4);
}
