//! Losses over pairs of a chosen and a rejected answer: DPO and its relatives, IPO, ORPO, SimPO and CPO.

use super::{log_sigmoid, sigmoid};

/// A pair as policy and reference see it. Log-probabilities are sums over an answer's tokens, in nats.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pair {
    pub chosen: f64,
    pub rejected: f64,
    /// Under the reference; not read by losses that know none.
    pub reference_chosen: f64,
    pub reference_rejected: f64,
    /// Lengths of the answers, at least 1.
    pub chosen_tokens: usize,
    pub rejected_tokens: usize,
}

/// The loss of one pair.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairLoss {
    pub loss: f64,
    /// Derivative by [`Pair::chosen`], hence by each log-probability of its tokens.
    pub d_chosen: f64,
    pub d_rejected: f64,
    /// What the policy is taken to pay for each answer: `beta (policy - reference)`, or what the loss has in its place.
    pub reward_chosen: f64,
    pub reward_rejected: f64,
}

/// Which loss, with its settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Preference {
    /// `-(1 - e) ls(beta D) - e ls(-beta D)` with `D` the difference of log-ratios (arXiv:2305.18290); a label
    /// smoothing e over 0 is its conservative form.
    Dpo { beta: f64, smoothing: f64 },
    /// Unbiased where a share e < 1/2 of the labels is wrong (arXiv:2403.00409).
    Robust { beta: f64, smoothing: f64 },
    /// `max(0, 1 - beta D)` (SLiC, arXiv:2305.10425).
    Hinge { beta: f64 },
    /// `(D - 1 / (2 beta))^2` (arXiv:2310.12036). The paper sums over tokens; `mean` averages each answer by its length
    /// first, as TRL does.
    Ipo { beta: f64, mean: bool },
    /// `-ls(beta (a - b) - gamma) + nll * NLL(chosen)` on the answers' log-probabilities, no reference: averaged by length
    /// in SimPO (arXiv:2405.14734, where `nll` is 0), summed in CPO (arXiv:2401.08417, where `gamma` is 0 and `nll` 1).
    Simpo { beta: f64, gamma: f64, by_length: bool, nll: f64 },
    /// `nll * NLL(chosen) - lambda ls(log odds ratio)` on length-averaged log-probabilities, no reference
    /// (arXiv:2403.07691, where `nll` is 1).
    Orpo { lambda: f64, nll: f64 },
}

impl Preference {
    /// Whether the loss reads the reference's log-probabilities.
    pub fn has_reference(self) -> bool {
        matches!(self, Self::Dpo { .. } | Self::Robust { .. } | Self::Hinge { .. } | Self::Ipo { .. })
    }

    pub fn evaluate(self, pair: &Pair) -> PairLoss {
        let gains = (pair.chosen - pair.reference_chosen, pair.rejected - pair.reference_rejected);
        let lengths = (pair.chosen_tokens.max(1) as f64, pair.rejected_tokens.max(1) as f64);
        match self {
            Self::Dpo { beta, smoothing } => {
                let x = beta * (gains.0 - gains.1);
                let loss = -(1.0 - smoothing) * log_sigmoid(x) - smoothing * log_sigmoid(-x);
                let slope = -(1.0 - smoothing) * sigmoid(-x) + smoothing * sigmoid(x);
                of_difference(loss, slope, beta, gains)
            }
            Self::Robust { beta, smoothing } => {
                let x = beta * (gains.0 - gains.1);
                let scale = 1.0 / (1.0 - 2.0 * smoothing);
                let loss = scale * (-(1.0 - smoothing) * log_sigmoid(x) + smoothing * log_sigmoid(-x));
                let slope = scale * (-(1.0 - smoothing) * sigmoid(-x) - smoothing * sigmoid(x));
                of_difference(loss, slope, beta, gains)
            }
            Self::Hinge { beta } => {
                let x = beta * (gains.0 - gains.1);
                let slope = if x < 1.0 { -1.0 } else { 0.0 };
                of_difference((1.0 - x).max(0.0), slope, beta, gains)
            }
            Self::Ipo { beta, mean } => {
                let (by_chosen, by_rejected) = if mean { (1.0 / lengths.0, 1.0 / lengths.1) } else { (1.0, 1.0) };
                let off = gains.0 * by_chosen - gains.1 * by_rejected - 0.5 / beta;
                PairLoss {
                    loss: off * off,
                    d_chosen: 2.0 * off * by_chosen,
                    d_rejected: -2.0 * off * by_rejected,
                    reward_chosen: beta * gains.0 * by_chosen,
                    reward_rejected: beta * gains.1 * by_rejected,
                }
            }
            Self::Simpo { beta, gamma, by_length, nll } => {
                let by = if by_length { lengths } else { (1.0, 1.0) };
                let (a, b) = (pair.chosen / by.0, pair.rejected / by.1);
                let x = beta * (a - b) - gamma;
                let slope = -beta * sigmoid(-x);
                PairLoss {
                    loss: -log_sigmoid(x) - nll * pair.chosen / lengths.0,
                    d_chosen: slope / by.0 - nll / lengths.0,
                    d_rejected: -slope / by.1,
                    reward_chosen: beta * a,
                    reward_rejected: beta * b,
                }
            }
            Self::Orpo { lambda, nll } => {
                let (a, b) = (pair.chosen / lengths.0, pair.rejected / lengths.1);
                let odds = (a - b) - (log_one_less_exp(a) - log_one_less_exp(b));
                let slope = -lambda * sigmoid(-odds);
                PairLoss {
                    loss: -nll * a - lambda * log_sigmoid(odds),
                    d_chosen: (slope * d_log_odds(a) - nll) / lengths.0,
                    d_rejected: -slope * d_log_odds(b) / lengths.1,
                    reward_chosen: lambda * a,
                    reward_rejected: lambda * b,
                }
            }
        }
    }
}

/// A loss of `beta` times the difference of two gains, with its slope along that product.
fn of_difference(loss: f64, slope: f64, beta: f64, gains: (f64, f64)) -> PairLoss {
    PairLoss {
        loss,
        d_chosen: beta * slope,
        d_rejected: -beta * slope,
        reward_chosen: beta * gains.0,
        reward_rejected: beta * gains.1,
    }
}

/// Mean log-probabilities this near to 0 are moved away: the odds of a certain answer are infinite.
const CERTAIN: f64 = -1e-9;

/// `log(1 - exp(x))` for x < 0, exact near 0 and far from it.
fn log_one_less_exp(x: f64) -> f64 {
    let x = x.min(CERTAIN);
    if x > -std::f64::consts::LN_2 { (-x.exp_m1()).ln() } else { (-x.exp()).ln_1p() }
}

/// Derivative of `x - log(1 - exp(x))`: `1 / (1 - exp(x))`; 0 at the guard, where the odds no longer move.
fn d_log_odds(x: f64) -> f64 {
    if x > CERTAIN { 1.0 } else { -1.0 / x.exp_m1() }
}
