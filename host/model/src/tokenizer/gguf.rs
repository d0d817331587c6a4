//! Tokenizers from GGUF metadata: byte-level BPE (`gpt2`), SentencePiece (`llama`), word pieces (`bert`).

use super::added::{AddedToken, AddedTokens};
use super::bytes::{TokenBytes, byte_token, from_byte_level, from_sentencepiece};
use super::sentencepiece::SentencePiece;
use super::{Coder, SpecialTokens, Style, Tokenizer, config};
use crate::ModelError;
use crate::checkpoint::gguf::{Metadata, Strings};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::{BertNormalizer, NFC};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;

/// `tokenizer.ggml.token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// The vocabulary part that all kinds share.
struct Vocabulary<'a> {
    file: &'a Path,
    metadata: &'a Metadata,
    tokens: &'a Strings,
    kinds: Vec<Kind>,
}

pub(super) fn read(file: &Path, metadata: &Metadata) -> Result<Tokenizer, ModelError> {
    let vocabulary = Vocabulary::read(file, metadata)?;
    let mut tokenizer = match metadata.str("tokenizer.ggml.model") {
        Some("gpt2") => vocabulary.byte_level(),
        Some("llama") => vocabulary.sentencepiece(),
        Some("bert") => vocabulary.word_pieces(),
        other => Err(ModelError::unsupported(file, "tokenizer", other.unwrap_or("none"))),
    }?;
    tokenizer.config = config::of_gguf(&tokenizer, metadata);
    Ok(tokenizer)
}

/// What `tokenizer.ggml.pre` stands for.
pub(super) struct PreTokenizer {
    pub(super) split: PreTokenizerWrapper,
    /// Whole words in the vocabulary skip the merges.
    ignore_merges: bool,
    /// Text is composed first.
    pub(super) nfc: bool,
    /// BOS unless the file says otherwise.
    add_bos: bool,
}

/// The names that [`pre_tokenizer`] knows, each in its first spelling.
pub(super) const PRE_TOKENIZERS: [&str; 4] = ["llama-bpe", "smollm", "qwen2", "gpt-2"];

/// How Llama 3 splits text into words: at most three digits together.
pub const LLAMA3_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same with each digit alone, which is Qwen 2's.
pub const SINGLE_DIGIT_SPLIT: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

pub(super) fn pre_tokenizer(file: &Path, name: Option<&str>) -> Result<PreTokenizer, ModelError> {
    let failed = |e: tokenizers::Error| ModelError::damaged(file, format!("pre-tokenizer: {e}"));
    let by_regex = |regex: &str| -> Result<PreTokenizerWrapper, ModelError> {
        let split = Split::new(SplitPattern::Regex(regex.to_owned()), SplitDelimiterBehavior::Isolated, false);
        let parts = vec![split.map_err(failed)?.into(), ByteLevel::new(false, true, false).into()];
        Ok(Sequence::new(parts).into())
    };
    let gpt2 = || ByteLevel::new(false, true, true);
    let plain = |split| PreTokenizer { split, ignore_merges: false, nfc: false, add_bos: false };
    Ok(match name {
        Some("llama-bpe" | "llama3" | "llama-v3") => {
            PreTokenizer { ignore_merges: true, add_bos: true, ..plain(by_regex(LLAMA3_SPLIT)?) }
        }
        // Every digit alone, then GPT-2's expression.
        Some("smollm") => plain(Sequence::new(vec![Digits::new(true).into(), gpt2().into()]).into()),
        Some("qwen2") => PreTokenizer { nfc: true, ..plain(by_regex(SINGLE_DIGIT_SPLIT)?) },
        Some("gpt-2") => plain(gpt2().into()),
        other => {
            return Err(ModelError::unsupported(file, "pre-tokenizer", other.unwrap_or("none")));
        }
    })
}

impl<'a> Vocabulary<'a> {
    fn read(file: &'a Path, metadata: &'a Metadata) -> Result<Self, ModelError> {
        let tokens = metadata
            .strings("tokenizer.ggml.tokens")
            .filter(|tokens| !tokens.is_empty())
            .ok_or_else(|| ModelError::damaged(file, "`tokenizer.ggml.tokens` is missing or empty"))?;
        let kinds = match metadata.numbers("tokenizer.ggml.token_type") {
            None => vec![Kind::Normal; tokens.len()],
            Some(types) if types.len() == tokens.len() => types
                .iter()
                .map(|ty| match ty as i64 {
                    2 => Kind::Unknown,
                    3 => Kind::Control,
                    4 => Kind::UserDefined,
                    5 => Kind::Unused,
                    6 => Kind::Byte,
                    _ => Kind::Normal,
                })
                .collect(),
            Some(types) => {
                let reason = format!("{} token types for {} tokens", types.len(), tokens.len());
                return Err(ModelError::damaged(file, reason));
            }
        };
        Ok(Self { file, metadata, tokens, kinds })
    }

    fn byte_level(self) -> Result<Tokenizer, ModelError> {
        let pre = pre_tokenizer(self.file, self.metadata.str("tokenizer.ggml.pre"))?;
        let merges = self.metadata.strings("tokenizer.ggml.merges");
        let merges = merges.ok_or_else(|| self.damaged("`tokenizer.ggml.merges` is missing"))?;
        let merges: Option<Vec<(String, String)>> = merges
            .iter()
            .map(|merge| {
                // A token may start with a space of its own.
                let (cut, _) = merge.char_indices().skip(1).find(|&(_, c)| c == ' ')?;
                Some((merge[..cut].to_owned(), merge[cut + 1..].to_owned()))
            })
            .collect();
        let merges = merges.ok_or_else(|| self.damaged("a merge is not two tokens"))?;
        let mut vocabulary = Vocab::default();
        vocabulary.extend(self.tokens.iter().map(str::to_owned).zip(0..));
        let bpe = BPE::builder().vocab_and_merges(vocabulary, merges).ignore_merges(pre.ignore_merges).build();
        let mut hf = tokenizers::Tokenizer::new(bpe.map_err(|e| self.damaged(format!("merges: {e}")))?);
        hf.with_pre_tokenizer(Some(pre.split));
        if pre.nfc {
            hf.with_normalizer(Some(NFC)).map_err(|e| self.damaged(e.to_string()))?;
        }
        self.finish(hf, |text, _| from_byte_level(text), Style::Bytes, pre.add_bos)
    }

    fn word_pieces(self) -> Result<Tokenizer, ModelError> {
        // The file marks word starts by `▁`; the algorithm marks continuations by `##`.
        let piece = |(text, kind): (&str, &Kind)| match text.strip_prefix('\u{2581}') {
            _ if *kind != Kind::Normal => text.to_owned(),
            Some(start) => start.to_owned(),
            None if text.starts_with('[') && text.ends_with(']') && text.len() > 2 => text.to_owned(),
            None => format!("##{text}"),
        };
        let pieces: Vec<String> = self.tokens.iter().zip(&self.kinds).map(piece).collect();
        let unknown = self.id("unknown_token_id").and_then(|id| pieces.get(id as usize).cloned());
        let unknown = unknown.ok_or_else(|| self.damaged("`tokenizer.ggml.unknown_token_id` is missing"))?;
        let mut vocabulary = Vocab::default();
        vocabulary.extend(pieces.into_iter().zip(0..));
        let model = WordPiece::builder().vocab(vocabulary).unk_token(unknown).build();
        let mut hf = tokenizers::Tokenizer::new(model.map_err(|e| self.damaged(e.to_string()))?);
        hf.with_normalizer(Some(BertNormalizer::default())).map_err(|e| self.damaged(e.to_string()))?;
        hf.with_pre_tokenizer(Some(BertPreTokenizer));
        hf.with_decoder(Some(tokenizers::decoders::wordpiece::WordPiece::default()));
        let frame = |key: &str| self.id(key).map(|id| vec![id]).unwrap_or_default();
        let (prefix, suffix) = (frame("cls_token_id"), frame("seperator_token_id"));
        let as_text = |text: &str, _: Kind| text.replace('\u{2581}', " ").into_bytes();
        let mut tokenizer = self.finish(hf, as_text, Style::WordPiece, false)?;
        (tokenizer.prefix, tokenizer.suffix) = (prefix, suffix);
        Ok(tokenizer)
    }

    fn sentencepiece(self) -> Result<Tokenizer, ModelError> {
        let scores = self.metadata.numbers("tokenizer.ggml.scores").filter(|s| s.len() == self.tokens.len());
        let scores = scores.ok_or_else(|| self.damaged("`tokenizer.ggml.scores` is missing or not one a token"))?;
        let mut byte_ids = Box::new([None; 256]);
        let mut mergeable = HashMap::with_capacity(self.tokens.len());
        for (((text, kind), score), id) in self.tokens.iter().zip(&self.kinds).zip(scores.iter()).zip(0u32..) {
            match kind {
                Kind::Byte => {
                    if let Some(byte) = byte_token(text) {
                        byte_ids[usize::from(byte)] = Some(id);
                    }
                }
                // These would let text spell a control token.
                Kind::Control | Kind::Unknown => {}
                Kind::Normal | Kind::UserDefined | Kind::Unused => {
                    mergeable.insert(text.to_owned(), (id, score as f32));
                }
            }
        }
        let prefix_space = self.metadata.bool("tokenizer.ggml.add_space_prefix").unwrap_or(true);
        let unknown = self.id("unknown_token_id").unwrap_or(0);
        let coder = Coder::SentencePiece(SentencePiece::new(mergeable, byte_ids, unknown, prefix_space));
        let style = if prefix_space { Style::LeadingSpace } else { Style::Bytes };
        let bytes = |text: &str, kind| from_sentencepiece(text, kind == Kind::Byte);
        Ok(self.assemble(coder, bytes, style, true))
    }

    /// Adds the user-defined tokens, which are found in any text.
    fn finish(
        self,
        mut hf: tokenizers::Tokenizer,
        bytes: impl Fn(&str, Kind) -> Vec<u8>,
        style: Style,
        add_bos: bool,
    ) -> Result<Tokenizer, ModelError> {
        let defined: Vec<_> = self
            .tokens
            .iter()
            .zip(&self.kinds)
            .filter(|(text, kind)| **kind == Kind::UserDefined && !text.is_empty())
            .map(|(text, _)| tokenizers::AddedToken::from(text, false).normalized(false))
            .collect();
        hf.add_tokens(defined).map_err(|e| self.damaged(e.to_string()))?;
        Ok(self.assemble(Coder::HuggingFace(Box::new(hf)), bytes, style, add_bos))
    }

    fn assemble(self, coder: Coder, bytes: impl Fn(&str, Kind) -> Vec<u8>, style: Style, add_bos: bool) -> Tokenizer {
        let mut table = TokenBytes::default();
        let mut control = HashSet::new();
        let mut added = Vec::new();
        for ((text, &kind), id) in self.tokens.iter().zip(&self.kinds).zip(0u32..) {
            match kind {
                Kind::Control | Kind::Unknown => {
                    table.push(text.as_bytes());
                    control.insert(id);
                    added.push(AddedToken { id, text: text.to_owned(), ..AddedToken::default() });
                }
                Kind::UserDefined => table.push(text.as_bytes()),
                _ => table.push(&bytes(text, kind)),
            }
        }
        let special = SpecialTokens {
            bos: self.id("bos_token_id"),
            eos: self.id("eos_token_id"),
            unk: self.id("unknown_token_id"),
            pad: self.id("padding_token_id"),
        };
        let asked = |key: &str, default| self.metadata.bool(&format!("tokenizer.ggml.{key}")).unwrap_or(default);
        let frame = |wanted: bool, id: Option<u32>| id.filter(|_| wanted).into_iter().collect();
        Tokenizer {
            config: Default::default(),
            prefix: frame(asked("add_bos_token", add_bos), special.bos),
            suffix: frame(asked("add_eos_token", false), special.eos),
            added: AddedTokens::new(added),
            bytes: table,
            coder,
            control,
            special,
            style,
        }
    }

    /// A token id of the metadata, where it is inside the vocabulary.
    fn id(&self, key: &str) -> Option<u32> {
        let id = self.metadata.u64(&format!("tokenizer.ggml.{key}"))?;
        u32::try_from(id).ok().filter(|&id| (id as usize) < self.tokens.len())
    }

    fn damaged(&self, reason: impl Into<String>) -> ModelError {
        ModelError::damaged(self.file, reason)
    }
}
