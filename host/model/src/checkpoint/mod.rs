//! A checkpoint on disk: a folder of safetensors files or one GGUF file, seen as named tensors.
//!
//! Both formats answer with Hugging Face tensor names (`model.layers.0.self_attn.q_proj.weight`) and Hugging
//! Face row order: the rows of `q` and `k` that GGUF interleaves for architecture `llama` are put back while
//! they are read, so that one rope kernel (pairs `i`, `i + d/2`) serves every file.
//!
//! Invariant: opening reads headers only, and every tensor that is listed lies wholly inside its file with the
//! size that its type and shape demand. Nothing is mapped: a file that is cut later is a read error, not a signal.

pub mod gguf;
mod names;
mod safetensors;
mod source;
pub mod write;

use crate::ModelError;
use crate::config::ModelConfig;
use source::Source;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use stockade_core::Digest;
use stockade_kernels::WeightType;

pub use names::gguf_name;
pub(crate) use source::{exists, only_file_with_extension, read_small, sha256_of};

/// Most tensors in one checkpoint.
pub const MAX_TENSORS: usize = 100_000;
/// Longest tensor name in bytes.
pub const MAX_TENSOR_NAME_BYTES: usize = 512;
/// Most dimensions of one tensor.
pub const MAX_DIMS: usize = 8;

/// An open checkpoint. Cheap to keep; reading is thread-safe (`pread`).
#[derive(Debug)]
pub struct Checkpoint {
    /// The folder or the GGUF file.
    path: PathBuf,
    sources: Vec<Source>,
    tensors: BTreeMap<String, Tensor>,
    /// Tensors whose type no kernel reads, with that type's name.
    skipped: BTreeMap<String, String>,
    metadata: Option<gguf::Metadata>,
}

/// One tensor, row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its Hugging Face name.
    pub name: String,
    pub ty: WeightType,
    /// As the checkpoint has it, slowest dimension first; empty for a scalar.
    pub shape: Vec<usize>,
    /// All dimensions but the last multiplied; 1 for vectors.
    pub rows: usize,
    /// The last dimension.
    pub cols: usize,
    /// Bytes of one row, exactly.
    pub row_bytes: usize,
    source: usize,
    /// First byte in its source.
    offset: u64,
    /// Set where the file interleaves the rows (or, of a vector, the elements) of each attention head.
    interleaved: Option<Interleaved>,
}

/// Rows of one head stored as `2 i + h` where Hugging Face has `h d/2 + i`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Interleaved {
    head_dim: usize,
}

impl Tensor {
    /// Bytes of the whole tensor.
    pub fn size_bytes(&self) -> usize {
        self.rows * self.row_bytes // checked when the tensor was listed
    }
}

impl Checkpoint {
    /// Opens `path`: a `.gguf` file, or a folder with `model.safetensors.index.json`, `model.safetensors`,
    /// `adapter_model.safetensors` or exactly one `.gguf` file (looked for in this order).
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if path.is_file() {
            return Self::open_gguf(path.to_owned(), path);
        }
        let index = path.join("model.safetensors.index.json");
        if exists(&index) {
            return Self::open_shards(path, &index);
        }
        for name in ["model.safetensors", "adapter_model.safetensors"] {
            if exists(&path.join(name)) {
                return Self::open_safetensors(path, name);
            }
        }
        match only_file_with_extension(path, "gguf")? {
            Some(file) => Self::open_gguf(path.to_owned(), &file),
            None => Err(ModelError::NoModel {
                path: path.to_owned(),
                reason: if path.is_dir() {
                    "the folder holds no model.safetensors, no shard index and not exactly one .gguf file".into()
                } else {
                    "no such file or folder".into()
                },
            }),
        }
    }

    /// Opens one safetensors file of a folder and nothing else in it.
    pub(crate) fn open_safetensors(folder: &Path, name: &str) -> Result<Self, ModelError> {
        let source = Source::open(&folder.join(name))?;
        let header = safetensors::Header::read(&source)?;
        let mut checkpoint = Self::empty(folder.to_owned());
        checkpoint.add_safetensors(source, header, |_| true)?;
        Ok(checkpoint)
    }

    /// The folder or file it was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// GGUF metadata; `None` for safetensors.
    pub fn metadata(&self) -> Option<&gguf::Metadata> {
        self.metadata.as_ref()
    }

    /// All readable tensors in name order.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &Tensor> {
        self.tensors.values()
    }

    /// Names and types of the tensors that no kernel reads.
    pub(crate) fn unreadable(&self) -> impl Iterator<Item = (&str, &str)> {
        self.skipped.iter().map(|(name, ty)| (name.as_str(), ty.as_str()))
    }

    pub fn find(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// [`Self::find`], with an error that names the tensor where it is missing or of an unreadable type.
    pub fn tensor(&self, name: &str) -> Result<&Tensor, ModelError> {
        self.tensors.get(name).ok_or_else(|| match self.skipped.get(name) {
            Some(ty) => ModelError::tensor(&self.path, name, format!("type {ty} is not supported")),
            None => ModelError::NoTensor { file: self.path.clone(), tensor: name.to_owned() },
        })
    }

    /// [`Self::tensor`], refused unless it has exactly this shape (`&[n]` for vectors).
    pub fn tensor_of(&self, name: &str, shape: &[usize]) -> Result<&Tensor, ModelError> {
        let tensor = self.tensor(name)?;
        if tensor.shape != shape {
            let reason = format!("shape {:?} where {shape:?} is expected", tensor.shape);
            return Err(ModelError::tensor(&self.path, name, reason));
        }
        Ok(tensor)
    }

    /// Reads `rows` of `tensor`, in Hugging Face order, into `out` of exactly that many rows' bytes.
    pub fn read_rows(&self, tensor: &Tensor, rows: Range<usize>, out: &mut [u8]) -> Result<(), ModelError> {
        let wanted = rows.end.checked_sub(rows.start).and_then(|n| n.checked_mul(tensor.row_bytes));
        if rows.end > tensor.rows || wanted != Some(out.len()) {
            let reason = format!("rows {rows:?} into {} bytes do not fit its {} rows", out.len(), tensor.rows);
            return Err(ModelError::tensor(&self.path, &tensor.name, reason));
        }
        let source = &self.sources[tensor.source];
        match tensor.interleaved {
            None => source.read_at(out, tensor.offset + (rows.start * tensor.row_bytes) as u64),
            Some(order) if tensor.rows == 1 => {
                // A vector (a bias): its elements are what is interleaved.
                let unit = tensor.row_bytes / tensor.cols;
                order.read(source, tensor.offset, unit, 0..tensor.cols, out)
            }
            Some(order) => order.read(source, tensor.offset, tensor.row_bytes, rows, out),
        }
    }

    /// Reads a whole tensor as stored.
    pub fn read(&self, tensor: &Tensor) -> Result<Vec<u8>, ModelError> {
        let mut bytes = vec![0; tensor.size_bytes()];
        self.read_rows(tensor, 0..tensor.rows, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads a whole tensor as f32, whatever its type: norms, biases, small matrices.
    pub fn read_f32(&self, tensor: &Tensor) -> Result<Vec<f32>, ModelError> {
        let bytes = self.read(tensor)?;
        let mut values = vec![0.0; tensor.rows * tensor.cols];
        stockade_kernels::dequantize(tensor.ty, &bytes, &mut values)
            .map_err(|e| ModelError::tensor(&self.path, &tensor.name, e.to_string()))?;
        Ok(values)
    }

    /// The sha256 of the weights: of the file's bytes, or of its shards' digests in file-name order.
    ///
    /// Reads every byte once per process; later calls for an unchanged file (size, time) are answered from memory.
    pub fn digest(&self) -> Result<Digest, ModelError> {
        source::digest(&self.sources)
    }

    /// The model's configuration: `config.json` and its neighbours, or GGUF metadata.
    pub fn config(&self) -> Result<ModelConfig, ModelError> {
        match &self.metadata {
            Some(metadata) => ModelConfig::from_gguf(self, metadata),
            None => ModelConfig::from_folder(&self.path),
        }
    }

    fn empty(path: PathBuf) -> Self {
        Self { path, sources: Vec::new(), tensors: BTreeMap::new(), skipped: BTreeMap::new(), metadata: None }
    }

    fn open_shards(folder: &Path, index: &Path) -> Result<Self, ModelError> {
        let shards = safetensors::read_index(index)?;
        let mut checkpoint = Self::empty(folder.to_owned());
        for (file, names) in shards {
            let source = Source::open(&folder.join(&file))?;
            let header = safetensors::Header::read(&source)?;
            let present = header.names();
            if let Some(missing) = names.iter().find(|name| !present.contains(name.as_str())) {
                return Err(ModelError::NoTensor { file: folder.join(&file), tensor: missing.clone() });
            }
            checkpoint.add_safetensors(source, header, |name| names.contains(name))?;
        }
        Ok(checkpoint)
    }

    fn add_safetensors(
        &mut self,
        source: Source,
        header: safetensors::Header,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<(), ModelError> {
        for entry in header.entries.into_iter().filter(|entry| wanted(&entry.name)) {
            match entry.ty {
                // Allowed by the format, of no use to any network.
                Some(_) if entry.shape.contains(&0) => {
                    self.skip(source.path(), entry.name, format!("{} without elements", entry.dtype))?;
                }
                Some(ty) => {
                    let mut tensor = Tensor::checked(source.path(), &entry.name, ty, entry.shape)?;
                    tensor.source = self.sources.len();
                    tensor.offset = entry.offset;
                    self.add(source.path(), tensor)?;
                }
                None => self.skip(source.path(), entry.name, entry.dtype)?,
            }
        }
        self.sources.push(source);
        Ok(())
    }

    fn open_gguf(path: PathBuf, file: &Path) -> Result<Self, ModelError> {
        let source = Source::open(file)?;
        let header = gguf::Header::read(&source)?;
        let interleaves = names::interleaved_heads(&header.metadata);
        let mut checkpoint = Self::empty(path);
        for entry in header.tensors {
            let name = names::hugging_face_name(&entry.name).unwrap_or_else(|| entry.name.clone());
            match entry.ty {
                Some(ty) => {
                    let mut tensor = Tensor::checked(file, &name, ty, entry.shape)?;
                    tensor.offset = entry.offset;
                    if let Some(heads) = interleaves.as_ref().and_then(|heads| heads.of(&entry.name)) {
                        tensor.interleave(file, heads)?;
                    }
                    checkpoint.add(file, tensor)?;
                }
                None => checkpoint.skip(file, name, entry.type_name)?,
            }
        }
        gguf::check_vocabulary(file, &header.metadata, checkpoint.find("model.embed_tokens.weight"))?;
        checkpoint.metadata = Some(header.metadata);
        checkpoint.sources.push(source);
        Ok(checkpoint)
    }

    fn add(&mut self, file: &Path, tensor: Tensor) -> Result<(), ModelError> {
        if self.skipped.contains_key(&tensor.name) || self.tensors.contains_key(&tensor.name) {
            return Err(ModelError::tensor(file, &tensor.name, "the name occurs twice"));
        }
        self.tensors.insert(tensor.name.clone(), tensor);
        Ok(())
    }

    fn skip(&mut self, file: &Path, name: String, type_name: String) -> Result<(), ModelError> {
        if self.tensors.contains_key(&name) || self.skipped.contains_key(&name) {
            return Err(ModelError::tensor(file, &name, "the name occurs twice"));
        }
        self.skipped.insert(name, type_name);
        Ok(())
    }
}

impl Tensor {
    /// A tensor at offset 0 of source 0 whose sizes are known not to overflow.
    fn checked(file: &Path, name: &str, ty: WeightType, shape: Vec<usize>) -> Result<Self, ModelError> {
        let refuse = |reason: &str| ModelError::tensor(file, name, format!("{reason} (type {ty:?}, shape {shape:?})"));
        let cols = shape.last().copied().unwrap_or(1);
        let rows = shape.iter().rev().skip(1).try_fold(1usize, |n, &d| n.checked_mul(d));
        let rows = rows.ok_or_else(|| refuse("its size overflows"))?;
        let row_bytes = ty.row_bytes(cols).ok_or_else(|| refuse("a row is not a whole number of blocks"))?;
        rows.checked_mul(row_bytes).ok_or_else(|| refuse("its size overflows"))?;
        Ok(Self { name: name.to_owned(), ty, rows, cols, row_bytes, shape, source: 0, offset: 0, interleaved: None })
    }

    fn interleave(&mut self, file: &Path, heads: usize) -> Result<(), ModelError> {
        let n = if self.shape.len() == 1 { self.cols } else { self.rows };
        if n == 0 || !n.is_multiple_of(heads) || !(n / heads).is_multiple_of(2) {
            let reason = format!("{n} rows do not divide into {heads} heads of an even width");
            return Err(ModelError::tensor(file, &self.name, reason));
        }
        if self.shape.len() == 1 && !self.row_bytes.is_multiple_of(self.cols) {
            return Err(ModelError::tensor(file, &self.name, "a quantized vector cannot be reordered"));
        }
        self.interleaved = Some(Interleaved { head_dim: n / heads });
        Ok(())
    }
}

impl Interleaved {
    /// Reads units (rows or elements) of `unit` bytes in Hugging Face order, one head at a time.
    fn read(
        self,
        source: &Source,
        offset: u64,
        unit: usize,
        wanted: Range<usize>,
        out: &mut [u8],
    ) -> Result<(), ModelError> {
        let half = self.head_dim / 2;
        let mut head_bytes = vec![0; self.head_dim * unit];
        let mut done = wanted.start;
        while done < wanted.end {
            let head = done / self.head_dim;
            let head_end = ((head + 1) * self.head_dim).min(wanted.end);
            source.read_at(&mut head_bytes, offset + (head * self.head_dim * unit) as u64)?;
            for row in done..head_end {
                let (h, i) = ((row % self.head_dim) / half, (row % self.head_dim) % half);
                let from = (2 * i + h) * unit;
                let to = (row - wanted.start) * unit;
                out[to..to + unit].copy_from_slice(&head_bytes[from..from + unit]);
            }
            done = head_end;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
