//! One JSON object a line.

use super::{MAX_ROW_BYTES, NumberedRow, refuse_row, unreadable};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader};
use stockade_core::train::TrainError;

pub(super) fn rows(name: &str, file: File) -> impl Iterator<Item = Result<NumberedRow, TrainError>> {
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut line = Vec::new();
    let mut number = 0;
    std::iter::from_fn(move || {
        loop {
            number += 1;
            match read_line(&mut reader, &mut line, MAX_ROW_BYTES) {
                Ok(Line::End) => return None,
                Ok(Line::Whole) => {}
                Ok(Line::TooLong) => {
                    let reason = format!("the line exceeds {MAX_ROW_BYTES} bytes");
                    return Some(Err(refuse_row(name, number, reason)));
                }
                Err(e) => return Some(Err(unreadable(name, &e))),
            }
            let text = if number == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) } else { &line };
            if !text.iter().all(u8::is_ascii_whitespace) {
                let value = serde_json::from_slice(text).map_err(|e| refuse_row(name, number, format!("no JSON: {e}")));
                return Some(value.and_then(|value| object(name, number, value)));
            }
        }
    })
}

fn object(name: &str, number: u64, value: Value) -> Result<NumberedRow, TrainError> {
    if value.is_object() {
        Ok(NumberedRow { number, value })
    } else {
        Err(refuse_row(name, number, "a row is a JSON object"))
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// In the buffer, without its end.
    Whole,
    /// The rest of it was not read.
    TooLong,
    End,
}

/// Reads up to and over the next line feed; takes no more than `max` bytes into `line`.
pub(super) fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>, max: usize) -> std::io::Result<Line> {
    line.clear();
    let mut any = false;
    loop {
        let available = match reader.fill_buf() {
            Ok(available) => available,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        if available.is_empty() {
            return Ok(if any { Line::Whole } else { Line::End });
        }
        any = true;
        let end = available.iter().position(|&byte| byte == b'\n');
        let taken = end.unwrap_or(available.len());
        if line.len() + taken > max {
            return Ok(Line::TooLong);
        }
        line.extend_from_slice(&available[..taken]);
        reader.consume(taken + usize::from(end.is_some()));
        if end.is_some() {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Ok(Line::Whole);
        }
    }
}
