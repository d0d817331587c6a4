//! What goes through a network at once.

use std::ops::Range;

use stockade_core::train::TrainError;
use stockade_model::ModelConfig;

/// Documents packed into rows. Attention is causal inside each document; positions start at 0 in each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packed {
    /// `[N]` tokens of all documents, one after the other; nothing is padded.
    pub tokens: Vec<u32>,
    /// Ends of the documents in `tokens`, strictly growing, the last is N.
    pub ends: Vec<usize>,
    /// Positions whose log-probability is asked for: `tokens[t]` given what precedes it in its document, so never a
    /// document's first token. Strictly growing.
    pub targets: Vec<usize>,
}

impl Packed {
    /// Checks what a pass relies on.
    ///
    /// # Errors
    /// A token outside the vocabulary, a document longer than the context, or ends and targets that do not fit.
    pub fn check(&self, config: &ModelConfig) -> Result<(), TrainError> {
        let refuse = |reason: String| Err(TrainError::Data { name: "batch".into(), reason });
        let n = self.tokens.len();
        if n == 0 || self.ends.last() != Some(&n) || self.ends.windows(2).any(|pair| pair[0] >= pair[1]) {
            return refuse(format!("ends of documents do not divide {n} tokens"));
        }
        if let Some(token) = self.tokens.iter().find(|&&token| token as usize >= config.vocab_size) {
            return refuse(format!("token {token} is not in the vocabulary of {}", config.vocab_size));
        }
        let mut start = 0;
        for &end in &self.ends {
            if end - start > config.context_tokens {
                return refuse(format!("a document of {} tokens exceeds the context", end - start));
            }
            start = end;
        }
        let first = |target: usize| target == 0 || self.ends.binary_search(&target).is_ok();
        if self.targets.windows(2).any(|pair| pair[0] >= pair[1])
            || self.targets.iter().any(|&target| target >= n || first(target))
        {
            return refuse("targets are not positions after a document's first".into());
        }
        Ok(())
    }

    /// Positions of all tokens in their documents, `[N]`.
    pub(super) fn positions(&self) -> Vec<u32> {
        self.documents().flat_map(|document| 0..document.len() as u32).collect()
    }

    /// Tokens of the longest document.
    pub(super) fn longest(&self) -> usize {
        self.documents().map(|document| document.len()).max().unwrap_or(0)
    }

    /// Where each document lies.
    pub(super) fn documents(&self) -> impl Iterator<Item = Range<usize>> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| start..end)
    }
}
