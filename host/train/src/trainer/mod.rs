//! From a job to its result.

mod log;
mod rollouts;
mod run;
mod sampler;
mod settings;

pub use rollouts::Roller;
pub use run::{Export, Run};
pub use sampler::{Completion, EngineSampler, Sampler};

#[cfg(test)]
mod tests;
