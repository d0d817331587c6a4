//! How indexes stand in the store.
//!
//! ```text
//! t/TENANT/vector-index/NAME          IndexSettings as JSON
//! t/TENANT/vector/NAME/ID\0PART       an entry: length of the attributes, attributes as JSON, D times f32, cut into parts
//! ```
//!
//! Under the tenant's prefix, so that they go with the tenant. Numbers are little-endian, PART is a byte.
//!
//! Invariant: the parts of an entry are written by one batch, so all of it or nothing is there.

use bytes::Bytes;
use stockade_core::TenantId;
use stockade_core::registry::tenant_rows;
use stockade_core::store::{MAX_VALUE_BYTES, Store, StoreError};
use stockade_core::vectors::{Entry, IndexSettings};

/// Rows that one scan takes.
const PAGE: usize = 500;

/// The key of an index's settings.
pub(crate) fn settings_key(tenant: &TenantId, name: &str) -> Vec<u8> {
    [&settings_prefix(tenant)[..], name.as_bytes()].concat()
}

/// What the keys of all of a tenant's settings begin with.
pub(crate) fn settings_prefix(tenant: &TenantId) -> Vec<u8> {
    [&tenant_rows(tenant)[..], b"vector-index/"].concat()
}

/// What the keys of all entries of an index begin with.
pub(crate) fn entries_prefix(tenant: &TenantId, name: &str) -> Vec<u8> {
    [&tenant_rows(tenant)[..], b"vector/", name.as_bytes(), b"/"].concat()
}

/// Rows of an entry whose attributes take so many bytes.
pub(crate) fn parts(index: IndexSettings, attributes_bytes: usize) -> usize {
    (4 + attributes_bytes + 4 * index.dimensions as usize).div_ceil(MAX_VALUE_BYTES)
}

pub(crate) fn part_key(prefix: &[u8], id: &str, part: usize) -> Vec<u8> {
    [prefix, id.as_bytes(), &[0, part as u8]].concat()
}

/// An entry's bytes; `attributes` as JSON text.
pub(crate) fn encode(vector: &[f32], attributes: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + attributes.len() + 4 * vector.len());
    bytes.extend_from_slice(&(attributes.len() as u32).to_le_bytes());
    bytes.extend_from_slice(attributes.as_bytes());
    vector.iter().for_each(|x| bytes.extend_from_slice(&x.to_le_bytes()));
    bytes
}

/// An entry and the length of its attributes' text; `None` when the bytes are none.
fn decode(index: IndexSettings, id: &str, bytes: &[u8]) -> Option<(Entry, usize)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (attributes, vector) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    if vector.len() != 4 * index.dimensions as usize {
        return None;
    }
    let (numbers, _) = vector.as_chunks::<4>();
    let vector = numbers.iter().map(|x| f32::from_le_bytes(*x)).collect();
    Some((Entry { id: id.into(), vector, attributes: serde_json::from_slice(attributes).ok()? }, attributes.len()))
}

/// Reads all entries of an index, handing them on in pages.
pub(crate) fn read(
    store: &dyn Store,
    prefix: &[u8],
    index: IndexSettings,
    mut take: impl FnMut(Vec<(Entry, usize)>),
) -> Result<(), StoreError> {
    let damaged = || StoreError::Corrupt { what: String::from_utf8_lossy(prefix).into_owned() };
    let mut after: Option<Bytes> = None;
    let mut current: Option<(String, Vec<u8>)> = None;
    loop {
        let page = store.scan(prefix, after.as_deref(), PAGE)?;
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        let mut whole = Vec::new();
        for row in &page {
            let (id, part) = row.key[prefix.len()..].split_last_chunk::<2>().ok_or_else(damaged)?;
            if part[1] == 0 {
                let id = std::str::from_utf8(id).map_err(|_| damaged())?.to_string();
                whole.extend(current.replace((id, row.value.to_vec())));
            } else if let Some((current, bytes)) = &mut current
                && current.as_bytes() == id
            {
                bytes.extend_from_slice(&row.value);
            } else {
                return Err(damaged());
            }
        }
        let entries = whole.iter().map(|(id, bytes)| decode(index, id, bytes).ok_or_else(damaged));
        take(entries.collect::<Result<_, _>>()?);
    }
    if let Some((id, bytes)) = current {
        take(vec![decode(index, &id, &bytes).ok_or_else(damaged)?]);
    }
    Ok(())
}
