//! The inference engine: continuous batching over paged caches, sampling, constraints, replies; implements the seam
//! `stockade_core::infer::Inference`.
//!
//! [`Engine`] is what the host holds. Behind it each model has one thread ([`engine`]) that owns the weights, and the
//! parts it is made of, one idea a file.

mod batcher;
mod chat;
mod classifier;
mod constrain;
mod decoder_embedder;
mod detokenizer;
mod embedder;
mod engine;
mod fairness;
mod generator;
mod load;
mod memory;
mod model_text;
mod pages;
mod queue;
mod reply;
mod sampler;
mod scheduler;
mod sequence;
mod service;
mod settings;
mod softmax;
mod stop;
mod text;
mod tool_calls;
mod vocabulary;

pub use batcher::TextNetwork;
pub use classifier::ClassifierParts;
pub use constrain::{Grammar, Grammars, Mask, Prepared};
pub use embedder::EmbedderParts;
pub use generator::GeneratorParts;
pub use load::{LoadError, ModelOptions};
pub use memory::{DoesNotFit, left_now};
pub use reply::Reply;
pub use service::Engine;
pub use settings::{GrammarSettings, Settings};
pub use stockade_kernels::{KvType, MatmulPrecision};
pub use text::ModelText;
pub use tool_calls::{CallFormat, ReplyFormat};
pub use vocabulary::Vocabulary;
