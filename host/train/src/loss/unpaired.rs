//! KTO: answers that are good or bad, one at a time (Ethayarajh et al. 2024, arXiv:2402.01306).

use super::sigmoid;

/// Settings of the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unpaired {
    pub beta: f64,
    /// Weights of desirable and undesirable answers; to be chosen such that their totals are alike.
    pub desirable_weight: f64,
    pub undesirable_weight: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UnpairedLoss {
    pub loss: f64,
    /// Derivative by the policy's log-probability of the answer.
    pub d_policy: f64,
    /// `beta (policy - reference)`.
    pub reward: f64,
}

impl Unpaired {
    /// `w (1 - sigmoid(beta (r - z)))` for a desirable answer with log-ratio r, `w (1 - sigmoid(beta (z - r)))` else.
    ///
    /// `policy` and `reference` are summed log-probabilities in nats; `divergence` is z of [`Self::divergence`].
    pub fn evaluate(&self, policy: f64, reference: f64, desirable: bool, divergence: f64) -> UnpairedLoss {
        let ratio = policy - reference;
        let (weight, sign) = if desirable { (self.desirable_weight, 1.0) } else { (self.undesirable_weight, -1.0) };
        let x = sign * self.beta * (ratio - divergence);
        UnpairedLoss {
            loss: weight * sigmoid(-x),
            d_policy: -weight * sign * self.beta * sigmoid(x) * sigmoid(-x),
            reward: self.beta * ratio,
        }
    }

    /// The reference point z: the mean log-ratio of answers to prompts that are not theirs, at least 0. An estimate of
    /// the divergence from the reference; no gradient goes through it. 0 for no pairs.
    pub fn divergence(log_ratios: &[f64]) -> f64 {
        let mean = log_ratios.iter().sum::<f64>() / log_ratios.len().max(1) as f64;
        mean.max(0.0)
    }
}
