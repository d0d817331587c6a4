//! Opening a state folder: which process has it, which layout it is, and bringing the index up to the journal.

use crate::error::OpenError;
use crate::folder::{End, Listing, NewFile, Tail, create_folder, remove_temporaries, replay, sync_folder};
use crate::index::{Applied, Changes, Index, overlay};
use crate::journal::{Journal, Through};
use crate::segment::SEGMENT_HEADER;
use crate::snapshot::Snapshot;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

/// The version of the folder's layout and of all file formats in it.
pub(crate) const LAYOUT: u32 = 1;
const LAYOUT_PREFIX: &str = "stockade state ";
/// Keys that are applied to the index at once during replay.
const REPLAY_KEYS: usize = 1024;

/// The parts of a state folder.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    pub root: PathBuf,
    pub journal: PathBuf,
    pub index: PathBuf,
    pub blobs: PathBuf,
}

impl Paths {
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            journal: root.join("journal"),
            index: root.join("index"),
            blobs: root.join("blobs"),
        }
    }
    pub fn layout(&self) -> PathBuf {
        self.root.join("layout")
    }

    /// Creates the folders of an empty state, without its layout file.
    pub fn create(&self) -> Result<(), OpenError> {
        create_folder(&self.journal)?;
        create_folder(&self.blobs)?;
        for first in 0..=u8::MAX {
            let folder = self.blobs.join(format!("{first:02x}"));
            if !folder.is_dir() {
                fs::create_dir(&folder).map_err(OpenError::io("creating a folder", &folder))?;
            }
        }
        sync_folder(&self.blobs)
    }

    /// Declares the folder whole.
    pub fn write_layout(&self) -> Result<(), OpenError> {
        let mut file = NewFile::create(self.layout(), 0)?;
        file.write(format!("{LAYOUT_PREFIX}{LAYOUT}\n").as_bytes())?;
        file.rename()?;
        sync_folder(&self.root)
    }

    /// Whether the folder has a layout file; one that this program cannot serve is an error.
    pub fn has_layout(&self) -> Result<bool, OpenError> {
        let path = self.layout();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(OpenError::io("reading the layout", &path)(e)),
        };
        let found =
            std::str::from_utf8(&text).ok().and_then(|t| t.strip_prefix(LAYOUT_PREFIX)?.trim_end().parse::<u32>().ok());
        match found {
            Some(LAYOUT) => Ok(true),
            Some(found) if found > LAYOUT => {
                Err(OpenError::NewerLayout { folder: self.root.clone(), found, supported: LAYOUT })
            }
            _ => Err(OpenError::corrupt(&path, 0, "not a layout file")),
        }
    }
}

/// Takes the folder's lock; it is held until the file is dropped.
pub(crate) fn lock(root: &Path) -> Result<File, OpenError> {
    let path = root.join("LOCK");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(OpenError::io("opening the lock", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { folder: root.to_owned() }),
        Err(TryLockError::Error(e)) => Err(OpenError::io("locking", &path)(e)),
    }
}

/// How the index came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum IndexOrigin {
    /// It agreed with the journal; the commits that it had not yet on disk were applied.
    Kept { replayed: u64 },
    /// It was new, missing, damaged or not of this journal, and was built from snapshot and journal.
    Rebuilt,
}

/// An opened folder.
pub(crate) struct Recovered {
    pub journal: Journal,
    pub index: Index,
    pub applied: Applied,
    pub origin: IndexOrigin,
    /// Bytes of the segments before the one being written.
    pub sealed_bytes: u64,
    pub snapshot_bytes: u64,
}

/// Opens a folder whose lock is held.
pub(crate) fn recover(paths: &Paths, cache_bytes: u64, through: Through) -> Result<Recovered, OpenError> {
    if !paths.has_layout()? {
        create_empty(paths, through)?;
    }
    remove_temporaries(&paths.journal)?;
    let mut listing = Listing::read(&paths.journal)?;
    remove_all(&listing.split_stale(), &paths.journal)?;
    let Some(active) = listing.segments.last().cloned() else {
        return Err(OpenError::corrupt(&paths.journal, 0, "the journal has no segment"));
    };
    // A killed process may have left records that only the page cache holds. They are about to be read, so they must
    // be durable first.
    File::options()
        .write(true)
        .open(&active.1)
        .and_then(|f| f.sync_data())
        .map_err(OpenError::io("fsync of the journal", &active.1))?;

    let kept = existing_index(paths, cache_bytes).map(|(index, applied)| {
        let end = replay_into(&index, applied, &listing);
        (index, applied.last, end)
    });
    let (index, applied, end, origin) = match kept {
        Some((index, before, Ok(Some((applied, end))))) => {
            let replayed = applied.last - before;
            (index, applied, end, IndexOrigin::Kept { replayed })
        }
        // The journal's fault, which no index can mend.
        Some((_, _, Err(e))) if !matches!(e, OpenError::Index { .. }) => return Err(e),
        other => {
            if let Some((_, _, Err(e))) = &other {
                tracing::warn!(error = e as &dyn std::error::Error, "index failed in replay");
            }
            drop(other);
            let (index, applied, end) = rebuild(paths, cache_bytes, &listing)?;
            (index, applied, end, IndexOrigin::Rebuilt)
        }
    };
    tracing::info!(folder = %paths.root.display(), commit = end.last, rows = applied.rows.count, ?origin, "state is open");
    let sealed = &listing.segments[..listing.segments.len() - 1];
    Ok(Recovered {
        sealed_bytes: file_bytes(sealed.iter().map(|(_, path)| path))?,
        snapshot_bytes: file_bytes(listing.snapshots.iter().map(|(_, path)| path))?,
        journal: Journal::resume(&paths.journal, active, end, through)?,
        index,
        applied,
        origin,
    })
}

/// Starts a new state, going on where a crash interrupted that. Anything else without a layout file is refused.
fn create_empty(paths: &Paths, through: Through) -> Result<(), OpenError> {
    paths.create()?;
    remove_temporaries(&paths.journal)?;
    let found = Listing::read(&paths.journal)?;
    let untouched = match found.segments.as_slice() {
        [] => true,
        [(_, path)] => file_bytes([path])? == SEGMENT_HEADER as u64,
        _ => false,
    };
    if !untouched || !found.snapshots.is_empty() {
        return Err(OpenError::corrupt(
            &paths.layout(),
            0,
            "the layout file is missing: an unfinished copy, or damage",
        ));
    }
    if found.segments.is_empty() {
        Journal::create(&paths.journal, 1, through)?;
    }
    sync_folder(&paths.journal)?;
    paths.write_layout()
}

/// The index on disk, if it opens and holds what it says it holds.
fn existing_index(paths: &Paths, cache_bytes: u64) -> Option<(Index, Applied)> {
    if !paths.index.exists() {
        return None;
    }
    let found = Index::open(&paths.index, cache_bytes).and_then(|index| {
        let applied = index.check()?;
        Ok(applied.map(|applied| (index, applied)))
    });
    match found {
        Ok(Some(found)) => Some(found),
        Ok(None) => {
            tracing::warn!("index is incomplete or damaged, rebuilding it");
            None
        }
        Err(e) => {
            tracing::warn!(error = &e as &dyn std::error::Error, "index does not open, rebuilding it");
            None
        }
    }
}

fn rebuild(paths: &Paths, cache_bytes: u64, listing: &Listing) -> Result<(Index, Applied, End), OpenError> {
    if paths.index.exists() {
        fs::remove_dir_all(&paths.index)
            .or_else(|_| fs::remove_file(&paths.index))
            .map_err(OpenError::io("removing the old index", &paths.index))?;
    }
    let index = Index::open(&paths.index, cache_bytes).map_err(|source| OpenError::Index { stage: "open", source })?;
    let applied = match listing.snapshots.last() {
        Some(snapshot) => index.load(snapshot.0, Snapshot::open(snapshot)?)?,
        None => Applied::default(),
    };
    let done = replay_into(&index, applied, listing)?;
    let (applied, end) = done.expect("a new index starts exactly at the snapshot");
    Ok((index, applied, end))
}

/// Checks the whole journal and applies what `index` lacks; `None` if the index is not of this journal.
fn replay_into(index: &Index, mut applied: Applied, listing: &Listing) -> Result<Option<(Applied, End)>, OpenError> {
    let before = applied;
    let mut agrees = before.last >= listing.snapshot_end();
    let mut changes = Changes::new();
    let mut reached = (before.last, before.crc);
    let failed = |source| OpenError::Index { stage: "replay", source };
    let end = replay(&listing.segments, listing.snapshot_end(), Tail::MayBeTorn, &mut |record| {
        if record.last <= before.last {
            agrees &= record.last < before.last || record.crc == before.crc;
            return Ok(());
        }
        agrees &= record.commits[0].revision > before.last;
        if !agrees {
            return Ok(());
        }
        reached = (record.last, record.crc);
        for commit in record.commits {
            overlay(&mut changes, commit);
        }
        if changes.len() >= REPLAY_KEYS {
            index.apply(&changes, reached.0, reached.1, &mut applied).map_err(failed)?;
            changes.clear();
        }
        Ok(())
    })?;
    if !agrees {
        tracing::warn!("index is not of this journal, rebuilding it");
        return Ok(None);
    }
    if before.last > end.last {
        return Err(OpenError::JournalBehind {
            folder: listing.segments[0].1.parent().unwrap_or(Path::new("")).to_owned(),
            journal: end.last,
            index: before.last,
        });
    }
    if reached.0 > applied.last {
        index.apply(&changes, reached.0, reached.1, &mut applied).map_err(failed)?;
    }
    Ok(Some((applied, end)))
}

/// Removes files that are no longer needed, durably.
pub(crate) fn remove_all(files: &[PathBuf], folder: &Path) -> Result<(), OpenError> {
    for path in files {
        fs::remove_file(path).map_err(OpenError::io("removing a file", path))?;
    }
    if files.is_empty() {
        return Ok(());
    }
    sync_folder(folder)
}

pub(crate) fn file_bytes(files: impl IntoIterator<Item = impl AsRef<Path>>) -> Result<u64, OpenError> {
    files.into_iter().try_fold(0, |sum, path| {
        let path = path.as_ref();
        let meta = fs::metadata(path).map_err(OpenError::io("reading a file's size", path))?;
        Ok(sum + meta.len())
    })
}
