//! Shields that judge text by small logistic heads over sentence embeddings and the words themselves.
//!
//! A library, no plugin: `injection-guard` and `moderation` are made of it. A text is cut into overlapping [`window`]s, the
//! host embeds them in one call, and each of the component's [`Heads`] gives every window a probability. What those mean
//! is the component's: it implements [`Judge`], and [`shield`] makes a shield of it.
//!
//! `training/` makes the heads. `window.rs` and `grams.rs` have twins there, which must change together.

mod grams;
mod heads;
pub mod shield;
mod window;

pub use grams::BUCKETS;
pub use heads::{Heads, Scores};
pub use shield::{Hit, Judge, Source};
pub use window::{HOLD_BACK, SEGMENT_MAX};

#[cfg(test)]
mod tests;
