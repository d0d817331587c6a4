//! The inference engine: continuous batching over paged caches, sampling, constraints, replies; implements the seam
//! `stockade_core::infer::Inference`.
//!
//! [`Engine`] is what the host holds. Behind it each model has one thread ([`engine`]) that owns the weights, and the
//! parts it is made of, one idea a file.

mod chat;
mod constrain;
mod detokenizer;
mod embedder;
mod engine;
mod fairness;
mod generator;
mod memory;
mod pages;
mod queue;
mod reply;
mod sampler;
mod scheduler;
mod sequence;
mod service;
mod settings;
mod stop;
mod text;
mod tool_calls;
mod vocabulary;

pub use embedder::{EmbedderParts, TextEmbedder};
pub use generator::GeneratorParts;
pub use memory::{DoesNotFit, MemoryPlan, machine_limit};
pub use service::Engine;
pub use text::ModelText;
pub use settings::{GrammarSettings, Settings};
pub use vocabulary::Vocabulary;
