//! Golden float64 values of every loss, and finite differences of every derivative.

use super::*;
use crate::reference::reference_file;
use serde_json::Value;

fn golden(group: &str) -> Option<Value> {
    let path = reference_file("data/train-golden/golden.json")?;
    let all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    Some(all[group].clone())
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn rows(value: &Value) -> Vec<Vec<f32>> {
    value.as_array().unwrap().iter().map(|row| numbers(row).iter().map(|&x| x as f32).collect()).collect()
}

fn close(name: &str, got: f64, want: f64, tolerance: f64) {
    assert!((got - want).abs() <= tolerance * want.abs().max(1.0), "{name}: {got}, expected {want}");
}

/// The derivative of `f` at 0 along a direction that it knows.
fn slope(f: impl Fn(f64) -> f64) -> f64 {
    let h = 1e-5;
    (f(h) - f(-h)) / (2.0 * h)
}

const PREFERENCES: [(&str, Preference); 8] = [
    ("dpo", Preference::Dpo { beta: 0.1, smoothing: 0.0 }),
    ("cdpo", Preference::Dpo { beta: 0.1, smoothing: 0.1 }),
    ("robust_dpo", Preference::Robust { beta: 0.1, smoothing: 0.1 }),
    ("hinge", Preference::Hinge { beta: 0.1 }),
    ("ipo_mean", Preference::Ipo { beta: 0.1, mean: true }),
    ("ipo_sum", Preference::Ipo { beta: 0.1, mean: false }),
    ("simpo", Preference::Simpo { beta: 2.0, gamma: 0.5, by_length: true, nll: 0.0 }),
    ("cpo", Preference::Simpo { beta: 0.1, gamma: 0.0, by_length: false, nll: 0.0 }),
];

fn golden_pairs(inputs: &Value) -> Vec<Pair> {
    let of = |name: &str| numbers(&inputs[name]);
    let (chosen, rejected) = (of("policy_chosen"), of("policy_rejected"));
    let (reference_chosen, reference_rejected) = (of("ref_chosen"), of("ref_rejected"));
    let (chosen_tokens, rejected_tokens) = (of("len_chosen"), of("len_rejected"));
    (0..chosen.len())
        .map(|i| Pair {
            chosen: chosen[i],
            rejected: rejected[i],
            reference_chosen: reference_chosen[i],
            reference_rejected: reference_rejected[i],
            chosen_tokens: chosen_tokens[i] as usize,
            rejected_tokens: rejected_tokens[i] as usize,
        })
        .collect()
}

#[test]
fn preference_losses_have_their_golden_values() {
    let Some(golden) = golden("preference") else { return };
    let pairs = golden_pairs(&golden["inputs"]);
    let ratio = ("orpo_ratio", Preference::Orpo { lambda: 0.1, nll: 0.0 });
    for (name, loss) in PREFERENCES.into_iter().chain([ratio]) {
        let losses: Vec<PairLoss> = pairs.iter().map(|pair| loss.evaluate(pair)).collect();
        let n = losses.len() as f64;
        close(name, losses.iter().map(|l| l.loss).sum::<f64>() / n, golden[name]["loss"].as_f64().unwrap(), 1e-9);
        let want =
            [&golden[name]["per_example"], &golden[name]["grad_chosen"], &golden[name]["grad_rejected"]].map(numbers);
        for (i, l) in losses.iter().enumerate() {
            close(name, l.loss, want[0][i], 1e-9);
            close(name, l.d_chosen / n, want[1][i], 1e-9);
            close(name, l.d_rejected / n, want[2][i], 1e-9);
        }
    }
}

#[test]
fn preference_derivatives_agree_with_finite_differences() {
    let with_nll = [
        ("orpo", Preference::Orpo { lambda: 0.3, nll: 1.0 }),
        ("cpo with nll", Preference::Simpo { beta: 0.2, gamma: 0.0, by_length: false, nll: 1.0 }),
    ];
    for (name, loss) in PREFERENCES.into_iter().chain(with_nll) {
        for (chosen, rejected) in [(-12.5, -9.25), (-0.3, -4.0), (-90.0, -2.0), (-0.01, -0.02)] {
            let pair = Pair {
                chosen,
                rejected,
                reference_chosen: -11.0,
                reference_rejected: -8.5,
                chosen_tokens: 7,
                rejected_tokens: 4,
            };
            let at = loss.evaluate(&pair);
            let by_chosen = slope(|h| loss.evaluate(&Pair { chosen: chosen + h, ..pair }).loss);
            let by_rejected = slope(|h| loss.evaluate(&Pair { rejected: rejected + h, ..pair }).loss);
            close(name, at.d_chosen, by_chosen, 1e-5);
            close(name, at.d_rejected, by_rejected, 1e-5);
        }
    }
}

#[test]
fn a_certain_answer_has_finite_odds() {
    let pair = Pair { chosen: 0.0, rejected: -1e9, chosen_tokens: 3, rejected_tokens: 1, ..Pair::default() };
    let loss = Preference::Orpo { lambda: 0.1, nll: 1.0 }.evaluate(&pair);
    assert!(loss.loss.is_finite() && loss.d_chosen.is_finite() && loss.d_rejected.is_finite(), "{loss:?}");
}

#[test]
fn kto_has_its_golden_values_and_derivative() {
    let Some(golden) = golden("kto") else { return };
    let inputs = &golden["inputs"];
    let loss = Unpaired {
        beta: inputs["beta"].as_f64().unwrap(),
        desirable_weight: inputs["w_desirable"].as_f64().unwrap(),
        undesirable_weight: inputs["w_undesirable"].as_f64().unwrap(),
    };
    let (policy, reference) = (numbers(&inputs["policy"]), numbers(&inputs["ref"]));
    let want = numbers(&golden["per_example"]);
    let z = inputs["kl"].as_f64().unwrap();
    for (i, (policy, want)) in policy.into_iter().zip(want).enumerate() {
        let desirable = inputs["desirable"][i].as_bool().unwrap();
        let of = |policy: f64| loss.evaluate(policy, reference[i], desirable, z);
        close("kto", of(policy).loss, want, 1e-9);
        close("kto", of(policy).d_policy, slope(|h| of(policy + h).loss), 1e-7);
    }
    assert_eq!(Unpaired::divergence(&[-1.0, 0.5]), 0.0, "never below 0");
    assert_eq!(Unpaired::divergence(&[1.0, 0.5]), 0.75);
}

#[test]
fn bradley_terry_has_its_golden_values_and_derivative() {
    let Some(golden) = golden("bradley_terry") else { return };
    let inputs = &golden["inputs"];
    let [chosen, rejected, margin] = ["chosen", "rejected", "margin"].map(|name| numbers(&inputs[name]));
    let center = inputs["center"].as_f64().unwrap();
    let n = chosen.len() as f64;
    let mean = |with_margin: f64, center: f64| {
        (0..chosen.len())
            .map(|i| bradley_terry(chosen[i], rejected[i], with_margin * margin[i], center).loss)
            .sum::<f64>()
            / n
    };
    close("plain", mean(0.0, 0.0), golden["loss"].as_f64().unwrap(), 1e-9);
    close("margin", mean(1.0, 0.0), golden["with_margin"].as_f64().unwrap(), 1e-9);
    close("center", mean(0.0, center), golden["with_center"].as_f64().unwrap(), 1e-9);
    let right = (0..chosen.len()).filter(|&i| chosen[i] > rejected[i]).count() as f64;
    close("accuracy", right / n, golden["accuracy"].as_f64().unwrap(), 1e-9);
    let at = bradley_terry(0.7, -0.4, 0.5, 0.1);
    close("chosen", at.d_chosen, slope(|h| bradley_terry(0.7 + h, -0.4, 0.5, 0.1).loss), 1e-8);
    close("rejected", at.d_rejected, slope(|h| bradley_terry(0.7, -0.4 + h, 0.5, 0.1).loss), 1e-8);
}

const GROUP: GroupPolicy = GroupPolicy {
    reduction: Reduction::Answer,
    clip_low: 0.2,
    clip_high: 0.2,
    beta: 0.04,
    by_sequence: false,
    max_tokens: 6,
};

/// Of a step in one micro-batch.
fn totals(answers: usize, tokens: u64) -> GroupTotals {
    GroupTotals { answers, tokens, micro_batches: 1, micro_batch_tokens: tokens }
}

#[test]
fn advantages_have_their_golden_values() {
    let Some(golden) = golden("grpo") else { return };
    let rewards: Vec<Option<f64>> = numbers(&golden["inputs"]["rewards"]).into_iter().map(Some).collect();
    for (name, scale) in [("group", RewardScale::Group), ("batch", RewardScale::Batch), ("none", RewardScale::None)] {
        let want = numbers(&golden["advantages"][name]);
        for (got, want) in advantages(&rewards, 3, scale).values.iter().zip(want) {
            close(name, got.unwrap(), want, 1e-9);
        }
    }
}

#[test]
fn grpo_and_its_relatives_have_their_golden_values() {
    let Some(golden) = golden("grpo") else { return };
    let inputs = &golden["inputs"];
    let lengths = numbers(&inputs["lengths"]);
    let cut = |name: &str| -> Vec<Vec<f32>> {
        rows(&inputs[name]).into_iter().zip(&lengths).map(|(row, &n)| row[..n as usize].to_vec()).collect()
    };
    let (new, old, reference) = (cut("new"), cut("old"), cut("ref"));
    let rewards: Vec<Option<f64>> = numbers(&inputs["rewards"]).into_iter().map(Some).collect();
    let answers = |scale, with_reference: bool| -> Vec<Answer<'_>> {
        let values = advantages(&rewards, 3, scale).values;
        (0..new.len())
            .map(|i| Answer {
                new: &new[i],
                old: &old[i],
                reference: with_reference.then_some(&reference[i][..]),
                advantage: values[i],
            })
            .collect()
    };
    let tokens = lengths.iter().sum::<f64>() as u64;
    let of = |policy: GroupPolicy, answers: &[Answer<'_>]| policy.evaluate(answers, totals(6, tokens)).loss;
    let grouped = answers(RewardScale::Group, true);
    close("grpo", of(GROUP, &grouped), golden["grpo"].as_f64().unwrap(), 1e-6);
    for reduction in [Reduction::MicroBatch, Reduction::Step] {
        close("dapo", of(GroupPolicy { reduction, ..GROUP }, &grouped), golden["bnpo_or_dapo"].as_f64().unwrap(), 1e-6);
    }
    let doctor = GroupPolicy { reduction: Reduction::Longest, clip_high: 0.28, beta: 0.0, ..GROUP };
    close("dr_grpo", of(doctor, &answers(RewardScale::None, false)), golden["dr_grpo"].as_f64().unwrap(), 1e-6);
    let free = GroupPolicy { by_sequence: true, clip_low: 1.0, clip_high: 1e9, beta: 0.0, ..GROUP };
    for (i, want) in numbers(&golden["gspo_sequence_ratio"]).into_iter().enumerate() {
        let answer = Answer { new: &new[i], old: &old[i], reference: None, advantage: Some(-1.0) };
        close("gspo", free.evaluate(&[answer], totals(1, 1)).loss, want, 1e-6);
    }
}

#[test]
fn group_derivatives_agree_with_finite_differences() {
    let new: [&[f32]; 3] = [&[-1.5, -0.75, -2.0], &[-0.5, -3.0], &[-1.25, -1.0, -0.25, -2.5]];
    let old: [&[f32]; 3] = [&[-1.25, -1.0, -1.0], &[-0.75, -2.75], &[-1.5, -0.5, -1.25, -2.25]];
    let reference: [&[f32]; 3] = [&[-1.0, -1.0, -1.5], &[-0.25, -2.0], &[-1.0, -1.5, -0.5, -2.0]];
    let advantages = [Some(0.8), Some(-1.1), Some(0.3)];
    let tokens = 9;
    for reduction in [Reduction::Answer, Reduction::MicroBatch, Reduction::Step, Reduction::Longest] {
        for by_sequence in [false, true] {
            let policy = GroupPolicy { reduction, by_sequence, clip_high: 0.28, ..GROUP };
            let of = |new: [&[f32]; 3]| {
                let answers: Vec<Answer<'_>> = (0..3)
                    .map(|i| Answer {
                        new: new[i],
                        old: old[i],
                        reference: Some(reference[i]),
                        advantage: advantages[i],
                    })
                    .collect();
                policy.evaluate(&answers, totals(3, tokens))
            };
            let at = of(new);
            for (i, row) in new.iter().enumerate() {
                for t in 0..row.len() {
                    // Powers of two, so that f32 holds the shifted values exactly.
                    let h = 1.0 / 4096.0;
                    let shifted = |by: f32| {
                        let mut row = row.to_vec();
                        row[t] += by;
                        let mut all = new;
                        all[i] = &row;
                        of(all).loss
                    };
                    let want = (shifted(h) - shifted(-h)) / f64::from(2.0 * h);
                    close(&format!("{reduction:?} {by_sequence} {i} {t}"), f64::from(at.d_new[i][t]), want, 2e-4);
                }
            }
        }
    }
}

#[test]
fn a_group_of_equal_rewards_teaches_exactly_nothing() {
    let third = Some(0.1 + 0.2);
    let result = advantages(&[third, third, third, Some(1.0), Some(0.0), None], 3, RewardScale::Group);
    assert_eq!(result.values[..3], [Some(0.0); 3]);
    assert_eq!((result.groups, result.degenerate), (2, 1));
    assert_eq!(result.values[5], None, "an answer without a reward has no advantage");
    let policy = GroupPolicy { beta: 0.0, ..GROUP };
    let answer = Answer { new: &[-1.0, -2.0], old: &[-1.5, -1.0], reference: None, advantage: Some(0.0) };
    let loss = policy.evaluate(&[answer], totals(1, 2));
    assert!(loss.loss == 0.0 && loss.d_new[0].iter().all(|&d| d == 0.0), "{loss:?}");
}

#[test]
fn a_masked_answer_moves_nothing() {
    let active = Answer { new: &[-1.0, -2.0], old: &[-1.5, -1.0], reference: None, advantage: Some(1.0) };
    let masked = Answer { new: &[-1.0, -3.0, -1.0], advantage: None, old: &[-9.0, -9.0, -9.0], ..active };
    let policy = GroupPolicy { beta: 0.0, reduction: Reduction::Step, ..GROUP };
    let both = policy.evaluate(&[active, masked], totals(2, 2));
    let alone = policy.evaluate(&[active], totals(1, 2));
    assert_eq!((both.loss, both.tokens), (alone.loss, 2));
    assert_eq!(both.d_new[1], [0.0; 3]);
}

#[test]
fn passes_of_a_step_add_up_to_its_loss() {
    let log_probs = [-1.0f32, -2.5, -0.25, -4.0, -1.5];
    let sums = [3.0f32, 2.0, 1.5, -1.0, 0.5];
    let whole = cross_entropy(&log_probs, &sums, 1e-4, 5);
    let parts =
        [cross_entropy(&log_probs[..4], &sums[..4], 1e-4, 5), cross_entropy(&log_probs[4..], &sums[4..], 1e-4, 5)];
    close("loss", parts[0].loss + parts[1].loss, whole.loss, 1e-12);
    assert_eq!(parts[1].d_log_probs[0], whole.d_log_probs[4]);
    let d = whole.d_log_sum_exp.unwrap();
    close("z-loss", f64::from(d[0]), 2.0 * 1e-4 * 3.0 / 5.0, 1e-7);
    assert!(cross_entropy(&[], &[], 0.0, 0).loss == 0.0, "a step without labels");
}

#[test]
fn cross_entropy_has_its_golden_values() {
    let Some(golden) = golden("cross_entropy") else { return };
    let (mut log_probs, mut sums) = (Vec::new(), Vec::new());
    for (row, target) in rows(&golden["logits"]).iter().zip(golden["targets"].as_array().unwrap()) {
        let Ok(target) = usize::try_from(target.as_i64().unwrap()) else { continue };
        let sum = row.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
        log_probs.push((f64::from(row[target]) - sum) as f32);
        sums.push(sum as f32);
        close("classes", cross_entropy_of_classes(row, target).loss, sum - f64::from(row[target]), 1e-9);
    }
    let plain = cross_entropy(&log_probs, &sums, 0.0, 2).loss;
    close("mean", plain, golden["mean"].as_f64().unwrap(), 1e-7);
    close("sum", cross_entropy(&log_probs, &sums, 0.0, 1).loss, golden["sum"].as_f64().unwrap(), 1e-7);
    let z = cross_entropy(&log_probs, &sums, 1e-4, 2).loss - plain;
    close("z-loss", z * 1e4, golden["z_loss_1e4"].as_f64().unwrap() * 1e4, 1e-5);
}

#[test]
fn class_derivatives_agree_with_finite_differences() {
    let scores = [0.5f32, -1.25, 2.0, 80.0];
    for label in 0..scores.len() {
        let at = cross_entropy_of_classes(&scores, label);
        assert_eq!(at.best, 3);
        for j in 0..scores.len() {
            let shifted = |h: f32| {
                let mut scores = scores;
                scores[j] += h;
                cross_entropy_of_classes(&scores, label).loss
            };
            let h = 1.0 / 1024.0;
            close("class", at.d_scores[j], (shifted(h) - shifted(-h)) / f64::from(2.0 * h), 1e-5);
        }
    }
}

#[test]
fn contrast_derivatives_agree_with_finite_differences() {
    let anchors = [1.0f32, 0.5, -0.25, 2.0, -1.0, 0.75];
    let candidates = [0.5f32, 0.25, -0.5, 1.5, -1.0, 0.0, 0.25, 2.0, -0.75];
    let of = |anchors: &[f32], candidates: &[f32]| info_nce(anchors, candidates, 3, 0.2);
    let at = of(&anchors, &candidates);
    let h = 1.0 / 2048.0;
    let shifted = |row: &[f32], i: usize, by: f32| {
        let mut row = row.to_vec();
        row[i] += by;
        row
    };
    for i in 0..anchors.len() {
        let want = (of(&shifted(&anchors, i, h), &candidates).loss - of(&shifted(&anchors, i, -h), &candidates).loss)
            / f64::from(2.0 * h);
        close("anchor", at.d_anchors[i], want, 1e-4);
    }
    for i in 0..candidates.len() {
        let want = (of(&anchors, &shifted(&candidates, i, h)).loss - of(&anchors, &shifted(&candidates, i, -h)).loss)
            / f64::from(2.0 * h);
        close("candidate", at.d_candidates[i], want, 1e-4);
    }
    let zero = of(&[0.0; 3], &[0.0; 6]);
    assert!(zero.loss.is_finite() && zero.d_anchors.iter().all(|d| d.is_finite()), "{zero:?}");
}
