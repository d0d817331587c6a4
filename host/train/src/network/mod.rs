//! The Llama family forwards and backwards.
//!
//! A network owns its parameters and their gradients. A pass runs packed rows through it and keeps what backward
//! needs; losses see log-probabilities of labels, or scores, and give back their derivatives.

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

/// What a parameter is, which decides decay, optimizer and export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Hidden matrices `[out, in]`: decay, Muon.
    Matrix,
    /// Embedding and language-model head `[V, C]`: decay, AdamW.
    Embedding,
    /// Gains of norms `[n]`: no decay.
    Norm,
    /// `[n]`: no decay.
    Bias,
    /// LoRA's A `[r, in]` and B `[out, r]`.
    Adapter,
    /// DoRA's magnitudes `[out]`: no decay.
    Magnitude,
    /// Rows of a classifier, reward or embedding head `[labels, C]`.
    Head,
}

/// A tensor of the network by its Hugging Face (or PEFT) name, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    pub name: String,
    pub shape: Vec<usize>,
    pub kind: Kind,
    pub trainable: bool,
}
