//! `[data]`: which rows are read, and how they become rows of tokens.

use super::Method;
use super::model::without_nulls;
use super::read::{Section, named};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use stockade_core::train::TrainError;

/// Longest row in tokens.
pub const MAX_ROW_TOKENS: u64 = 1 << 20;
/// Most rows that a job may carry itself.
const MAX_INLINE_ROWS: usize = 100_000;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DataSpec {
    pub train: DataName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval: Option<DataName>,
    /// Share of `train` that is held out, where `eval` is absent; rows of one group stay together.
    pub eval_split: f64,
    /// Column whose value makes rows one group for the split; absent: equal rows are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Absent: detected from the first row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Our name of a column to the file's name of it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, String>,
    /// What one document of a plain text file is.
    pub documents: Documents,
    /// A new order for each epoch, by the job's seed; false: file order.
    pub shuffle: bool,
    /// Several documents a row, attention and positions apart; documents only (pretrain, continue, sft).
    pub packing: bool,
    /// Tokens of a row.
    pub max_tokens: usize,
    /// What happens to a document longer than that; counted and reported.
    pub on_long: OnLong,
    /// Prompts, headers and user turns carry labels too.
    pub label_prompt: bool,
    /// Prompts and completions that are texts become turns of a chat; else they are taken raw.
    pub as_chat: bool,
    /// Raw texts that spell control tokens mean them; never so in messages.
    pub parse_special: bool,
}

/// Where rows are.
#[derive(Debug, Clone, PartialEq)]
pub enum DataName {
    /// A path, a file's id or a data set's.
    Named(String),
    /// In the job itself.
    Rows(Vec<Value>),
}

impl Serialize for DataName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Named(name) => serializer.serialize_str(name),
            Self::Rows(rows) => {
                let fields: Map<String, Value> = Map::from_iter([("rows".to_owned(), Value::Array(rows.clone()))]);
                fields.serialize(serializer)
            }
        }
    }
}

impl DataName {
    /// For messages and records.
    pub fn name(&self) -> &str {
        match self {
            Self::Named(name) => name,
            Self::Rows(_) => "rows of the job",
        }
    }
}

named! {
    /// What a row of data holds.
    pub enum Format {
        /// `messages` (and `tools`), or `conversations` as some hubs spell it.
        Chat = "chat",
        /// `prompt`, `completion`
        Completion = "completion",
        /// `prompt`, `chosen`, `rejected`: texts, or message lists
        Preference = "preference",
        /// `prompt`, `completion`, `label`
        Unpaired = "unpaired",
        /// `text`
        Text = "text",
        /// `text`, `label`
        Classify = "classify",
        /// `anchor`, `positive`, perhaps `negative`
        Embed = "embed",
        /// `prompt` or `messages`, perhaps `reference` (or `answer`)
        Prompts = "prompts",
        /// `tokens`, perhaps `labels`
        Tokens = "tokens",
    }
}

named! {
    pub enum Documents {
        /// Between empty lines.
        Paragraph = "paragraph",
        Line = "line",
        File = "file",
    }
}

named! {
    pub enum OnLong {
        /// Into pieces of at most `max_tokens`.
        Split = "split",
        /// The rest is left out.
        Cut = "cut",
        /// The row is left out.
        Drop = "drop",
        /// The job fails with the row's number.
        Refuse = "refuse",
    }
}

/// Column names that formats know, ours.
const COLUMNS: [&str; 16] = [
    "messages",
    "conversations",
    "tools",
    "prompt",
    "completion",
    "chosen",
    "rejected",
    "margin",
    "label",
    "text",
    "anchor",
    "positive",
    "negative",
    "reference",
    "tokens",
    "labels",
];

pub(super) fn read(mut data: Section<'_>, method: Method) -> Result<DataSpec, TrainError> {
    let train = match (name(&mut data, "train")?, data.take("rows")) {
        (Some(train), None) => train,
        (None, Some(rows)) => DataName::Rows(rows_of(&data, "rows", rows)?),
        (Some(_), Some(_)) => return Err(data.refuse("rows", "stands beside `train`; one of the two")),
        (None, None) => return Err(data.refuse("train", "is missing")),
    };
    let format: Option<Format> = data.choice("format")?;
    if let Some(format) = format.filter(|&format| !method.formats().contains(&format)) {
        let known: Vec<String> = method.formats().iter().map(ToString::to_string).collect();
        return Err(data.refuse("format", format!("`{method}` takes {}, not {format}", known.join(", "))));
    }
    let packs = method.trains_on_documents();
    let on_long = match method {
        Method::Pretrain | Method::Continue => OnLong::Split,
        Method::Grpo => OnLong::Drop,
        _ => OnLong::Cut,
    };
    let eval = name(&mut data, "eval")?;
    let spec = DataSpec {
        train,
        eval_split: data.number("eval_split", 0.0..=0.9)?.unwrap_or(0.0),
        group: data.text("group")?,
        format,
        columns: columns(data.section("columns")?)?,
        documents: data.choice("documents")?.unwrap_or(Documents::Paragraph),
        shuffle: data.flag("shuffle", true)?,
        packing: data.flag("packing", packs)? && packs,
        max_tokens: data.size("max_tokens", 2..=MAX_ROW_TOKENS)?.unwrap_or(512),
        on_long: data.choice("on_long")?.unwrap_or(on_long),
        label_prompt: data.flag("label_prompt", false)?,
        as_chat: data.flag("as_chat", false)?,
        parse_special: data.flag("parse_special", !matches!(method, Method::Pretrain | Method::Continue))?,
        eval,
    };
    if spec.eval.is_some() && spec.eval_split > 0.0 {
        return Err(data.refuse("eval_split", "stands beside `eval`; one of the two"));
    }
    if spec.on_long == OnLong::Split && !packs {
        return Err(data.refuse("on_long", format!("rows of `{method}` cannot be split; it takes cut, drop, refuse")));
    }
    if spec.on_long == OnLong::Cut && method == Method::Grpo {
        return Err(data.refuse("on_long", "a prompt that is cut asks something else; it takes drop, refuse"));
    }
    data.finish()?;
    Ok(spec)
}

/// A name, or `{ rows = [...] }`.
fn name(data: &mut Section<'_>, key: &'static str) -> Result<Option<DataName>, TrainError> {
    match data.take(key) {
        Some(Value::Object(fields)) if fields.len() == 1 => match fields.get("rows") {
            Some(rows) => Ok(Some(DataName::Rows(rows_of(data, key, rows)?))),
            None => Err(data.refuse(key, "expected a name, or { rows = [...] }")),
        },
        _ => Ok(data.text(key)?.map(DataName::Named)),
    }
}

fn rows_of(data: &Section<'_>, key: &str, rows: &Value) -> Result<Vec<Value>, TrainError> {
    match rows.as_array() {
        Some(rows) if rows.is_empty() => Err(data.refuse(key, "has no rows")),
        Some(rows) if rows.len() > MAX_INLINE_ROWS => {
            Err(data.refuse(key, format!("{} rows exceed the limit of {MAX_INLINE_ROWS}; send a file", rows.len())))
        }
        Some(rows) => Ok(rows.iter().cloned().map(without_nulls).collect()),
        None => Err(data.refuse(key, "expected a list of rows")),
    }
}

fn columns(mut columns: Section<'_>) -> Result<BTreeMap<String, String>, TrainError> {
    let mut named = BTreeMap::new();
    for column in COLUMNS {
        if let Some(name) = columns.text(column)? {
            named.insert(column.to_owned(), name);
        }
    }
    columns.finish()?;
    Ok(named)
}
