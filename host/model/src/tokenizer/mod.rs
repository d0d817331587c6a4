//! Text to token ids and back.
//!
//! Invariant: text that is encoded without `parse_special` never yields a control token, whatever it says. Control
//! tokens come from the template, from `add_special`, or from a caller who asked for them by `parse_special`.

pub(crate) mod added;
mod bytes;
mod config;
mod export;
mod gguf;
mod json;
mod sentencepiece;

use crate::ModelError;
use crate::checkpoint::Checkpoint;
use crate::template::Rendered;
pub use gguf::{LLAMA3_SPLIT, SINGLE_DIGIT_SPLIT};

use added::{AddedTokens, Part};
use bytes::TokenBytes;
use sentencepiece::SentencePiece;
use serde_json::{Map, Value};
use std::collections::HashSet;
use stockade_core::Fault;

/// Longest text that is encoded, in bytes. Pre-tokenizer expressions backtrack: their time must have a bound.
pub const MAX_TEXT_BYTES: usize = 4 << 20;

/// A model's tokenizer. Shared by reference; encoding takes `&self`.
pub struct Tokenizer {
    coder: Coder,
    bytes: TokenBytes,
    added: AddedTokens,
    control: HashSet<u32>,
    special: SpecialTokens,
    /// What `add_special` puts before and after a text.
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    style: Style,
    config: Map<String, Value>,
}

/// Ids with a meaning to the network, where the tokenizer names them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unk: Option<u32>,
    pub pad: Option<u32>,
}

/// How a text is encoded. The default is for user text: no control tokens at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Put the tokenizer's own frame around the text: a BOS, or `[CLS]` and `[SEP]`.
    pub add_special: bool,
    /// Read the text of control tokens as those tokens. Only for text that no user wrote.
    pub parse_special: bool,
}

/// A text that could not be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizeError {
    #[error("text of {bytes} bytes exceeds the limit of {limit}")]
    TooLong { bytes: usize, limit: usize },
    /// The vocabulary has no way to spell this text without a control token.
    #[error("the text cannot be encoded without the control token `{0}`")]
    Control(String),
    #[error("the tokenizer failed: {0}")]
    Failed(String),
    /// The other format has no way to say what this tokenizer does.
    #[error("the tokenizer cannot be written in this format: {0}")]
    Export(String),
}

impl TokenizeError {
    pub fn fault(&self) -> Fault {
        match self {
            Self::TooLong { .. } | Self::Control(_) | Self::Export(_) => Fault::Caller,
            Self::Failed(_) => Fault::Host,
        }
    }
}

/// The algorithm that splits text between control tokens.
enum Coder {
    HuggingFace(Box<tokenizers::Tokenizer>),
    SentencePiece(SentencePiece),
}

/// How token texts join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// Bytes follow bytes.
    Bytes,
    /// Likewise, and one space at the very start is the tokenizer's own.
    LeadingSpace,
    /// Words and `##` continuations, joined and cleaned up by the `tokenizers` crate. The text is not preserved.
    WordPiece,
}

impl Tokenizer {
    /// The tokenizer of a checkpoint: GGUF metadata, or `tokenizer.json` in its folder.
    pub fn open(checkpoint: &Checkpoint) -> Result<Self, ModelError> {
        match checkpoint.metadata() {
            Some(metadata) => gguf::read(checkpoint.path(), metadata),
            None => json::read(checkpoint.path()),
        }
    }

    /// From a folder with `tokenizer.json` (and `tokenizer_config.json`, which names the special tokens).
    pub fn from_folder(folder: &std::path::Path) -> Result<Self, ModelError> {
        json::read(folder)
    }

    /// From GGUF metadata; `file` is for messages.
    pub fn from_gguf(file: &std::path::Path, metadata: &crate::checkpoint::gguf::Metadata) -> Result<Self, ModelError> {
        gguf::read(file, metadata)
    }

    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>, TokenizeError> {
        let mut ids = Vec::new();
        if options.add_special {
            ids.extend(&self.prefix);
        }
        if options.parse_special {
            self.encode_parsed(text, None, &mut ids)?;
        } else {
            self.encode_plain(text, &mut ids)?;
        }
        if options.add_special {
            ids.extend(&self.suffix);
        }
        Ok(ids)
    }

    /// Encodes a rendered conversation: the template's control tokens are read as such, those that content spells are
    /// text. Nothing is put around it: the template has its own BOS.
    pub fn encode_rendered(&self, rendered: &Rendered) -> Result<Vec<u32>, TokenizeError> {
        let mut ids = Vec::new();
        self.encode_parsed(rendered.marked(), rendered.mark(), &mut ids)?;
        Ok(ids)
    }

    /// The text of `ids`; bytes that are no UTF-8 become U+FFFD. `skip_special` leaves control tokens out.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        if let (Style::WordPiece, Coder::HuggingFace(hf)) = (self.style, &self.coder) {
            return hf.decode(ids, skip_special).unwrap_or_default();
        }
        let mut bytes = Vec::new();
        for &id in ids.iter().filter(|id| !(skip_special && self.control.contains(id))) {
            bytes.extend_from_slice(self.token_bytes(id));
        }
        let own_space = self.style == Style::LeadingSpace && bytes.first() == Some(&b' ');
        String::from_utf8_lossy(&bytes[usize::from(own_space)..]).into_owned()
    }

    /// The bytes a token stands for; empty for ids outside of the vocabulary. A character may be cut between tokens.
    /// Of word pieces: a space and the word, or the continuation without its `##`.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.bytes.get(id)
    }

    /// Ids are `0..vocab_size`, some of which may stand for nothing. A network may have more rows than this.
    pub fn vocab_size(&self) -> usize {
        self.bytes.len()
    }

    /// Whether `id` steers the model rather than standing for text.
    pub fn is_control(&self, id: u32) -> bool {
        self.control.contains(&id)
    }

    /// All control tokens in id order.
    pub fn control_ids(&self) -> Vec<u32> {
        let mut ids: Vec<u32> = self.control.iter().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// The id of the control or other added token that is written exactly so.
    pub fn added_id(&self, text: &str) -> Option<u32> {
        self.added.id(text)
    }

    /// The texts that encode to control tokens under `parse_special`.
    pub fn control_texts(&self) -> impl Iterator<Item = &str> {
        self.added.texts()
    }

    pub fn special(&self) -> SpecialTokens {
        self.special
    }

    /// What the files say of it, in the words of `tokenizer_config.json`, tokens as their texts.
    pub fn config(&self) -> &Map<String, Value> {
        &self.config
    }

    /// A token's text, for templates (`bos_token`).
    pub fn text(&self, id: u32) -> String {
        String::from_utf8_lossy(self.token_bytes(id)).into_owned()
    }

    /// Control tokens are parsed; `mark` inside a token's text has kept it from matching and is taken out.
    fn encode_parsed(&self, text: &str, mark: Option<char>, ids: &mut Vec<u32>) -> Result<(), TokenizeError> {
        check_length(text)?;
        for part in self.added.split(text) {
            match (part, mark) {
                (Part::Token(id), _) => ids.push(id),
                (Part::Text(text), Some(mark)) if text.contains(mark) => {
                    self.encode_plain(&text.replace(mark, ""), ids)?;
                }
                (Part::Text(text), _) => self.encode_plain(text, ids)?,
            }
        }
        Ok(())
    }

    /// No control tokens: what the algorithm makes of the text, checked.
    fn encode_plain(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), TokenizeError> {
        check_length(text)?;
        let start = ids.len();
        self.coder.encode(text, ids)?;
        if self.forged(&ids[start..]).is_none() {
            return Ok(());
        }
        // Merges can spell a control token (Llama 2: `<s` + `>`): then each one's text is cut after its first
        // character and the pieces are encoded apart.
        ids.truncate(start);
        let mut done = 0;
        for cut in self.added.cuts(text).into_iter().chain([text.len()]) {
            self.coder.encode(&text[done..cut], ids)?;
            done = cut;
        }
        match self.forged(&ids[start..]) {
            None => Ok(()),
            Some(id) => Err(TokenizeError::Control(self.text(id))),
        }
    }

    /// A control token among `ids` that were made from plain text. Word-piece vocabularies use one for unknown words.
    fn forged(&self, ids: &[u32]) -> Option<u32> {
        let unknown = self.special.unk.filter(|_| self.coder.makes_unknown());
        ids.iter().copied().find(|id| self.control.contains(id) && Some(*id) != unknown)
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).field("special", &self.special).finish()
    }
}

impl Coder {
    fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), TokenizeError> {
        match self {
            Self::HuggingFace(hf) => {
                let encoding = hf.encode_fast(text, false).map_err(|e| TokenizeError::Failed(e.to_string()))?;
                ids.extend_from_slice(encoding.get_ids());
            }
            Self::SentencePiece(spm) => spm.encode(text, ids),
        }
        Ok(())
    }

    fn makes_unknown(&self) -> bool {
        use tokenizers::models::ModelWrapper;
        match self {
            Self::HuggingFace(hf) => match hf.get_model() {
                ModelWrapper::BPE(bpe) => bpe.get_unk_token().is_some(),
                _ => true,
            },
            Self::SentencePiece(_) => true,
        }
    }
}

fn check_length(text: &str) -> Result<(), TokenizeError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(TokenizeError::TooLong { bytes: text.len(), limit: MAX_TEXT_BYTES });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
