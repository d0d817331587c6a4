//! The safetensors header and the shard index. Refuses what the format refuses, and duplicate names besides.
//!
//! Invariant: the entries of a header cover the data of the file without hole or overlap, each with exactly the
//! bytes that its type and shape demand.

use super::source::{Source, read_small};
use super::{MAX_DIMS, MAX_TENSOR_NAME_BYTES, MAX_TENSORS};
use crate::ModelError;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::path::Path;
use stockade_kernels::WeightType;

/// Largest header in bytes.
const MAX_HEADER_BYTES: u64 = 16 << 20;
/// Most shards of one checkpoint.
const MAX_SHARDS: usize = 4096;

pub(super) struct Header {
    pub(super) entries: Vec<Entry>,
}

pub(super) struct Entry {
    pub(super) name: String,
    pub(super) dtype: String,
    /// `None` for types that are skipped.
    pub(super) ty: Option<WeightType>,
    pub(super) shape: Vec<usize>,
    /// From the start of the file.
    pub(super) offset: u64,
}

impl Header {
    pub(super) fn read(source: &Source) -> Result<Self, ModelError> {
        let damaged = |reason: String| ModelError::damaged(source.path(), reason);
        let mut length = [0; 8];
        if source.len() < 8 {
            return Err(damaged("shorter than a safetensors header".into()));
        }
        source.read_at(&mut length, 0)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER_BYTES || length > source.len() - 8 {
            return Err(damaged(format!("header of {length} bytes exceeds the file or {MAX_HEADER_BYTES} bytes")));
        }
        let mut json = vec![0; length as usize];
        source.read_at(&mut json, 8)?;
        if json.first() != Some(&b'{') {
            return Err(damaged("header does not start with `{`".into()));
        }
        let raw: RawHeader = serde_json::from_slice(&json).map_err(|e| damaged(format!("header: {e}")))?;
        Self::check(source, raw, 8 + length)
    }

    /// Names of all entries, those of skipped types included.
    pub(super) fn names(&self) -> HashSet<&str> {
        self.entries.iter().map(|entry| entry.name.as_str()).collect()
    }

    fn check(source: &Source, mut raw: RawHeader, data_start: u64) -> Result<Self, ModelError> {
        raw.0.sort_by_key(|(_, entry)| entry.data_offsets);
        let data_len = source.len() - data_start;
        let mut end_before = 0;
        let mut entries = Vec::with_capacity(raw.0.len());
        for (name, raw) in raw.0 {
            let refuse = |reason: String| ModelError::tensor(source.path(), &name, reason);
            let [begin, end] = raw.data_offsets;
            if begin != end_before || end < begin || end > data_len {
                return Err(refuse(format!(
                    "bytes {begin}..{end} leave a hole, overlap or exceed the {data_len} bytes of data"
                )));
            }
            end_before = end;
            let shape: Vec<usize> = raw
                .shape
                .iter()
                .map(|&d| usize::try_from(d).ok())
                .collect::<Option<_>>()
                .filter(|shape: &Vec<usize>| shape.len() <= MAX_DIMS)
                .ok_or_else(|| refuse(format!("more than {MAX_DIMS} dimensions or one too large")))?;
            if let Some(bits) = bits(&raw.dtype) {
                let size = raw
                    .shape
                    .iter()
                    .try_fold(bits, |n, &d| n.checked_mul(d))
                    .ok_or_else(|| refuse("its size overflows".into()))?;
                if size % 8 != 0 || size / 8 != end - begin {
                    return Err(refuse(format!(
                        "{} of shape {shape:?} does not take {} bytes",
                        raw.dtype,
                        end - begin
                    )));
                }
            }
            let ty = weight_type(&raw.dtype);
            entries.push(Entry { name, dtype: raw.dtype, ty, shape, offset: data_start + begin });
        }
        if end_before != data_len {
            let reason = format!("{data_len} bytes of data where the header describes {end_before}");
            return Err(ModelError::damaged(source.path(), reason));
        }
        Ok(Self { entries })
    }
}

/// Bits of one element; `None` for types that the format may gain later, which are skipped unchecked.
fn bits(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "F8_E8M0" => 8,
        "I16" | "U16" | "F16" | "BF16" => 16,
        "I32" | "U32" | "F32" => 32,
        "I64" | "U64" | "F64" | "C64" => 64,
        _ => return None,
    })
}

fn weight_type(dtype: &str) -> Option<WeightType> {
    Some(match dtype {
        "F32" => WeightType::F32,
        "F16" => WeightType::F16,
        "BF16" => WeightType::BF16,
        _ => return None,
    })
}

/// Reads `model.safetensors.index.json`: per shard file, the tensors it holds.
pub(super) fn read_index(path: &Path) -> Result<BTreeMap<String, BTreeSet<String>>, ModelError> {
    let json = read_small(path)?;
    let index: RawIndex = serde_json::from_slice(&json).map_err(|e| ModelError::damaged(path, e.to_string()))?;
    let mut shards: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, file) in index.weight_map.0 {
        // A plain file name: nothing that could leave the folder.
        let plain = !file.is_empty()
            && file.len() <= 255
            && file.ends_with(".safetensors")
            && !file.starts_with('.')
            && !file.contains(['/', '\\', '\0', ':']);
        if !plain {
            return Err(ModelError::tensor(path, &name, format!("`{file}` is not a plain .safetensors file name")));
        }
        shards.entry(file).or_default().insert(name);
        if shards.len() > MAX_SHARDS {
            return Err(ModelError::damaged(path, format!("more than {MAX_SHARDS} shards")));
        }
    }
    if shards.is_empty() {
        return Err(ModelError::damaged(path, "weight_map is empty"));
    }
    Ok(shards)
}

#[derive(serde::Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

#[derive(serde::Deserialize)]
struct RawIndex {
    weight_map: UniqueMap<String>,
}

/// The header's tensors in file order; `__metadata__` is dropped.
struct RawHeader(Vec<(String, RawEntry)>);

/// A JSON object whose duplicate keys are an error instead of the last one winning.
struct UniqueMap<T>(Vec<(String, T)>);

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_unique(deserializer, true).map(Self)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for UniqueMap<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_unique(deserializer, false).map(Self)
    }
}

fn read_unique<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
    skip_metadata: bool,
) -> Result<Vec<(String, T)>, D::Error> {
    struct UniqueVisitor<T>(bool, std::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for UniqueVisitor<T> {
        type Value = Vec<(String, T)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of tensors")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut seen = HashSet::new();
            let mut entries = Vec::new();
            while let Some(name) = map.next_key::<String>()? {
                if name.len() > MAX_TENSOR_NAME_BYTES {
                    return Err(de::Error::custom(format!("a tensor name of {} bytes", name.len())));
                }
                if !seen.insert(name.clone()) {
                    return Err(de::Error::custom(format!("tensor `{name}` occurs twice")));
                }
                if entries.len() >= MAX_TENSORS {
                    return Err(de::Error::custom(format!("more than {MAX_TENSORS} tensors")));
                }
                if self.0 && name == "__metadata__" {
                    map.next_value::<IgnoredAny>()?;
                } else {
                    entries.push((name, map.next_value()?));
                }
            }
            Ok(entries)
        }
    }
    deserializer.deserialize_map(UniqueVisitor(skip_metadata, std::marker::PhantomData))
}
