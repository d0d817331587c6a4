//! GRPO's rollouts: answers sampled with the weights as they are, scored by reward components.

use super::sampler::{Completion, Sampler};
use crate::data::{Example, StepData};
use crate::job::{GrpoSpec, ScaleRewards};
use crate::loss::{RewardScale, advantages};
use crate::methods::{Answered, Rollouts, Tally, log_probs_of};
use crate::network::Network;
use crate::random::{Purpose, bits};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Instant;
use stockade_core::train::{Observer, Rewards, Rollout, TrainError};

/// Samples and scores; keeps the answers of the present step.
pub struct Roller<'a> {
    spec: &'a GrpoSpec,
    seed: u64,
    rewards: &'a dyn Rewards,
    sampler: Box<dyn Sampler + 'a>,
    /// The start, where there is a divergence from it and no adapter that could be turned off.
    reference: Option<Network>,
    adapter: bool,
    rollouts: Rollouts,
    facts: Map<String, Value>,
}

/// A prompt of the data.
struct Asked<'a> {
    tokens: &'a [u32],
    messages: &'a [stockade_core::chat::Message],
    reference: Option<&'a Value>,
}

/// Rewards of answers, and what they say about the components.
#[derive(Default)]
struct Scored {
    rewards: Vec<Option<f64>>,
    by_component: BTreeMap<String, (f64, f64)>,
    failed: usize,
    asked: usize,
}

impl<'a> Roller<'a> {
    /// `reference` is a network with the weights of the start; needed where `spec.beta` is over 0 and all weights are
    /// trained (`adapter` false).
    pub fn new(
        spec: &'a GrpoSpec,
        seed: u64,
        rewards: &'a dyn Rewards,
        sampler: Box<dyn Sampler + 'a>,
        reference: Option<Network>,
        adapter: bool,
    ) -> Self {
        Self { spec, seed, rewards, sampler, reference, adapter, rollouts: Rollouts::new(), facts: Map::new() }
    }

    /// Optimizer steps on one batch of answers.
    pub fn inner_steps(&self) -> u64 {
        self.spec.inner_steps.max(1)
    }

    pub fn is_empty(&self) -> bool {
        self.rollouts.is_empty()
    }

    pub fn rollouts(&self) -> &Rollouts {
        &self.rollouts
    }

    /// What the present answers came to, for the log.
    pub fn facts(&self) -> &Map<String, Value> {
        &self.facts
    }

    /// Answers the prompts of a step, `group` times each, and scores the answers.
    ///
    /// # Errors
    /// [`TrainError::Reward`] where more than the allowed share of the calls failed.
    pub fn roll(
        &mut self,
        network: &Network,
        data: &StepData,
        step: u64,
        observer: &dyn Observer,
    ) -> Result<(), TrainError> {
        let micro_batches = data.micro_batches.iter().map(|rows| asked(rows)).collect::<Result<Vec<_>, _>>()?;
        let prompts: Vec<&Asked<'_>> = micro_batches.iter().flatten().collect();
        let begin = Instant::now();
        let mut resampled = 0;
        let (completions, scored, advantage) = loop {
            let attempt = step.wrapping_mul(self.spec.resample + 1).wrapping_add(resampled);
            let completions = self.sample(network, &prompts, self.spec.group, attempt)?;
            let scored = self.score(&prompts, &completions, self.spec.group, observer)?;
            let scale = match self.spec.scale_rewards {
                ScaleRewards::Group => RewardScale::Group,
                ScaleRewards::Batch => RewardScale::Batch,
                ScaleRewards::None => RewardScale::None,
            };
            let advantage = advantages(&scored.rewards, self.spec.group, scale);
            if advantage.degenerate < advantage.groups || resampled >= self.spec.resample {
                break (completions, scored, advantage);
            }
            resampled += 1;
        };
        self.facts = facts(&completions, &scored, advantage.degenerate as f64 / advantage.groups.max(1) as f64);
        self.facts.insert("resampled".into(), json!(resampled));
        self.facts.insert("rollout_seconds".into(), json!(begin.elapsed().as_secs_f64()));
        // A step of equal rewards has no gradient but that of the divergence.
        let nothing = advantage.degenerate == advantage.groups && self.spec.beta == 0.0;
        let mut answers = completions.iter().zip(&advantage.values);
        self.rollouts = Rollouts::new();
        for prompts in &micro_batches {
            let mut answered = Vec::with_capacity(prompts.len() * self.spec.group);
            for prompt in prompts {
                for (completion, advantage) in answers.by_ref().take(self.spec.group) {
                    let masked = nothing || (completion.truncated && self.spec.mask_truncated);
                    let advantage = advantage.filter(|_| !masked);
                    answered.push(Answered { advantage, ..Answered::new(prompt.tokens, &completion.tokens) });
                }
            }
            self.judge_by_networks(network, &mut answered)?;
            self.rollouts.push(answered);
        }
        Ok(())
    }

    /// Mean reward of one answer to each prompt; the loss is its negative, so that lower is better here as well.
    pub fn evaluate(
        &mut self,
        network: &Network,
        data: &StepData,
        step: u64,
        observer: &dyn Observer,
    ) -> Result<Tally, TrainError> {
        let micro_batches = data.micro_batches.iter().map(|rows| asked(rows)).collect::<Result<Vec<_>, _>>()?;
        let prompts: Vec<&Asked<'_>> = micro_batches.iter().flatten().collect();
        // The same draws in every evaluation, apart from those of any step.
        let completions = self.sample(network, &prompts, 1, u64::MAX - step)?;
        let scored = self.score(&prompts, &completions, 1, observer)?;
        let known: Vec<f64> = scored.rewards.iter().flatten().copied().collect();
        let weight = known.len() as f64;
        let loss = if known.is_empty() { 0.0 } else { -known.iter().sum::<f64>() / weight };
        let mut tally = Tally::default();
        (tally.loss, tally.weight) = (loss, weight);
        tally.observe_all("reward", -loss * weight, weight);
        Ok(tally)
    }

    fn sample(
        &mut self,
        network: &Network,
        prompts: &[&Asked<'_>],
        group: usize,
        attempt: u64,
    ) -> Result<Vec<Completion>, TrainError> {
        let asked: Vec<&[u32]> = prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt.tokens, group)).collect();
        let seeds: Vec<u64> = (0..asked.len() as u64).map(|i| bits(self.seed, Purpose::Sampling, attempt, i)).collect();
        let completions = self.sampler.sample(network, &asked, &seeds)?;
        assert_eq!(completions.len(), asked.len(), "a sampler answers every prompt");
        Ok(completions)
    }

    /// The weighted sum over the components that gave a number, group by group, so that a call that fails costs one
    /// group its reward and no more.
    fn score(
        &self,
        prompts: &[&Asked<'_>],
        completions: &[Completion],
        group: usize,
        observer: &dyn Observer,
    ) -> Result<Scored, TrainError> {
        let mut scored = Scored::default();
        let mut failure = None;
        for (prompt, completions) in prompts.iter().zip(completions.chunks(group)) {
            let rollouts: Vec<Rollout> = completions
                .iter()
                .map(|completion| Rollout {
                    messages: prompt.messages.to_vec(),
                    completion: completion.text.clone(),
                    reference: prompt.reference.cloned(),
                })
                .collect();
            let mut sums: Vec<Option<f64>> = vec![None; completions.len()];
            for reward in &self.spec.rewards {
                scored.asked += completions.len();
                let values = self.rewards.score(&reward.component, &rollouts).and_then(|values| {
                    let right =
                        values.len() == rollouts.len() && values.iter().flatten().all(|value| value.is_finite());
                    let reason = "it gave not one finite number for each answer".to_owned();
                    right.then_some(values).ok_or(TrainError::Reward { component: reward.component.clone(), reason })
                });
                let values = match values {
                    Ok(values) => values,
                    Err(error) => {
                        scored.failed += completions.len();
                        observer.note(&error.to_string());
                        failure = Some((reward.component.clone(), error.to_string()));
                        continue;
                    }
                };
                let mean = scored.by_component.entry(reward.component.clone()).or_default();
                for (sum, value) in sums.iter_mut().zip(values) {
                    let Some(value) = value else { continue };
                    *sum = Some(sum.unwrap_or(0.0) + reward.weight * value);
                    *mean = (mean.0 + value, mean.1 + 1.0);
                }
            }
            scored.rewards.extend(sums);
        }
        let share = scored.failed as f64 / scored.asked.max(1) as f64;
        match failure {
            Some((component, reason)) if share > self.spec.max_failed => {
                let reason = format!("{:.0} % of a step's rewards, the last with: {reason}", 100.0 * share);
                Err(TrainError::Reward { component, reason })
            }
            _ => Ok(scored),
        }
    }

    /// Log-probabilities that later steps compare with.
    fn judge_by_networks(&self, network: &Network, answered: &mut [Answered]) -> Result<(), TrainError> {
        let temperature = self.spec.temperature as f32;
        if self.inner_steps() > 1 {
            let old = log_probs_of(network, answered, true, temperature)?;
            answered.iter_mut().zip(old).for_each(|(answer, old)| answer.old = Some(old));
        }
        if self.spec.beta > 0.0 {
            let reference = if self.adapter { network } else { self.reference.as_ref().unwrap_or(network) };
            let reference = log_probs_of(reference, answered, false, temperature)?;
            answered.iter_mut().zip(reference).for_each(|(answer, reference)| answer.reference = Some(reference));
        }
        Ok(())
    }
}

fn asked(rows: &[Vec<Example>]) -> Result<Vec<Asked<'_>>, TrainError> {
    let prompts = rows.iter().flatten().map(|example| match example {
        Example::Prompt { tokens, messages, reference } => {
            Ok(Asked { tokens, messages, reference: reference.as_ref() })
        }
        _ => Err(TrainError::Data { name: "batch".into(), reason: "this method trains on prompts".into() }),
    });
    prompts.collect()
}

fn facts(completions: &[Completion], scored: &Scored, zero_variance: f64) -> Map<String, Value> {
    let n = completions.len().max(1) as f64;
    let known: Vec<f64> = scored.rewards.iter().flatten().copied().collect();
    let count = known.len().max(1) as f64;
    let mean = known.iter().sum::<f64>() / count;
    let deviation = (known.iter().map(|reward| (reward - mean).powi(2)).sum::<f64>() / count).sqrt();
    let mut facts = Map::from_iter([
        ("reward".to_owned(), json!(mean)),
        ("reward_std".to_owned(), json!(deviation)),
        ("zero_variance".to_owned(), json!(zero_variance)),
        ("length".to_owned(), json!(completions.iter().map(|c| c.tokens.len()).sum::<usize>() as f64 / n)),
        ("truncated".to_owned(), json!(completions.iter().filter(|c| c.truncated).count() as f64 / n)),
        ("failed_rewards".to_owned(), json!(scored.failed as f64 / scored.asked.max(1) as f64)),
    ]);
    for (component, (sum, count)) in &scored.by_component {
        if *count > 0.0 {
            facts.insert(format!("reward/{component}"), json!(sum / count));
        }
    }
    facts
}
