//! Evaluators score model outputs on a task.

pub use crate::bindings::evaluator::exports::stockade::plugin::evaluator::{Metric, Sample, Score};

use super::glue;
use crate::bindings::evaluator::exports::stockade::plugin::evaluator as raw;
use crate::{Result, config, panic};
use serde::de::DeserializeOwned;

/// Scores model outputs.
pub trait Evaluator: DeserializeOwned + 'static {
    /// The metrics that it reports; the same in every call.
    fn metrics(&self) -> Vec<Metric>;
    /// The scores of each sample, in order.
    fn evaluate(&self, samples: Vec<Sample>) -> Result<Vec<Vec<Score>>>;
}

impl<T: Evaluator> raw::Guest for glue::Evaluator<T> {
    fn metrics() -> Vec<Metric> {
        panic::install();
        config::load_or_panic::<T>().metrics()
    }
    fn evaluate(samples: Vec<Sample>) -> Result<Vec<Vec<Score>>> {
        panic::install();
        config::load::<T>()?.evaluate(samples)
    }
}
