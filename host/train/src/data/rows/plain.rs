//! Plain text: the whole file, a line or a paragraph a document. A row is `{"text": ...}`.

use super::lines::{Line, read_line};
use super::{MAX_DOCUMENT_BYTES, NumberedRow, refuse_row, unreadable};
use crate::job::Documents;
use serde_json::json;
use std::fs::File;
use std::io::{BufRead, BufReader};
use stockade_core::train::TrainError;

pub(super) fn rows(
    name: &str,
    file: File,
    documents: Documents,
) -> impl Iterator<Item = Result<NumberedRow, TrainError>> {
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut number = 0;
    std::iter::from_fn(move || {
        number += 1;
        let document = match read_document(&mut reader, documents) {
            Ok(Some(Some(bytes))) => bytes,
            Ok(Some(None)) => {
                let reason = format!("the document exceeds {MAX_DOCUMENT_BYTES} bytes");
                return Some(Err(refuse_row(name, number, reason)));
            }
            Ok(None) => return None,
            Err(e) => return Some(Err(unreadable(name, &e))),
        };
        Some(match String::from_utf8(document) {
            Ok(text) => {
                let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
                Ok(NumberedRow { number, value: json!({"text": text}) })
            }
            Err(e) => {
                let reason = format!("not UTF-8 at byte {} of the document", e.utf8_error().valid_up_to());
                Err(refuse_row(name, number, reason))
            }
        })
    })
}

/// The next document that is not empty; `Some(None)` for one that is too long.
fn read_document(reader: &mut impl BufRead, documents: Documents) -> std::io::Result<Option<Option<Vec<u8>>>> {
    let mut document = Vec::new();
    let mut line = Vec::new();
    loop {
        let left = MAX_DOCUMENT_BYTES - document.len();
        let ended = match read_line(reader, &mut line, left)? {
            Line::TooLong => return Ok(Some(None)),
            Line::End => true,
            Line::Whole => false,
        };
        let blank = line.iter().all(u8::is_ascii_whitespace);
        let complete = ended || (blank && documents == Documents::Paragraph);
        if !(complete || document.is_empty() && blank) {
            if document.len() + 1 + line.len() > MAX_DOCUMENT_BYTES {
                return Ok(Some(None));
            }
            if !document.is_empty() {
                document.push(b'\n');
            }
            document.append(&mut line);
        }
        if (complete || documents == Documents::Line) && !document.is_empty() {
            return Ok(Some(Some(document)));
        }
        if ended {
            return Ok(None);
        }
    }
}
