//! Documents: extracted, cut into chunks, written so that they appear and are replaced at one moment.

use crate::bank::{Bank, invalid};
use crate::chunking::{self, Chunking};
use crate::insert::{expiry, lead_to};
use crate::records::{self, DocumentRecord, Record, Version};
use crate::{digest, embedding, extract};
use std::collections::BTreeMap;
use std::ops::Range;
use stockade_guest::memory::{Document, Ingested};
use stockade_guest::prelude::*;
use stockade_guest::state::{Expectation, Write};

/// Largest file.
const MAX_BYTES: usize = 8 << 20;
/// Longest id of a document: with version and offset it is a chunk's id.
const MAX_DOCUMENT_BYTES: usize = 96;
const MAX_NAME_BYTES: usize = 256;
const MAX_CHUNKS: usize = 20_000;
/// Chunks that are embedded and written before the next are.
const STEP: usize = 128;

pub fn ingest(bank: &Bank, document: Document) -> Result<Ingested> {
    if document.data.len() > MAX_BYTES {
        return Err(Error::TooLarge(format!("data: at most {MAX_BYTES} bytes")));
    }
    if document.name.len() > MAX_NAME_BYTES {
        return Err(Error::TooLarge(format!("name: at most {MAX_NAME_BYTES} bytes")));
    }
    let id = if document.id.is_empty() { digest(&[&document.data]) } else { document.id };
    records::named("document", &id, MAX_DOCUMENT_BYTES)?;
    let metadata = records::metadata(&document.metadata)?;
    let chunking = match &document.chunking {
        Some(text) => Chunking::read(text)?,
        None => bank.settings.config.chunking.clone(),
    };
    let settings = serde_json::to_string(&(&document.name, &document.media_type, &metadata, &chunking))?;
    let digest = digest(&[&document.data, settings.as_bytes()]);

    let key = bank.document_key(&id);
    let old = bank.bucket.get_json::<DocumentRecord>(&key)?;
    if let Some((old, _)) = old.as_ref().filter(|(old, _)| old.digest == digest) {
        return Ok(Ingested { document: id, chunks: old.chunks, bytes: old.bytes });
    }
    // What calls that were cut off have left of it.
    let kept = old.as_ref().map(|(old, _)| old.version);
    remove_chunks(bank, &id, |version| Some(version) != kept && version.is_settled())?;

    let text = extract::text(&document.media_type, &document.name, &document.data)?;
    let ranges = chunking::split(&text, &chunking, |piece| embedding::tokens(bank, piece))?;
    if ranges.len() > MAX_CHUNKS {
        return Err(Error::TooLarge(format!("document: {} chunks, at most {MAX_CHUNKS}", ranges.len())));
    }
    let version = Version::fresh();
    let chunks = ranges.len() as u32;
    for ranges in ranges.chunks(STEP) {
        let record = |range: &Range<usize>| Record {
            version,
            text: text[range.clone()].to_string(),
            metadata: metadata.clone(),
            document: Some(id.clone()),
            expires_at: expiry(bank),
        };
        let new: BTreeMap<_, _> =
            ranges.iter().map(|range| (chunk_id(&id, version, range.start), record(range))).collect();
        lead_to(bank, &new)?;
        records::write(bank, &new)?;
    }
    let record = DocumentRecord { version, name: document.name, digest, chunks, bytes: text.len() as u64 };
    let expect = old.as_ref().map_or(Expectation::Absent, |(_, revision)| Expectation::Revision(*revision));
    if let Err(e) = bank.bucket.set_json(&key, &record, expect) {
        remove_chunks(bank, &id, |other| other == version)?;
        return Err(match e {
            Error::Conflict(_) => Error::Conflict(format!("document `{id}` was taken in by somebody else meanwhile")),
            e => e,
        });
    }
    if let Some((old, _)) = old {
        remove_chunks(bank, &id, |version| version == old.version)?;
    }
    Ok(Ingested { document: id, chunks, bytes: record.bytes })
}

/// Removes a document: first its row, with which its chunks are gone, then them.
pub fn forget(bank: &Bank, id: &str) -> Result<u32> {
    records::named("document", id, MAX_DOCUMENT_BYTES)?;
    let key = bank.document_key(id);
    let Some((record, revision)) = bank.bucket.get_json::<DocumentRecord>(&key)? else { return Ok(0) };
    bank.bucket.delete(&key, Expectation::Revision(revision))?;
    remove_chunks(bank, id, |version| version == record.version || version.is_settled())?;
    Ok(record.chunks)
}

/// Sorts by version and then by place; says where in the document's text the chunk begins, in bytes.
fn chunk_id(document: &str, version: Version, offset: usize) -> String {
    format!("{document}#{version}.{offset:07}")
}

fn remove_chunks(bank: &Bank, document: &str, which: impl Fn(Version) -> bool) -> Result<()> {
    let (base, prefix) = (bank.item_key(""), bank.item_key(&format!("{document}#")));
    let mut after = None;
    loop {
        let page = bank.bucket.scan(&prefix, after.as_deref(), 1000)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.key.clone());
        let (mut gone, mut deletes) = (Vec::new(), Vec::new());
        for entry in page {
            let record: Record = serde_json::from_slice(&entry.value).map_err(|e| invalid("item", e))?;
            if record.document.as_deref() == Some(document) && which(record.version) {
                gone.push((entry.key[base.len()..].to_string(), record.version));
                deletes.push(Write::delete(entry.key));
            }
        }
        bank.bucket.write_all(&deletes)?;
        embedding::remove(bank, gone.iter().map(|(id, version)| (id.as_str(), *version)))?;
    }
}
