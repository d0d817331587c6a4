//! A snapshot: every row as of one commit, sorted by key, under one CRC. With it the segments up to that commit are
//! superfluous.
//!
//! A snapshot is merged from the one before and the segments since, never read out of the index, so that a fault of
//! the index cannot reach the truth.
//!
//! ```text
//! snapshot = "STKSNAP1" | sequence u64 | crc of these u32 | row ... | LAST u16 | rows u64 | crc of all before u32
//! row      = key length u16 | value length u32 | revision u64 | key | value
//! ```

use crate::error::OpenError;
use crate::folder::{End, NewFile, Numbered, Tail, replay, snapshot_path, sync_folder};
use crate::index::{Changes, overlay};
use bytes::{Buf, BytesMut};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use stockade_core::store::{MAX_KEY_BYTES, MAX_VALUE_BYTES, Revision, Row};

const MAGIC: &[u8; 8] = b"STKSNAP1";
const HEADER: usize = 20;
const ROW_HEADER: usize = 14;
const LAST: u16 = u16::MAX;
const BUFFER: usize = 1 << 16;

/// Iterates over the rows of a snapshot in key order; the last item is an error if the file is damaged anywhere, so
/// nothing read is to be kept before the iterator has ended.
#[derive(Debug)]
pub(crate) struct Snapshot {
    path: PathBuf,
    file: BufReader<File>,
    hasher: crc32fast::Hasher,
    at: u64,
    rows: u64,
    done: bool,
}

impl Snapshot {
    pub fn open((last, path): &Numbered) -> Result<Self, OpenError> {
        let file = File::open(path).map_err(OpenError::io("opening a snapshot", path))?;
        let mut snapshot = Self {
            path: path.clone(),
            file: BufReader::with_capacity(BUFFER, file),
            hasher: crc32fast::Hasher::new(),
            at: 0,
            rows: 0,
            done: false,
        };
        let mut found = [0; HEADER];
        snapshot.read(&mut found)?;
        if found != header(*last) {
            return Err(snapshot.corrupt("the snapshot's header is not the one its name asks for"));
        }
        Ok(snapshot)
    }

    fn corrupt(&self, what: &'static str) -> OpenError {
        OpenError::corrupt(&self.path, self.at, what)
    }

    fn read(&mut self, into: &mut [u8]) -> Result<(), OpenError> {
        self.file.read_exact(into).map_err(|e| {
            if e.kind() == std::io::ErrorKind::UnexpectedEof {
                self.corrupt("the snapshot is cut short")
            } else {
                OpenError::io("reading a snapshot", &self.path)(e)
            }
        })?;
        self.hasher.update(into);
        self.at += into.len() as u64;
        Ok(())
    }

    fn row(&mut self) -> Result<Option<Row>, OpenError> {
        let mut length = [0; 2];
        self.read(&mut length)?;
        let key = u16::from_le_bytes(length);
        if key == LAST {
            return self.end().map(|()| None);
        }
        let mut rest = [0; ROW_HEADER - 2];
        self.read(&mut rest)?;
        let mut rest = &rest[..];
        let (value, revision) = (rest.get_u32_le() as usize, rest.get_u64_le());
        let key = usize::from(key);
        if key > MAX_KEY_BYTES || value > MAX_VALUE_BYTES {
            return Err(self.corrupt("a row's length is impossible"));
        }
        let mut bytes = BytesMut::zeroed(key + value);
        self.read(&mut bytes)?;
        let mut value = bytes.freeze();
        self.rows += 1;
        Ok(Some(Row { key: value.split_to(key), value, revision }))
    }

    fn end(&mut self) -> Result<(), OpenError> {
        let mut rows = [0; 8];
        self.read(&mut rows)?;
        let want = self.hasher.clone().finalize();
        let mut crc = [0; 4];
        self.read(&mut crc)?;
        if u32::from_le_bytes(crc) != want || u64::from_le_bytes(rows) != self.rows {
            return Err(self.corrupt("the snapshot's checksum is wrong"));
        }
        let mut beyond = [0; 1];
        match self.file.read(&mut beyond) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.corrupt("bytes follow the end of the snapshot")),
            Err(e) => Err(OpenError::io("reading a snapshot", &self.path)(e)),
        }
    }
}

impl Iterator for Snapshot {
    type Item = Result<Row, OpenError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = self.row().transpose();
        self.done = !matches!(item, Some(Ok(_)));
        item
    }
}

fn header(last: Revision) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&last.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..16]);
    bytes[16..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The rows as of the end of `segments`: an older snapshot overlaid with the segments since, in key order.
///
/// Memory: what `segments` hold. Every record of them has been checked when this returns.
pub(crate) fn merged(
    snapshot: Option<&Numbered>,
    segments: &[Numbered],
    tail: Tail,
) -> Result<(End, impl Iterator<Item = Result<Row, OpenError>>), OpenError> {
    let base = snapshot.map_or(0, |(last, _)| *last);
    let mut newer = Changes::new();
    let end = replay(segments, base, tail, &mut |record| {
        for commit in record.commits {
            overlay(&mut newer, commit);
        }
        Ok(())
    })?;
    let older = snapshot.map(Snapshot::open).transpose()?;
    let mut older = older.into_iter().flatten().peekable();
    let mut newer = newer.into_iter().peekable();
    let rows = std::iter::from_fn(move || {
        loop {
            let overlay_first = match (older.peek(), newer.peek()) {
                (Some(Err(_)), _) | (_, None) => return older.next(),
                (Some(Ok(row)), Some((key, _))) if row.key < *key => return older.next(),
                (Some(Ok(row)), Some((key, _))) => row.key == *key,
                (None, Some(_)) => false,
            };
            if overlay_first {
                older.next();
            }
            if let Some((key, (revision, Some(value)))) = newer.next() {
                return Some(Ok(Row { key, value, revision }));
            }
        }
    });
    Ok((end, rows))
}

/// Writes the snapshot of commit `last` into `folder`, durably; answers rows and bytes.
pub(crate) fn write(
    folder: &Path,
    last: Revision,
    rows: impl Iterator<Item = Result<Row, OpenError>>,
) -> Result<(u64, u64), OpenError> {
    let mut file = NewFile::create(snapshot_path(folder, last), 0)?;
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = header(last).to_vec();
    let (mut n_rows, mut n_bytes) = (0u64, 0u64);
    for row in rows {
        let row = row?;
        buffer.extend_from_slice(&(row.key.len() as u16).to_le_bytes());
        buffer.extend_from_slice(&(row.value.len() as u32).to_le_bytes());
        buffer.extend_from_slice(&row.revision.to_le_bytes());
        buffer.extend_from_slice(&row.key);
        buffer.extend_from_slice(&row.value);
        n_rows += 1;
        if buffer.len() >= BUFFER {
            hasher.update(&buffer);
            file.write(&buffer)?;
            n_bytes += buffer.len() as u64;
            buffer.clear();
        }
    }
    buffer.extend_from_slice(&LAST.to_le_bytes());
    buffer.extend_from_slice(&n_rows.to_le_bytes());
    hasher.update(&buffer);
    buffer.extend_from_slice(&hasher.finalize().to_le_bytes());
    file.write(&buffer)?;
    n_bytes += buffer.len() as u64;
    file.rename()?;
    sync_folder(folder)?;
    Ok((n_rows, n_bytes))
}
