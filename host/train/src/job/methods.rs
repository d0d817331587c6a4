//! The methods and the sections that only some of them have.

use super::data::Format;
use super::read::{Section, named};
use serde::Serialize;
use stockade_core::train::TrainError;

named! {
    pub enum Method {
        Pretrain = "pretrain",
        Continue = "continue",
        Sft = "sft",
        Dpo = "dpo",
        Ipo = "ipo",
        Kto = "kto",
        Orpo = "orpo",
        Simpo = "simpo",
        Reward = "reward",
        Grpo = "grpo",
        Classify = "classify",
        Embed = "embed",
    }
}

impl Method {
    /// The data that it learns from.
    pub fn formats(self) -> &'static [Format] {
        match self {
            Self::Pretrain | Self::Continue => &[Format::Text, Format::Tokens],
            Self::Sft => &[Format::Chat, Format::Completion, Format::Text, Format::Tokens],
            Self::Dpo | Self::Ipo | Self::Orpo | Self::Simpo | Self::Reward => &[Format::Preference],
            Self::Kto => &[Format::Unpaired],
            Self::Grpo => &[Format::Prompts],
            Self::Classify => &[Format::Classify],
            Self::Embed => &[Format::Embed],
        }
    }

    /// Next-token loss on whole documents, which may share a row and may be split.
    pub fn trains_on_documents(self) -> bool {
        matches!(self, Self::Pretrain | Self::Continue | Self::Sft)
    }

    /// A head that is not the base's language head.
    pub fn has_own_head(self) -> bool {
        matches!(self, Self::Reward | Self::Classify | Self::Embed)
    }

    /// Why a row alone in its micro-batch teaches nothing, where that is so.
    pub(super) fn needs_others(self) -> Option<&'static str> {
        match self {
            Self::Embed => Some("1 row has no other to be told from"),
            Self::Kto => Some("the divergence is estimated on other rows of the micro-batch; 1 has none"),
            _ => None,
        }
    }

    /// Rates that are usual for all weights; adapters take ten times as much.
    pub(super) fn learning_rate(self, adapter: bool) -> f64 {
        let full = match self {
            Self::Pretrain => 1e-3,
            Self::Continue => 1e-4,
            Self::Sft | Self::Classify | Self::Embed | Self::Reward => 2e-5,
            Self::Dpo | Self::Ipo | Self::Kto | Self::Orpo | Self::Simpo | Self::Grpo => 1e-6,
        };
        if adapter { 10.0 * full } else { full }
    }
}

/// `[dpo]`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DpoSpec {
    pub beta: f64,
    pub loss: DpoLoss,
    /// Share of labels that are taken for wrong (`conservative`, `robust`), below one half.
    pub label_smoothing: f64,
}

named! {
    pub enum DpoLoss {
        Sigmoid = "sigmoid",
        Conservative = "conservative",
        Robust = "robust",
        Hinge = "hinge",
    }
}

/// `[ipo]`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IpoSpec {
    pub beta: f64,
    /// Of the log-probabilities of a completion.
    pub reduction: Reduction,
}

named! {
    pub enum Reduction {
        Mean = "mean",
        Sum = "sum",
    }
}

/// `[kto]`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KtoSpec {
    pub beta: f64,
    pub desirable_weight: f64,
    pub undesirable_weight: f64,
}

/// `[orpo]`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OrpoSpec {
    /// Weight of the odds-ratio term.
    pub lambda: f64,
}

/// `[simpo]`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SimpoSpec {
    pub beta: f64,
    /// The margin, after `beta`.
    pub gamma: f64,
    /// False: sums of log-probabilities, as CPO has them.
    pub length_normalised: bool,
    /// Weight of the chosen completion's cross entropy.
    pub nll: f64,
}

/// `[reward]`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RewardSpec {
    /// Weight of the squared sum of both scores; 0: off.
    pub center: f64,
}

/// `[grpo]`; defaults are TRL's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GrpoSpec {
    /// Answers to each prompt, at least 2.
    pub group: usize,
    /// At least one.
    pub rewards: Vec<RewardWeight>,
    /// Longest answer.
    pub max_tokens: usize,
    pub temperature: f64,
    pub top_p: f64,
    /// 0: off.
    pub top_k: usize,
    pub loss: GrpoLoss,
    /// Weight of the KL divergence from the start; 0: no reference is kept.
    pub beta: f64,
    /// The ratio is clipped to `1 - epsilon ..= 1 + epsilon_high`.
    pub epsilon: f64,
    pub epsilon_high: f64,
    pub scale_rewards: ScaleRewards,
    /// Optimizer steps on one batch of answers.
    pub inner_steps: u64,
    /// Answers that `max_tokens` cut give no gradient.
    pub mask_truncated: bool,
    /// Share of failed rewards in a step that ends the job.
    pub max_failed: f64,
    /// Rolls out again (at most this often) until some group's rewards differ.
    pub resample: u64,
}

/// A reward component and its weight in the sum.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RewardWeight {
    pub component: String,
    pub weight: f64,
}

named! {
    pub enum GrpoLoss {
        Grpo = "grpo",
        Bnpo = "bnpo",
        Dapo = "dapo",
        DrGrpo = "dr_grpo",
        Gspo = "gspo",
    }
}

named! {
    pub enum ScaleRewards {
        Group = "group",
        Batch = "batch",
        None = "none",
    }
}

/// `[classify]`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassifySpec {
    /// In the order of the head's rows; empty: the data's, sorted.
    pub labels: Vec<String>,
}

/// `[embed]`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EmbedSpec {
    pub temperature: f64,
    pub pooling: EmbedPooling,
}

named! {
    pub enum EmbedPooling {
        Mean = "mean",
        Last = "last",
    }
}

pub(super) fn dpo(mut dpo: Section<'_>) -> Result<DpoSpec, TrainError> {
    let label_smoothing = dpo.number("label_smoothing", 0.0..=0.499)?;
    let loss = dpo.choice("loss")?.unwrap_or(DpoLoss::Sigmoid);
    if label_smoothing.is_some_and(|e| e > 0.0) && !matches!(loss, DpoLoss::Conservative | DpoLoss::Robust) {
        return Err(dpo.refuse("label_smoothing", format!("`{loss}` has none; `conservative` and `robust` have")));
    }
    let spec = DpoSpec {
        beta: dpo.number("beta", 1e-6..=1000.0)?.unwrap_or(0.1),
        label_smoothing: label_smoothing.unwrap_or(match loss {
            DpoLoss::Conservative | DpoLoss::Robust => 0.1,
            DpoLoss::Sigmoid | DpoLoss::Hinge => 0.0,
        }),
        loss,
    };
    dpo.finish()?;
    Ok(spec)
}

pub(super) fn ipo(mut ipo: Section<'_>) -> Result<IpoSpec, TrainError> {
    let spec = IpoSpec {
        beta: ipo.number("beta", 1e-6..=1000.0)?.unwrap_or(0.1),
        reduction: ipo.choice("reduction")?.unwrap_or(Reduction::Mean),
    };
    ipo.finish()?;
    Ok(spec)
}

pub(super) fn kto(mut kto: Section<'_>) -> Result<KtoSpec, TrainError> {
    let spec = KtoSpec {
        beta: kto.number("beta", 1e-6..=1000.0)?.unwrap_or(0.1),
        desirable_weight: kto.number("desirable_weight", 0.0..=1000.0)?.unwrap_or(1.0),
        undesirable_weight: kto.number("undesirable_weight", 0.0..=1000.0)?.unwrap_or(1.0),
    };
    kto.finish()?;
    Ok(spec)
}

pub(super) fn orpo(mut orpo: Section<'_>) -> Result<OrpoSpec, TrainError> {
    let spec = OrpoSpec { lambda: orpo.number("lambda", 0.0..=1000.0)?.unwrap_or(0.1) };
    orpo.finish()?;
    Ok(spec)
}

pub(super) fn simpo(mut simpo: Section<'_>) -> Result<SimpoSpec, TrainError> {
    let spec = SimpoSpec {
        beta: simpo.number("beta", 1e-6..=1000.0)?.unwrap_or(2.0),
        gamma: simpo.number("gamma", 0.0..=1000.0)?.unwrap_or(1.0),
        length_normalised: simpo.flag("length_normalised", true)?,
        nll: simpo.number("nll", 0.0..=1000.0)?.unwrap_or(0.0),
    };
    simpo.finish()?;
    Ok(spec)
}

pub(super) fn reward(mut reward: Section<'_>) -> Result<RewardSpec, TrainError> {
    let spec = RewardSpec { center: reward.number("center", 0.0..=1000.0)?.unwrap_or(0.0) };
    reward.finish()?;
    Ok(spec)
}

pub(super) fn grpo(mut grpo: Section<'_>) -> Result<GrpoSpec, TrainError> {
    let epsilon = grpo.number("epsilon", 0.0..=1.0)?.unwrap_or(0.2);
    let spec = GrpoSpec {
        group: grpo.size("group", 2..=1024)?.unwrap_or(8),
        rewards: rewards(&mut grpo)?,
        max_tokens: grpo.size("max_tokens", 1..=1 << 17)?.unwrap_or(256),
        temperature: grpo.number("temperature", 1e-3..=10.0)?.unwrap_or(1.0),
        top_p: grpo.number("top_p", 1e-6..=1.0)?.unwrap_or(1.0),
        top_k: grpo.size("top_k", 0..=1 << 24)?.unwrap_or(0),
        loss: grpo.choice("loss")?.unwrap_or(GrpoLoss::Dapo),
        beta: grpo.number("beta", 0.0..=1000.0)?.unwrap_or(0.0),
        epsilon,
        epsilon_high: grpo.number("epsilon_high", 0.0..=100.0)?.unwrap_or(epsilon),
        scale_rewards: grpo.choice("scale_rewards")?.unwrap_or(ScaleRewards::Group),
        inner_steps: grpo.integer("inner_steps", 1..=64)?.unwrap_or(1),
        mask_truncated: grpo.flag("mask_truncated", false)?,
        max_failed: grpo.number("max_failed", 0.0..=1.0)?.unwrap_or(0.2),
        resample: grpo.integer("resample", 0..=64)?.unwrap_or(0),
    };
    grpo.finish()?;
    Ok(spec)
}

/// `rewards = ["name"]`, or `[{ component = "name", weight = 0.5 }]`.
fn rewards(grpo: &mut Section<'_>) -> Result<Vec<RewardWeight>, TrainError> {
    const MAX_REWARDS: usize = 64;
    let Some(value) = grpo.take("rewards") else {
        return Err(grpo.refuse("rewards", "is missing: the components that score answers"));
    };
    let items = value.as_array().filter(|items| (1..=MAX_REWARDS).contains(&items.len()));
    let items = items.ok_or_else(|| grpo.refuse("rewards", format!("expected a list of 1 to {MAX_REWARDS}")))?;
    let mut rewards = Vec::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        let path = grpo.path_of(&format!("rewards[{i}]"));
        if let Some(component) = item.as_str().filter(|name| (1..=4096).contains(&name.len())) {
            rewards.push(RewardWeight { component: component.to_owned(), weight: 1.0 });
            continue;
        }
        let mut reward = Section::of(path, Some(item))?;
        let component = reward.text("component")?.ok_or_else(|| reward.refuse("component", "is missing"))?;
        let weight = reward.number("weight", -1e6..=1e6)?.unwrap_or(1.0);
        reward.finish()?;
        rewards.push(RewardWeight { component, weight });
    }
    Ok(rewards)
}

pub(super) fn classify(mut classify: Section<'_>) -> Result<ClassifySpec, TrainError> {
    let labels = classify.texts("labels")?.unwrap_or_default();
    let mut sorted = labels.clone();
    sorted.sort();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(classify.refuse("labels", "a label occurs twice"));
    }
    classify.finish()?;
    Ok(ClassifySpec { labels })
}

pub(super) fn embed(mut embed: Section<'_>) -> Result<EmbedSpec, TrainError> {
    let spec = EmbedSpec {
        temperature: embed.number("temperature", 1e-3..=100.0)?.unwrap_or(0.05),
        pooling: embed.choice("pooling")?.unwrap_or(EmbedPooling::Mean),
    };
    embed.finish()?;
    Ok(spec)
}
