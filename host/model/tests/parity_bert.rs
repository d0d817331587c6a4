//! Sentence embedders against recorded values.

mod support;

use stockade_model::bert::{self, BertEmbedder};
use stockade_model::{Checkpoint, ModelError};
use support::*;

fn load(path: &std::path::Path) -> BertEmbedder {
    let checkpoint = Checkpoint::open(path).unwrap();
    bert::load(&checkpoint, &checkpoint.config().unwrap(), 1).unwrap()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn bert_tiny_agrees_alone_and_in_a_batch() {
    let (expected, recorded) = (expected("bert-tiny"), recorded("bert-tiny"));
    let embedder = load(&fixture("bert-tiny"));
    let texts: Vec<_> = expected["cases"].as_array().unwrap().iter().map(|c| ids(&c["input_ids"])).collect();
    let batch = embedder.embed(&texts).unwrap();
    assert_close("batch", &batch.concat(), &recorded["embeddings"], 1e-5);
    let single: Vec<_> = texts.iter().flat_map(|t| embedder.embed(std::slice::from_ref(t)).unwrap()).collect();
    assert_close("single", &single.concat(), &recorded["embeddings_single"], 1e-5);
    assert_close("batch against single", &batch.concat(), &single.concat(), 1e-6);
    for (i, row) in expected["cosine"].as_array().unwrap().iter().enumerate() {
        let got: Vec<f32> = batch.iter().map(|other| dot(&batch[i], other)).collect();
        assert_close("cosines", &got, &floats(row), 1e-5);
    }
}

#[test]
fn minilm_agrees_and_ranks_what_belongs_together() {
    let expected = expected("minilm-l6");
    let embedder = load(&real_models().join("all-MiniLM-L6-v2"));
    assert_eq!((embedder.max_tokens(), embedder.dimensions()), (256, 384));
    let rows = expected["rows"].as_array().unwrap();
    let texts: Vec<_> = rows.iter().map(|row| ids(&row["ids"])).collect();
    let got = embedder.embed(&texts).unwrap();
    for (got, row) in got.iter().zip(rows) {
        assert_close(row["text"].as_str().unwrap(), got, &floats(&row["embedding"]), 1e-4);
    }
    for (i, row) in expected["cosine"].as_array().unwrap().iter().enumerate() {
        let cosines: Vec<f32> = got.iter().map(|other| dot(&got[i], other)).collect();
        assert_close("cosines", &cosines, &floats(row), 1e-4);
    }
}

#[test]
fn texts_of_a_large_call_come_back_in_order() {
    let embedder = load(&fixture("bert-tiny"));
    // More than fits one pass, lengths mixed.
    let texts: Vec<Vec<u32>> =
        (0..300).map(|i: u32| (0..1 + i * 37 % 128).map(|j| (i + 7 * j) % 800).collect()).collect();
    let all = embedder.embed(&texts).unwrap();
    for i in [0, 1, 150, 299] {
        let alone = embedder.embed(&texts[i..=i]).unwrap();
        assert_close("text", &all[i], &alone[0], 1e-6);
    }
}

#[test]
fn foreign_texts_are_refused() {
    let embedder = load(&fixture("bert-tiny"));
    let longest = embedder.max_tokens();
    assert_eq!(longest, 128);
    assert_eq!(embedder.embed(&[]).unwrap(), Vec::<Vec<f32>>::new());
    assert_eq!(embedder.embed(&[vec![1; longest]]).unwrap().len(), 1);
    for bad in [vec![], vec![1; longest + 1], vec![2, 800, 3]] {
        let error = embedder.embed(&[vec![2, 3], bad]).unwrap_err();
        assert!(matches!(error, ModelError::Input(_)), "{error}");
    }
}
