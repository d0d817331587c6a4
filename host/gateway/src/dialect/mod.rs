//! API dialects: each parses its requests into an [`Ask`](crate::chain::Ask) and writes events in its own form.

pub mod agents;
pub mod conversations;
pub mod files;
pub mod fine_tuning;
pub mod mcp;
pub mod openai;
pub mod post_training;
pub mod prompts;
pub mod responses;
pub mod safety;
pub mod tokenizer;
pub mod tools;
pub mod vector_stores;
