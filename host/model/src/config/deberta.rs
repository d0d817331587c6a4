//! What only DeBERTa's configuration has. One layout is computed, that of the v3 models; everything else that the
//! format can say is refused by name.

use super::RelativePositions;
use super::json::parse;
use crate::ModelError;
use serde::Deserialize;
use std::path::Path;

/// Most buckets of distances.
const MAX_BUCKETS: usize = 1 << 16;

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    relative_attention: bool,
    #[serde(default = "on")]
    position_biased_input: bool,
    #[serde(default)]
    share_att_key: bool,
    #[serde(default)]
    norm_rel_ebd: String,
    pos_att_type: Option<Kinds>,
    position_buckets: Option<i64>,
    max_relative_positions: Option<i64>,
    #[serde(default)]
    type_vocab_size: usize,
    #[serde(default)]
    conv_kernel_size: usize,
    embedding_size: Option<usize>,
    pooler_hidden_size: Option<usize>,
    pooler_hidden_act: Option<String>,
}

fn on() -> bool {
    true
}

/// A list, or in older files one text with bars between.
#[derive(Deserialize)]
#[serde(untagged)]
enum Kinds {
    Text(String),
    List(Vec<String>),
}

impl Kinds {
    /// Content to position and position to content, in any order.
    fn are_both(&self) -> bool {
        let mut kinds: Vec<&str> = match self {
            Self::Text(text) => text.split('|').map(str::trim).collect(),
            Self::List(list) => list.iter().map(String::as_str).collect(),
        };
        kinds.sort_unstable();
        kinds == ["c2p", "p2c"]
    }
}

/// `context`: the model's positions, in tokens.
pub(super) fn relative_positions(
    file: &Path,
    hidden_size: usize,
    context: usize,
) -> Result<RelativePositions, ModelError> {
    let raw: Raw = parse(file)?;
    let own_width = |size: Option<usize>| size.is_some_and(|size| size != hidden_size);
    for (refused, what) in [
        (!raw.relative_attention, "attention without relative_attention"),
        (raw.position_biased_input, "position_biased_input"),
        (!raw.share_att_key, "attention without share_att_key"),
        (!raw.norm_rel_ebd.split('|').any(|norm| norm == "layer_norm"), "norm_rel_ebd without layer_norm"),
        (!raw.pos_att_type.as_ref().is_some_and(Kinds::are_both), "pos_att_type other than c2p and p2c"),
        (raw.type_vocab_size > 0, "type_vocab_size above 0"),
        (raw.conv_kernel_size > 0, "conv_kernel_size above 0"),
        (own_width(raw.embedding_size), "embedding_size other than the hidden size"),
        (own_width(raw.pooler_hidden_size), "pooler_hidden_size other than the hidden size"),
        (raw.pooler_hidden_act.as_deref().is_some_and(|act| act != "gelu"), "pooler_hidden_act other than gelu"),
    ] {
        if refused {
            return Err(ModelError::unsupported(file, "of DeBERTa,", what));
        }
    }
    let size = |value: Option<i64>| value.and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0);
    let buckets = size(raw.position_buckets).unwrap_or(0);
    let max_distance = size(raw.max_relative_positions).unwrap_or(context);
    if !(4..=MAX_BUCKETS).contains(&buckets) || max_distance < buckets {
        let reason =
            format!("{buckets} position_buckets over {max_distance} tokens are not 4 to {MAX_BUCKETS} over more");
        return Err(ModelError::damaged(file, reason));
    }
    Ok(RelativePositions { buckets, max_distance })
}
