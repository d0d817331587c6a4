//! Nearest-neighbour indexes: exact below a size, HNSW above.
//!
//! Owns the rows of vectors in the store and the structures in memory that search them. Refuses to own durability, which
//! is the store's, and embeddings, which are the models'.
//!
//! Invariants:
//! - the rows are the truth: what is in memory is made from them at first use and changed after their commit only
//! - a graph may lag behind the vectors, an answer may not: what the graph does not hold yet is compared one by one
//! - a deleted vector is gone from the rows and in no answer when the delete is answered; a graph keeps it as a signpost, until it
//!   is built anew
//!
//! Files in the order to read them: `distance`, `graph` (one graph, in usearch), `graphs` (when one replaces another), `contents`
//! (vectors, attributes and graphs together), `rows` (how they are stored), `index` (one index, durable), `indexes` (all of them,
//! within memory bounds).

mod best;
mod contents;
mod distance;
// The SDK's own file: filters mean the same on both sides of the sandbox.
#[path = "../../../guest-sdk/rust/src/filter.rs"]
mod filter;
mod graph;
mod graphs;
mod index;
mod indexes;
mod rows;
mod settings;

pub use indexes::Indexes;
pub use settings::Settings;
