//! `[model]`: what the run starts from.

use super::read::{Section, named};
use crate::tokenizer::MIN_VOCABULARY;
use serde::Serialize;
use serde_json::Value;
use stockade_core::train::TrainError;

/// The projections that an adapter may be put on, in the order of a layer.
pub const TARGETS: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelSpec {
    /// Path or served name of the model that is trained on; absent where `config` is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// A Hugging Face configuration, for a model from scratch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
    /// Folder or `.gguf` file whose tokenizer and chat template are used; absent: the base's. Needed with `config`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// Instead of `tokenizer`: one that is trained on the job's data before anything else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_tokenizer: Option<NewTokenizer>,
    /// Absent: all weights are trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterSpec>,
}

/// A byte-level BPE tokenizer that is to be trained.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NewTokenizer {
    /// Tokens in all, control tokens included; fewer where the text gives no more.
    pub vocabulary: usize,
    /// No token holds two digits.
    pub single_digits: bool,
    /// Least occurrences of a pair that becomes a token.
    pub min_frequency: u64,
    /// Text that is read, from the front.
    pub max_bytes: u64,
}

/// Low-rank matrices beside frozen weights.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AdapterSpec {
    pub kind: AdapterKind,
    pub rank: usize,
    /// The product is scaled by `alpha / rank`, or `alpha / sqrt(rank)` where `rank_stabilised`.
    pub alpha: f64,
    /// Share of the adapter's input that is dropped in training.
    pub dropout: f64,
    /// Names of [`TARGETS`], in that order, without duplicates.
    pub targets: Vec<String>,
    pub rank_stabilised: bool,
}

impl AdapterSpec {
    /// The factor of the low-rank product.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rank_stabilised { rank.sqrt() } else { rank }
    }
}

named! {
    pub enum AdapterKind {
        Lora = "lora",
        /// Weight-decomposed: a magnitude for each output row besides.
        Dora = "dora",
        /// LoRA on a base that is kept in NF4.
        Qlora = "qlora",
    }
}

pub(super) fn read(mut model: Section<'_>) -> Result<ModelSpec, TrainError> {
    let base = model.text("base")?;
    let config = model.take("config").cloned().map(without_nulls);
    if config.as_ref().is_some_and(|config| !config.is_object()) {
        return Err(model.refuse("config", "expected a table: a Hugging Face configuration"));
    }
    let tokenizer = model.text("tokenizer")?;
    let new_tokenizer = new_tokenizer(model.section("new_tokenizer")?)?;
    match (&base, &config) {
        (None, None) => return Err(model.refuse("base", "is missing; or give [model.config] for a model from scratch")),
        (Some(_), Some(_)) => return Err(model.refuse("config", "a model from scratch has no base")),
        (None, Some(_)) if tokenizer.is_some() == new_tokenizer.is_some() => {
            return Err(model.refuse("tokenizer", "a model from scratch needs one, or [model.new_tokenizer]"));
        }
        (Some(_), None) if new_tokenizer.is_some() => {
            return Err(model.refuse("new_tokenizer", "the base's weights belong to its own tokens"));
        }
        _ => {}
    }
    let adapter = adapter(model.section("adapter")?)?;
    if config.is_some() && adapter.is_some() {
        return Err(model.refuse("adapter", "a model from scratch has no frozen base for an adapter"));
    }
    model.finish()?;
    Ok(ModelSpec { base, config, tokenizer, new_tokenizer, adapter })
}

fn new_tokenizer(mut section: Section<'_>) -> Result<Option<NewTokenizer>, TrainError> {
    if !section.present() {
        return Ok(None);
    }
    let settings = NewTokenizer {
        vocabulary: section.size("vocabulary", MIN_VOCABULARY..=1 << 20)?.unwrap_or(4096),
        single_digits: section.flag("single_digits", true)?,
        min_frequency: section.integer("min_frequency", 1..=1 << 32)?.unwrap_or(2),
        max_bytes: section.integer("max_bytes", 1..=1 << 34)?.unwrap_or(256 << 20),
    };
    section.finish()?;
    Ok(Some(settings))
}

fn adapter(mut adapter: Section<'_>) -> Result<Option<AdapterSpec>, TrainError> {
    if !adapter.present() {
        return Ok(None);
    }
    let rank = adapter.size("rank", 1..=4096)?.unwrap_or(8);
    let named = adapter.texts("targets")?;
    for name in named.iter().flatten() {
        if !TARGETS.contains(&name.as_str()) {
            let shown: String = name.chars().take(64).collect();
            return Err(adapter.refuse("targets", format!("`{shown}` is none of {}", TARGETS.join(", "))));
        }
    }
    let wanted = |target: &str| named.as_ref().is_none_or(|named| named.iter().any(|name| name == target));
    let targets: Vec<String> = TARGETS.iter().filter(|target| wanted(target)).map(|&target| target.into()).collect();
    if targets.is_empty() {
        return Err(adapter.refuse("targets", "is empty"));
    }
    let spec = AdapterSpec {
        kind: adapter.choice("kind")?.unwrap_or(AdapterKind::Lora),
        alpha: adapter.number("alpha", 0.0..=1e6)?.unwrap_or(2.0 * rank as f64),
        dropout: adapter.number("dropout", 0.0..=0.95)?.unwrap_or(0.0),
        rank_stabilised: adapter.flag("rank_stabilised", false)?,
        rank,
        targets,
    };
    adapter.finish()?;
    Ok(Some(spec))
}

/// TOML has no null, and in a configuration null means absent.
pub(super) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().filter(|v| !v.is_null()).map(without_nulls).collect()),
        other => other,
    }
}
