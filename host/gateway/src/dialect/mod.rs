//! API dialects: each parses its requests into an [`Ask`](crate::chain::Ask) and writes events in its own form.

pub mod openai;
pub mod safety;
pub mod tokenizer;
