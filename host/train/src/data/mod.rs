//! Rows of data become examples, examples become the batches of a step.

mod example;

pub use example::{Example, IGNORE, Sequence, Source, StepData};
