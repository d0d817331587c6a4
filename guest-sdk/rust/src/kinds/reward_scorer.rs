//! Reward scorers score completions for reinforcement learning, best-of-n and data filtering.

pub use crate::bindings::reward_scorer::exports::stockade::plugin::reward_scorer::Rollout;

use super::glue;
use crate::bindings::reward_scorer::exports::stockade::plugin::reward_scorer as raw;
use crate::{Result, config, panic};
use serde::de::DeserializeOwned;

/// Scores completions.
pub trait RewardScorer: DeserializeOwned + 'static {
    /// A finite reward for each rollout, in order; `None`: not applicable to that one.
    fn score(&self, rollouts: Vec<Rollout>) -> Result<Vec<Option<f64>>>;
}

impl<T: RewardScorer> raw::Guest for glue::RewardScorer<T> {
    fn score(rollouts: Vec<Rollout>) -> Result<Vec<Option<f64>>> {
        panic::install();
        config::load::<T>()?.score(rollouts)
    }
}
