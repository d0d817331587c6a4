//! The seam between scheduler and network: run this batch of sequences one step.
//!
//! The scheduler (`infer`) owns page tables and decides what runs; a [`Decoder`] owns weights and the page storage
//! and only computes. Invariant: a sequence's results depend on its own tokens, positions and pages alone, bit for
//! bit, never on what else is in the batch, whose adapters run beside it, or how its prompt was cut into chunks.

use crate::adapter::Adapter;
use crate::error::ModelError;

/// Tokens in a KV page.
pub const PAGE_TOKENS: usize = 32;

/// What a scheduler must know of a loaded network.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderSpec {
    /// Rows of logits: the embedding's rows, possibly more than the tokenizer's tokens.
    pub vocab: usize,
    /// Most positions of a sequence.
    pub context_tokens: usize,
    /// Bytes of one KV page over all layers.
    pub page_bytes: usize,
    /// Bytes of packed weights.
    pub weight_bytes: usize,
    /// Scratch bytes for each row of a batch.
    pub row_bytes: usize,
}

/// A run of consecutive tokens of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    pub tokens: &'a [u32],
    /// Position of `tokens[0]`. All earlier positions are already in the pages.
    pub start: usize,
    /// Pages of positions 0.., [`PAGE_TOKENS`] each; enough for `start + tokens.len()`.
    pub pages: &'a [u32],
    pub logits: LogitRows,
    /// Changes the weights for this segment alone. Segments of one adapter that follow each other are computed together.
    pub adapter: Option<&'a Adapter>,
}

/// Which rows of a segment get logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogitRows {
    None,
    Last,
    All,
}

/// A causal language model with paged KV storage.
pub trait Decoder: Send {
    fn spec(&self) -> &DecoderSpec;

    /// Takes storage for `pages` pages. Called once before the first step.
    fn allocate_pages(&mut self, pages: usize) -> Result<(), ModelError>;

    /// Runs every segment one step, appends to the pages, and replaces `logits` by the asked rows,
    /// `[rows, vocab]` f32, in segment order. `cancelled` is asked between layers; when it answers true for all that
    /// is left the step may stop early with [`ModelError::Cancelled`]; the segments' pages are then undefined
    /// from `start` on.
    fn step(
        &mut self,
        segments: &[Segment<'_>],
        logits: &mut Vec<f32>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), ModelError>;

    /// Copies a page's content, for copy on write of a shared partial page.
    fn copy_page(&mut self, from: u32, to: u32);
}
