//! Training losses as functions of log-probabilities, each with its derivative.
//!
//! Losses are sums of what [`network`](crate::network) gives: log-probabilities of labels, or scores of a head. None
//! of them sees a logit, a tensor or a batch's layout. They compute in f64: a few numbers for each document, whose
//! differences are what matters.
//!
//! Invariant: each loss comes with the exact derivative of the very number that it returns, and both are finite for
//! finite input.

mod classes;
mod contrast;
mod group;
mod preference;
mod reward;
mod tokens;
mod unpaired;

pub use classes::{ClassLoss, cross_entropy_of_classes};
pub use contrast::{ContrastLoss, info_nce};
pub use group::{Advantages, Answer, GroupLoss, GroupPolicy, GroupTotals, Reduction, RewardScale, advantages};
pub use preference::{Pair, PairLoss, Preference};
pub use reward::{RewardLoss, bradley_terry};
pub use tokens::{TokenLoss, cross_entropy};
pub use unpaired::{Unpaired, UnpairedLoss};

/// `log(1 / (1 + exp(-x)))`, without overflow on either side.
pub fn log_sigmoid(x: f64) -> f64 {
    if x >= 0.0 { -(-x).exp().ln_1p() } else { x - x.exp().ln_1p() }
}

/// `1 / (1 + exp(-x))`; the derivative of [`log_sigmoid`] at `-x`.
pub fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

#[cfg(test)]
mod tests;
