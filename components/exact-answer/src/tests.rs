use super::*;
use proptest::prelude::*;

fn rollout(completion: &str, reference: Option<&str>) -> Rollout {
    Rollout { messages: Vec::new(), completion: completion.into(), reference: reference.map(String::from) }
}

fn reward_with(config: serde_json::Value, completion: &str, reference: &str) -> Option<f64> {
    let plugin = testing::plugin::<ExactAnswer>(config).unwrap();
    plugin.score(vec![rollout(completion, Some(reference))]).unwrap()[0]
}

fn reward(completion: &str, reference: &str) -> Option<f64> {
    reward_with(json!({}), completion, reference)
}

#[test]
fn numbers_are_equal_by_value_wherever_they_stand() {
    for (completion, reference, wanted) in [
        ("72", "72", 1.0),
        ("She has 3 + 4 = 7 apples.", "7", 1.0),
        ("She has 3 + 4 = 7 apples. That is 8 with hers.", "7", 0.0),
        ("It costs $1,234.50 in all", "1234.5", 1.0),
        ("#### 1,000", "\"1000\"", 1.0),
        ("The answer is 7. Check: 3 + 5 = 8", "7", 1.0),
        ("The answer is 6. No: the answer is 7.", "7", 1.0),
        ("so \\boxed{\\frac{1}{2}}", "0.5", 0.0),
        ("so \\boxed{1/2}", "0.5", 1.0),
        ("x is -3", "-3", 1.0),
        ("10-3", "3", 1.0),
        ("Answer: **12 km**", "12", 1.0),
        ("6e3", "6000", 1.0),
        ("about 3.1415927", "3.1415926", 1.0),
        ("2 points/answer = 48 points, 66 in all", "66", 1.0),
        ("version1", "1", 0.0),
        ("no number here", "5", 0.0),
        ("3.5", "[3, 3.5]", 1.0),
        ("Natalia sold 48/2 = 24 clips in May. #### 72", "\"... sold 72 clips\\n#### 72\"", 1.0),
    ] {
        assert_eq!(reward(completion, reference), Some(wanted), "{completion:?} {reference}");
    }
}

#[test]
fn texts_are_equal_by_their_words() {
    for (completion, reference, wanted) in [
        ("Paris", "\"paris\"", 1.0),
        ("The capital is nice.\n\nParis.", "\"Paris\"", 1.0),
        ("The answer is the Eiffel Tower!", "\"eiffel tower\"", 1.0),
        ("London", "\"Paris\"", 0.0),
        ("", "\"Paris\"", 0.0),
        ("true", "true", 1.0),
        ("Yes", "[\"yes\", \"yeah\"]", 1.0),
        ("B", "\"A\"", 0.0),
    ] {
        assert_eq!(reward(completion, reference), Some(wanted), "{completion:?} {reference}");
    }
}

#[test]
fn without_a_reference_it_does_not_apply() {
    let plugin = testing::plugin::<ExactAnswer>(json!({})).unwrap();
    let scores = plugin.score(vec![rollout("1", None), rollout("1", Some("1")), rollout("1", Some("{}"))]).unwrap();
    assert_eq!(scores, [None, Some(1.0), None]);
}

#[test]
fn rewards_and_places_are_configured() {
    let config = json!({"find": "marked", "correct": 2.0, "wrong": -0.5, "missing": -1.0, "marked": 0.25});
    assert_eq!(reward_with(config.clone(), "#### 4", "4"), Some(2.25));
    assert_eq!(reward_with(config.clone(), "#### 5", "4"), Some(-0.25));
    assert_eq!(reward_with(config, "4", "4"), Some(-1.0));
    assert_eq!(reward_with(json!({"find": "whole"}), "a 4", "4"), Some(1.0));
    assert_eq!(reward_with(json!({"find": "line"}), "5\n4\n", "4"), Some(1.0));
    assert_eq!(reward_with(json!({"tolerance": 0.1}), "95", "100"), Some(1.0));
    assert!(testing::plugin::<ExactAnswer>(json!({"correkt": 1})).is_err());
    let plugin = testing::plugin::<ExactAnswer>(json!({"tolerance": 2.0})).unwrap();
    assert!(plugin.score(vec![rollout("1", Some("1"))]).is_err());
}

/// The solutions of a public set of word problems: each holds its answer, and no other one's.
#[test]
fn gsm8k_solutions_are_right_in_three_forms_and_wrong_with_another_number() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/gsm8k");
    let mut n = 0;
    for file in
        std::fs::read_dir(folder).unwrap().flatten().filter(|f| f.path().extension().is_some_and(|e| e == "jsonl"))
    {
        for line in std::fs::read_to_string(file.path()).unwrap().lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let Some(solution) = row["answer"].as_str() else { continue };
            let Some((steps, answer)) = solution.rsplit_once("####") else { continue };
            let (answer, reference) = (answer.trim(), serde_json::to_string(solution).unwrap());
            n += 1;
            assert_eq!(reward(solution, &reference), Some(1.0), "{solution}");
            assert_eq!(reward(&format!("{steps}\nThe answer is ${answer}."), &reference), Some(1.0), "{solution}");
            assert_eq!(reward(&format!("{steps}\nSo it is {answer} in all"), &reference), Some(1.0), "{solution}");
            assert_eq!(reward(&format!("{steps}#### {answer}1"), &reference), Some(0.0), "{solution}");
        }
    }
    assert_eq!(n, 3_000);
}

/// Answers of four models to the test questions, judged by the set's authors. They differ where the authors' script did
/// not read the last number.
#[test]
fn gsm8k_model_answers_are_judged_as_their_authors_did() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/gsm8k/example_model_solutions.jsonl");
    let (mut n, mut agree) = (0u32, 0u32);
    for line in std::fs::read_to_string(file).unwrap().lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let answer = row["ground_truth"].as_str().unwrap().rsplit_once("A: ").unwrap().1.trim();
        let reference = serde_json::to_string(answer).unwrap();
        for judged in row.as_object().unwrap().values() {
            let (Some(right), Some(solution)) = (judged["is_correct"].as_bool(), judged["solution"].as_str()) else {
                continue;
            };
            n += 1;
            agree += u32::from(reward(solution, &reference) == Some(f64::from(u8::from(right))));
        }
    }
    println!("{agree} of {n} agree");
    assert!(n > 1_000 && f64::from(agree) >= 0.99 * f64::from(n), "{agree} of {n} agree");
}

proptest! {
    #[test]
    fn no_text_is_too_odd(completion in "\\PC*", reference in "\\PC*") {
        reward(&completion, &reference);
        reward(&completion, &serde_json::to_string(&reference).unwrap());
        let finds = ["marked", "number", "line", "whole"];
        for find in finds {
            reward_with(json!({"find": find}), &completion, "1");
        }
    }

    #[test]
    fn a_number_equals_itself_in_a_sentence(n in -1_000_000i64..1_000_000, cents in 0u8..100) {
        let number = format!("{n}.{cents:02}");
        let sentence = format!("After that there are {number} left.");
        prop_assert_eq!(reward(&sentence, &number), Some(1.0));
        let other = format!("{}", n + 1);
        prop_assert_eq!(reward(&other, &format!("{n}")), Some(0.0));
    }
}

/// Beside the same in the sandbox: the host's `bench_components`.
#[test]
fn latency() {
    let rollouts = vec![rollout("She has 3 + 4 = 7 apples in the basket. The answer is 7.", Some("7")); 16];
    testing::latency("exact-answer", || {
        let plugin = testing::plugin::<ExactAnswer>(json!({})).unwrap();
        assert_eq!(plugin.score(rollouts.clone()).unwrap(), [Some(1.0); 16]);
    });
}
