//! Sequence classifiers with disentangled attention against recorded values.

mod support;

use serde_json::{Value, json};
use std::path::Path;
use stockade_model::deberta::{self, DebertaClassifier};
use stockade_model::tokenizer::EncodeOptions;
use stockade_model::{Checkpoint, ModelError, Tokenizer};
use support::*;

const FIXTURES: [&str; 2] = ["deberta-tiny-2", "deberta-tiny-3"];
/// What the fixtures suggest.
const TOLERANCE: f32 = 2e-4;

fn open(path: &Path, threads: usize) -> Result<DebertaClassifier, ModelError> {
    let checkpoint = Checkpoint::open(path)?;
    deberta::load(&checkpoint, &checkpoint.config()?, threads)
}

fn texts(cases: &Value) -> Vec<Vec<u32>> {
    cases.as_array().unwrap().iter().map(|case| ids(&case["input_ids"])).collect()
}

#[test]
fn scores_agree_alone_in_a_batch_and_over_windows() {
    for name in FIXTURES {
        let (expected, recorded) = (expected(name), recorded(name));
        let classifier = open(&fixture(name), 2).unwrap();
        let cases = texts(&expected["cases"]);
        let batch = classifier.scores(&cases).unwrap();
        assert_close(name, &batch.concat(), &recorded["batch_logits"], TOLERANCE);
        let single: Vec<_> = cases.iter().flat_map(|t| classifier.scores(std::slice::from_ref(t)).unwrap()).collect();
        assert_close(name, &single.concat(), &recorded["logits"], TOLERANCE);
        assert_close("batch against single", &batch.concat(), &single.concat(), 2e-5);
        let windows = texts(&expected["windows"]);
        assert_eq!(windows[0].len(), 512);
        assert_close(name, &classifier.scores(&windows).unwrap().concat(), &recorded["window_logits"], TOLERANCE);
        let states = classifier.states(&cases[0]).unwrap();
        assert_close("states", &states, &recorded["last_hidden_state_0"], TOLERANCE);
    }
}

#[test]
fn any_number_of_threads_gives_the_same_scores() {
    let windows = texts(&expected("deberta-tiny-2")["windows"]);
    let scores = |threads| open(&fixture("deberta-tiny-2"), threads).unwrap().scores(&windows).unwrap().concat();
    assert_close("3 threads against 1", &scores(3), &scores(1), 1e-5);
}

#[test]
fn unigram_tokenizers_agree_with_the_recorded_ids() {
    for name in FIXTURES {
        let tokenizer = Tokenizer::from_folder(&fixture(name)).unwrap();
        for vector in expected(name)["tokenizer"].as_array().unwrap() {
            let text = vector["text"].as_str().unwrap();
            let encode = |add_special| tokenizer.encode(text, EncodeOptions { add_special, parse_special: false });
            assert_eq!(encode(false).unwrap(), ids(&vector["ids"]), "{text:?}");
            assert_eq!(encode(true).unwrap(), ids(&vector["ids_with_special"]), "{text:?}");
        }
    }
}

#[test]
fn foreign_texts_are_refused() {
    let classifier = open(&fixture("deberta-tiny-2"), 1).unwrap();
    assert_eq!(classifier.max_tokens(), 512);
    assert_eq!(classifier.scores(&[]).unwrap(), Vec::<Vec<f32>>::new());
    assert_eq!(classifier.scores(&[vec![1]]).unwrap()[0].len(), 2);
    for bad in [vec![], vec![1; 513], vec![1, 901, 2]] {
        let error = classifier.scores(&[vec![1, 2], bad]).unwrap_err();
        assert!(matches!(error, ModelError::Input(_)), "{error}");
    }
}

/// The fixture with another configuration.
fn changed(folder: &Path, change: impl FnOnce(&mut Value)) -> Result<DebertaClassifier, ModelError> {
    let mut config = json(&fixture("deberta-tiny-2").join("config.json"));
    change(&mut config);
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    open(folder, 1)
}

#[test]
fn hostile_checkpoints_are_refused_by_what_is_wrong_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("model.safetensors");
    std::fs::copy(fixture("deberta-tiny-2").join("model.safetensors"), &weights).unwrap();
    let at = folder.path();
    assert!(changed(at, |_| ()).is_ok());
    for (key, value, want) in [
        ("hidden_size", json!(128), "pooler_hidden_size"),
        ("intermediate_size", json!(143), "shape"),
        ("num_hidden_layers", json!(4), "encoder.layer.3"),
        ("vocab_size", json!(1 << 23), "word_embeddings"),
        ("position_buckets", json!(64), "rel_embeddings"),
        ("num_attention_heads", json!(3), "3 heads"),
        ("architectures", json!(["DebertaV2Model"]), "Embedding"),
        ("architectures", json!(["DebertaV2ForMaskedLM"]), "Embedding"),
        ("id2label", json!({"0": "A", "1": "B", "2": "C"}), "classifier.weight"),
        ("id2label", json!({"1": "A"}), "id2label"),
    ] {
        let error = changed(at, |config| config[key] = value.clone()).map(|_| ()).expect_err(key).to_string();
        assert!(error.contains(want), "{key} {value}: {error}");
    }
    // No memory is promised to a context that only the configuration has.
    let long = changed(at, |config| config["max_position_embeddings"] = json!(1 << 24)).unwrap();
    assert_eq!(long.max_tokens(), 4096);
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() - 1]).unwrap();
    let error = changed(at, |_| ()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("model.safetensors"), "{error}");
}
