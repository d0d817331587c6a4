//! What a model's files say of its tokenizer, in the words of `tokenizer_config.json`, for programs outside.

use super::Tokenizer;
use crate::ModelError;
use crate::checkpoint::gguf::Metadata;
use crate::checkpoint::{exists, read_small};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Settings that name files of whoever saved the model.
const FILES: [&str; 3] = ["vocab_file", "merges_file", "name_or_path"];

/// `tokenizer_config.json`, or else `special_tokens_map.json`, each token as its text; empty without either.
pub(super) fn of_folder(folder: &Path) -> Result<Map<String, Value>, ModelError> {
    for name in ["tokenizer_config.json", "special_tokens_map.json"] {
        let file = folder.join(name);
        if !exists(&file) {
            continue;
        }
        let json =
            serde_json::from_slice(&read_small(&file)?).map_err(|e| ModelError::damaged(&file, e.to_string()))?;
        let Value::Object(mut settings) = texts(json) else {
            return Err(ModelError::damaged(&file, "not a JSON object"));
        };
        settings.retain(|key, _| !FILES.contains(&key.as_str()));
        return Ok(settings);
    }
    Ok(Map::new())
}

/// A token with its settings (`{"content": .., "lstrip": ..}`) becomes its text, wherever it stands.
fn texts(value: Value) -> Value {
    match value {
        Value::Object(mut entries) => match entries.get_mut("content") {
            Some(Value::String(text)) => Value::String(std::mem::take(text)),
            _ => entries.into_iter().map(|(key, value)| (key, texts(value))).collect(),
        },
        Value::Array(items) => items.into_iter().map(texts).collect(),
        other => other,
    }
}

/// The same of a GGUF file, as far as it says.
pub(super) fn of_gguf(tokenizer: &Tokenizer, metadata: &Metadata) -> Map<String, Value> {
    let special = tokenizer.special();
    let token = |id: Option<u32>| id.map(|id| Value::from(tokenizer.text(id)));
    let added: Map<String, Value> =
        tokenizer.control_ids().into_iter().map(|id| (id.to_string(), tokenizer.text(id).into())).collect();
    let template = metadata.str("tokenizer.chat_template").map(Value::from);
    let settings = [
        ("bos_token", token(special.bos)),
        ("eos_token", token(special.eos)),
        ("unk_token", token(special.unk)),
        ("pad_token", token(special.pad)),
        ("add_bos_token", Some(json!(!tokenizer.prefix.is_empty()))),
        ("add_eos_token", Some(json!(!tokenizer.suffix.is_empty()))),
        ("added_tokens_decoder", Some(added.into())),
        ("chat_template", template),
    ];
    settings.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}
