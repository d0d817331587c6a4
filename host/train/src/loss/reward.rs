//! The reward model's loss (Bradley and Terry 1952; margins as in Llama 2, arXiv:2307.09288).

use super::{log_sigmoid, sigmoid};

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RewardLoss {
    pub loss: f64,
    pub d_chosen: f64,
    pub d_rejected: f64,
}

/// `-log sigmoid(chosen - rejected - margin) + center (chosen + rejected)^2`: a better answer's score is higher by at
/// least the margin, and scores stay around 0 (arXiv:2312.09244).
pub fn bradley_terry(chosen: f64, rejected: f64, margin: f64, center: f64) -> RewardLoss {
    let x = chosen - rejected - margin;
    let total = chosen + rejected;
    let (slope, pull) = (-sigmoid(-x), 2.0 * center * total);
    RewardLoss { loss: -log_sigmoid(x) + center * total * total, d_chosen: slope + pull, d_rejected: -slope + pull }
}
