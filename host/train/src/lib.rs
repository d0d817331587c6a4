//! Training on this host: a job file, data and a base model become a checkpoint that can be served.
//!
//! - [`job`]: what is to be done, checked; [`data`]: rows to token sequences to batches, the same for the same seed
//! - [`network`]: the Llama family forwards and backwards; [`loss`], [`optimizer`], [`methods`]: the mathematics
//! - [`trainer`]: the loop, on one page; [`checkpoint`]: what a run needs to go on; [`export`]: what others can load
//!
//! Invariant: every number is a function of the job, its data and its base, and of nothing else: not of threads, time,
//! or of whether the run was cut short. Random draws are counters hashed with the seed, sums have a fixed order.

pub mod checkpoint;
pub mod data;
pub mod export;
pub mod job;
pub mod loss;
pub mod methods;
pub mod network;
pub mod optimizer;
pub mod random;
#[cfg(test)]
mod reference;
pub mod tokenizer;
pub mod trainer;
