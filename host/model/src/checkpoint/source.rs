//! One file that is read by position, and the digests of such files.

use crate::ModelError;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;
use stockade_core::Digest;

/// Largest side file (`config.json`, `tokenizer.json`, a shard index) in bytes.
pub(crate) const MAX_SMALL_FILE_BYTES: u64 = 64 << 20;

/// An open regular file whose length was read once. A file that shrinks later gives read errors.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    file: File,
    len: u64,
    modified: Option<SystemTime>,
}

impl Source {
    pub(crate) fn open(path: &Path) -> Result<Self, ModelError> {
        let io = |e| ModelError::read(path, e);
        // Asked before opening: opening a pipe would wait for its writer.
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            return Err(ModelError::damaged(path, "not a regular file"));
        }
        let file = File::open(path).map_err(io)?;
        let meta = file.metadata().map_err(io)?;
        Ok(Self { path: path.to_owned(), file, len: meta.len(), modified: meta.modified().ok() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn read_at(&self, out: &mut [u8], offset: u64) -> Result<(), ModelError> {
        self.file.read_exact_at(out, offset).map_err(|e| ModelError::read(&self.path, e))
    }

    /// Reads like a stream from `offset` to the end of the file, without moving a shared position.
    pub(crate) fn stream(&self, offset: u64) -> impl Read + '_ {
        SourceStream { source: self, offset }
    }
}

struct SourceStream<'a> {
    source: &'a Source,
    offset: u64,
}

impl Read for SourceStream<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let n = self.source.file.read_at(out, self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }
}

/// A whole side file, refused above [`MAX_SMALL_FILE_BYTES`] before memory is taken.
pub(crate) fn read_small(path: &Path) -> Result<Vec<u8>, ModelError> {
    let source = Source::open(path)?;
    if source.len > MAX_SMALL_FILE_BYTES {
        let reason = format!("{} bytes exceed the limit of {MAX_SMALL_FILE_BYTES} for this kind of file", source.len);
        return Err(ModelError::damaged(path, reason));
    }
    let mut bytes = vec![0; source.len as usize];
    source.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Whether `path` is there at all (a broken link counts, so that it is reported rather than passed over).
pub(crate) fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

/// The one file of `folder` with this extension; `None` when there is none or more than one.
pub(crate) fn only_file_with_extension(folder: &Path, extension: &str) -> Result<Option<PathBuf>, ModelError> {
    if !folder.is_dir() {
        return Ok(None);
    }
    let mut found = None;
    for entry in std::fs::read_dir(folder).map_err(|e| ModelError::read(folder, e))? {
        let path = entry.map_err(|e| ModelError::read(folder, e))?.path();
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension)) && path.is_file() {
            if found.is_some() {
                return Ok(None);
            }
            found = Some(path);
        }
    }
    Ok(found)
}

/// The digest of one file, or of several files' digests in file-name order.
pub(crate) fn digest(sources: &[Source]) -> Result<Digest, ModelError> {
    let mut parts = Vec::with_capacity(sources.len());
    for source in sources {
        parts.push((source.path.file_name(), source.digest()?));
    }
    if let [(_, only)] = parts[..] {
        return Ok(only);
    }
    parts.sort();
    let mut hasher = Sha256::new();
    parts.iter().for_each(|(_, part)| hasher.update(part.0));
    Ok(Digest(hasher.finalize().into()))
}

type DigestKey = (PathBuf, u64, SystemTime);

impl Source {
    fn digest(&self) -> Result<Digest, ModelError> {
        static KNOWN: Mutex<Option<HashMap<DigestKey, Digest>>> = Mutex::new(None);
        const MAX_KNOWN: usize = 4096;

        let path = std::fs::canonicalize(&self.path).map_err(|e| ModelError::read(&self.path, e))?;
        let key = self.modified.map(|time| (path, self.len, time));
        let known = || KNOWN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(digest) = key.as_ref().and_then(|key| known().as_ref()?.get(key).copied()) {
            return Ok(digest);
        }
        let digest = sha256_of(self.stream(0)).map_err(|e| ModelError::read(&self.path, e))?;
        if let Some(key) = key {
            let mut known = known();
            let known = known.get_or_insert_default();
            if known.len() >= MAX_KNOWN {
                known.clear();
            }
            known.insert(key, digest);
        }
        Ok(digest)
    }
}

/// The sha256 of everything that `reader` gives.
pub(crate) fn sha256_of(mut reader: impl Read) -> std::io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(Digest(hasher.finalize().into())),
            n => hasher.update(&buffer[..n]),
        }
    }
}
