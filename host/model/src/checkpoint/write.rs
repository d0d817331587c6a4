//! Files that [`super::Checkpoint`] and everybody else reads: safetensors, in shards where they are large.
//!
//! Invariant: a file is there under its name whole or not at all: it is written beside, synced, renamed.

use crate::ModelError;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use stockade_kernels::WeightType;

/// A tensor that is to be written, row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTensor {
    pub name: String,
    pub ty: WeightType,
    /// Slowest dimension first.
    pub shape: Vec<usize>,
}

impl NewTensor {
    /// `None` if its rows are no whole blocks, or its size overflows.
    pub fn size_bytes(&self) -> Option<usize> {
        let cols = self.shape.last().copied().unwrap_or(1);
        let rows = self.shape.iter().rev().skip(1).try_fold(1usize, |n, &d| n.checked_mul(d))?;
        rows.checked_mul(self.ty.row_bytes(cols)?)
    }
}

/// Gives the bytes of the tensor at an index.
pub type TensorBytes<'a> = &'a mut dyn FnMut(usize) -> Result<Vec<u8>, ModelError>;

/// Writes `folder/STEM.safetensors`, or shards of at most `shard_bytes` with their index. Float types only.
///
/// # Errors
/// [`ModelError::Tensor`] for a type that the format lacks or bytes of another length than the shape demands,
/// [`ModelError::Read`] for a file that cannot be written.
pub fn write_safetensors(
    folder: &Path,
    stem: &str,
    tensors: &[NewTensor],
    shard_bytes: usize,
    bytes: TensorBytes<'_>,
) -> Result<Vec<PathBuf>, ModelError> {
    let mut sizes = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let size = tensor.size_bytes().filter(|_| tensor.ty.is_float());
        sizes.push(size.ok_or_else(|| refuse(folder, tensor, "cannot stand in a safetensors file"))?);
    }
    let mut shards: Vec<Vec<usize>> = vec![Vec::new()];
    let mut filled = 0usize;
    for (i, &size) in sizes.iter().enumerate() {
        if filled > 0 && filled.saturating_add(size) > shard_bytes {
            shards.push(Vec::new());
            filled = 0;
        }
        shards.last_mut().expect("there is a first shard").push(i);
        filled += size;
    }
    let mut files = Vec::with_capacity(shards.len());
    let mut weight_map = Map::new();
    for (n, shard) in shards.iter().enumerate() {
        let name = match shards.len() {
            1 => format!("{stem}.safetensors"),
            all => format!("{stem}-{:05}-of-{all:05}.safetensors", n + 1),
        };
        let path = folder.join(&name);
        write_beside(&path, |file| {
            file.write_all(&header(tensors, &sizes, shard)).map_err(|e| ModelError::read(&path, e))?;
            for &i in shard {
                write_tensor(file, &path, &tensors[i], sizes[i], bytes(i)?)?;
            }
            Ok(())
        })?;
        for &i in shard {
            weight_map.insert(tensors[i].name.clone(), name.clone().into());
        }
        files.push(path);
    }
    if shards.len() > 1 {
        let total: usize = sizes.iter().sum();
        let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
        let path = folder.join(format!("{stem}.safetensors.index.json"));
        write_beside(&path, |file| {
            serde_json::to_writer_pretty(file, &index).map_err(|e| ModelError::read(&path, e.into()))
        })?;
        files.push(path);
    }
    Ok(files)
}

/// Length and JSON, padded by spaces so that the data begins at a multiple of eight.
fn header(tensors: &[NewTensor], sizes: &[usize], shard: &[usize]) -> Vec<u8> {
    let mut fields = Map::new();
    fields.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut offset = 0;
    for &i in shard {
        let NewTensor { name, ty, shape } = &tensors[i];
        let end = offset + sizes[i];
        fields.insert(name.clone(), json!({"dtype": ty.name(), "shape": shape, "data_offsets": [offset, end]}));
        offset = end;
    }
    let mut text = Value::Object(fields).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.append(&mut text);
    header
}

/// Writes one tensor's bytes after checking their number.
pub(super) fn write_tensor(
    file: &mut impl Write,
    path: &Path,
    tensor: &NewTensor,
    size: usize,
    bytes: Vec<u8>,
) -> Result<(), ModelError> {
    if bytes.len() != size {
        return Err(refuse(path, tensor, &format!("{} bytes where {size} are due", bytes.len())));
    }
    file.write_all(&bytes).map_err(|e| ModelError::read(path, e))
}

pub(super) fn refuse(path: &Path, tensor: &NewTensor, reason: &str) -> ModelError {
    ModelError::tensor(path, &tensor.name, format!("{reason} (type {}, shape {:?})", tensor.ty, tensor.shape))
}

/// Writes a file beside `path` and renames it once it is on disk.
pub fn write_beside(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<(), ModelError>,
) -> Result<(), ModelError> {
    let failed = |e| ModelError::read(path, e);
    let mut beside = path.as_os_str().to_owned();
    beside.push(".partial");
    let beside = PathBuf::from(beside);
    let written = (|| {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&beside).map_err(failed)?);
        write(&mut file)?;
        let file = file.into_inner().map_err(|e| failed(e.into_error()))?;
        file.sync_all().map_err(failed)?;
        std::fs::rename(&beside, path).map_err(failed)
    })();
    if written.is_err() {
        // What could not be written may not fit on the disk either; the first error is the one to tell.
        let _ = std::fs::remove_file(&beside);
    }
    written
}
