//! Blobs: files named by their sha256 under `blobs/`, two digits of folder and 62 of name.
//!
//! Invariant: a file has its name only when all its bytes are fsynced, and `put` answers only when the name is durable
//! too. Nothing here knows which rows name a blob: `stockade_core::registry` does, and deletes the others.

use crate::error::OpenError;
use crate::folder::{NewFile, create_folder, entries, remove_temporaries, sync_folder};
use crate::state::{Shared, off_thread};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use stockade_core::error::BoxFuture;
use stockade_core::id::Digest;
use stockade_core::store::{Blobs, StoreError};

/// The blobs of an open state folder. Its futures need a tokio runtime, whose blocking threads do the work.
pub struct BlobFolder {
    shared: Arc<Shared>,
}

/// Distinguishes the temporary files of concurrent writers.
static TAG: AtomicU64 = AtomicU64::new(0);

impl BlobFolder {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Runs `work` on a blocking thread.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, StoreError>> {
        let shared = self.shared.clone();
        Box::pin(async move { off_thread(move || work(&shared)).await? })
    }
}

impl Blobs for BlobFolder {
    fn put(&self, bytes: Bytes) -> BoxFuture<'_, Result<Digest, StoreError>> {
        self.run(move |shared| put(shared, &bytes))
    }

    fn get(&self, digest: Digest) -> BoxFuture<'_, Result<Bytes, StoreError>> {
        self.run(move |shared| get(shared, digest))
    }

    fn piece(&self, digest: Digest, offset: u64, length: usize) -> BoxFuture<'_, Result<Bytes, StoreError>> {
        self.run(move |shared| piece(shared, digest, offset, length))
    }

    /// Deleting a blob that is not there succeeds. Waits for a running backup, which would miss the blob.
    fn delete(&self, digest: Digest) -> BoxFuture<'_, Result<(), StoreError>> {
        self.run(move |shared| {
            let _alone = shared.maintenance.lock();
            let path = blob_path(&shared.paths.blobs, digest);
            match fs::remove_file(&path) {
                Ok(()) => Ok(sync_folder(parent(&path))?),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(e) => Err(OpenError::io("deleting a blob", &path)(e).into()),
            }
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<(Digest, u64)>, StoreError>> {
        self.run(|shared| {
            let sized = |(digest, path): (Digest, PathBuf)| match fs::metadata(&path) {
                Ok(found) => Ok(Some((digest, found.len()))),
                // Deleted since the folder was read.
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(OpenError::io("reading a blob", &path)(e).into()),
            };
            list(&shared.paths.blobs)?.into_iter().map(sized).filter_map(Result::transpose).collect()
        })
    }

    fn path(&self, digest: Digest) -> Option<PathBuf> {
        let path = blob_path(&self.shared.paths.blobs, digest);
        path.is_file().then_some(path)
    }
}

fn put(shared: &Shared, bytes: &[u8]) -> Result<Digest, StoreError> {
    check_size(bytes.len() as u64, shared)?;
    let digest = Digest(Sha256::digest(bytes).into());
    let path = blob_path(&shared.paths.blobs, digest);
    let folder = parent(&path);
    // Another length is damage, which these bytes mend.
    let is_there = fs::metadata(&path).is_ok_and(|m| m.len() == bytes.len() as u64);
    if !is_there {
        create_folder(folder)?;
        let mut file = NewFile::create(path.clone(), TAG.fetch_add(1, Relaxed))?;
        file.write(bytes)?;
        file.rename()?;
    }
    // Also for a file that is there: its writer may have been killed before this step.
    sync_folder(folder)?;
    Ok(digest)
}

fn open(path: &Path, digest: Digest) -> Result<File, StoreError> {
    File::open(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => StoreError::NoBlob(digest),
        _ => OpenError::io("reading a blob", path)(e).into(),
    })
}

fn piece(shared: &Shared, digest: Digest, offset: u64, length: usize) -> Result<Bytes, StoreError> {
    let path = blob_path(&shared.paths.blobs, digest);
    let mut file = open(&path, digest)?;
    let mut bytes = Vec::new();
    let read = file.seek(SeekFrom::Start(offset)).and_then(|_| file.take(length as u64).read_to_end(&mut bytes));
    read.map_err(OpenError::io("reading a blob", &path))?;
    Ok(bytes.into())
}

fn get(shared: &Shared, digest: Digest) -> Result<Bytes, StoreError> {
    let path = blob_path(&shared.paths.blobs, digest);
    let failed = |e| StoreError::from(OpenError::io("reading a blob", &path)(e));
    let file = open(&path, digest)?;
    let size = check_size(file.metadata().map_err(failed)?.len(), shared)?;
    let mut bytes = Vec::with_capacity(size as usize);
    file.take(size).read_to_end(&mut bytes).map_err(failed)?;
    if Sha256::digest(&bytes)[..] != digest.0 {
        return Err(StoreError::Corrupt { what: format!("blob {digest}") });
    }
    Ok(bytes.into())
}

fn check_size(size: u64, shared: &Shared) -> Result<u64, StoreError> {
    let limit = shared.max_blob_bytes;
    if size <= limit {
        return Ok(size);
    }
    Err(StoreError::TooLarge {
        what: "blob",
        size: usize::try_from(size).unwrap_or(usize::MAX),
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
    })
}

pub(crate) fn blob_path(blobs: &Path, digest: Digest) -> PathBuf {
    let text = digest.to_string();
    blobs.join(&text[..2]).join(&text[2..])
}

fn parent(path: &Path) -> &Path {
    path.parent().expect("a blob's path has a folder")
}

/// All blobs in a folder, sorted, with their digests. Other files are passed over.
pub(crate) fn list(blobs: &Path) -> Result<Vec<(Digest, PathBuf)>, OpenError> {
    let mut found = Vec::new();
    for folder in entries(blobs)? {
        if !folder.is_dir() {
            continue;
        }
        for path in entries(&folder)? {
            let name = |p: &Path| p.file_name().and_then(|n| n.to_str()).map(str::to_owned);
            let digest = name(&folder).zip(name(&path)).and_then(|(a, b)| format!("{a}{b}").parse::<Digest>().ok());
            if let Some(digest) = digest {
                found.push((digest, path));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Whether the file's bytes are those its name promises, and how many they are. Reads in pieces.
pub(crate) fn check(path: &Path, digest: Digest) -> Result<(bool, u64), OpenError> {
    let mut hasher = Sha256::new();
    let n = File::open(path)
        .and_then(|mut file| io::copy(&mut file, &mut hasher))
        .map_err(OpenError::io("reading a blob", path))?;
    Ok((hasher.finalize()[..] == digest.0, n))
}

/// Removes what a crash left half written.
pub(crate) fn remove_unfinished(blobs: &Path) -> Result<(), OpenError> {
    for folder in entries(blobs)? {
        if folder.is_dir() {
            remove_temporaries(&folder)?;
        }
    }
    Ok(())
}
