//! The bytes of files, a piece at a time: what a job copies, and what several files are together.
//!
//! Invariant: memory is bounded by one piece, however large the files are.

use super::{Dataset, Registry, RegistryError, no_file};
use crate::id::TenantId;
use crate::registry::FileRecord;
use crate::store::StoreError;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use std::collections::VecDeque;

/// Bytes read at once.
const PIECE: usize = 1 << 20;
/// What a parquet file begins with.
const PARQUET: &[u8] = b"PAR1";
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How a file holds its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileForm {
    /// A JSON object a line.
    Lines,
    /// Plain text: documents.
    Plain,
    Parquet,
}

impl FileForm {
    /// What names of such files end with.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Lines => "jsonl",
            Self::Plain => "txt",
            Self::Parquet => "parquet",
        }
    }

    /// What stands between two files that are one data set.
    fn separator(self) -> &'static [u8] {
        match self {
            // Paragraphs of two files are two.
            Self::Plain => b"\n\n",
            _ => b"\n",
        }
    }
}

/// Files, one after the other.
pub struct FilePieces<'a> {
    registry: &'a Registry,
    left: VecDeque<(String, FileRecord)>,
    form: FileForm,
    /// Several files: each begins on a line of its own, without a mark of its own.
    joined: bool,
    /// Bytes that were read of the first one, and the digest of them.
    offset: u64,
    digest: Sha256,
    ends_line: bool,
}

impl Registry {
    /// By its first bytes, else by its name's ending.
    pub async fn file_form(&self, id: &str, record: &FileRecord) -> Result<FileForm, RegistryError> {
        let begin = self.file_piece(id, record, 0, PARQUET.len()).await?;
        let ending = record.filename.rsplit_once('.').map_or(String::new(), |(_, e)| e.to_ascii_lowercase());
        Ok(match &*ending {
            _ if begin == PARQUET => FileForm::Parquet,
            "parquet" => FileForm::Parquet,
            "txt" | "text" | "md" => FileForm::Plain,
            _ => FileForm::Lines,
        })
    }

    /// The bytes of a data set: those of its files in order.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] for a file that is gone.
    pub async fn dataset_pieces(&self, tenant: &TenantId, dataset: &Dataset) -> Result<FilePieces<'_>, RegistryError> {
        let record = |id: &String| Ok((id.clone(), self.file(tenant, id)?.ok_or_else(|| no_file(id))?));
        self.pieces(dataset.files.iter().map(record).collect::<Result<_, RegistryError>>()?).await
    }

    /// The bytes of one file, as they are.
    pub async fn file_pieces(&self, id: &str, record: FileRecord) -> Result<FilePieces<'_>, RegistryError> {
        self.pieces(VecDeque::from([(id.to_owned(), record)])).await
    }

    async fn pieces(&self, left: VecDeque<(String, FileRecord)>) -> Result<FilePieces<'_>, RegistryError> {
        let form = match left.front() {
            Some((id, record)) => self.file_form(id, record).await?,
            None => FileForm::Lines,
        };
        let joined = left.len() > 1;
        Ok(FilePieces { registry: self, left, form, joined, offset: 0, digest: Sha256::new(), ends_line: true })
    }
}

impl FilePieces<'_> {
    /// Of all of them: files of several forms are no data set.
    pub fn form(&self) -> FileForm {
        self.form
    }

    /// `None` behind the last.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where a file is not what was stored.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            let Some((id, record)) = self.left.front() else { return Ok(None) };
            let mut piece = self.registry.file_piece(id, record, self.offset, PIECE).await?;
            if self.offset == 0 {
                self.digest.update(id);
            }
            self.digest.update(&piece);
            if piece.is_empty() {
                if !record.is_of(&std::mem::take(&mut self.digest).finalize()) {
                    return Err(StoreError::Corrupt { what: format!("file {id}") }.into());
                }
                self.left.pop_front();
                self.offset = 0;
                if self.joined && (!self.ends_line || self.form == FileForm::Plain) {
                    self.ends_line = true;
                    return Ok(Some(Bytes::from_static(self.form.separator())));
                }
                continue;
            }
            if self.joined && self.offset == 0 && piece.starts_with(BYTE_ORDER_MARK) {
                self.offset += BYTE_ORDER_MARK.len() as u64;
                piece = piece.slice(BYTE_ORDER_MARK.len()..);
            }
            self.offset += piece.len() as u64;
            if let Some(last) = piece.last() {
                self.ends_line = *last == b'\n';
                return Ok(Some(piece));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{FileLabel, MemoryStore, new_document_id};
    use std::sync::Arc;

    /// What files of these names and bytes are together.
    async fn read(files: &[(&str, &[u8])]) -> Vec<u8> {
        let store = Arc::new(MemoryStore::new());
        let registry = Registry::new(store.clone(), store);
        registry.ensure_default_tenant().await.unwrap();
        let mut left = VecDeque::new();
        for (n, (name, bytes)) in (0..).zip(files) {
            let id = new_document_id("file", n);
            let label = FileLabel { filename: (*name).into(), ..FileLabel::default() };
            let record = registry.put_file(&TenantId::default_tenant(), &id, label, bytes).await.unwrap();
            left.push_back((id, record));
        }
        let (mut pieces, mut whole) = (registry.pieces(left).await.unwrap(), Vec::new());
        while let Some(piece) = pieces.next().await.unwrap() {
            assert!(!piece.is_empty() && piece.len() <= PIECE);
            whole.extend_from_slice(&piece);
        }
        whole
    }

    #[tokio::test]
    async fn files_are_joined_on_lines_of_their_own_and_one_alone_is_left_as_it_is() {
        let long = [&b"\xef\xbb\xbf"[..], &b"x".repeat(2 * PIECE + 7)].concat();
        assert!(read(&[("a.jsonl", &long)]).await == long);
        for (files, whole) in [
            (&[("a.jsonl", &b"{}"[..]), ("b.jsonl", b""), ("c.jsonl", b"{}\n")][..], &b"{}\n{}\n"[..]),
            (&[("a.jsonl", b"\xef\xbb\xbf{}\n"), ("b.jsonl", b"\xef\xbb\xbf{}")], b"{}\n{}\n"),
            (&[("a.txt", b"one"), ("b.txt", b"two\n")], b"one\n\ntwo\n\n\n"),
        ] {
            assert_eq!(read(files).await, whole, "{files:?}");
        }
    }

    #[tokio::test]
    async fn a_form_is_told_by_the_first_bytes_then_by_the_ending() {
        let store = Arc::new(MemoryStore::new());
        let registry = Registry::new(store.clone(), store);
        registry.ensure_default_tenant().await.unwrap();
        for (n, (name, bytes, form)) in (0..).zip([
            ("a", &b"{}"[..], FileForm::Lines),
            ("a.jsonl", b"PAR1..", FileForm::Parquet),
            ("a.PARQUET", b"x", FileForm::Parquet),
            ("a.md", b"# a", FileForm::Plain),
            ("a.TXT", b"{}", FileForm::Plain),
        ]) {
            let id = new_document_id("file", n);
            let label = FileLabel { filename: name.into(), ..FileLabel::default() };
            let record = registry.put_file(&TenantId::default_tenant(), &id, label, bytes).await.unwrap();
            assert_eq!(registry.file_form(&id, &record).await.unwrap(), form, "{name}");
        }
    }
}
