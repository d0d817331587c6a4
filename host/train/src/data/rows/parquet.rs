//! Parquet files, a row at a time: nested lists and groups become JSON.

use super::{MAX_ROW_BYTES, NumberedRow, refuse, refuse_row};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use serde_json::{Map, Number, Value};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use stockade_core::train::TrainError;

/// Most columns, leaves of nested ones counted.
const MAX_COLUMNS: usize = 1024;
/// Largest column of a row group, decoded.
const MAX_COLUMN_BYTES: i64 = 4 << 30;
/// Deepest nesting of a value.
const MAX_NESTING: usize = 32;

pub(super) fn rows<'a>(
    name: &'a str,
    file: File,
) -> Result<impl Iterator<Item = Result<NumberedRow, TrainError>> + 'a, TrainError> {
    // The crate's readers meet foreign bytes here; a panic of theirs is a refused file, not the end of the host.
    let damaged = || refuse(name, "the file cannot be read as parquet");
    let opened = catch_unwind(AssertUnwindSafe(|| SerializedFileReader::new(file))).map_err(|_| damaged())?;
    let reader = opened.map_err(|e| refuse(name, e.to_string()))?;
    let metadata = reader.metadata();
    let columns = metadata.file_metadata().schema_descr().num_columns();
    if columns > MAX_COLUMNS {
        return Err(refuse(name, format!("{columns} columns exceed the limit of {MAX_COLUMNS}")));
    }
    for chunk in metadata.row_groups().iter().flat_map(|group| group.columns()) {
        if !(0..=MAX_COLUMN_BYTES).contains(&chunk.uncompressed_size()) {
            let path = chunk.column_path().string();
            let reason = format!("column `{path}` of a row group exceeds {MAX_COLUMN_BYTES} bytes");
            return Err(refuse(name, reason));
        }
    }
    let rows = catch_unwind(AssertUnwindSafe(|| reader.into_iter())).map_err(|_| damaged())?;
    let mut rows = Some(rows);
    let mut number = 0;
    Ok(std::iter::from_fn(move || {
        // After an error the reader's state is unknown: it is not asked again.
        let mut reader = rows.take()?;
        number += 1;
        let row = match catch_unwind(AssertUnwindSafe(|| reader.next())) {
            Err(_) => return Some(Err(refuse_row(name, number, "the row's page is damaged"))),
            Ok(None) => return None,
            Ok(Some(Err(e))) => return Some(Err(refuse_row(name, number, e.to_string()))),
            Ok(Some(Ok(row))) => row,
        };
        let mut left = MAX_ROW_BYTES;
        match group(&row, &mut left, 0) {
            Some(value) => {
                rows = Some(reader);
                Some(Ok(NumberedRow { number, value }))
            }
            None => {
                let reason = format!("the row exceeds {MAX_ROW_BYTES} bytes or {MAX_NESTING} levels");
                Some(Err(refuse_row(name, number, reason)))
            }
        }
    }))
}

fn group(row: &Row, left: &mut usize, depth: usize) -> Option<Value> {
    let mut fields = Map::new();
    for (name, field) in row.get_column_iter() {
        fields.insert(name.clone(), json(field, left, depth + 1)?);
    }
    Some(Value::Object(fields))
}

/// `None` once more than `left` bytes are taken, or too deep.
fn json(field: &Field, left: &mut usize, depth: usize) -> Option<Value> {
    let size = match field {
        Field::Str(text) => text.len(),
        _ => 8,
    };
    *left = left.checked_sub(size)?;
    if depth > MAX_NESTING {
        return None;
    }
    let float = |number: f64| Number::from_f64(number).map_or(Value::Null, Value::Number);
    Some(match field {
        Field::Null => Value::Null,
        Field::Bool(flag) => Value::Bool(*flag),
        Field::Byte(n) => Value::from(*n),
        Field::Short(n) => Value::from(*n),
        Field::Int(n) => Value::from(*n),
        Field::Long(n) => Value::from(*n),
        Field::UByte(n) => Value::from(*n),
        Field::UShort(n) => Value::from(*n),
        Field::UInt(n) => Value::from(*n),
        Field::ULong(n) => Value::from(*n),
        Field::Float16(n) => float(f64::from(f32::from(*n))),
        Field::Float(n) => float(f64::from(*n)),
        Field::Double(n) => float(*n),
        Field::Str(text) => Value::String(text.clone()),
        Field::Bytes(bytes) => Value::String(std::str::from_utf8(bytes.data()).ok()?.to_owned()),
        Field::Group(row) => group(row, left, depth)?,
        Field::ListInternal(list) => {
            list.elements().iter().map(|field| json(field, left, depth + 1)).collect::<Option<Vec<_>>>()?.into()
        }
        Field::MapInternal(map) => {
            let mut fields = Map::new();
            for (key, value) in map.entries() {
                let Field::Str(key) = key else {
                    return None;
                };
                fields.insert(key.clone(), json(value, left, depth + 1)?);
            }
            Value::Object(fields)
        }
        // Dates, decimals and the like are no part of any format here; as text they can at least be shown.
        other => Value::String(other.to_string()),
    })
}
