//! Tokenizers from `tokenizer.json`, through the `tokenizers` crate.

use super::added::{AddedToken, AddedTokens};
use super::bytes::{TokenBytes, byte_token, from_byte_level, from_sentencepiece};
use super::{Coder, SpecialTokens, Style, Tokenizer, config};
use crate::ModelError;
use crate::checkpoint::read_small;
use crate::config::MAX_VOCABULARY;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::path::Path;

/// How the file's token texts are spelled, as its decoder tells.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spelling {
    ByteLevel,
    SentencePiece,
    WordPiece,
    Plain,
}

pub(super) fn read(folder: &Path) -> Result<Tokenizer, ModelError> {
    let file = folder.join("tokenizer.json");
    let bytes = read_small(&file)?;
    let damaged = |reason: String| ModelError::damaged(&file, reason);
    // The crate's readers meet foreign bytes here; a panic of theirs is a refused file, not the end of the host.
    let parsed = std::panic::catch_unwind(|| tokenizers::Tokenizer::from_bytes(&bytes));
    let mut hf = match parsed {
        Ok(parsed) => parsed.map_err(|e| damaged(e.to_string()))?,
        Err(_) => return Err(damaged("the file cannot be read as a tokenizer".into())),
    };
    check_added(&hf, &bytes).map_err(damaged)?;
    // Files carry the truncation and padding of whoever saved them (all-MiniLM: 128).
    hf.with_truncation(None).map_err(|e| damaged(e.to_string()))?;
    hf.with_padding(None);
    // Control tokens are found by `AddedTokens`; inside plain text they are text.
    hf.set_encode_special_tokens(true);

    let spelling = spelling(&hf);
    let added = hf.get_added_tokens_decoder();
    let added: HashMap<u32, &tokenizers::AddedToken> = added.iter().map(|(&id, token)| (id, token)).collect();
    let control = added.iter().filter(|(_, token)| token.special).map(|(&id, _)| id).collect();
    let bytes = table(&hf, &added, spelling).ok_or_else(|| damaged("a token id is too large".into()))?;
    let tokens = added.iter().filter(|(_, token)| token.special).map(|(&id, token)| AddedToken {
        id,
        text: token.content.clone(),
        strip_left: token.lstrip,
        strip_right: token.rstrip,
        single_word: token.single_word,
    });
    let tokens = AddedTokens::new(tokens);
    let (prefix, suffix) =
        frame(&hf).ok_or_else(|| damaged("its post-processor is not a prefix and a suffix".into()))?;
    let config = config::of_folder(folder)?;
    Ok(Tokenizer {
        special: special(&config, &hf),
        config,
        style: match spelling {
            Spelling::SentencePiece => Style::LeadingSpace,
            Spelling::WordPiece => Style::WordPiece,
            Spelling::ByteLevel | Spelling::Plain => Style::Bytes,
        },
        added: tokens,
        bytes,
        control,
        prefix,
        suffix,
        coder: Coder::HuggingFace(Box::new(hf)),
    })
}

fn spelling(hf: &tokenizers::Tokenizer) -> Spelling {
    let decoder = hf.get_decoder().and_then(|d| serde_json::to_string(d).ok()).unwrap_or_default();
    if decoder.contains("\"ByteLevel\"") {
        Spelling::ByteLevel
    } else if decoder.contains("\"WordPiece\"") {
        Spelling::WordPiece
    } else if decoder.contains('\u{2581}') {
        Spelling::SentencePiece
    } else {
        Spelling::Plain
    }
}

fn table(
    hf: &tokenizers::Tokenizer,
    added: &HashMap<u32, &tokenizers::AddedToken>,
    spelling: Spelling,
) -> Option<TokenBytes> {
    let vocabulary = hf.get_vocab(true);
    let size = vocabulary.values().max().map_or(0, |&id| id as usize + 1);
    if size > MAX_VOCABULARY {
        return None;
    }
    let mut texts: Vec<&str> = vec![""; size];
    for (text, &id) in &vocabulary {
        texts[id as usize] = text;
    }
    let mut bytes = TokenBytes::default();
    for (id, text) in (0u32..).zip(texts) {
        match spelling {
            _ if added.contains_key(&id) => bytes.push(text.as_bytes()),
            Spelling::ByteLevel => bytes.push(&from_byte_level(text)),
            Spelling::SentencePiece => bytes.push(&from_sentencepiece(text, byte_token(text).is_some())),
            Spelling::WordPiece => match text.strip_prefix("##") {
                Some(rest) => bytes.push(rest.as_bytes()),
                None => bytes.push(format!(" {text}").as_bytes()),
            },
            Spelling::Plain => bytes.push(text.as_bytes()),
        }
    }
    Some(bytes)
}

/// What the post-processor puts around a text.
fn frame(hf: &tokenizers::Tokenizer) -> Option<(Vec<u32>, Vec<u32>)> {
    let ids = |text, add| hf.encode_fast(text, add).ok().map(|e| e.get_ids().to_vec());
    let (plain, framed) = (ids("a", false)?, ids("a", true)?);
    if plain.is_empty() {
        return Some((Vec::new(), Vec::new()));
    }
    let at = framed.windows(plain.len()).position(|window| window == plain)?;
    Some((framed[..at].to_vec(), framed[at + plain.len()..].to_vec()))
}

/// The crate gives an added token that does not follow the vocabulary another id than the file says, and goes on. The
/// network's rows are those of the file.
fn check_added(hf: &tokenizers::Tokenizer, file: &[u8]) -> Result<(), String> {
    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        added_tokens: Vec<Added>,
    }
    #[derive(Deserialize)]
    struct Added {
        id: u32,
        content: String,
    }
    let file: File = serde_json::from_slice(file).map_err(|e| e.to_string())?;
    for Added { id, content } in file.added_tokens {
        let place = hf.token_to_id(&content);
        if place != Some(id) {
            let place = place.map_or_else(|| "no place".into(), |place| format!("place {place}"));
            let reason = "the ids of added tokens must be those of the vocabulary or follow it without a gap";
            return Err(format!("added token `{content}` has id {id} and {place} in the vocabulary: {reason}"));
        }
    }
    Ok(())
}

/// The special tokens that the configuration names.
fn special(config: &Map<String, Value>, hf: &tokenizers::Tokenizer) -> SpecialTokens {
    let id = |key: &str| hf.token_to_id(config.get(key)?.as_str()?);
    SpecialTokens { bos: id("bos_token"), eos: id("eos_token"), unk: id("unk_token"), pad: id("pad_token") }
}
