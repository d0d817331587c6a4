//! Meaning: embeddings of items in the bank's vector index, each under its item's id and version.

use crate::bank::Bank;
use crate::chunking;
use crate::records::{Record, Version};
use std::collections::BTreeMap;
use stockade_guest::prelude::*;
use stockade_guest::vectors::{self, Entry, Index, Metric};

/// Most texts of one call to the model and most entries of one to the index.
const BATCH: usize = 256;
/// Tokens that a model reads when it does not say.
const DEFAULT_CONTEXT: u32 = 256;
/// Begin and end.
const CONTROL_TOKENS: u32 = 2;
/// Most ids of one delete.
const MAX_DELETED: usize = 1000;

/// The attribute that says when an entry's item is gone; far away where never.
pub const EXPIRES: &str = "~expires";
pub const NEVER: u64 = 1 << 52;

/// Embeds records and puts them into the index.
pub fn add(bank: &Bank, new: &BTreeMap<String, Record>) -> Result<()> {
    if !bank.settings.kind.has_vectors() || new.is_empty() {
        return Ok(());
    }
    let texts: Vec<&str> = new.values().map(|record| record.text.as_str()).collect();
    let embedded = embed(bank, &texts)?;
    let index = open(bank, embedded.first().map_or(0, Vec::len))?;
    let entries = new.iter().zip(embedded).map(|((id, record), vector)| {
        let mut attributes = record.metadata.clone();
        attributes.insert(EXPIRES.into(), record.expires_at.unwrap_or(NEVER).into());
        Entry { id: entry_id(id, record.version), vector, attributes: Value::Object(attributes).to_string() }
    });
    let entries: Vec<Entry> = entries.collect();
    entries.chunks(BATCH).try_for_each(|batch| index.upsert(batch))
}

/// Removes what was embedded of these writings.
pub fn remove<'a>(bank: &Bank, gone: impl IntoIterator<Item = (&'a str, Version)>) -> Result<()> {
    let ids: Vec<String> = gone.into_iter().map(|(id, version)| entry_id(id, version)).collect();
    if !bank.settings.kind.has_vectors() || ids.is_empty() {
        return Ok(());
    }
    let index = open(bank, dimensions(bank)?)?;
    ids.chunks(MAX_DELETED).try_for_each(|batch| index.delete(batch).map(|_| ()))
}

/// The closest writings by id and version with their cosine, best first; `filter` as the index takes it.
pub fn nearest(bank: &Bank, text: &str, limit: u32, filter: Option<String>) -> Result<Vec<(String, Version, f32)>> {
    let Some(vector) = embed(bank, &[text])?.pop() else { return Ok(Vec::new()) };
    let index = open(bank, vector.len())?;
    let found = index.search(&vectors::Query { vector, limit, filter, exact: false })?;
    let parsed = found.into_iter().filter_map(|n| {
        let (id, version) = n.id.rsplit_once('~')?;
        Some((id.to_string(), Version(u64::from_str_radix(version, 16).ok()?), n.score))
    });
    Ok(parsed.collect())
}

pub fn size(bank: &Bank) -> Result<u64> {
    open(bank, dimensions(bank)?)?.size()
}

/// Tokens of a text, as the bank's model counts or, in a bank without one, by estimate.
pub fn tokens(bank: &Bank, text: &str) -> Result<u32> {
    if !bank.settings.kind.has_vectors() {
        return Ok(chunking::estimate(text));
    }
    let tokens = inference::tokenize(&bank.settings.config.embedding_model, text).map_err(|e| explained(bank, e))?;
    Ok(tokens.len() as u32)
}

fn entry_id(id: &str, version: Version) -> String {
    format!("{id}~{version}")
}

fn open(bank: &Bank, dimensions: usize) -> Result<Index> {
    match vectors::open(&bank.index, dimensions as u32, Metric::Cosine) {
        Err(Error::Conflict(_)) => Err(Error::Conflict(format!(
            "bank `{}`: its vectors have other dimensions than `{}` has now",
            bank.name, bank.settings.config.embedding_model
        ))),
        opened => opened,
    }
}

fn dimensions(bank: &Bank) -> Result<usize> {
    let model = &bank.settings.config.embedding_model;
    let known = inference::models()?.into_iter().find(|m| m.name == *model).and_then(|m| m.embedding_dimensions);
    match known {
        Some(dimensions) => Ok(dimensions as usize),
        None => Ok(embed(bank, &["a"])?.first().map_or(0, Vec::len)),
    }
}

/// A vector for each text. A text longer than the model reads is the mean of its pieces.
fn embed(bank: &Bank, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
    let model = &bank.settings.config.embedding_model;
    let info = inference::models()?.into_iter().find(|m| m.name == *model);
    let context = info.map_or(DEFAULT_CONTEXT, |m| m.context_tokens).saturating_sub(CONTROL_TOKENS).max(1);
    let mut pieces: Vec<String> = Vec::new();
    let mut of_text: Vec<usize> = Vec::with_capacity(texts.len());
    for text in texts {
        let before = pieces.len();
        // A token is a byte or more.
        if text.len() <= context as usize {
            pieces.push((*text).to_string());
        } else {
            let windows = chunking::windows(text, context, |piece| tokens(bank, piece))?;
            pieces.extend(windows.into_iter().map(|window| text[window].to_string()));
        }
        of_text.push(pieces.len() - before);
    }
    let mut vectors = Vec::with_capacity(pieces.len());
    for batch in pieces.chunks(BATCH) {
        vectors.extend(inference::embed(model, batch).map_err(|e| explained(bank, e))?);
    }
    let mut vectors = vectors.into_iter();
    Ok(of_text.into_iter().map(|n| mean(vectors.by_ref().take(n).collect())).collect())
}

fn mean(mut vectors: Vec<Vec<f32>>) -> Vec<f32> {
    let Some(mut sum) = vectors.pop() else { return Vec::new() };
    for vector in &vectors {
        sum.iter_mut().zip(vector).for_each(|(s, v)| *s += v);
    }
    let count = (vectors.len() + 1) as f32;
    sum.iter_mut().for_each(|s| *s /= count);
    sum
}

fn explained(bank: &Bank, e: Error) -> Error {
    match e {
        Error::NotFound(_) | Error::Denied(_) => Error::Unavailable(format!(
            "embedding model `{}` of bank `{}` is not served or not granted; a bank of kind `keyword` needs none",
            bank.settings.config.embedding_model, bank.name
        )),
        e => e,
    }
}
