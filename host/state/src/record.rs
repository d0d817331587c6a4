//! The bytes of one journal record, and the only place that knows them.
//!
//! A record is what one fsync makes durable: the group of batches that were queued together, under one CRC. A power
//! cut may persist the pages of an unsynced write in any order, so a finer record would leave valid records behind
//! an invalid one and make an innocent torn write look like damage.
//!
//! ```text
//! record  = length of payload u32 | crc u32 | sequence of the first batch u64 | payload
//! payload = batches u32 | batch ...
//! batch   = writes u32 | write ...
//! write   = key length u16 | value length u32, or DELETED | key | value
//! ```
//!
//! Little endian. The CRC-32 starts from the segment's random salt and covers all but itself; bytes that a guest
//! stores as a value therefore never pass for a record. Batches of a record have consecutive sequence numbers.

use bytes::{Buf, Bytes};
use stockade_core::store::{MAX_BATCH_OPS, MAX_KEY_BYTES, MAX_VALUE_BYTES, Revision};

/// Bytes before the payload.
pub(crate) const RECORD_HEADER: usize = 16;
/// A group takes no further batch once its payload has reached this size.
pub(crate) const GROUP_BYTES: usize = 1 << 20;
/// Largest payload: a group just below [`GROUP_BYTES`] and one more batch of the largest size.
pub(crate) const MAX_PAYLOAD: usize = GROUP_BYTES + 4 + MAX_BATCH_OPS * (6 + MAX_KEY_BYTES + MAX_VALUE_BYTES);

const DELETED: u32 = u32::MAX;

/// Puts (`Some`) and deletes (`None`) in the order given.
pub(crate) type Writes = Vec<(Bytes, Option<Bytes>)>;

/// One batch as it is in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Commit {
    pub revision: Revision,
    pub writes: Writes,
}

/// Builds a record.
#[derive(Debug)]
pub(crate) struct Frame {
    bytes: Vec<u8>,
    batches: u32,
}

impl Frame {
    pub fn new(first: Revision) -> Self {
        let mut bytes = vec![0; RECORD_HEADER + 4];
        bytes[8..16].copy_from_slice(&first.to_le_bytes());
        Self { bytes, batches: 0 }
    }

    /// Adds a batch whose sizes have been checked against the limits of the seam.
    pub fn push(&mut self, writes: &Writes) {
        self.batches += 1;
        self.bytes.extend_from_slice(&(writes.len() as u32).to_le_bytes());
        for (key, value) in writes {
            let length = value.as_ref().map_or(DELETED, |v| v.len() as u32);
            self.bytes.extend_from_slice(&(key.len() as u16).to_le_bytes());
            self.bytes.extend_from_slice(&length.to_le_bytes());
            self.bytes.extend_from_slice(key);
            self.bytes.extend_from_slice(value.as_deref().unwrap_or(&[]));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.batches == 0
    }

    /// Whether the group should take another batch.
    pub fn has_room(&self) -> bool {
        self.bytes.len() - RECORD_HEADER < GROUP_BYTES
    }

    /// The record's bytes and its CRC.
    pub fn finish(mut self, salt: u32) -> (Vec<u8>, u32) {
        let length = (self.bytes.len() - RECORD_HEADER) as u32;
        self.bytes[RECORD_HEADER..RECORD_HEADER + 4].copy_from_slice(&self.batches.to_le_bytes());
        self.bytes[..4].copy_from_slice(&length.to_le_bytes());
        let crc = checksum(salt, &self.bytes);
        self.bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        (self.bytes, crc)
    }
}

/// The CRC of a whole record, skipping the field that holds it.
pub(crate) fn checksum(salt: u32, record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(&record[..4]);
    hasher.update(&record[8..]);
    hasher.finalize()
}

/// The fields in front of a payload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub payload: usize,
    pub crc: u32,
    pub first: Revision,
}

impl Header {
    /// `None` when the length is none that [`Frame`] writes.
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        if bytes.len() < RECORD_HEADER {
            return None;
        }
        let payload = bytes.get_u32_le() as usize;
        let header = Self { payload, crc: bytes.get_u32_le(), first: bytes.get_u64_le() };
        (4..=MAX_PAYLOAD).contains(&payload).then_some(header)
    }
}

/// Reads a payload whose CRC has been checked. `None` says that the writer was not this code.
pub(crate) fn decode(mut payload: Bytes, first: Revision) -> Option<Vec<Commit>> {
    let batches = payload.try_get_u32_le().ok()?;
    let mut commits = Vec::new();
    for i in 0..batches {
        let n_writes = payload.try_get_u32_le().ok()? as usize;
        if n_writes > MAX_BATCH_OPS {
            return None;
        }
        let mut writes = Vec::with_capacity(n_writes);
        for _ in 0..n_writes {
            let key = payload.try_get_u16_le().ok()? as usize;
            let value = payload.try_get_u32_le().ok()?;
            let key = take(&mut payload, key, MAX_KEY_BYTES)?;
            let value = match value {
                DELETED => None,
                n => Some(take(&mut payload, n as usize, MAX_VALUE_BYTES)?),
            };
            writes.push((key, value));
        }
        commits.push(Commit { revision: first.checked_add(u64::from(i))?, writes });
    }
    (payload.is_empty() && !commits.is_empty()).then_some(commits)
}

fn take(from: &mut Bytes, n: usize, limit: usize) -> Option<Bytes> {
    (n <= limit && n <= from.len()).then(|| from.split_to(n))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decoding_gives_back_what_was_encoded(
            first in 1u64..1 << 60,
            batches in prop::collection::vec(
                prop::collection::vec(
                    (
                        prop::collection::vec(any::<u8>(), 0..40),
                        prop::option::of(prop::collection::vec(any::<u8>(), 0..200)),
                    ),
                    0..6,
                ),
                1..5,
            ),
        ) {
            let mut frame = Frame::new(first);
            let mut want = Vec::new();
            for (i, batch) in batches.into_iter().enumerate() {
                let writes: Writes =
                    batch.into_iter().map(|(k, v)| (k.into(), v.map(Bytes::from))).collect();
                frame.push(&writes);
                want.push(Commit { revision: first + i as u64, writes });
            }
            let (bytes, crc) = frame.finish(7);
            let header = Header::decode(&bytes).unwrap();
            prop_assert_eq!(header.first, first);
            prop_assert_eq!(header.payload + RECORD_HEADER, bytes.len());
            prop_assert_eq!((header.crc, crc), (checksum(7, &bytes), checksum(7, &bytes)));
            prop_assert_ne!(crc, checksum(8, &bytes));
            let payload = Bytes::from(bytes).slice(RECORD_HEADER..);
            prop_assert_eq!(decode(payload, first), Some(want));
        }

        #[test]
        fn foreign_payloads_are_refused_or_read_but_never_panic(
            payload in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let _ = decode(payload.clone().into(), u64::MAX - 1);
            let mut small = vec![1, 0, 0, 0, 1, 0, 0, 0];
            small.extend(payload);
            let _ = decode(small.into(), 1);
        }
    }

    #[test]
    fn the_largest_group_fits_a_record() {
        let mut frame = Frame::new(1);
        let small: Writes = vec![(vec![1; 500].into(), Some(vec![1; 500].into()))];
        while frame.has_room() {
            frame.push(&small);
        }
        // One batch less has room, so the largest batch may still be added.
        let largest: Writes = (0..MAX_BATCH_OPS)
            .map(|_| (Bytes::from(vec![2; MAX_KEY_BYTES]), Some(Bytes::from(vec![3; MAX_VALUE_BYTES]))))
            .collect();
        let mut last = Frame::new(1);
        while last.bytes.len() + 1010 - RECORD_HEADER < GROUP_BYTES {
            last.push(&small);
        }
        assert!(last.has_room());
        last.push(&largest);
        let (bytes, _) = last.finish(0);
        let header = Header::decode(&bytes).expect("within the limit");
        assert!(decode(Bytes::from(bytes).slice(RECORD_HEADER..), header.first).is_some());
    }
}
