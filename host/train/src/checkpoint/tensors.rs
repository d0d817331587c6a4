//! Tensors of a checkpoint: safetensors files of f32, written and read in one pass.

use serde_json::{Map, json};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

/// Values that are converted at a time.
const CHUNK: usize = 1 << 14;

/// Writes tensors, each with its name, one after the other. Shapes are not kept: the network knows them.
pub fn write_tensors<'a>(path: &Path, tensors: impl Iterator<Item = (String, &'a [f32])>) -> io::Result<()> {
    let tensors: Vec<_> = tensors.collect();
    let header = header(tensors.iter().map(|(name, values)| (name.as_str(), values.len())));
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    let mut bytes = Vec::with_capacity(4 * CHUNK);
    for chunk in tensors.iter().flat_map(|(_, values)| values.chunks(CHUNK)) {
        bytes.clear();
        bytes.extend(chunk.iter().flat_map(|value| value.to_le_bytes()));
        file.write_all(&bytes)?;
    }
    file.into_inner()?.sync_all()
}

/// Reads what [`write_tensors`] wrote into tensors of the same names, lengths and order; anything else is an error,
/// after which the tensors hold no promise.
pub fn read_tensors<'a>(path: &Path, tensors: impl Iterator<Item = (String, &'a mut [f32])>) -> io::Result<()> {
    let mut tensors: Vec<_> = tensors.collect();
    let want = header(tensors.iter().map(|(name, values)| (name.as_str(), values.len())));
    let mut file = BufReader::new(File::open(path)?);
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let mut header = vec![0; want.len()];
    file.read_exact(&mut header)?;
    if u64::from_le_bytes(length) != want.len() as u64 || header != want {
        return Err(io::Error::other("holds other tensors than the run has"));
    }
    let mut bytes = vec![0; 4 * CHUNK];
    for chunk in tensors.iter_mut().flat_map(|(_, values)| values.chunks_mut(CHUNK)) {
        let bytes = &mut bytes[..4 * chunk.len()];
        file.read_exact(bytes)?;
        for (value, bytes) in chunk.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *value = f32::from_le_bytes(*bytes);
        }
    }
    match file.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::other("goes on after its last tensor")),
    }
}

/// The header of a safetensors file: a function of names and lengths alone. Padded to 8 bytes, as the format asks.
fn header<'a>(tensors: impl Iterator<Item = (&'a str, usize)>) -> Vec<u8> {
    let mut entries = Map::new();
    let mut begin = 0;
    for (name, values) in tensors {
        let end = begin + 4 * values;
        entries.insert(name.to_owned(), json!({ "dtype": "F32", "shape": [values], "data_offsets": [begin, end] }));
        begin = end;
    }
    let mut header = serde_json::to_vec(&entries).expect("a map of texts and numbers");
    header.resize(header.len().next_multiple_of(8), b' ');
    header
}
