//! Models on disk and in memory: checkpoints, configuration, tokenizers, chat templates, the catalogue, networks.
//!
//! - [`checkpoint`]: tensors of safetensors folders and GGUF files under one set of names; [`config`]: sizes
//! - [`tokenizer`]: text to ids and back; [`template`]: conversations to prompts that content cannot forge;
//!   [`conversation`]: the core's messages as templates take them
//! - [`catalogue`] and [`hub`]: which models have a name here, and how they get onto this disk
//! - [`decoder`]: the seam to the scheduler, and the networks behind it; [`adapter`]: PEFT adapters over them
//!
//! Files are foreign input: whatever they hold, the answer is a value or a [`ModelError`].

pub mod adapter;
pub mod bert;
pub mod catalogue;
pub mod checkpoint;
pub mod config;
pub mod conversation;
pub mod deberta;
pub mod decoder;
mod encoder;
mod error;
pub mod hub;
pub mod llama;
#[cfg(test)]
mod reference;
pub mod template;
pub mod tokenizer;

pub use adapter::Adapter;
pub use checkpoint::{Checkpoint, Tensor};
pub use config::ModelConfig;
pub use decoder::{Decoder, DecoderSpec, LogitRows, PAGE_TOKENS, Segment};
pub use error::ModelError;
#[cfg(test)]
use reference::{pulled_model, reference_file};
pub use tokenizer::Tokenizer;
