//! The writing end of the journal: appends a record, makes it durable, starts the next segment.
//!
//! Invariant: after a write or fsync failed in a way that leaves the file's end unknown, nothing is appended any
//! more: Linux reports a failed fsync once and then calls the lost pages clean. Only a full disk, noticed before the
//! fsync and with the file cut back to its last good byte, is survived.

use crate::error::{OpenError, is_full};
use crate::folder::{End, NewFile, Numbered, segment_path, sync_folder};
use crate::record::Frame;
use crate::segment::{self, SEGMENT_HEADER};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use stockade_core::store::Revision;

/// What the journal needs of an open segment; a seam so that tests can make the disk fail.
pub(crate) trait SegmentFile: Send {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes all bytes written so far durable, and the file's length.
    fn sync(&mut self) -> io::Result<()>;
    fn cut(&mut self, bytes: u64) -> io::Result<()>;
}

impl SegmentFile for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }
}

/// Makes the file that segments are written through.
pub(crate) type Through = fn(File, &Path) -> Box<dyn SegmentFile>;

/// The product's [`Through`]: the file itself.
pub(crate) fn plainly(file: File, _: &Path) -> Box<dyn SegmentFile> {
    Box::new(file)
}

/// What a failed append or rotation leaves behind.
#[derive(Debug)]
pub(crate) enum JournalError {
    /// Nothing happened; the same may succeed later.
    Unchanged(OpenError),
    /// The end of the file is unknown; the journal must not be used any more.
    Broken(OpenError),
}

/// The segment being written.
pub(crate) struct Journal {
    folder: PathBuf,
    through: Through,
    file: Box<dyn SegmentFile>,
    path: PathBuf,
    salt: u32,
    first: Revision,
    next: Revision,
    bytes: u64,
}

impl Journal {
    /// Starts a journal whose first batch will be `first`.
    pub fn create(folder: &Path, first: Revision, through: Through) -> Result<Self, OpenError> {
        let (path, salt) = new_segment(folder, first)?;
        sync_folder(folder)?;
        Self::open(folder, (first, path), first, salt, through)
    }

    /// Goes on where [`crate::folder::replay`] ended, cutting off what it found torn.
    pub fn resume(folder: &Path, segment: Numbered, end: End, through: Through) -> Result<Self, OpenError> {
        let mut journal = Self::open(folder, segment, end.last + 1, end.salt, through)?;
        journal.bytes = end.good_bytes;
        let cut = journal.file.cut(end.good_bytes);
        cut.and_then(|()| journal.file.sync()).map_err(OpenError::io("cutting off a torn record", &journal.path))?;
        Ok(journal)
    }

    fn open(
        folder: &Path,
        (first, path): Numbered,
        next: Revision,
        salt: u32,
        through: Through,
    ) -> Result<Self, OpenError> {
        let file = OpenOptions::new().write(true).open(&path).map_err(OpenError::io("opening a segment", &path))?;
        Ok(Self {
            folder: folder.to_owned(),
            through,
            file: through(file, &path),
            path,
            salt,
            first,
            next,
            bytes: SEGMENT_HEADER as u64,
        })
    }

    /// The sequence number of the next batch.
    pub fn next_revision(&self) -> Revision {
        self.next
    }

    /// Bytes of the segment being written.
    pub fn segment_bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends a record of `batches` batches and makes it durable; answers its CRC.
    pub fn append(&mut self, frame: Frame, batches: u64) -> Result<u32, JournalError> {
        let (bytes, crc) = frame.finish(self.salt);
        if let Err(e) = self.file.write_at(&bytes, self.bytes) {
            let full = is_full(&e);
            let error = OpenError::io("writing the journal", &self.path)(e);
            return Err(if full && self.file.cut(self.bytes).is_ok() {
                JournalError::Unchanged(error)
            } else {
                JournalError::Broken(error)
            });
        }
        self.file.sync().map_err(|e| JournalError::Broken(OpenError::io("fsync of the journal", &self.path)(e)))?;
        self.bytes += bytes.len() as u64;
        self.next += batches;
        Ok(crc)
    }

    /// Seals the segment and starts the next one, unless this one is still empty. All before [`Self::next_revision`]
    /// is in sealed segments then.
    pub fn rotate(&mut self) -> Result<(), JournalError> {
        if self.first == self.next {
            return Ok(());
        }
        let (path, salt) = new_segment(&self.folder, self.next).map_err(JournalError::Unchanged)?;
        // From the rename on, a record appended to the old segment would be read as damage.
        let next = sync_folder(&self.folder)
            .and_then(|()| Self::open(&self.folder, (self.next, path), self.next, salt, self.through));
        *self = next.map_err(JournalError::Broken)?;
        Ok(())
    }
}

/// Writes an empty segment under its name; the caller fsyncs the folder.
fn new_segment(folder: &Path, first: Revision) -> Result<(PathBuf, u32), OpenError> {
    let path = segment_path(folder, first);
    let salt = getrandom::u32().map_err(|e| OpenError::io("drawing a salt", &path)(io::Error::other(e.to_string())))?;
    let mut file = NewFile::create(path, 0)?;
    file.write(&segment::header(first, salt))?;
    Ok((file.rename()?, salt))
}
