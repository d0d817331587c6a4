//! API dialects: each parses its requests into an [`Ask`](crate::chain::Ask) and writes events in its own form.

pub mod agents;
pub mod conversations;
pub mod files;
pub mod openai;
pub mod prompts;
pub mod responses;
pub mod safety;
pub mod tokenizer;
pub mod vector_stores;
