//! The GGUF header, versions 2 and 3: metadata and the list of tensors.
//!
//! Written for hostile files: every count is compared with the bytes that are left before memory is taken, no
//! name or key occurs twice, arrays do not nest, and the tensors' byte ranges are aligned, disjoint and inside
//! the file. What is kept of a header never takes more memory than its bytes in the file, give or take a
//! constant per key: arrays stay as they were read.

mod metadata;
mod write;

use super::source::Source;
use super::{MAX_TENSORS, Tensor};
use crate::ModelError;
use metadata::{scalar, scalar_bytes};
use std::collections::{BTreeMap, HashSet};
use std::io::{BufReader, Read};
use std::path::Path;
use stockade_kernels::WeightType;

pub use metadata::{Metadata, Numbers, Strings, Value};
pub use write::write_gguf;

const MAX_STRING_BYTES: u64 = 1 << 20;
const MAX_ARRAY_ITEMS: u64 = 1 << 24;
const MAX_KEYS: u64 = 1 << 16;
const MAX_DIMS: u32 = 4;
/// Tensor names have less than this many bytes (`GGML_MAX_NAME`).
const MAX_NAME_BYTES: usize = 64;
const ALIGNMENTS: std::ops::RangeInclusive<u64> = 8..=65536;

#[derive(Debug)]
pub(super) struct Header {
    pub(super) metadata: Metadata,
    pub(super) tensors: Vec<Entry>,
}

#[derive(Debug)]
pub(super) struct Entry {
    /// As in the file.
    pub(super) name: String,
    /// `None` for types that are skipped.
    pub(super) ty: Option<WeightType>,
    pub(super) type_name: String,
    /// Slowest dimension first (the file has them the other way round).
    pub(super) shape: Vec<usize>,
    /// From the start of the file.
    pub(super) offset: u64,
}

impl Header {
    pub(super) fn read(source: &Source) -> Result<Self, ModelError> {
        let mut reader =
            Reader { input: BufReader::with_capacity(1 << 16, source.stream(0)), source, left: source.len() };
        if reader.bytes(4)? != *b"GGUF" {
            return Err(reader.damaged("does not start with `GGUF`"));
        }
        let version = reader.u32()?;
        if !matches!(version, 2 | 3) {
            return Err(ModelError::unsupported(source.path(), "GGUF version", version.to_string()));
        }
        let n_tensors = reader.u64()?;
        let n_pairs = reader.u64()?;
        // The least a pair takes: length, one byte of key, type, one byte of value. A tensor: length, name, dims, one
        // dim, type, offset.
        reader.check_count("key-value pairs", n_pairs, MAX_KEYS, 8 + 1 + 4 + 1)?;
        reader.check_count("tensors", n_tensors, MAX_TENSORS as u64, 8 + 1 + 4 + 8 + 4 + 8)?;

        let mut metadata = BTreeMap::new();
        for _ in 0..n_pairs {
            let key = reader.string()?;
            let ty = reader.u32()?;
            let value = reader.value(ty).map_err(|e| reader.within(&format!("key `{}`", printable(&key)), e))?;
            if key.is_empty() || metadata.contains_key(&key) {
                return Err(reader.damaged(format!("key `{}` is empty or occurs twice", printable(&key))));
            }
            metadata.insert(key, value);
        }
        let metadata = Metadata(metadata);
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(_) => metadata.u64("general.alignment").unwrap_or(0),
        };
        if !ALIGNMENTS.contains(&alignment) || !alignment.is_power_of_two() {
            return Err(
                reader.damaged(format!("general.alignment {alignment} is not a power of two in {ALIGNMENTS:?}"))
            );
        }
        let mut names = HashSet::new();
        let mut tensors = Vec::new();
        let mut ranges = Vec::new();
        for _ in 0..n_tensors {
            let (entry, size) = reader.entry(alignment)?;
            if !names.insert(entry.name.clone()) {
                return Err(ModelError::tensor(source.path(), &entry.name, "the name occurs twice"));
            }
            ranges.push((entry.offset, size, tensors.len()));
            tensors.push(entry);
        }
        let header_len = source.len() - reader.left;
        let data_start = header_len.next_multiple_of(alignment); // both far below 2^63: the header lies in a file
        place(source, data_start, &mut tensors, ranges)?;
        Ok(Self { metadata, tensors })
    }
}

/// Turns offsets into file positions after checking that the ranges are disjoint and inside the file.
fn place(
    source: &Source,
    data_start: u64,
    tensors: &mut [Entry],
    mut ranges: Vec<(u64, Option<u64>, usize)>,
) -> Result<(), ModelError> {
    let data_len = source.len().saturating_sub(data_start);
    ranges.sort_unstable();
    let mut end_before = 0;
    for (offset, size, index) in ranges {
        let entry = &mut tensors[index];
        // A type of unknown size must start inside the file; it is never read.
        let end = offset.checked_add(size.unwrap_or(1));
        let Some(end) = end.filter(|&end| end <= data_len && offset >= end_before) else {
            let reason =
                format!("{size:?} bytes at {offset} overlap another tensor or exceed the {data_len} bytes of data");
            return Err(ModelError::tensor(source.path(), &entry.name, reason.replace("Some(", "").replace(")", "")));
        };
        end_before = end;
        entry.offset = data_start + offset;
    }
    Ok(())
}

/// A vocabulary larger than the embedding would let token ids point outside of it.
pub(super) fn check_vocabulary(file: &Path, metadata: &Metadata, embedding: Option<&Tensor>) -> Result<(), ModelError> {
    let tokens = metadata.strings("tokenizer.ggml.tokens").map_or(0, Strings::len);
    match embedding {
        Some(embedding) if tokens > embedding.rows => {
            let reason = format!("{} rows for a vocabulary of {tokens} tokens", embedding.rows);
            Err(ModelError::tensor(file, &embedding.name, reason))
        }
        _ => Ok(()),
    }
}

/// Reads on from the start of the file, knowing how much is left of it.
struct Reader<'a, R> {
    input: R,
    source: &'a Source,
    left: u64,
}

impl<R: Read> Reader<'_, R> {
    fn damaged(&self, reason: impl Into<String>) -> ModelError {
        ModelError::damaged(self.source.path(), reason)
    }

    fn within(&self, place: &str, error: ModelError) -> ModelError {
        match error {
            ModelError::Damaged { reason, .. } => self.damaged(format!("{place}: {reason}")),
            other => other,
        }
    }

    /// Refuses a count that the rest of the file cannot hold.
    fn check_count(&self, what: &str, count: u64, max: u64, min_bytes_each: u64) -> Result<(), ModelError> {
        if count > max || count > self.left / min_bytes_each {
            let reason = format!("{count} {what} exceed the limit of {max} or the {} bytes left", self.left);
            return Err(self.damaged(reason));
        }
        Ok(())
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<(), ModelError> {
        let left = self.left.checked_sub(out.len() as u64).ok_or_else(|| self.damaged("ends inside its header"))?;
        self.input.read_exact(out).map_err(|e| ModelError::read(self.source.path(), e))?;
        self.left = left;
        Ok(())
    }

    fn bytes<const N: usize>(&mut self, n: usize) -> Result<[u8; N], ModelError> {
        debug_assert_eq!(n, N);
        let mut out = [0; N];
        self.fill(&mut out)?;
        Ok(out)
    }

    fn u32(&mut self) -> Result<u32, ModelError> {
        Ok(u32::from_le_bytes(self.bytes(4)?))
    }

    fn u64(&mut self) -> Result<u64, ModelError> {
        Ok(u64::from_le_bytes(self.bytes(8)?))
    }

    fn string(&mut self) -> Result<String, ModelError> {
        let length = self.u64()?;
        self.check_count("bytes of a string", length, MAX_STRING_BYTES, 1)?;
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| self.damaged("a string is not UTF-8"))
    }

    fn value(&mut self, ty: u32) -> Result<Value, ModelError> {
        match ty {
            8 => Ok(Value::String(self.string()?)),
            9 => self.array(),
            _ => {
                let size = scalar_bytes(ty).ok_or_else(|| self.damaged(format!("value type {ty} is unknown")))?;
                let mut raw = [0; 8];
                self.fill(&mut raw[..size])?;
                scalar(ty, &raw[..size]).ok_or_else(|| self.damaged("a bool is neither 0 nor 1"))
            }
        }
    }

    fn array(&mut self) -> Result<Value, ModelError> {
        let ty = self.u32()?;
        let count = self.u64()?;
        if ty == 8 {
            self.check_count("array items", count, MAX_ARRAY_ITEMS, 8)?;
            let mut strings = Strings { text: String::new(), ends: Vec::with_capacity(count as usize) };
            for _ in 0..count {
                strings.text.push_str(&self.string()?);
                let end = u32::try_from(strings.text.len())
                    .map_err(|_| self.damaged("an array of more than 4 GiB of text"))?;
                strings.ends.push(end);
            }
            return Ok(Value::Strings(strings));
        }
        let size = match scalar_bytes(ty) {
            Some(size) => size,
            None if ty == 9 => return Err(self.damaged("arrays of arrays are refused")),
            None => return Err(self.damaged(format!("array item type {ty} is unknown"))),
        };
        self.check_count("array items", count, MAX_ARRAY_ITEMS, size as u64)?;
        let mut bytes = vec![0; count as usize * size];
        self.fill(&mut bytes)?;
        Ok(Value::Numbers(Numbers { ty, bytes }))
    }

    /// One tensor, its offset still relative to the data, and its size in bytes where the type is known.
    fn entry(&mut self, alignment: u64) -> Result<(Entry, Option<u64>), ModelError> {
        let name = self.string()?;
        let refuse =
            |reader: &Self, reason: String| ModelError::tensor(reader.source.path(), &printable(&name), reason);
        if name.is_empty() || name.len() >= MAX_NAME_BYTES {
            return Err(refuse(self, format!("a name of {} bytes", name.len())));
        }
        let n_dims = self.u32()?;
        if !(1..=MAX_DIMS).contains(&n_dims) {
            return Err(refuse(self, format!("{n_dims} dimensions")));
        }
        let mut dims = Vec::with_capacity(n_dims as usize);
        for _ in 0..n_dims {
            dims.push(self.u64()?);
        }
        let type_id = self.u32()?;
        let offset = self.u64()?;
        if offset % alignment != 0 {
            return Err(refuse(self, format!("offset {offset} is not a multiple of {alignment}")));
        }
        let weights = dims.iter().try_fold(1u64, |n, &d| if d == 0 { None } else { n.checked_mul(d) });
        let weights = weights.ok_or_else(|| refuse(self, format!("shape {dims:?} is empty or overflows")))?;
        let block = block(type_id);
        let size = match block.length {
            None => None,
            Some((block_weights, block_bytes)) => {
                if dims[0] % block_weights != 0 {
                    let reason =
                        format!("rows of {} are not whole blocks of {block_weights} ({})", dims[0], block.name);
                    return Err(refuse(self, reason));
                }
                let size = (weights / block_weights).checked_mul(block_bytes);
                Some(size.ok_or_else(|| refuse(self, "its size overflows".into()))?)
            }
        };
        let shape = dims.iter().rev().map(|&d| usize::try_from(d).ok()).collect::<Option<Vec<_>>>();
        let shape = shape.ok_or_else(|| refuse(self, "a dimension overflows".into()))?;
        Ok((Entry { name, ty: block.ty, type_name: block.name, shape, offset }, size))
    }
}

/// What is known of a tensor type.
struct Block {
    name: String,
    ty: Option<WeightType>,
    /// Weights and bytes of one block.
    length: Option<(u64, u64)>,
}

fn block(type_id: u32) -> Block {
    use WeightType as W;
    let known =
        |name: &str, ty: Option<W>, weights, bytes| Block { name: name.into(), ty, length: Some((weights, bytes)) };
    match type_id {
        0 => known("F32", Some(W::F32), 1, 4),
        1 => known("F16", Some(W::F16), 1, 2),
        2 => known("Q4_0", Some(W::Q4_0), 32, 18),
        3 => known("Q4_1", Some(W::Q4_1), 32, 20),
        6 => known("Q5_0", Some(W::Q5_0), 32, 22),
        7 => known("Q5_1", Some(W::Q5_1), 32, 24),
        8 => known("Q8_0", Some(W::Q8_0), 32, 34),
        9 => known("Q8_1", None, 32, 36),
        10 => known("Q2_K", None, 256, 84),
        11 => known("Q3_K", None, 256, 110),
        12 => known("Q4_K", Some(W::Q4_K), 256, 144),
        13 => known("Q5_K", Some(W::Q5_K), 256, 176),
        14 => known("Q6_K", Some(W::Q6_K), 256, 210),
        24 => known("I8", None, 1, 1),
        25 => known("I16", None, 1, 2),
        26 => known("I32", None, 1, 4),
        27 => known("I64", None, 1, 8),
        28 => known("F64", None, 1, 8),
        30 => known("BF16", Some(W::BF16), 1, 2),
        other => Block { name: format!("GGUF type {other}"), ty: None, length: None },
    }
}

/// A name from the file, cut and without control characters, for messages.
fn printable(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
