//! Files of rows, streamed: JSON lines, parquet, plain text.
//!
//! Invariant: memory is bounded by one row (one page of a parquet column), whatever the file holds.

mod lines;
mod parquet;
mod plain;

use crate::job::{DataName, DataSpec};
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use stockade_core::train::{Resolver, TrainError};

/// Longest JSON row in bytes. What a row becomes in memory may take ten times as much.
pub const MAX_ROW_BYTES: usize = 8 << 20;
/// Longest document of a plain text file in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 64 << 20;

/// A row with its number in the file, from 1: the line for lines, the document for plain text.
pub struct NumberedRow {
    pub number: u64,
    pub value: Value,
}

/// Rows in file order.
pub type Rows<'a> = Box<dyn Iterator<Item = Result<NumberedRow, TrainError>> + 'a>;

/// Opens the rows that `name` stands for, and tells the digest of their bytes.
pub fn open<'a>(name: &'a DataName, spec: &DataSpec, resolver: &dyn Resolver) -> Result<Rows<'a>, TrainError> {
    match name {
        DataName::Rows(rows) => {
            let rows = rows.iter().zip(1..).map(|(value, number)| Ok(NumberedRow { number, value: value.clone() }));
            Ok(Box::new(rows))
        }
        DataName::Named(name) => {
            let path = resolver.data(name)?;
            let file = open_file(name, &path)?;
            Ok(match kind(name, &path)? {
                Kind::Lines => Box::new(lines::rows(name, file)),
                Kind::Parquet => Box::new(parquet::rows(name, file)?),
                Kind::Plain => Box::new(plain::rows(name, file, spec.documents)),
            })
        }
    }
}

/// The sha256 of the file's bytes, or of the rows that the job carries.
pub fn digest(name: &DataName, resolver: &dyn Resolver) -> Result<[u8; 32], TrainError> {
    use sha2::{Digest as _, Sha256};
    let mut hasher = Sha256::new();
    match name {
        DataName::Rows(rows) => rows.iter().for_each(|row| hasher.update(row.to_string())),
        DataName::Named(name) => {
            let mut file = open_file(name, &resolver.data(name)?)?;
            let mut buffer = vec![0; 1 << 18];
            loop {
                match file.read(&mut buffer).map_err(|e| unreadable(name, &e))? {
                    0 => break,
                    n => hasher.update(&buffer[..n]),
                }
            }
        }
    }
    Ok(hasher.finalize().into())
}

enum Kind {
    Lines,
    Parquet,
    Plain,
}

/// By the name's ending, else by the first bytes.
fn kind(name: &str, path: &Path) -> Result<Kind, TrainError> {
    let mut start = [0; 64];
    let mut file = open_file(name, path)?;
    let mut filled = 0;
    while filled < start.len() {
        match file.read(&mut start[filled..]).map_err(|e| unreadable(name, &e))? {
            0 => break,
            n => filled += n,
        }
    }
    let start = start[..filled].strip_prefix(b"\xef\xbb\xbf").unwrap_or(&start[..filled]);
    if start.is_empty() {
        return Err(refuse(name, "is empty"));
    }
    let first = start.iter().find(|byte| !byte.is_ascii_whitespace());
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    Ok(match (ending.as_str(), first) {
        _ if start.starts_with(b"PAR1") => Kind::Parquet,
        ("parquet", _) => return Err(refuse(name, "is no parquet file")),
        ("txt" | "text" | "md", _) => Kind::Plain,
        ("json" | "jsonl" | "ndjson" | "", Some(b'[')) => {
            return Err(refuse(name, "is one JSON list; write one object a line"));
        }
        ("json" | "jsonl" | "ndjson", _) | (_, Some(b'{')) => Kind::Lines,
        _ => Kind::Plain,
    })
}

fn open_file(name: &str, path: &Path) -> Result<File, TrainError> {
    // Asked before opening: opening a pipe would wait for its writer.
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() => File::open(path).map_err(|e| unreadable(name, &e)),
        Ok(_) => Err(refuse(name, "is not a regular file")),
        Err(e) => Err(unreadable(name, &e)),
    }
}

fn unreadable(name: &str, error: &std::io::Error) -> TrainError {
    refuse(name, format!("cannot be read: {error}"))
}

pub(super) fn refuse(name: &str, reason: impl Into<String>) -> TrainError {
    TrainError::Data { name: name.to_owned(), reason: reason.into() }
}

pub(super) fn refuse_row(name: &str, row: u64, reason: impl Into<String>) -> TrainError {
    TrainError::Row { file: name.to_owned(), row, reason: reason.into() }
}
