//! Rows of data sets: kept as files of JSON lines, and read a page at a time.
//!
//! Invariant: memory is bounded by the page and one row, however large the data set is.

use super::pieces::BYTE_ORDER_MARK;
use super::{Dataset, FileForm, Registry, RegistryError, no_file};
use crate::id::{DatasetName, TenantId};
use crate::registry::{FileLabel, FileRecord, new_document_id};
use bytes::{Bytes, BytesMut};
use serde_json::{Map, Value};

/// Longest row in bytes; the trainer's own bound.
pub const MAX_ROW_BYTES: usize = 8 << 20;
/// Bytes read at once.
const WINDOW: usize = 256 << 10;

/// Some rows of a data set, in its order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RowPage {
    pub rows: Vec<Map<String, Value>>,
    /// Where the next page begins: the bytes of the data set before it. `None` at the end.
    pub next: Option<u64>,
}

impl Registry {
    /// Keeps rows as a file of JSON lines and answers with its id. `field` names the rows in errors; `random`: bits of the
    /// caller's for the id.
    ///
    /// # Errors
    /// [`RegistryError::Invalid`] for what is no object, and where there is no row at all.
    pub async fn put_rows(
        &self,
        tenant: &TenantId,
        rows: &[Value],
        field: &str,
        random: u32,
    ) -> Result<String, RegistryError> {
        let lines = lines(rows, field)?;
        let id = new_document_id("file", random);
        let label = FileLabel {
            filename: "rows.jsonl".into(),
            purpose: "fine-tune".into(),
            media_type: "application/jsonl".into(),
            expires_at: None,
        };
        self.put_file(tenant, &id, label, lines.as_bytes()).await?;
        Ok(id)
    }

    /// Rows of a data set from `from` on, which is 0 or what an earlier page gave: at most `limit`, and at most `max_bytes`
    /// of text together where one row is not more.
    ///
    /// # Errors
    /// [`RegistryError::NotServed`] for files that are not JSON lines, [`RegistryError::Invalid`] for a line that is no
    /// object, [`RegistryError::TooLarge`] for one beyond [`MAX_ROW_BYTES`].
    pub async fn dataset_rows(
        &self,
        tenant: &TenantId,
        dataset: &Dataset,
        from: u64,
        limit: usize,
        max_bytes: usize,
    ) -> Result<RowPage, RegistryError> {
        let mut page = RowPage::default();
        let (mut start, mut bytes) = (0, 0);
        for id in &dataset.files {
            let record = self.file(tenant, id)?.ok_or_else(|| no_file(id))?;
            let end = start + record.bytes;
            if from < end {
                let mut lines = Lines::open(self, id, record, from.saturating_sub(start)).await?;
                loop {
                    let at = lines.position;
                    let Some(line) = lines.next().await? else { break };
                    let Some(row) = row(&line, dataset, start + at)? else { continue };
                    bytes += line.len();
                    let full = page.rows.len() == limit || (bytes > max_bytes && !page.rows.is_empty());
                    if full {
                        page.next = Some(start + at);
                        return Ok(page);
                    }
                    page.rows.push(row);
                }
            }
            start = end;
        }
        Ok(page)
    }
}

impl Registry {
    /// Rows of the data set or file of this name, at most `most`. `None` where they are not JSON lines or there is none.
    pub async fn count_rows(&self, tenant: &TenantId, name: &str, most: u64) -> Result<Option<u64>, RegistryError> {
        let set = DatasetName::new(name).ok().map(|name| self.dataset(tenant, &name)).transpose()?.flatten();
        let files = set.map_or_else(|| vec![name.to_owned()], |set| set.files);
        let mut rows = 0;
        for id in &files {
            let Some(record) = self.file(tenant, id)? else { return Ok(None) };
            let mut lines = match Lines::open(self, id, record, 0).await {
                Err(RegistryError::NotServed(_)) => return Ok(None),
                opened => opened?,
            };
            while let Some(line) = lines.next().await? {
                rows += u64::from(!line.iter().all(u8::is_ascii_whitespace));
                if rows == most {
                    return Ok(Some(rows));
                }
            }
        }
        Ok(Some(rows))
    }
}

fn lines(rows: &[Value], field: &str) -> Result<String, RegistryError> {
    if rows.is_empty() {
        return Err(RegistryError::invalid(field, "holds no row"));
    }
    let mut lines = String::new();
    for (i, row) in rows.iter().enumerate() {
        if !row.is_object() {
            return Err(RegistryError::invalid(format!("{field}[{i}]"), "must be an object"));
        }
        lines += &row.to_string();
        lines.push('\n');
    }
    Ok(lines)
}

/// The object in a line; `None` for an empty one.
fn row(line: &[u8], dataset: &Dataset, at: u64) -> Result<Option<Map<String, Value>>, RegistryError> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let broken = |_| RegistryError::invalid(dataset.name.as_str(), format!("the line at byte {at} is no JSON object"));
    serde_json::from_slice(line).map(Some).map_err(broken)
}

/// A file, a line at a time.
struct Lines<'a> {
    registry: &'a Registry,
    id: &'a str,
    record: FileRecord,
    /// Of the next line, in bytes of the file.
    position: u64,
    /// What was read from there on.
    ahead: BytesMut,
}

impl<'a> Lines<'a> {
    async fn open(
        registry: &'a Registry,
        id: &'a str,
        record: FileRecord,
        position: u64,
    ) -> Result<Self, RegistryError> {
        match registry.file_form(id, &record).await? {
            FileForm::Lines => {}
            FileForm::Parquet => return Err(RegistryError::NotServed("a parquet file, row by row,")),
            FileForm::Plain => return Err(RegistryError::NotServed("plain text, row by row,")),
        }
        let begin = registry.file_piece(id, &record, 0, BYTE_ORDER_MARK.len()).await?;
        let position = if position == 0 && begin == BYTE_ORDER_MARK { 3 } else { position };
        Ok(Self { registry, id, record, position, ahead: BytesMut::new() })
    }

    /// The next line without its line feed; `None` behind the last.
    async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let mut searched = 0;
        loop {
            if let Some(length) = self.ahead[searched..].iter().position(|byte| *byte == b'\n') {
                let mut line = self.ahead.split_to(searched + length + 1);
                self.position += line.len() as u64;
                line.truncate(searched + length);
                return Ok(Some(line.freeze()));
            }
            searched = self.ahead.len();
            if searched > MAX_ROW_BYTES {
                return Err(RegistryError::TooLarge { what: "row", size: searched, limit: MAX_ROW_BYTES });
            }
            let read = self.position + searched as u64;
            let more = self.registry.file_piece(self.id, &self.record, read, WINDOW).await?;
            if more.is_empty() {
                self.position += searched as u64;
                return Ok((searched > 0).then(|| self.ahead.split().freeze()));
            }
            self.ahead.extend_from_slice(&more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ComponentName, DatasetName};
    use crate::registry::{DatasetPurpose, MemoryStore};
    use serde_json::json;
    use std::sync::Arc;

    async fn with_files(files: &[(&str, &[u8])]) -> (Registry, TenantId, Dataset) {
        let store = Arc::new(MemoryStore::new());
        let registry = Registry::new(store.clone(), store);
        registry.ensure_default_tenant().await.unwrap();
        let tenant = TenantId::default_tenant();
        let mut ids = Vec::new();
        for (n, (name, bytes)) in (0..).zip(files) {
            let id = new_document_id("file", n);
            let label = FileLabel { filename: (*name).into(), ..FileLabel::default() };
            registry.put_file(&tenant, &id, label, bytes).await.unwrap();
            ids.push(id);
        }
        let dataset = Dataset {
            name: DatasetName::new("set").unwrap(),
            purpose: DatasetPurpose::PostTraining,
            licence: "CC0-1.0".into(),
            provenance: "written for this test".into(),
            format: None,
            files: ids,
            owns_files: true,
            component: Some(ComponentName::new("maker").unwrap()),
            bytes: 0,
            metadata: Map::new(),
            created_at: 1,
        };
        let dataset = registry.create_dataset(&tenant, dataset).await.unwrap();
        (registry, tenant, dataset)
    }

    /// All rows, by pages of these bounds.
    async fn read(files: &[(&str, &[u8])], limit: usize, max_bytes: usize) -> Vec<Value> {
        let (registry, tenant, dataset) = with_files(files).await;
        let (mut rows, mut from) = (Vec::new(), Some(0));
        while let Some(at) = from {
            let page = registry.dataset_rows(&tenant, &dataset, at, limit, max_bytes).await.unwrap();
            assert!(page.rows.len() <= limit && (page.next.is_none() || !page.rows.is_empty()));
            rows.extend(page.rows.into_iter().map(Value::Object));
            from = page.next;
        }
        rows
    }

    #[tokio::test]
    async fn pages_of_any_size_are_the_rows_in_order() {
        // Longer than a window, so that one line lies in two; without a line feed at the end; with marks and empty lines.
        let long = "x".repeat(WINDOW - 20);
        let first = format!("\u{feff}{{\"n\":0,\"t\":\"{long}\"}}\r\n\n{{\"n\":1,\"t\":\"{long}\"}}\n  \n{{\"n\":2}}");
        let files = [("a.jsonl", first.as_bytes()), ("b", b"{\"n\":3}\n{\"n\":4}\n"), ("c.jsonl", b"")];
        for (limit, max_bytes) in [(1, 1 << 20), (2, 1 << 20), (3, 10), (1000, 1), (1000, 1 << 20)] {
            let rows = read(&files, limit, max_bytes).await;
            let numbers: Vec<_> = rows.iter().filter_map(|r| r["n"].as_u64()).collect();
            assert_eq!(numbers, [0, 1, 2, 3, 4], "{limit} rows, {max_bytes} bytes");
        }
        let (registry, tenant, dataset) = with_files(&files).await;
        for (name, most, count) in
            [("set", 9, Some(5)), ("set", 4, Some(4)), (&*dataset.files[0], 9, Some(3)), ("none", 9, None)]
        {
            assert_eq!(registry.count_rows(&tenant, name, most).await.unwrap(), count, "{name}");
        }
    }

    #[tokio::test]
    async fn what_is_no_row_is_refused_by_its_place_and_what_is_no_lines_by_its_kind() {
        let (registry, tenant, dataset) = with_files(&[("a.jsonl", b"{}\n[1]\n")]).await;
        let refused = registry.dataset_rows(&tenant, &dataset, 0, 10, 100).await.unwrap_err();
        assert_eq!(refused.to_string(), "set: the line at byte 3 is no JSON object");
        for (name, bytes) in [("a.jsonl", &b"PAR1...."[..]), ("a.parquet", b"x"), ("a.TXT", b"{}")] {
            let (registry, tenant, dataset) = with_files(&[(name, bytes)]).await;
            let refused = registry.dataset_rows(&tenant, &dataset, 0, 10, 100).await.unwrap_err();
            assert!(matches!(refused, RegistryError::NotServed(_)), "{name}: {refused}");
        }
        let endless = vec![b' '; MAX_ROW_BYTES + 2 * WINDOW];
        let (registry, tenant, dataset) = with_files(&[("a.jsonl", &endless)]).await;
        let refused = registry.dataset_rows(&tenant, &dataset, 0, 10, 100).await.unwrap_err();
        assert!(matches!(refused, RegistryError::TooLarge { what: "row", .. }), "{refused}");
        let beyond = registry.dataset_rows(&tenant, &dataset, u64::MAX, 10, 100).await.unwrap();
        assert_eq!(beyond, RowPage::default());
    }

    #[tokio::test]
    async fn a_component_adds_to_what_it_has_made_and_a_delete_takes_all_of_it() {
        let (registry, tenant, dataset) = with_files(&[("a.jsonl", b"{\"n\":0}\n")]).await;
        let (maker, other) = (ComponentName::new("maker").unwrap(), ComponentName::new("other").unwrap());
        let more = registry.put_rows(&tenant, &[json!({"n": 1})], "rows", 7).await.unwrap();
        let refused = registry.extend_dataset(&tenant, &dataset.name, &other, &more).await.unwrap_err();
        assert!(matches!(refused, RegistryError::NotFound { .. }));
        let longer = registry.extend_dataset(&tenant, &dataset.name, &maker, &more).await.unwrap();
        assert_eq!(longer.bytes, 16);
        let page = registry.dataset_rows(&tenant, &longer, 8, 10, 100).await.unwrap();
        assert_eq!((page.rows[0]["n"].as_u64(), page.next), (Some(1), None));
        assert!(registry.delete_dataset(&tenant, &dataset.name).await.unwrap());
        assert_eq!(registry.file(&tenant, &more).unwrap(), None);
        for bad in [&[][..], &[json!({}), json!(1)]] {
            let refused = registry.put_rows(&tenant, bad, "rows", 8).await.unwrap_err();
            assert!(matches!(refused, RegistryError::Invalid { .. }), "{refused}");
        }
    }
}
