use super::*;
use std::sync::LazyLock;
use stockade_guest::testing::{check, every_split};

/// Texts with the vectors of the real embedder and the scores that the training came to.
#[derive(Deserialize)]
struct Vector {
    text: String,
    embedding: Vec<f32>,
    scores: BTreeMap<String, f32>,
}

fn vectors() -> &'static [Vector] {
    static VECTORS: LazyLock<Vec<Vector>> =
        LazyLock::new(|| serde_json::from_str(include_str!("vectors.json")).unwrap());
    &VECTORS
}

/// A host whose embedder knows those texts.
fn host() -> testing::Host {
    testing::Host::new().embedder(|text| {
        let known = vectors().iter().find(|v| v.text == text);
        known.map(|v| v.embedding.clone()).ok_or_else(|| Error::NotFound(format!("the vector of {text:?}")))
    })
}

/// The one text of them that is about harming oneself.
fn self_harm() -> &'static Vector {
    vectors().iter().max_by(|a, b| a.scores["self-harm"].total_cmp(&b.scores["self-harm"])).unwrap()
}

#[test]
fn the_shipped_weights_score_as_the_training_says() {
    let heads = Heads::new(FILE);
    for vector in vectors() {
        let scores = heads.scores(&vector.text, &vector.embedding).unwrap();
        assert_eq!(scores.len(), vector.scores.len());
        for (label, score) in heads.labels().zip(scores) {
            let want = vector.scores[label];
            assert!((score - want).abs() < 1e-3, "{label} of {:?}: {score}, not {want}", vector.text);
        }
    }
}

#[test]
fn the_manifest_knows_every_category() {
    let manifest = include_str!("../component.toml");
    for label in Heads::new(FILE).labels() {
        assert!(manifest.contains(&format!("\"{label}\"")), "{label}");
    }
}

#[test]
fn a_block_is_a_result_of_openais_moderations() {
    let _host = host();
    let vector = self_harm();
    let Verdict::Block(violation) = check::<Moderation>(json!({}), &vector.text).unwrap() else {
        panic!("it passed");
    };
    assert_eq!(violation.category, "self-harm");
    let result: Value = serde_json::from_str(&violation.metadata).unwrap();
    assert_eq!((&result["flagged"], &result["categories"]["self-harm"]), (&json!(true), &json!(true)));
    assert_eq!(result["categories"]["hate"], json!(false));
    let score = result["category_scores"]["self-harm"].as_f64().unwrap();
    assert!((score - f64::from(vector.scores["self-harm"])).abs() < 1e-3);
    for other in vectors().iter().filter(|v| v.text != vector.text) {
        assert_eq!(check::<Moderation>(json!({}), &other.text).unwrap(), Verdict::Pass, "{:?}", other.text);
    }
}

#[test]
fn thresholds_are_each_categorys() {
    let _host = host();
    let vector = self_harm();
    let verdict = check::<Moderation>(json!({"thresholds": {"self-harm": 1}}), &vector.text).unwrap();
    assert!(!matches!(verdict, Verdict::Block(v) if v.category == "self-harm"));
    let verdict = check::<Moderation>(json!({"threshold": 1}), &vector.text).unwrap();
    assert_eq!(verdict, Verdict::Pass);
    let wrong = check::<Moderation>(json!({"thresholds": {"sadness": 0.5}}), "x");
    assert!(matches!(wrong, Err(Error::Invalid(why)) if why.contains("sadness")));
}

#[test]
fn a_report_tells_the_scores_of_what_passes() {
    let _host = host();
    let harmless = vectors().iter().min_by(|a, b| a.scores["self-harm"].total_cmp(&b.scores["self-harm"])).unwrap();
    let Verdict::Block(report) = check::<Moderation>(json!({"report": true}), &harmless.text).unwrap() else {
        panic!("there is no report");
    };
    let result: Value = serde_json::from_str(&report.metadata).unwrap();
    assert_eq!(result["flagged"], json!(false));
    assert_eq!(result["category_scores"].as_object().unwrap().len(), harmless.scores.len());
    let stream = testing::stream::<Moderation>(json!({"report": true}), &["x"]);
    assert!(matches!(stream, Err(Error::Invalid(_))));
}

#[test]
fn a_flagged_reply_does_not_leave() {
    let _host = host();
    let reply = every_split::<Moderation>(json!({}), &self_harm().text);
    assert_eq!((reply.sent.as_str(), reply.violation.is_some()), ("", true));
}

/// Beside the same in the sandbox: the host's `bench_components`.
#[test]
fn latency() {
    testing::Host::new().embedder(|_| Ok(vec![0.05; 384]));
    let text = "Please send the report of March to the team in Berlin, and tell Ann that the meeting on Friday is moved to ten.";
    testing::latency("moderation", || assert_eq!(testing::check::<Moderation>(json!({}), text), Ok(Verdict::Pass)));
}
