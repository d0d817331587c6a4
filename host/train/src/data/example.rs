//! What data gives to training: token sequences with labels, a step at a time.

use stockade_core::train::TrainError;

/// Label of a position that carries no loss.
pub const IGNORE: i32 = -100;

/// Token ids of one document with their labels: `labels[t]` is `tokens[t]` or [`IGNORE`]; position t - 1 predicts it.
/// The first token of a document never has a label. Both have the same length, at least 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sequence {
    pub tokens: Vec<u32>,
    pub labels: Vec<i32>,
}

impl Sequence {
    /// Tokens that carry a loss.
    pub fn labelled(&self) -> usize {
        self.labels.iter().filter(|&&label| label != IGNORE).count()
    }
}

/// One row of data, tokenized for its method.
#[derive(Debug, Clone, PartialEq)]
pub enum Example {
    /// pretrain, continue, sft
    Text(Sequence),
    /// dpo, ipo, orpo, simpo, reward
    Pair { chosen: Sequence, rejected: Sequence, margin: Option<f32> },
    /// kto
    Unpaired { sequence: Sequence, desirable: bool },
    /// grpo: the prompt as ids, and what reward components see of it
    Prompt { tokens: Vec<u32>, messages: Vec<stockade_core::chat::Message>, reference: Option<serde_json::Value> },
    /// classify
    Labelled { tokens: Vec<u32>, label: u32 },
    /// embed: anchor and positive, perhaps a hard negative
    Similar { anchor: Vec<u32>, positive: Vec<u32>, negative: Option<Vec<u32>> },
}

/// The examples of one optimizer step: micro-batches of rows, each row the examples packed into it (one without
/// packing).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StepData {
    pub micro_batches: Vec<Vec<Vec<Example>>>,
    /// Passes over the data that are complete before this step.
    pub epoch: u64,
}

/// Where steps come from. The same step always holds the same examples, whatever was asked for before.
pub trait Source: Send + Sync {
    /// Steps of the whole run.
    fn steps(&self) -> u64;
    /// `step` from 0.
    fn step(&self, step: u64) -> Result<StepData, TrainError>;
    /// Sha256 over the data as used, in hex: rows, tokenizer, template and packing.
    fn digest(&self) -> &str;
}
