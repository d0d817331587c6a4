//! Work on whole state folders: compaction, backup, restore, verification. All of it reads the truth (snapshot and
//! sealed segments, which nobody writes any more), never the index.

use crate::blobs;
use crate::error::OpenError;
use crate::folder::{Listing, Tail, create_folder, entries, sync_folder};
use crate::index::Rows;
use crate::journal::{Journal, plainly};
use crate::recover::{Paths, file_bytes, lock, remove_all};
use crate::snapshot;
use crate::state::{Seal, Shared};
use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use stockade_core::store::{Revision, StoreError};

/// What a compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Compacted {
    /// The snapshot's last commit.
    pub last_commit: Revision,
    pub rows: u64,
    pub snapshot_bytes: u64,
    /// Files that the snapshot made superfluous.
    pub files_removed: usize,
}

/// What a backup or restore copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Copied {
    /// The copy is as of this commit.
    pub last_commit: Revision,
    pub journal_bytes: u64,
    pub blobs: u64,
    pub blob_bytes: u64,
}

/// What reading everything found.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    pub last_commit: Revision,
    pub rows: u64,
    /// Bytes of snapshot and segments.
    pub journal_bytes: u64,
    pub blobs: u64,
    pub blob_bytes: u64,
    /// A sentence for each thing that is not as it should be; empty means whole.
    pub damage: Vec<String>,
}

/// Replaces the sealed segments up to commit `last` by a snapshot. Whole at every step: the snapshot gets its name
/// fsynced, and files go only afterwards; [`Listing::split_stale`] finishes the job at the next open.
pub(crate) fn compact(shared: &Shared, last: Revision) -> Result<Compacted, OpenError> {
    let _alone = shared.maintenance.lock();
    let folder = &shared.paths.journal;
    let mut listing = Listing::read(folder)?;
    let mut done = Compacted { last_commit: listing.snapshot_end(), rows: 0, snapshot_bytes: 0, files_removed: 0 };
    if listing.snapshot_end() >= last {
        done.rows = shared.rows.load(Relaxed);
        done.snapshot_bytes = shared.snapshot_bytes.load(Relaxed);
        return Ok(done);
    }
    // What an earlier compaction could not remove any more.
    listing.split_stale();
    listing.segments.retain(|(first, _)| *first <= last);
    let (end, rows) = snapshot::merged(listing.snapshots.last(), &listing.segments, Tail::Sealed)?;
    if end.last != last {
        return Err(OpenError::corrupt(folder, 0, "the sealed segments end too early"));
    }
    (done.rows, done.snapshot_bytes) = snapshot::write(folder, last, rows)?;
    done.last_commit = last;
    shared.snapshot_bytes.store(done.snapshot_bytes, Relaxed);
    let stale = Listing::read(folder)?.split_stale();
    remove_all(&stale, folder)?;
    done.files_removed = stale.len();
    Ok(done)
}

/// Copies an open state; the caller holds the maintenance lock.
pub(crate) fn backup(shared: &Shared, seal: &Seal, to: &Path) -> Result<Copied, StoreError> {
    let sealed = seal()?;
    Ok(copy(&shared.paths, to, Tail::Sealed, Some(sealed.last))?)
}

/// Copies a closed state or a backup into `to`, which must be empty or absent. Blocks.
///
/// # Errors
/// As [`verify`], and [`OpenError::NotEmpty`]. `to` opens only after a copy that was finished.
pub fn restore(from: &Path, to: &Path) -> Result<Copied, OpenError> {
    let from = Paths::new(from);
    let _lock = lock_if_writable(&from)?;
    copy(&from, to, Tail::MayBeTorn, None)
}

/// Reads all of a closed state or a backup, except the index. Blocks. Damage is reported, not an error.
///
/// # Errors
/// The folder is in use, of a newer layout, or is no state folder.
pub fn verify(folder: &Path) -> Result<Verified, OpenError> {
    let paths = Paths::new(folder);
    let _lock = lock_if_writable(&paths)?;
    let (verified, _) = examine(&paths, Tail::MayBeTorn, None)?;
    Ok(verified)
}

/// Reads all of an open state; the caller holds the maintenance lock.
pub(crate) fn verify_open(shared: &Shared, seal: &Seal) -> Result<Verified, StoreError> {
    let sealed = seal()?;
    let (mut verified, rows) = examine(&shared.paths, Tail::Sealed, Some(sealed.last))?;
    if !sealed.index_is_whole {
        verified.damage.push("the index has lost rows".into());
    }
    if rows.is_some_and(|rows| rows != sealed.applied.rows) {
        verified.damage.push("the index and the journal hold different rows".into());
    }
    Ok(verified)
}

/// A closed folder must not be opened while it is read; a read-only medium cannot be.
fn lock_if_writable(paths: &Paths) -> Result<Option<File>, OpenError> {
    if !paths.has_layout()? {
        return Err(OpenError::corrupt(
            &paths.layout(),
            0,
            "the layout file is missing: not a state folder, or an unfinished copy",
        ));
    }
    match lock(&paths.root) {
        Ok(lock) => Ok(Some(lock)),
        Err(OpenError::Io { source, .. })
            if matches!(
                source.kind(),
                std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied
            ) =>
        {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// The current files of a journal, up to commit `last` if given.
fn current(paths: &Paths, last: Option<Revision>) -> Result<Listing, OpenError> {
    let mut listing = Listing::read(&paths.journal)?;
    listing.split_stale();
    if let Some(last) = last {
        listing.segments.retain(|(first, _)| *first <= last);
    }
    Ok(listing)
}

/// Reads snapshot, segments and blobs; answers the rows too when the journal is whole.
fn examine(paths: &Paths, tail: Tail, last: Option<Revision>) -> Result<(Verified, Option<Rows>), OpenError> {
    let mut found = Verified::default();
    let listing = current(paths, last)?;
    let files = listing.segments.iter().chain(&listing.snapshots);
    found.journal_bytes = file_bytes(files.map(|(_, path)| path))?;
    let read = snapshot::merged(listing.snapshots.last(), &listing.segments, tail).and_then(|(end, rows)| {
        found.last_commit = end.last;
        let mut sum = Rows::default();
        for row in rows {
            let row = row?;
            sum.add(&row.key, row.revision, &row.value);
        }
        Ok(sum)
    });
    let rows = match read {
        Ok(rows) => {
            found.rows = rows.count;
            if last.is_none() && listing.segments.is_empty() {
                found.damage.push("the journal has no segment".into());
            }
            if last.is_some_and(|last| last != found.last_commit) {
                found.damage.push("the journal ends too early".into());
            }
            Some(rows)
        }
        Err(e @ (OpenError::Corrupt { .. } | OpenError::Io { .. })) => {
            found.damage.push(e.to_string());
            None
        }
        Err(e) => return Err(e),
    };
    for (digest, path) in blobs::list(&paths.blobs)? {
        match blobs::check(&path, digest) {
            Ok((true, bytes)) => {
                found.blobs += 1;
                found.blob_bytes += bytes;
            }
            Ok((false, _)) => found.damage.push(format!("blob {digest} is damaged")),
            Err(e) => found.damage.push(e.to_string()),
        }
    }
    Ok((found, rows))
}

/// Copies snapshot, segments up to `last`, and blobs; the layout file comes last.
fn copy(from: &Paths, to: &Path, tail: Tail, last: Option<Revision>) -> Result<Copied, OpenError> {
    create_folder(to)?;
    if !entries(to)?.is_empty() {
        return Err(OpenError::NotEmpty { folder: to.to_owned() });
    }
    let to = Paths::new(to);
    to.create()?;
    let listing = current(from, last)?;
    let mut copied = Copied { last_commit: 0, journal_bytes: 0, blobs: 0, blob_bytes: 0 };
    for (_, path) in listing.snapshots.iter().chain(&listing.segments) {
        copied.journal_bytes += copy_file(path, &to.journal)?;
    }
    for (_, path) in blobs::list(&from.blobs)? {
        let folder = path.parent().and_then(Path::file_name).unwrap_or_default();
        copied.blob_bytes += copy_file(&path, &to.blobs.join(folder))?;
        copied.blobs += 1;
    }
    for folder in entries(&to.blobs)? {
        sync_folder(&folder)?;
    }
    // What counts is what can be read back, so the copy is read and not the original.
    let (read, _) = examine(&to, tail, last)?;
    if let Some(damage) = read.damage.first() {
        tracing::error!(%damage, "the copy is not whole");
        return Err(OpenError::CopyDamaged { folder: to.root, damage: damage.clone() });
    }
    copied.last_commit = read.last_commit;
    if tail == Tail::Sealed {
        Journal::create(&to.journal, read.last_commit + 1, plainly)?;
    }
    sync_folder(&to.journal)?;
    to.write_layout()?;
    Ok(copied)
}

fn copy_file(path: &Path, folder: &Path) -> Result<u64, OpenError> {
    let to = folder.join(path.file_name().unwrap_or_default());
    let bytes = fs::copy(path, &to).map_err(OpenError::io("copying a file", path))?;
    File::open(&to).and_then(|f| f.sync_all()).map_err(OpenError::io("fsync of a file", &to))?;
    Ok(bytes)
}
