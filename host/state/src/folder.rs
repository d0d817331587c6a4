//! The journal folder: which files it holds, what order they are read in, and how a file gets there durably.
//!
//! Invariant: a file has its final name only when its bytes are fsynced, and a function here returns only when the
//! folder is fsynced too.

use crate::error::OpenError;
use crate::segment::{Record, SEGMENT_HEADER, Segment, Stop};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use stockade_core::store::Revision;

const SEGMENT: &str = "journal";
const SNAPSHOT: &str = "snapshot";
const TEMPORARY: &str = "tmp";

/// A numbered file: a segment by its first sequence number, a snapshot by its last.
pub(crate) type Numbered = (Revision, PathBuf);

/// What a journal folder holds, in order of number.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub segments: Vec<Numbered>,
    pub snapshots: Vec<Numbered>,
}

pub(crate) fn segment_path(folder: &Path, first: Revision) -> PathBuf {
    folder.join(format!("{first:020}.{SEGMENT}"))
}

pub(crate) fn snapshot_path(folder: &Path, last: Revision) -> PathBuf {
    folder.join(format!("{last:020}.{SNAPSHOT}"))
}

impl Listing {
    pub fn read(folder: &Path) -> Result<Self, OpenError> {
        let mut listing = Self::default();
        for path in entries(folder)? {
            let number = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse::<Revision>().ok());
            let (Some(number), Some(kind)) = (number, path.extension()) else {
                continue;
            };
            if kind == SEGMENT {
                listing.segments.push((number, path));
            } else if kind == SNAPSHOT {
                listing.snapshots.push((number, path));
            }
        }
        listing.segments.sort();
        listing.snapshots.sort();
        Ok(listing)
    }

    /// The last commit of the newest snapshot, 0 without one.
    pub fn snapshot_end(&self) -> Revision {
        self.snapshots.last().map_or(0, |(last, _)| *last)
    }

    /// Splits off what the newest snapshot has made superfluous: older snapshots, and segments that it covers whole.
    pub fn split_stale(&mut self) -> Vec<PathBuf> {
        let end = self.snapshot_end();
        let covered = self
            .segments
            .iter()
            .skip(1)
            .take_while(|(first, _)| first.checked_sub(1).is_some_and(|last| last <= end))
            .count();
        let older = self.snapshots.len().saturating_sub(1);
        self.segments.drain(..covered).chain(self.snapshots.drain(..older)).map(|(_, path)| path).collect()
    }
}

/// Whether a segment that ends in half a record is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Every record must be whole.
    Sealed,
    /// The last record of the last segment may be torn.
    MayBeTorn,
}

/// Where the records of a journal end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub last: Revision,
    /// Bytes of the last segment up to the end of its last whole record.
    pub good_bytes: u64,
    /// Salt of the last segment.
    pub salt: u32,
}

/// Reads every record of `segments`, which must continue a snapshot that ends at `base`, and hands them to `visit`.
///
/// # Errors
/// [`OpenError::Corrupt`] for a bad checksum, a gap or a missing segment, with file and offset.
pub(crate) fn replay(
    segments: &[Numbered],
    base: Revision,
    tail: Tail,
    visit: &mut dyn FnMut(Record) -> Result<(), OpenError>,
) -> Result<End, OpenError> {
    let mut end = End { last: base, good_bytes: SEGMENT_HEADER as u64, salt: 0 };
    for (i, (first, path)) in segments.iter().enumerate() {
        if end.last.checked_add(1) != Some(*first) {
            return Err(OpenError::corrupt(path, 0, "the segment or snapshot before it is missing or cut short"));
        }
        let may_be_torn = tail == Tail::MayBeTorn && i + 1 == segments.len();
        let mut segment = Segment::open(path, *first)?;
        loop {
            match segment.next() {
                Ok(Some(record)) => visit(record)?,
                Ok(None) => break,
                Err(Stop::Unreadable { at, .. }) if may_be_torn && segment.is_torn_at(at)? => break,
                Err(Stop::Io(e)) => return Err(e),
                Err(Stop::Unreadable { at, what } | Stop::Misplaced { at, what }) => {
                    return Err(OpenError::corrupt(path, at, what));
                }
            }
        }
        end = End { last: segment.next_revision() - 1, good_bytes: segment.good_bytes(), salt: segment.salt() };
    }
    Ok(end)
}

/// A file being written under a temporary name; dropped unfinished, it is removed.
#[derive(Debug)]
pub(crate) struct NewFile {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    renamed: bool,
}

impl NewFile {
    /// Starts the file that will be `path`. Two at a time for one path would clash; callers hold the lock that
    /// prevents it, or give a `tag` of their own.
    pub fn create(path: PathBuf, tag: u64) -> Result<Self, OpenError> {
        Self::with_mode(path, tag, 0o666)
    }

    /// As [`NewFile::create`], for a file that its owner alone may read.
    pub fn private(path: PathBuf) -> Result<Self, OpenError> {
        Self::with_mode(path, 0, 0o600)
    }

    fn with_mode(path: PathBuf, tag: u64, mode: u32) -> Result<Self, OpenError> {
        let temporary = path.with_extension(format!("{tag}.{TEMPORARY}"));
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&temporary)
            .map_err(OpenError::io("creating a file", &temporary))?;
        Ok(Self { file, temporary, path, renamed: false })
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), OpenError> {
        self.file.write_all(bytes).map_err(OpenError::io("writing a file", &self.temporary))
    }

    /// Fsyncs the file and gives it its name. The name is durable once the folder is fsynced as well: see
    /// [`sync_folder`].
    pub fn rename(mut self) -> Result<PathBuf, OpenError> {
        self.file.sync_all().map_err(OpenError::io("fsync of a file", &self.temporary))?;
        fs::rename(&self.temporary, &self.path).map_err(OpenError::io("renaming a file", &self.temporary))?;
        self.renamed = true;
        Ok(std::mem::take(&mut self.path))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Makes the names in `folder` durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), OpenError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(OpenError::io("fsync of a folder", folder))
}

/// Creates `folder` and what is missing above it, durably.
pub(crate) fn create_folder(folder: &Path) -> Result<(), OpenError> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_folder(parent)?;
    }
    match fs::create_dir(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(OpenError::io("creating a folder", folder)(e));
        }
        _ => {}
    }
    sync_folder(parent.unwrap_or(Path::new(".")))
}

/// Removes what a crash left under temporary names.
pub(crate) fn remove_temporaries(folder: &Path) -> Result<(), OpenError> {
    for path in entries(folder)? {
        if path.extension().is_some_and(|e| e == TEMPORARY) {
            fs::remove_file(&path).map_err(OpenError::io("removing a file", &path))?;
        }
    }
    Ok(())
}

pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>, OpenError> {
    fs::read_dir(folder)
        .and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect())
        .map_err(OpenError::io("listing a folder", folder))
}
