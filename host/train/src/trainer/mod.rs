//! From a job to its result.
//!
//! [`HostTrainer`] finds what a job names, makes the parts and hands them to the loop ([`Run`]). What a run leaves in
//! its folder: `job.toml` as it ran, `metrics.jsonl`, `checkpoints/`, `data/` (tokenized), and the result itself: a model
//! in the Hugging Face layout, or a PEFT adapter.

mod examiner;
mod host;
mod log;
mod result;
mod rollouts;
mod run;
mod sampler;
mod settings;
mod start;

pub use examiner::{Examined, Examiner};
pub use host::HostTrainer;
pub use rollouts::Roller;
pub use run::{Export, Run};
pub use sampler::{Completion, EngineSampler, Sampler};

#[cfg(test)]
pub(crate) mod tests;
