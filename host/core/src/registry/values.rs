//! Values over several rows: anything up to [`MAX_LARGE_BYTES`] under one key, written in one batch.
//!
//! A head row holds a tag and either the value itself or the length of a value that stands in part rows. All rows of
//! a value are written by the same batch, so they carry the same revision: a reader that meets a part of another
//! revision has raced a writer and reads again. A writer always expects the head that it has read, so no part is
//! left behind.

use super::keys::Place;
use super::{Registry, RegistryError};
use crate::store::{Batch, Expect, MAX_VALUE_BYTES, Revision, Row, StoreError};
use bytes::Bytes;

/// Largest value of several rows: 1 MiB and the kind byte of a state value; head and parts fit a batch, old and new.
pub const MAX_LARGE_BYTES: usize = (1 << 20) + 1;

/// Most bytes of all values of one commit, of each the larger of old and new: with 256 of them, their rows fit a batch.
pub const MAX_BATCH_BYTES: usize = 2 * MAX_LARGE_BYTES;

const INLINE: u8 = 0;
const PARTS: u8 = 1;
const INLINE_BYTES: usize = MAX_VALUE_BYTES - 1;
/// Attempts of a reader or unconditional writer that keeps losing races.
const ATTEMPTS: usize = 64;

/// A record and the revision that wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct Versioned<T> {
    pub value: T,
    pub revision: Revision,
}

impl<T> Versioned<T> {
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Versioned<U> {
        Versioned { value: f(self.value), revision: self.revision }
    }
}

impl Registry {
    pub(super) fn read_value(&self, place: &Place) -> Result<Option<Versioned<Bytes>>, RegistryError> {
        for _ in 0..ATTEMPTS {
            let Some(head) = self.store().get(&place.head)? else {
                return Ok(None);
            };
            let value = match Head::of(&head)? {
                Head::Inline => Some(head.value.slice(1..)),
                Head::Parts { len } => self.read_parts(place, &head, len)?,
            };
            if let Some(value) = value {
                return Ok(Some(Versioned { value, revision: head.revision }));
            }
        }
        Err(corrupt(&place.head).into())
    }

    /// `None` when a writer came between the head and its parts.
    fn read_parts(&self, place: &Place, head: &Row, len: usize) -> Result<Option<Bytes>, RegistryError> {
        let mut value = Vec::with_capacity(len);
        let mut after = None;
        while value.len() < len {
            let rows = self.store().scan(&place.parts, after.as_deref(), 300)?;
            let Some(last) = rows.last() else {
                return Ok(None);
            };
            after = Some(last.key.clone());
            for row in rows {
                if row.revision != head.revision || value.len() + row.value.len() > len {
                    return Ok(None);
                }
                value.extend_from_slice(&row.value);
            }
        }
        Ok(Some(value.into()))
    }

    /// Puts (`Some`) or deletes (`None`) a value when `want` holds of it. `extend` adds to the batch.
    ///
    /// # Errors
    /// [`RegistryError::RevisionMismatch`] when `want` does not hold; a conflict on a row of `extend` comes back as
    /// [`StoreError::Conflict`].
    pub(super) async fn write_value(
        &self,
        place: &Place,
        value: Option<&[u8]>,
        want: Option<Expect>,
        extend: impl Fn(Batch) -> Batch,
    ) -> Result<Revision, RegistryError> {
        self.write_values(&[Change { place, value, want }], extend).await
    }

    /// [`Registry::write_value`] for several places, each another: all of them in one commit or none.
    pub(super) async fn write_values(
        &self,
        changes: &[Change<'_>],
        extend: impl Fn(Batch) -> Batch,
    ) -> Result<Revision, RegistryError> {
        for _ in 0..ATTEMPTS {
            let mut batch = Batch::new();
            let mut bytes = 0;
            for Change { place, value, want } in changes {
                let head = self.store().get(&place.head)?;
                let found = head.as_ref().map(|h| h.revision);
                let holds = match want {
                    None => true,
                    Some(Expect::Absent) => found.is_none(),
                    Some(Expect::Present) => found.is_some(),
                    Some(Expect::Revision(r)) => found == Some(*r),
                };
                if !holds {
                    return Err(RegistryError::RevisionMismatch { found });
                }
                let old = head.as_ref().map_or(Ok(0), |row| Head::of(row).map(|head| head.bytes(row)))?;
                bytes += old.max(value.map_or(0, <[u8]>::len));
                if bytes > MAX_BATCH_BYTES {
                    return Err(RegistryError::TooLarge { what: "batch", size: bytes, limit: MAX_BATCH_BYTES });
                }
                batch = batch.and(place_value(place, head.as_ref(), *value)?);
            }
            match self.store().commit(extend(batch)).await {
                Ok(revision) => return Ok(revision),
                Err(StoreError::Conflict { key, .. }) if changes.iter().any(|c| c.place.head == key) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(RegistryError::Conflict("the record is being changed by too many at once".into()))
    }
}

/// What [`Registry::write_values`] does at one place.
pub(super) struct Change<'a> {
    pub place: &'a Place,
    /// `None` deletes.
    pub value: Option<&'a [u8]>,
    pub want: Option<Expect>,
}

enum Head {
    Inline,
    Parts { len: usize },
}

impl Head {
    fn of(row: &Row) -> Result<Self, StoreError> {
        match row.value.split_first() {
            Some((&INLINE, _)) => Ok(Self::Inline),
            Some((&PARTS, len)) => {
                let len: [u8; 4] = len.try_into().map_err(|_| corrupt(&row.key))?;
                let len = u32::from_be_bytes(len) as usize;
                if len <= MAX_LARGE_BYTES { Ok(Self::Parts { len }) } else { Err(corrupt(&row.key)) }
            }
            _ => Err(corrupt(&row.key)),
        }
    }

    /// Of the whole value.
    fn bytes(&self, row: &Row) -> usize {
        match self {
            Self::Inline => row.value.len() - 1,
            Self::Parts { len } => *len,
        }
    }

    fn part_count(&self) -> usize {
        match self {
            Self::Inline => 0,
            Self::Parts { len } => len.div_ceil(MAX_VALUE_BYTES),
        }
    }
}

/// The batch that replaces what `head` holds.
pub(super) fn place_value(place: &Place, head: Option<&Row>, value: Option<&[u8]>) -> Result<Batch, RegistryError> {
    let old_parts = match head {
        Some(row) => Head::of(row)?.part_count(),
        None => 0,
    };
    let expect = head.map_or(Expect::Absent, |h| Expect::Revision(h.revision));
    let mut batch = Batch::new().expect(place.head.clone(), expect);
    let mut new_parts = 0;
    match value {
        None => batch = batch.delete(place.head.clone()),
        Some(value) if value.len() <= INLINE_BYTES => {
            let row = [&[INLINE], value].concat();
            batch = batch.put(place.head.clone(), row);
        }
        Some(value) => {
            if value.len() > MAX_LARGE_BYTES {
                return Err(RegistryError::TooLarge { what: "value", size: value.len(), limit: MAX_LARGE_BYTES });
            }
            let len = (value.len() as u32).to_be_bytes();
            batch = batch.put(place.head.clone(), [&[PARTS], &len[..]].concat());
            for (i, part) in value.chunks(MAX_VALUE_BYTES).enumerate() {
                batch = batch.put(part_key(place, i), part.to_vec());
            }
            new_parts = value.len().div_ceil(MAX_VALUE_BYTES);
        }
    }
    for i in new_parts..old_parts {
        batch = batch.delete(part_key(place, i));
    }
    Ok(batch)
}

fn part_key(place: &Place, index: usize) -> Vec<u8> {
    // At most 257 parts, so the index fits two bytes.
    [&place.parts[..], &(index as u16).to_be_bytes()].concat()
}

fn corrupt(key: &[u8]) -> StoreError {
    StoreError::Corrupt { what: String::from_utf8_lossy(key).into_owned() }
}
