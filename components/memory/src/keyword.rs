//! Words: BM25 over the segments of a bank.
//!
//! An insert writes one small segment of level 0. Once there are enough of a level they become one of the next, and what
//! has been replaced or removed meanwhile is left out; a segment that has grown large stays as it is.
//!
//! Source: Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond"; the inverse document
//! frequency with one added inside of the logarithm, as Lucene has it, so that no word counts negative.

use crate::bank::Bank;
use crate::records::{Record, Version};
use crate::segment::{Builder, Segment};
use crate::words::Language;
use std::collections::{BTreeMap, HashMap, HashSet};
use stockade_guest::prelude::*;
use stockade_guest::state::{Entry, Expectation, Write};

/// How soon more of the same word stops to count.
const K1: f32 = 1.5;
/// How much longer items are held back.
const B: f32 = 0.75;
/// Segments of a level that are merged into one of the next.
const MERGED: usize = 8;
/// Size from which a segment is not merged any more; a state value holds a mebibyte.
const FULL_BYTES: usize = 600 << 10;
/// Level of segments that are full.
const FULL: u32 = 9;
/// Most words of a query.
const MAX_QUERY_WORDS: usize = 64;

/// Writes the words of records into segments.
pub fn add(bank: &Bank, new: &BTreeMap<String, Record>) -> Result<()> {
    if !bank.settings.kind.has_words() || new.is_empty() {
        return Ok(());
    }
    let language = Language::named(&bank.settings.config.language)?;
    let mut builder = Builder::default();
    for (id, record) in new {
        builder.add(id, record.version, language.words(&record.text));
        if builder.bytes() > FULL_BYTES {
            bank.bucket.write_all(&[segment(bank, 0, &std::mem::take(&mut builder))?])?;
        }
    }
    if !builder.is_empty() {
        bank.bucket.write_all(&[segment(bank, 0, &builder)?])?;
    }
    (0..FULL).try_for_each(|level| merge(bank, level))
}

/// The writing of a segment.
fn segment(bank: &Bank, level: u32, builder: &Builder) -> Result<Write> {
    let bytes = builder.build()?;
    let level = if bytes.len() >= FULL_BYTES { FULL } else { level };
    let key = format!("{}{}", prefix(bank, Some(level)), Version::fresh());
    Ok(Write::set(key, bytes).expect(Expectation::Absent))
}

fn prefix(bank: &Bank, level: Option<u32>) -> String {
    match level {
        Some(level) => format!("words/{}/{level}/", bank.name),
        None => format!("words/{}/", bank.name),
    }
}

/// Makes one segment of a level's, if there are enough. The old ones go with the commit that brings the new one. Large ones need
/// several; cut off between them it leaves words twice, which searches bear and the next merge mends.
fn merge(bank: &Bank, level: u32) -> Result<()> {
    let prefix = prefix(bank, Some(level));
    if bank.bucket.keys(&prefix, None, MERGED as u32)?.len() < MERGED {
        return Ok(());
    }
    let found = bank.bucket.scan_all(&prefix)?;
    let mut writes = Vec::new();
    let mut seen: HashSet<(String, Version)> = HashSet::new();
    let mut builder = Builder::default();
    for entry in &found {
        builder.merge(&Segment::read(&entry.value)?, |doc| {
            let fresh = seen.insert((doc.id.into(), doc.version));
            Ok(fresh && (!doc.version.is_settled() || is_current(bank, doc.id, doc.version)?))
        })?;
        if builder.bytes() > FULL_BYTES {
            writes.push(segment(bank, FULL, &std::mem::take(&mut builder))?);
        }
    }
    if !builder.is_empty() {
        writes.push(segment(bank, level + 1, &builder)?);
    }
    writes.extend(found.into_iter().map(|entry| Write::delete(entry.key)));
    bank.bucket.write_all(&writes)
}

fn is_current(bank: &Bank, id: &str, version: Version) -> Result<bool> {
    let record = bank.bucket.get_json::<Record>(&bank.item_key(id))?;
    Ok(record.is_some_and(|(record, _)| record.version == version))
}

/// Writings that have words of the text, with their BM25, best first.
pub fn ranked(bank: &Bank, text: &str) -> Result<Vec<(String, Version, f32)>> {
    let entries = bank.bucket.scan_all(&prefix(bank, None))?;
    let segments = entries.iter().map(|entry: &Entry| Segment::read(&entry.value)).collect::<Result<Vec<_>>>()?;
    let mut terms = Language::named(&bank.settings.config.language)?.words(text);
    terms.sort_unstable();
    terms.dedup();
    terms.truncate(MAX_QUERY_WORDS);

    let docs = segments.iter().map(|s| s.docs().len()).sum::<usize>() as f32;
    let length: u64 = segments.iter().flat_map(|s| s.docs()).map(|doc| u64::from(doc.length)).sum();
    let average = (length as f32 / docs.max(1.0)).max(1.0);
    let mut scores: HashMap<(&str, Version), f32> = HashMap::new();
    for term in &terms {
        let postings: HashMap<_, _> = segments
            .iter()
            .flat_map(|s| s.postings(term))
            .map(|(doc, count)| ((doc.id, doc.version), (doc.length as f32, count as f32)))
            .collect();
        let with = postings.len() as f32;
        let rarity = (1.0 + (docs - with + 0.5) / (with + 0.5)).ln();
        for (doc, (length, count)) in postings {
            let weight = count * (K1 + 1.0) / (count + K1 * (1.0 - B + B * length / average));
            *scores.entry(doc).or_default() += rarity * weight;
        }
    }
    let mut ranked: Vec<_> =
        scores.into_iter().map(|((id, version), score)| (id.to_string(), version, score)).collect();
    ranked.sort_unstable_by(|a, b| b.2.total_cmp(&a.2).then_with(|| a.0.cmp(&b.0)));
    Ok(ranked)
}
