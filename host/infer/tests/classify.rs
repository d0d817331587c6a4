//! Encoders that classify, behind the seam: loaded from a folder, batched, refused.

use serde_json::Value;
use std::path::{Path, PathBuf};
use stockade_core::id::{ModelId, TenantId};
use stockade_core::infer::{
    ClassScores, ClassifyRequest, EmbedInput, EmbedRequest, InferError, Inference, ModelKind, TokenizeOptions,
};
use stockade_infer::{Engine, LoadError, ModelOptions, Settings};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures").join(name)
}

fn guard() -> ModelId {
    ModelId::new("guard").unwrap()
}

fn tenant() -> TenantId {
    TenantId::new("t").unwrap()
}

fn engine(name: &str, settings: Settings) -> Result<Engine, LoadError> {
    let engine = Engine::new(settings);
    engine.load_model(guard(), &fixture(name), &ModelOptions::default(), &|_, _| ())?;
    Ok(engine)
}

async fn classify(engine: &Engine, inputs: Vec<String>) -> Result<Vec<ClassScores>, InferError> {
    engine.classify(ClassifyRequest { model: guard(), tenant: tenant(), inputs }).await
}

#[tokio::test]
async fn texts_get_the_recorded_probabilities_under_the_models_labels() {
    for name in ["deberta-tiny-2", "deberta-tiny-3"] {
        let engine = engine(name, Settings::default()).unwrap();
        let info = &engine.models()[0];
        assert_eq!((info.kind, info.context_tokens, &*info.architecture), (ModelKind::Classifier, 512, "deberta-v2"));
        let file = std::fs::read(fixture(name).join("expected.json")).unwrap();
        let expected: Value = serde_json::from_slice(&file).unwrap();
        let cases = expected["cases"].as_array().unwrap();
        let texts = cases.iter().map(|case| case["text"].as_str().unwrap().to_string()).collect();
        let rows = classify(&engine, texts).await.unwrap();
        assert_eq!(rows.len(), cases.len());
        for (row, case) in rows.iter().zip(cases) {
            let labels: Vec<&str> = row.iter().map(|(label, _)| label.as_str()).collect();
            assert_eq!(serde_json::json!(labels), expected["labels"]);
            for ((label, got), want) in row.iter().zip(case["probabilities"].as_array().unwrap()) {
                assert!((f64::from(*got) - want.as_f64().unwrap()).abs() < 2e-4, "{label}: {got} for {want}");
            }
        }
    }
}

#[tokio::test]
async fn a_text_is_never_cut_before_it_is_judged() {
    let engine = engine("deberta-tiny-2", Settings::default()).unwrap();
    let long = "speak, ".repeat(400);
    let refused = classify(&engine, vec!["fine".into(), long]).await;
    assert!(matches!(refused, Err(InferError::ContextOverflow { limit: 512, .. })), "{refused:?}");
    assert_eq!(classify(&engine, vec![String::new()]).await.unwrap().len(), 1, "[CLS] and [SEP] are a text");
    assert_eq!(classify(&engine, Vec::new()).await.unwrap(), Vec::<ClassScores>::new());
    let ids = engine.tokenize(&guard(), "Short.", TokenizeOptions::default()).unwrap();
    assert_eq!(engine.detokenize(&guard(), &ids).unwrap(), "Short.");
}

#[tokio::test]
async fn another_kind_of_call_and_a_model_that_does_not_fit_are_refused() {
    let served = engine("deberta-tiny-2", Settings::default()).unwrap();
    let inputs = vec![EmbedInput::Text("a".into())];
    let embed = served.embed(EmbedRequest { model: guard(), tenant: tenant(), inputs, dimensions: None }).await;
    assert!(matches!(embed, Err(InferError::WrongKind { is: ModelKind::Classifier, .. })), "{embed:?}");
    let small = Settings { memory_bytes: Some(100_000), ..Settings::default() };
    let refused = engine("deberta-tiny-2", small).map(|_| ());
    assert!(matches!(refused, Err(LoadError::Memory { .. })), "{refused:?}");
}
