//! Sequences side by side in one pass.

use super::foreign;
use crate::data::{IGNORE, Sequence};
use crate::network::Packed;
use std::ops::Range;
use stockade_core::train::TrainError;

/// Documents of one pass, and which of its targets are whose.
#[derive(Debug, Clone, Default)]
pub(super) struct Batch {
    pub packed: Packed,
    /// By document: its part of [`Packed::targets`].
    pub spans: Vec<Range<usize>>,
}

impl Batch {
    /// Adds a document whose labels are asked for.
    ///
    /// # Errors
    /// A sequence that is empty, or whose labels do not belong to its tokens.
    pub fn push(&mut self, sequence: &Sequence) -> Result<(), TrainError> {
        let Sequence { tokens, labels } = sequence;
        if labels.len() != tokens.len() {
            return Err(foreign("a sequence has not one label for each token"));
        }
        let (begin, first) = (self.packed.tokens.len(), self.packed.targets.len());
        for (t, (&token, &label)) in tokens.iter().zip(labels).enumerate() {
            if label == IGNORE {
                continue;
            }
            if t == 0 || i64::from(label) != i64::from(token) {
                return Err(foreign("a label is not the token of its place, or stands on a first token"));
            }
            self.packed.targets.push(begin + t);
        }
        self.push_tokens(tokens)?;
        self.spans.pop();
        self.spans.push(first..self.packed.targets.len());
        Ok(())
    }

    /// Adds a document without labels.
    pub fn push_tokens(&mut self, tokens: &[u32]) -> Result<(), TrainError> {
        if tokens.is_empty() {
            return Err(foreign("a sequence is empty"));
        }
        self.packed.tokens.extend_from_slice(tokens);
        self.packed.ends.push(self.packed.tokens.len());
        let end = self.packed.targets.len();
        self.spans.push(end..end);
        Ok(())
    }

    /// Positions of the documents' last tokens.
    pub fn lasts(&self) -> Vec<usize> {
        self.packed.ends.iter().map(|end| end - 1).collect()
    }
}

/// Sum of a document's log-probabilities, in nats.
pub(super) fn sum(log_probs: &[f32]) -> f64 {
    log_probs.iter().map(|&log_prob| f64::from(log_prob)).sum()
}
