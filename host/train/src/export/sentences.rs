//! How texts become vectors, as sentence-transformers writes it beside a network.

use super::model::write_json;
use crate::job::EmbedPooling;
use serde_json::{Value, json};
use std::path::Path;
use stockade_core::train::TrainError;

/// Writes `modules.json` and what it names into the folder of a network: states of `width` channels pooled, vectors of
/// length 1, texts cut at `max_tokens`.
///
/// # Errors
/// [`TrainError::Io`] for a disk that does not take it.
pub fn write_sentences(
    folder: &Path,
    pooling: EmbedPooling,
    width: usize,
    max_tokens: usize,
) -> Result<(), TrainError> {
    let module = |index: usize, path: &str, kind: &str| json!({"idx": index, "name": index.to_string(), "path": path, "type": format!("sentence_transformers.models.{kind}")});
    let modules =
        [module(0, "", "Transformer"), module(1, "1_Pooling", "Pooling"), module(2, "2_Normalize", "Normalize")];
    write_json(&folder.join("modules.json"), &Value::from(modules.to_vec()))?;
    for name in ["1_Pooling", "2_Normalize"] {
        let made = std::fs::create_dir_all(folder.join(name));
        made.map_err(|e| TrainError::Io { stage: "writing the model", source: e.into() })?;
    }
    let pooling = json!({
        "word_embedding_dimension": width,
        "pooling_mode_cls_token": false,
        "pooling_mode_mean_tokens": pooling == EmbedPooling::Mean,
        "pooling_mode_lasttoken": pooling == EmbedPooling::Last,
        "pooling_mode_max_tokens": false,
    });
    write_json(&folder.join("1_Pooling/config.json"), &pooling)?;
    let lengths = json!({"max_seq_length": max_tokens, "do_lower_case": false});
    write_json(&folder.join("sentence_bert_config.json"), &lengths)
}
