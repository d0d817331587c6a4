//! Rollouts: what becomes of rewards, and answers by the engine.

use super::super::rollouts::Roller;
use super::super::sampler::{Completion, EngineSampler, Sampler};
use super::*;
use crate::job::GrpoSpec;
use std::cell::Cell;
use stockade_core::infer::Sampling;
use stockade_core::train::{Rewards, Rollout};

/// Answers `[step of the counter, i]` to prompt i, and tells what it was asked.
#[derive(Default)]
struct Scripted {
    calls: Cell<u64>,
}

impl Sampler for Scripted {
    fn take(&self, _: &Network) -> Result<(), TrainError> {
        Ok(())
    }

    fn sample(&self, prompts: &[&[u32]], seeds: &[u64], _: &Sampling) -> Result<Vec<Completion>, TrainError> {
        self.calls.set(self.calls.get() + 1);
        assert_eq!(prompts.len(), seeds.len());
        let answer = |i: usize| Completion {
            tokens: vec![20 + i as u32, 3],
            text: format!("{} {i}", self.calls.get()),
            truncated: i == 1,
        };
        Ok((0..prompts.len()).map(answer).collect())
    }
}

/// Rewards by the answer's text.
struct By(fn(&str, &str) -> Result<Option<f64>, String>);

impl Rewards for By {
    fn score(&self, component: &str, rollouts: &[Rollout]) -> Result<Vec<Option<f64>>, TrainError> {
        let score = |rollout: &Rollout| {
            assert_eq!(rollout.reference, Some(json!(7)));
            self.0(component, &rollout.completion)
                .map_err(|reason| TrainError::Reward { component: component.into(), reason })
        };
        rollouts.iter().map(score).collect()
    }
}

fn spec(more: Value) -> GrpoSpec {
    let mut grpo = json!({ "rewards": ["a", { "component": "b", "weight": 0.5 }], "group": 4 });
    for (key, value) in more.as_object().unwrap() {
        grpo[key] = value.clone();
    }
    job("grpo", json!({ "grpo": grpo })).grpo.unwrap()
}

fn prompts() -> StepData {
    let prompt = |i: u32| Example::Prompt { tokens: vec![1, 5 + i], messages: Vec::new(), reference: Some(json!(7)) };
    step_of((0..2).map(prompt).collect(), 1)
}

/// How it ended, the advantages, the facts.
type Rolled = (Result<(), TrainError>, Vec<Option<f64>>, Value);

fn roll(spec: &GrpoSpec, rewards: &dyn Rewards) -> Option<Rolled> {
    let job = job("sft", json!({}));
    let network = open("llama-micro", &job, &Objective::Documents { z_loss: 0.0 })?;
    let sampler = Scripted::default();
    let mut roller = Roller::new(spec, 1, rewards, &sampler, None, true);
    let result = roller.roll(&network, &prompts(), 0, &Listener::default());
    let advantages = roller.rollouts().iter().flatten().map(|answer| answer.advantage).collect();
    Some((result, advantages, Value::Object(roller.facts().clone())))
}

#[test]
fn rewards_add_up_by_weight_and_none_takes_no_part() {
    // Component a knows answers below 6, b all but answer 7.
    let rewards = By(|component, text| {
        let i: f64 = text.split(' ').nth(1).unwrap().parse().unwrap();
        Ok(match component {
            "a" if i < 6.0 => Some(i),
            "b" if i < 7.0 => Some(2.0),
            _ => None,
        })
    });
    let spec = spec(json!({ "scale_rewards": "none" }));
    let Some((result, advantages, facts)) = roll(&spec, &rewards) else { return };
    result.unwrap();
    // Rewards 1 2 3 4 | 5 6 1 none.
    let want = [Some(-1.5), Some(-0.5), Some(0.5), Some(1.5), Some(1.0), Some(2.0), Some(-3.0), None];
    assert_eq!(advantages, want);
    assert_eq!(facts["reward/a"], 2.5);
    assert_eq!(facts["zero_variance"], 0.0);
    assert_eq!(facts["truncated"], 0.125);
}

#[test]
fn truncated_answers_are_masked_on_wish() {
    let rewards = By(|_, text| Ok(Some(f64::from(u8::from(text.ends_with('0'))))));
    let spec = spec(json!({ "mask_truncated": true }));
    let Some((_, advantages, _)) = roll(&spec, &rewards) else { return };
    assert_eq!(advantages[1], None);
    assert!(advantages[0].unwrap() > 0.0 && advantages[2].unwrap() < 0.0);
    assert_eq!(advantages[4..], [Some(0.0); 4], "a group of equal rewards");
}

#[test]
fn equal_rewards_are_rolled_again_and_then_make_no_step() {
    let rewards = By(|_, _| Ok(Some(1.0)));
    let spec = spec(json!({ "resample": 2 }));
    let Some((result, advantages, facts)) = roll(&spec, &rewards) else { return };
    result.unwrap();
    assert_eq!((&facts["resampled"], &facts["zero_variance"]), (&json!(2), &json!(1.0)));
    assert_eq!(advantages, [None; 8], "nothing to learn from");
}

#[test]
fn failures_are_events_up_to_a_share_and_then_end_the_job() {
    // Component b fails for one of two groups: a quarter of all scores.
    let rewards = By(|component, text| match component {
        "b" if text.ends_with('5') => Err("trapped".into()),
        _ => Ok(Some(f64::from(u8::from(text.ends_with('0') || text.ends_with('6'))))),
    });
    let Some((result, advantages, facts)) = roll(&spec(json!({ "max_failed": 0.3 })), &rewards) else { return };
    result.unwrap();
    assert_eq!(facts["failed_rewards"], 0.25);
    assert!(advantages.iter().all(Option::is_some), "the other component still counts");
    let (result, ..) = roll(&spec(json!({ "max_failed": 0.2 })), &rewards).unwrap();
    let error = result.unwrap_err().to_string();
    assert!(error.contains("reward `b` failed: 25 %") && error.contains("trapped"), "{error}");
    let nan = By(|_, _| Ok(Some(f64::NAN)));
    assert!(roll(&spec(json!({})), &nan).unwrap().0.is_err(), "what is not a number is a failure");
}

#[test]
fn a_batch_of_answers_serves_several_steps() {
    let rewards = By(|_, text| Ok(Some(f64::from(u8::from(text.ends_with('0'))))));
    let job = job(
        "grpo",
        json!({ "grpo": { "inner_steps": 2, "rewards": ["a"], "group": 4 }, "checkpoint": { "every": 1 } }),
    );
    let objective = Objective::of(&job, 0);
    let Some(network) = open("llama-micro", &job, &objective) else { return };
    let folder = tempfile::tempdir().unwrap();
    let source = Steps(vec![prompts(); 6]);
    let (listener, sampler) = (Listener::default(), Scripted::default());
    let mut run = run(&job, objective, network, &source, folder.path(), &listener);
    run.roller = Some(Roller::new(job.grpo.as_ref().unwrap(), 1, &rewards, &sampler, None, true));
    run.train().unwrap();
    let steps = listener.steps.lock().unwrap();
    assert_eq!(steps.len(), 6);
    // The first step on new answers is on the policy that wrote them: all ratios are 1 and advantages add up to 0.
    assert!(steps[0].loss.abs() < 1e-6 && steps[1].loss < -1e-4, "{steps:?}");
    let saved: Vec<u64> = listener.saved.lock().unwrap().iter().map(|saved| saved.step).collect();
    assert_eq!(saved, [2, 4, 6], "between rollouts only");
}

#[test]
fn the_engine_answers_as_the_network_would() {
    let Some(fixture) = reference_file("fixtures/llama-micro") else { return };
    let job = job("sft", json!({}));
    let network = open("llama-micro", &job, &Objective::Documents { z_loss: 0.0 }).unwrap();
    // The network has the fixture's weights, so its files are what an export would write.
    let export = |_: &Network, folder: &Path| {
        std::fs::create_dir_all(folder).unwrap();
        for file in std::fs::read_dir(&fixture).unwrap().map(|file| file.unwrap().path()) {
            if file.extension().is_none_or(|extension| extension != "gguf") {
                std::fs::copy(&file, folder.join(file.file_name().unwrap())).unwrap();
            }
        }
        Ok(())
    };
    let folder = tempfile::tempdir().unwrap();
    let of = |temperature: f32, seeds: &[u64]| {
        let sampling = Sampling { max_tokens: Some(8), temperature, ignore_eos: true, ..Sampling::default() };
        let context = network.config().context_tokens;
        let sampler = EngineSampler::new(folder.path().join("r"), None, &export, context, &[], 8, 2).unwrap();
        let prompts: [&[u32]; 3] = [&[1000, 5, 9], &[1000, 5, 9], &[1000, 77]];
        sampler.take(&network).unwrap();
        sampler.sample(&prompts, seeds, &sampling).unwrap()
    };
    let drawn = of(1.0, &[1, 2, 3]);
    assert_eq!(drawn, of(1.0, &[1, 2, 3]), "seeds fix everything");
    assert_ne!(drawn[0].tokens, drawn[1].tokens, "other draws for another seed");
    assert!(drawn.iter().all(|c| c.tokens.len() == 8 || !c.truncated));
    assert!(!folder.path().join("r").exists(), "nothing stays");
    for (completion, prompt) in of(0.0, &[1, 2, 3]).iter().zip([vec![1000, 5, 9], vec![1000, 5, 9], vec![1000, 77]]) {
        let mut tokens = prompt;
        for &token in &completion.tokens {
            let packed = crate::network::Packed { ends: vec![tokens.len()], tokens: tokens.clone(), targets: vec![] };
            let logits = network.logits(&packed, &[tokens.len() - 1]).unwrap();
            let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
            assert!(logits[best] - logits[token as usize] < 1e-3, "{token} is not the likeliest after {tokens:?}");
            tokens.push(token);
        }
    }
}
