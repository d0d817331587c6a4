//! One segment file of the journal, read from its start.
//!
//! A segment is named after its first sequence number, appears under its name only once its header is fsynced, and is
//! never written again once the next one exists. Only the last record of the last segment can therefore be half
//! written; [`Segment::is_torn_at`] tells that case from damage.
//!
//! ```text
//! segment = "STKJRNL1" | first sequence u64 | salt u32 | crc of these u32 | record ...
//! ```

use crate::error::OpenError;
use crate::record::{self, Commit, Header, MAX_PAYLOAD, RECORD_HEADER};
use bytes::{Buf, Bytes};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use stockade_core::store::Revision;

const MAGIC: &[u8; 8] = b"STKJRNL1";
pub(crate) const SEGMENT_HEADER: usize = 24;

/// A record that has passed all checks.
#[derive(Debug)]
pub(crate) struct Record {
    pub commits: Vec<Commit>,
    pub last: Revision,
    pub crc: u32,
}

/// Why [`Segment::next`] stopped short of the end of the file.
#[derive(Debug)]
pub(crate) enum Stop {
    Io(OpenError),
    /// The bytes at `at` are no whole record: torn if nothing follows, else damaged.
    Unreadable {
        at: u64,
        what: &'static str,
    },
    /// A whole record that does not belong here.
    Misplaced {
        at: u64,
        what: &'static str,
    },
}

/// A segment file being read.
#[derive(Debug)]
pub(crate) struct Segment {
    path: PathBuf,
    file: BufReader<File>,
    bytes: u64,
    at: u64,
    salt: u32,
    next: Revision,
}

/// The header of a new segment.
pub(crate) fn header(first: Revision, salt: u32) -> [u8; SEGMENT_HEADER] {
    let mut bytes = [0; SEGMENT_HEADER];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&first.to_le_bytes());
    bytes[16..20].copy_from_slice(&salt.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..20]);
    bytes[20..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

impl Segment {
    /// Opens the segment that `path` names as starting at `first`.
    pub fn open(path: &Path, first: Revision) -> Result<Self, OpenError> {
        let file = File::open(path).map_err(OpenError::io("opening a segment", path))?;
        let bytes = file.metadata().map_err(OpenError::io("reading a segment", path))?.len();
        let mut file = BufReader::with_capacity(1 << 16, file);
        let mut found = [0; SEGMENT_HEADER];
        if bytes < SEGMENT_HEADER as u64 {
            return Err(OpenError::corrupt(path, 0, "a segment without its header"));
        }
        file.read_exact(&mut found).map_err(OpenError::io("reading a segment", path))?;
        let salt = (&found[16..]).get_u32_le();
        if found != header(first, salt) {
            return Err(OpenError::corrupt(path, 0, "the segment's header is not the one its name asks for"));
        }
        Ok(Self { path: path.to_owned(), file, bytes, at: SEGMENT_HEADER as u64, salt, next: first })
    }

    pub fn salt(&self) -> u32 {
        self.salt
    }

    /// Bytes up to the end of the last good record.
    pub fn good_bytes(&self) -> u64 {
        self.at
    }

    /// Sequence number that the next record must have.
    pub fn next_revision(&self) -> Revision {
        self.next
    }

    /// The next record, or `None` at the end of the file.
    pub fn next(&mut self) -> Result<Option<Record>, Stop> {
        let at = self.at;
        let left = self.bytes - at;
        if left == 0 {
            return Ok(None);
        }
        let unreadable = |what| Stop::Unreadable { at, what };
        if left < RECORD_HEADER as u64 {
            return Err(unreadable("a record's header is cut short"));
        }
        let mut bytes = vec![0; RECORD_HEADER];
        self.read(&mut bytes)?;
        let header = Header::decode(&bytes).ok_or(unreadable("a record's length is impossible"))?;
        if left - (RECORD_HEADER as u64) < header.payload as u64 {
            return Err(unreadable("a record is cut short"));
        }
        bytes.resize(RECORD_HEADER + header.payload, 0);
        self.read(&mut bytes[RECORD_HEADER..])?;
        if record::checksum(self.salt, &bytes) != header.crc {
            return Err(unreadable("a record's checksum is wrong"));
        }
        let misplaced = |what| Stop::Misplaced { at, what };
        if header.first != self.next {
            return Err(misplaced("a gap in the sequence of records"));
        }
        let total = bytes.len() as u64;
        let commits = record::decode(Bytes::from(bytes).slice(RECORD_HEADER..), header.first)
            .ok_or(misplaced("a record that this program cannot have written"))?;
        self.at += total;
        self.next += commits.len() as u64;
        Ok(Some(Record { commits, last: self.next - 1, crc: header.crc }))
    }

    /// Whether the unreadable bytes at `at` can be a write that a crash interrupted: no larger than one record, and no
    /// whole later record among them. (Of damage to the very last record alone the journal cannot tell; the index,
    /// which only ever applies what is durable, can, and is asked by the caller.)
    pub fn is_torn_at(&mut self, at: u64) -> Result<bool, OpenError> {
        let left = self.bytes - at;
        if left > (RECORD_HEADER + MAX_PAYLOAD) as u64 {
            return Ok(false);
        }
        let mut rest = vec![0; left as usize];
        let io = |e| OpenError::io("reading a segment", &self.path)(e);
        self.file.seek(SeekFrom::Start(at)).map_err(io)?;
        self.file.read_exact(&mut rest).map_err(io)?;
        let later = (1..rest.len()).any(|start| {
            let bytes = &rest[start..];
            Header::decode(bytes).is_some_and(|h| {
                h.first > self.next
                    && h.first - self.next < 1 << 32
                    && h.payload <= bytes.len() - RECORD_HEADER
                    && record::checksum(self.salt, &bytes[..RECORD_HEADER + h.payload]) == h.crc
            })
        });
        Ok(!later)
    }

    fn read(&mut self, into: &mut [u8]) -> Result<(), Stop> {
        self.file.read_exact(into).map_err(|e| Stop::Io(OpenError::io("reading a segment", &self.path)(e)))
    }
}
