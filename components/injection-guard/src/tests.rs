use super::*;
use std::sync::LazyLock;
use stockade_guest::testing::{check, check_messages, every_split};

/// Texts with the vectors of the real embedder and the scores that the training came to.
#[derive(Deserialize)]
struct Vector {
    text: String,
    embedding: Vec<f32>,
    scores: std::collections::BTreeMap<String, f32>,
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

/// The attacks come first.
fn attacks() -> Vec<&'static str> {
    vectors().iter().take(3).map(|v| v.text.as_str()).collect()
}
fn harmless() -> Vec<&'static str> {
    vectors().iter().skip(3).map(|v| v.text.as_str()).collect()
}

#[test]
fn the_shipped_weights_score_as_the_training_says() {
    let heads = Heads::new(FILE);
    assert_eq!(heads.labels().collect::<Vec<_>>(), ["direct", "indirect"]);
    for vector in vectors() {
        let scores = heads.scores(&vector.text, &vector.embedding).unwrap();
        for (label, score) in heads.labels().zip(scores) {
            let want = vector.scores[label];
            assert!((score - want).abs() < 1e-3, "{label} of {:?}: {score}, not {want}", vector.text);
        }
    }
}

#[test]
fn attacks_are_blocked_and_their_words_in_other_sentences_are_not() {
    let _host = host();
    for text in attacks() {
        let verdict = check::<InjectionGuard>(json!({}), text).unwrap();
        let Verdict::Block(violation) = verdict else { panic!("{text:?} passed") };
        assert_eq!(violation.category, "prompt-injection");
        let place: Value = serde_json::from_str(&violation.metadata).unwrap();
        assert_eq!((&place["message"], &place["start"], &place["end"]), (&json!(0), &json!(0), &json!(text.len())));
        assert!(violation.score.unwrap() >= 0.5 && !violation.metadata.contains(text));
    }
    for text in harmless() {
        assert_eq!(check::<InjectionGuard>(json!({}), text).unwrap(), Verdict::Pass, "{text:?}");
    }
}

#[test]
fn what_a_tool_returns_is_judged_by_its_own_head() {
    let _host = host();
    let call = ToolCall { id: "1".into(), name: "read".into(), arguments: "{}".into() };
    let messages = vec![Message::tool_result(&call, attacks()[0], false)];
    let config = json!({"tool_threshold": 0.01});
    let verdict = check_messages::<InjectionGuard>(config, Direction::Input, messages.clone()).unwrap();
    assert!(matches!(verdict, Verdict::Block(v) if v.category == "indirect-prompt-injection"));
    let config = json!({"sources": ["user"]});
    assert_eq!(check_messages::<InjectionGuard>(config, Direction::Input, messages).unwrap(), Verdict::Pass);
}

#[test]
fn orders_of_the_application_are_not_judged_and_replies_only_where_told() {
    let _host = host();
    let attack = attacks()[0];
    let messages = vec![Message::system(attack), Message::assistant(attack)];
    let verdict = check_messages::<InjectionGuard>(json!({}), Direction::Input, messages).unwrap();
    assert_eq!(verdict, Verdict::Pass);
    assert_eq!(every_split::<InjectionGuard>(json!({}), attack).sent, attack);
    let reply = every_split::<InjectionGuard>(json!({"sources": ["assistant"]}), attack);
    assert_eq!((reply.sent.as_str(), reply.violation.is_some()), ("", true));
}

#[test]
fn without_its_embedder_it_fails() {
    let _host = testing::Host::new().embedder(|_| Err(Error::NotFound("model `minilm`".into())));
    assert!(matches!(check::<InjectionGuard>(json!({}), "Hello"), Err(Error::NotFound(_))));
}

/// Beside the same in the sandbox: the host's `bench_components`.
#[test]
fn latency() {
    testing::Host::new().embedder(|_| Ok(vec![0.05; 384]));
    let text = "Please send the report of March to the team in Berlin, and tell Ann that the meeting on Friday is moved to ten.";
    testing::latency("injection-guard", || {
        assert_eq!(testing::check::<InjectionGuard>(json!({}), text), Ok(Verdict::Pass))
    });
}
