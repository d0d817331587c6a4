//! Every method: it learns one batch by heart, reaches every parameter, and takes odd data without a panic.

use super::*;
use crate::methods::{Answered, References, Tally, Turn};

/// Every objective with a batch of its own.
pub(super) fn methods() -> Vec<(&'static str, Job, Objective, StepData)> {
    let documents: Vec<Example> = (0..3)
        .map(|i| Example::Text(sequence(&(0..14).map(|t| (i * 31 + t * 7) % 200).collect::<Vec<_>>(), 4)))
        .collect();
    let answer = |i: u32, better: bool| {
        let tail = if better { 5 } else { 11 };
        sequence(&(0..12).map(|t| if t < 5 { (i * 17 + t) % 200 } else { (i + t * tail) % 200 }).collect::<Vec<_>>(), 5)
    };
    let pairs: Vec<Example> = (0..3)
        .map(|i| Example::Pair { chosen: answer(i, true), rejected: answer(i, false), margin: (i == 1).then_some(0.5) })
        .collect();
    let unpaired: Vec<Example> =
        (0..4).map(|i| Example::Unpaired { sequence: answer(i, i % 2 == 0), desirable: i % 2 == 0 }).collect();
    let labelled: Vec<Example> =
        (0..4).map(|i| Example::Labelled { tokens: answer(i, true).tokens, label: i % 3 }).collect();
    let similar: Vec<Example> = (0..4)
        .map(|i| Example::Similar {
            anchor: answer(i, true).tokens,
            positive: answer(i, false).tokens,
            negative: (i == 2).then(|| vec![3, 9, 4]),
        })
        .collect();
    let of = |method: &'static str, more: Value, examples: &[Example]| {
        let job = job(method, more);
        let objective = Objective::of(&job, 3);
        (method, job, objective, step_of(examples.to_vec(), 2))
    };
    vec![
        of("pretrain", json!({ "optim": { "z_loss": 1e-4 } }), &documents),
        of("continue", json!({}), &documents),
        of("sft", json!({}), &documents),
        of("dpo", json!({}), &pairs),
        of("dpo", json!({ "dpo": { "loss": "robust" } }), &pairs),
        of("dpo", json!({ "dpo": { "loss": "hinge" } }), &pairs),
        of("ipo", json!({}), &pairs),
        of("kto", json!({}), &unpaired),
        of("orpo", json!({}), &pairs),
        of("simpo", json!({}), &pairs),
        of("reward", json!({ "reward": { "center": 0.01 } }), &pairs),
        of("classify", json!({}), &labelled),
        of("embed", json!({}), &similar),
        of("embed", json!({ "embed": { "pooling": "last" } }), &similar),
    ]
}

/// Answers with advantages to prompts, as rollouts leave them.
fn answers() -> (Job, Objective, Vec<Vec<Answered>>) {
    let job = job("grpo", json!({ "grpo": { "beta": 0.01 } }));
    let objective = Objective::of(&job, 0);
    let answered = |i: u32| {
        let answer: Vec<u32> = (0..6).map(|t| (i * 40 + t * 3) % 200).collect();
        Answered {
            advantage: Some(if i.is_multiple_of(2) { 1.0 } else { -1.0 }),
            reference: Some(vec![-5.0; 6]),
            ..Answered::new(&[1, 2, 3], &answer)
        }
    };
    (job, objective, vec![(0..4).map(answered).collect()])
}

fn references(objective: &Objective, network: &Network, step: &StepData) -> References {
    let folder = tempfile::tempdir().unwrap();
    let source = Steps(vec![step.clone()]);
    References::prepare(objective, network, &[&source], &folder.path().join("r"), "d", &Listener::default())
        .unwrap()
        .unwrap()
}

#[test]
fn every_method_learns_one_batch_by_heart() {
    for (method, job, objective, step) in methods() {
        let Some(network) = open("llama-micro", &job, &objective) else { return };
        let folder = tempfile::tempdir().unwrap();
        let source = Steps(vec![step; 60]);
        let listener = Listener::default();
        run(&job, objective, network, &source, folder.path(), &listener).train().unwrap();
        let steps = listener.steps.lock().unwrap();
        let (first, last) = (&steps[0], &steps[steps.len() - 1]);
        assert!(last.loss < 0.5 * first.loss, "{method}: {} to {}", first.loss, last.loss);
        if let Some(accuracy) = last.more.get("accuracy") {
            assert_eq!(accuracy, 1.0, "{method}");
        }
    }
}

/// candle's fused operations drop gradients without a word; whatever computes here, nothing may.
#[test]
fn every_parameter_of_every_method_gets_a_gradient() {
    let adapters = [Value::Null, json!({ "kind": "lora" }), json!({ "kind": "dora" }), json!({ "kind": "qlora" })];
    for adapter in adapters {
        for (method, job, objective, step) in methods() {
            let mut settings = job.to_json();
            if !adapter.is_null() {
                if method == "pretrain" {
                    continue;
                }
                settings["model"]["adapter"] = adapter.clone();
                settings["output"].as_object_mut().unwrap().remove("merge");
            }
            let job = Job::from_json(&settings).unwrap();
            let Some(mut network) = open("llama-micro", &job, &objective) else { return };
            let references = references(&objective, &network, &step);
            shake_adapters(&mut network);
            let mut gradients = network.gradients();
            let mut turn =
                Turn { network: &network, references: &references, gradients: Some(&mut gradients), seed: 1, step: 0 };
            let tally = objective.run(&mut turn, &step).unwrap();
            assert!(tally.loss.is_finite() && tally.weight > 0.0, "{method}: {tally:?}");
            assert_all(&format!("{method} {adapter}"), &network, &gradients);
        }
    }
}

#[test]
fn every_parameter_gets_a_gradient_from_answers() {
    for adapter in [Value::Null, json!({ "kind": "lora" }), json!({ "kind": "dora" }), json!({ "kind": "qlora" })] {
        let (job, objective, rollouts) = answers();
        let mut settings = job.to_json();
        if !adapter.is_null() {
            settings["model"]["adapter"] = adapter.clone();
        }
        let job = Job::from_json(&settings).unwrap();
        let Some(mut network) = open("llama-micro", &job, &objective) else { return };
        shake_adapters(&mut network);
        let mut gradients = network.gradients();
        let references = References::default();
        let mut turn =
            Turn { network: &network, references: &references, gradients: Some(&mut gradients), seed: 1, step: 0 };
        objective.answers(&mut turn, &rollouts).unwrap();
        assert_all(&format!("grpo {adapter}"), &network, &gradients);
    }
}

/// B begins at zero, which leaves A without a gradient for one step.
fn shake_adapters(network: &mut Network) {
    for i in 0..network.parameters().len() {
        if network.parameters()[i].name.contains("lora_B") {
            network.values_mut(i).iter_mut().enumerate().for_each(|(j, x)| *x = 0.01 * ((j % 7) as f32 - 3.0));
        }
    }
    network.updated().unwrap();
}

fn assert_all(what: &str, network: &Network, gradients: &crate::network::Gradients) {
    for (i, parameter) in network.parameters().iter().enumerate() {
        let gradient = gradients.get(i);
        assert!(gradient.iter().all(|x| x.is_finite()), "{what}: {} is not finite", parameter.name);
        assert!(gradient.iter().any(|&x| x != 0.0), "{what}: {} gets none", parameter.name);
    }
}

#[test]
fn micro_batches_change_nothing_where_the_objective_allows() {
    for (method, job, objective, step) in methods() {
        if method == "embed" || method == "kto" {
            continue; // their other examples are part of the objective
        }
        let Some(network) = open("llama-micro", &job, &objective) else { return };
        let examples: Vec<Example> = step.micro_batches.concat().concat();
        let tally = |rows: usize| -> (Tally, f64) {
            let step = step_of(examples.clone(), rows);
            let references = references(&objective, &network, &step);
            let mut gradients = network.gradients();
            let mut turn =
                Turn { network: &network, references: &references, gradients: Some(&mut gradients), seed: 1, step: 0 };
            (objective.run(&mut turn, &step).unwrap(), gradients.norm())
        };
        let (whole, parts) = (tally(100), tally(1));
        assert!((whole.0.loss - parts.0.loss).abs() < 1e-5 * whole.0.loss.abs().max(1.0), "{method}");
        assert!((whole.1 - parts.1).abs() < 1e-4 * whole.1, "{method}: {} {}", whole.1, parts.1);
        assert_eq!((whole.0.weight, whole.0.tokens), (parts.0.weight, parts.0.tokens), "{method}");
    }
}

#[test]
fn odd_data_is_a_typed_error_or_a_step_that_moves_nothing() {
    let text =
        |tokens: &[u32], labels: &[i32]| Example::Text(Sequence { tokens: tokens.to_vec(), labels: labels.to_vec() });
    let objective = Objective::Documents { z_loss: 0.0 };
    let job = job("sft", json!({}));
    let Some(network) = open("llama-micro", &job, &objective) else { return };
    let references = References::default();
    let run = |objective: &Objective, step: &StepData| {
        let mut turn = Turn { network: &network, references: &references, gradients: None, seed: 1, step: 0 };
        objective.run(&mut turn, step)
    };
    for (name, step) in [
        ("no micro-batch", StepData::default()),
        ("empty rows", StepData { micro_batches: vec![vec![], vec![vec![]]], epoch: 0 }),
        ("no labels", step_of(vec![text(&[1, 2, 3], &[IGNORE; 3])], 1)),
        ("one token", step_of(vec![text(&[1], &[IGNORE])], 1)),
    ] {
        let tally = run(&objective, &step).unwrap();
        assert_eq!((tally.weight, tally.loss), (0.0, 0.0), "{name}");
    }
    let long = vec![1u32; network.config().context_tokens + 1];
    for (name, example) in [
        ("an unknown token", text(&[1, 1 << 30], &[IGNORE, 1 << 30])),
        ("a label of another token", text(&[1, 2], &[IGNORE, 3])),
        ("a label on the first token", text(&[1, 2], &[1, 2])),
        ("fewer labels than tokens", text(&[1, 2], &[2])),
        ("longer than the context", Example::Text(sequence(&long, 1))),
        ("another method's", Example::Labelled { tokens: vec![1], label: 0 }),
    ] {
        let error = run(&objective, &step_of(vec![example], 1)).unwrap_err();
        assert!(matches!(error, TrainError::Data { .. }), "{name}: {error}");
    }
    let label = Example::Labelled { tokens: vec![1, 2], label: 9 };
    assert!(run(&Objective::Classes { labels: 3 }, &step_of(vec![label], 1)).is_err());
    let pair = Example::Pair { chosen: sequence(&[1, 2], 1), rejected: sequence(&[1, 3], 1), margin: None };
    let unknown = run(&Objective::Pairs(crate::loss::Preference::Hinge { beta: 0.1 }), &step_of(vec![pair], 1));
    assert!(unknown.is_err(), "no reference was made for it");
}

#[test]
fn a_loss_that_is_not_finite_is_skipped_and_then_ends_the_run() {
    let job = job("sft", json!({ "optim": { "max_skipped": 2 } }));
    let objective = Objective::Documents { z_loss: 0.0 };
    let Some(mut network) = open("llama-micro", &job, &objective) else { return };
    network.values_mut(0)[7 * 64] = f32::NAN; // a part of the embedding of token 7
    network.updated().unwrap();
    let step = step_of(vec![Example::Text(sequence(&[7, 9, 8], 1))], 1);
    let folder = tempfile::tempdir().unwrap();
    let source = Steps(vec![step; 10]);
    let listener = Listener::default();
    let error = run(&job, objective, network, &source, folder.path(), &listener).train().unwrap_err();
    assert!(matches!(error, TrainError::Diverged { step: 3, .. }), "{error}");
    let log = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    let lines: Vec<StepMetrics> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "steps that were skipped are in the log");
    assert!(lines.iter().all(|line| line.more.contains_key("skipped") && line.loss.is_finite()), "{lines:?}");
}
