//! Byte-level tokenizers in the words of the other format: GGUF metadata, or `tokenizer.json` and its neighbour.

use super::gguf::{PRE_TOKENIZERS, pre_tokenizer};
use super::{Coder, TokenizeError, Tokenizer};
use crate::checkpoint::gguf::{Numbers, Strings, Value as Metadatum};
use serde_json::{Map, Value, json};
use std::path::Path;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;

/// `tokenizer.ggml.token_type`.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

impl Tokenizer {
    /// `tokenizer.*` of a GGUF file for a network of `rows` embeddings, without the chat template.
    ///
    /// # Errors
    /// [`TokenizeError::Export`] unless it is a byte-level BPE with one of the pre-tokenizers that the format has names
    /// for.
    pub fn gguf_metadata(&self, rows: usize) -> Result<Vec<(String, Metadatum)>, TokenizeError> {
        let file = self.hugging_face()?;
        let refuse = |reason: &str| TokenizeError::Export(reason.to_owned());
        let pre = pre_tokenizer_name(&file).ok_or_else(|| refuse("its pre-tokenizer has no name in GGUF"))?;
        let mut texts: Vec<String> = (0..rows).map(|id| format!("[PAD{id}]")).collect();
        let mut types = vec![UNUSED; rows];
        let mut put = |text: &str, id: &Value, ty: i32| {
            let slot = id.as_u64().and_then(|id| usize::try_from(id).ok()).filter(|&id| id < rows);
            let slot = slot.ok_or_else(|| refuse("a token has no row in the embedding"))?;
            (texts[slot], types[slot]) = (text.to_owned(), ty);
            Ok(())
        };
        for (text, id) in file["model"]["vocab"].as_object().into_iter().flatten() {
            put(text, id, NORMAL)?;
        }
        for token in file["added_tokens"].as_array().into_iter().flatten() {
            let special = token["special"].as_bool().unwrap_or(false);
            put(
                token["content"].as_str().unwrap_or_default(),
                &token["id"],
                if special { CONTROL } else { USER_DEFINED },
            )?;
        }
        // A GGUF file's own control tokens are no added tokens of the coder's.
        for id in self.control_ids() {
            put(&self.text(id), &id.into(), CONTROL)?;
        }
        let merge = |merge: &Value| match merge {
            Value::String(text) => Some(text.clone()),
            Value::Array(pair) => Some(format!("{} {}", pair.first()?.as_str()?, pair.get(1)?.as_str()?)),
            _ => None,
        };
        let merges: Option<Vec<String>> =
            file["model"]["merges"].as_array().and_then(|m| m.iter().map(merge).collect());
        let merges = merges.ok_or_else(|| refuse("its merges cannot be read"))?;
        let text = |text: &str| Metadatum::String(text.to_owned());
        let mut metadata = vec![
            ("model", text("gpt2")),
            ("pre", text(pre)),
            ("tokens", Metadatum::Strings(texts.iter().collect::<Strings>())),
            ("token_type", Metadatum::Numbers(types.into_iter().collect::<Numbers>())),
            ("merges", Metadatum::Strings(merges.iter().collect::<Strings>())),
            ("add_bos_token", Metadatum::Bool(!self.prefix.is_empty())),
        ];
        for (key, id) in [
            ("bos_token_id", self.special.bos),
            ("eos_token_id", self.special.eos),
            ("padding_token_id", self.special.pad),
            ("unknown_token_id", self.special.unk),
            ("eot_token_id", self.added_id("<|eot_id|>").or_else(|| self.added_id("<|im_end|>"))),
            ("eom_token_id", self.added_id("<|eom_id|>")),
        ] {
            metadata.extend(id.map(|id| (key, Metadatum::Unsigned(id.into()))));
        }
        Ok(metadata.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect())
    }

    /// `tokenizer.json` and `tokenizer_config.json`, the latter with the chat template where there is one.
    ///
    /// # Errors
    /// [`TokenizeError::Export`] for tokenizers that are no byte-level BPE.
    pub fn hugging_face_files(&self, template: Option<&str>) -> Result<[(&'static str, Value); 2], TokenizeError> {
        let file = self.hugging_face()?;
        let mut settings = Map::new();
        for (key, id) in [
            ("bos_token", self.special.bos),
            ("eos_token", self.special.eos),
            ("unk_token", self.special.unk),
            ("pad_token", self.special.pad),
        ] {
            if let Some(id) = id {
                settings.insert(key.into(), self.text(id).into());
            }
        }
        settings.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
        settings.insert("clean_up_tokenization_spaces".into(), false.into());
        if let Some(template) = template {
            settings.insert("chat_template".into(), template.into());
        }
        Ok([("tokenizer.json", file), ("tokenizer_config.json", settings.into())])
    }

    /// `tokenizer.json`, control tokens and the frame included.
    fn hugging_face(&self) -> Result<Value, TokenizeError> {
        let failed = |e: tokenizers::Error| TokenizeError::Failed(e.to_string());
        let Coder::HuggingFace(hf) = &self.coder else {
            return Err(TokenizeError::Export("it is no byte-level BPE".into()));
        };
        let mut hf = tokenizers::Tokenizer::clone(hf);
        let known = hf.get_added_tokens_decoder();
        let missing = self.control_ids().into_iter().filter(|id| !known.contains_key(id));
        let missing = missing.map(|id| tokenizers::AddedToken::from(self.text(id), true).normalized(false));
        hf.add_special_tokens(missing.collect::<Vec<_>>()).map_err(failed)?;
        if hf.get_decoder().is_none() {
            hf.with_decoder(Some(ByteLevel::default()));
        }
        if let (None, Some(&first)) = (hf.get_post_processor(), self.prefix.first()) {
            let text = self.text(first);
            let frame = TemplateProcessing::builder()
                .try_single(format!("{text} $A"))
                .and_then(|builder| builder.try_pair(format!("{text} $A {text} $B")))
                .map_err(|e| TokenizeError::Failed(e.to_string()))?
                .special_tokens(vec![(text, first)])
                .build()
                .map_err(|e| TokenizeError::Failed(e.to_string()))?;
            hf.with_post_processor(Some(frame));
        }
        let file = hf.to_string(false).map_err(failed)?;
        let file: Value = serde_json::from_str(&file).map_err(|e| TokenizeError::Failed(e.to_string()))?;
        let byte_level = file["model"]["type"] == "BPE"
            && file["model"]["byte_fallback"] != true
            && file["decoder"].to_string().contains("\"ByteLevel\"");
        if byte_level { Ok(file) } else { Err(TokenizeError::Export("it is no byte-level BPE".into())) }
    }
}

/// What GGUF calls the pre-tokenizer of a `tokenizer.json`.
fn pre_tokenizer_name(file: &Value) -> Option<&'static str> {
    let own = without_offsets(&file["pre_tokenizer"]);
    PRE_TOKENIZERS.into_iter().find(|name| {
        let Ok(known) = pre_tokenizer(Path::new(name), Some(name)) else {
            return false;
        };
        let normalizer = if known.nfc { json!({"type": "NFC"}) } else { Value::Null };
        serde_json::to_value(&known.split).is_ok_and(|split| without_offsets(&split) == own)
            && file["normalizer"] == normalizer
    })
}

/// Without what changes reported places in the text but no token.
fn without_offsets(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(key, _)| key.as_str() != "trim_offsets")
            .map(|(key, value)| (key.clone(), without_offsets(value)))
            .collect(),
        Value::Array(items) => items.iter().map(without_offsets).collect(),
        other => other.clone(),
    }
}
