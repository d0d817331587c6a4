use super::*;
use proptest::prelude::*;

fn sample(output: &str, expected: Option<&str>) -> Sample {
    Sample { input: "{}".into(), messages: Vec::new(), output: output.into(), expected: expected.map(String::from) }
}

fn scored(config: Value, output: &str, expected: Option<&str>) -> Vec<(String, f64)> {
    let plugin = testing::plugin::<AnswerMatch>(config).unwrap();
    let scores = plugin.evaluate(vec![sample(output, expected)]).unwrap().remove(0);
    scores.into_iter().map(|score| (score.metric, score.value)).collect()
}

/// The value of one metric; `None` where it does not apply.
fn value(metric: &str, output: &str, expected: &str) -> Option<f64> {
    scored(json!({"metrics": [metric]}), output, Some(expected)).first().map(|(_, value)| *value)
}

#[test]
fn words_are_compared_without_case_marks_and_articles() {
    for (output, expected, exact, contains) in [
        ("Paris", "\"paris\"", 1.0, 1.0),
        (" The Eiffel Tower!\n", "\"eiffel tower\"", 1.0, 1.0),
        ("It is Paris, of course.", "\"Paris\"", 0.0, 1.0),
        ("New York City", "\"york city\"", 0.0, 1.0),
        ("New city of York", "\"york city\"", 0.0, 0.0),
        ("parish", "\"paris\"", 0.0, 0.0),
        ("", "\"Paris\"", 0.0, 0.0),
        ("yes", "[\"yeah\", \"yes\"]", 1.0, 1.0),
        ("true", "true", 1.0, 1.0),
        ("42", "42", 1.0, 1.0),
        ("\u{c9}t\u{e9}", "\"\u{e9}t\u{e9}\"", 1.0, 1.0),
    ] {
        assert_eq!(value("exact", output, expected), Some(exact), "{output:?} {expected}");
        assert_eq!(value("contains", output, expected), Some(contains), "{output:?} {expected}");
    }
}

/// Values by the script of SQuAD.
#[test]
fn f1_is_that_of_the_words_that_both_share() {
    for (output, expected, want) in [
        ("a cat on a mat", "\"the cat sat on the mat\"", 6.0 / 7.0),
        ("one two", "\"three\"", 0.0),
        ("one one one", "\"one\"", 0.5),
        ("one", "\"one one one\"", 0.5),
        ("the", "\"an\"", 1.0),
        ("", "\"word\"", 0.0),
        ("one", "[\"two\", \"one more\"]", 2.0 / 3.0),
    ] {
        let got = value("f1", output, expected).unwrap();
        assert!((got - want).abs() < 1e-12, "{output:?} {expected}: {got}");
    }
}

#[test]
fn the_last_number_is_compared_by_value() {
    for (output, expected, want) in [
        ("It costs $1,234.50 in all.", "1234.5", Some(1.0)),
        ("3 + 4 = 7", "7", Some(1.0)),
        ("3 + 4 = 7, or 8?", "7", Some(0.0)),
        ("x is -3", "\"-3\"", Some(1.0)),
        ("6e3", "6000", Some(1.0)),
        ("**12**", "12", Some(1.0)),
        ("none", "12", Some(0.0)),
        ("version1", "1", Some(0.0)),
        ("100.00001", "100", Some(1.0)),
        ("101", "100", Some(0.0)),
        ("7", "\"seven\"", None),
        ("7", "[\"seven\", 7]", Some(1.0)),
    ] {
        assert_eq!(value("number", output, expected), want, "{output:?} {expected}");
    }
    let wide = json!({"metrics": ["number"], "tolerance": 0.1});
    assert_eq!(scored(wide, "95", Some("100")), [("number".to_owned(), 1.0)]);
}

#[test]
fn all_metrics_come_in_order_and_none_without_an_expected_answer() {
    let plugin = testing::plugin::<AnswerMatch>(json!({})).unwrap();
    let names: Vec<String> = plugin.metrics().into_iter().map(|metric| metric.name).collect();
    assert_eq!(names, ["exact", "contains", "f1", "number"]);
    let names: Vec<String> = scored(json!({}), "5 km", Some("\"5\"")).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["exact", "contains", "f1", "number"]);
    for expected in [None, Some("null"), Some("{}"), Some("[]"), Some("[[1]]")] {
        assert_eq!(scored(json!({}), "5", expected), [], "{expected:?}");
    }
}

#[test]
fn wrong_configurations_and_samples_are_refused() {
    for config in [json!({"metric": ["exact"]}), json!({"metrics": ["precision"]}), json!({"tolerance": "x"})] {
        assert!(testing::plugin::<AnswerMatch>(config).is_err());
    }
    let plugin = testing::plugin::<AnswerMatch>(json!({"tolerance": 2.0})).unwrap();
    assert!(plugin.evaluate(vec![sample("1", Some("1"))]).is_err());
    let plugin = testing::plugin::<AnswerMatch>(json!({})).unwrap();
    assert!(matches!(plugin.evaluate(vec![sample("1", Some("no JSON"))]), Err(Error::Invalid(_))));
}

proptest! {
    #[test]
    fn scores_are_shares_and_a_text_matches_itself(output in "\\PC*", expected in "\\PC*") {
        for (metric, value) in scored(json!({}), &output, Some(&serde_json::to_string(&expected).unwrap())) {
            prop_assert!((0.0..=1.0).contains(&value), "{metric} {value}");
        }
        for (metric, value) in scored(json!({}), &output, Some(&serde_json::to_string(&output).unwrap())) {
            prop_assert_eq!(value, 1.0, "{}", metric);
        }
    }
}

/// Beside the same in the sandbox: the host's `bench_components`.
#[test]
fn latency() {
    let samples = vec![sample("She has 3 + 4 = 7 apples in the basket. The answer is 7.", Some("\"7 apples\"")); 16];
    testing::latency("answer-match", || {
        let plugin = testing::plugin::<AnswerMatch>(json!({})).unwrap();
        let scores = plugin.evaluate(samples.clone()).unwrap();
        assert_eq!((scores.len(), scores[0].len()), (16, 4));
    });
}
