//! Data sets: named, with what they are for, whose they are to use, and where they come from; their rows are files.

mod pieces;
mod rows;

pub use pieces::{FileForm, FilePieces};
pub use rows::{MAX_ROW_BYTES, RowPage};

use super::{Registry, RegistryError, Versioned, files, keys, parse, to_bytes};
use crate::id::{ComponentName, DatasetName, TenantId};
use crate::store::Expect;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Most data sets of a tenant.
const MAX_DATASETS: usize = 1_000;
/// Most files of a data set.
const MAX_FILES: usize = 256;
/// Longest licence and provenance in bytes.
const MAX_TEXT_BYTES: usize = 4_096;
/// Formats as job files name them.
const FORMATS: [&str; 9] =
    ["chat", "completion", "preference", "unpaired", "text", "classify", "embed", "prompts", "tokens"];
/// Most bytes of a data set's files together.
pub const MAX_DATASET_BYTES: u64 = 2 << 30;
/// Attempts of a writer that keeps losing races.
const ATTEMPTS: usize = 64;

/// What a data set is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatasetPurpose {
    Pretraining,
    Preference,
    PostTraining,
    Evaluation,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dataset {
    pub name: DatasetName,
    pub purpose: DatasetPurpose,
    /// Under which its rows may be used, for example `CC-BY-4.0`.
    pub licence: String,
    /// Where the rows come from and what was done to them.
    pub provenance: String,
    /// As a job file names it, for example `chat`, and for jobs that name none; absent: told from the first row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Files by id, in order: one after the other they are the data set.
    pub files: Vec<String>,
    /// The data set's rows were given with it: its files go with it.
    #[serde(default)]
    pub owns_files: bool,
    /// The component that has made it, and alone may change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<ComponentName>,
    pub bytes: u64,
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// Seconds since 1970.
    pub created_at: u64,
}

impl Registry {
    pub fn dataset(&self, tenant: &TenantId, name: &DatasetName) -> Result<Option<Dataset>, RegistryError> {
        Ok(self.dataset_row(tenant, name)?.map(|row| row.value))
    }

    fn dataset_row(&self, tenant: &TenantId, name: &DatasetName) -> Result<Option<Versioned<Dataset>>, RegistryError> {
        let Some(row) = self.read_value(&keys::dataset(tenant, name.as_str()))? else { return Ok(None) };
        Ok(Some(Versioned { value: parse("data set", &row.value)?, revision: row.revision }))
    }

    /// By name, at most `limit`, after the one named `after`.
    pub fn datasets(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Dataset>, RegistryError> {
        let prefix = keys::datasets(tenant);
        let after = after.map(|a| [&prefix[..], a.as_bytes()].concat());
        let mut found = Vec::new();
        for row in self.store().scan(&prefix, after.as_deref(), limit)? {
            let name = String::from_utf8_lossy(&row.key[prefix.len()..]).into_owned();
            if let Ok(name) = DatasetName::new(&name) {
                found.extend(self.dataset(tenant, &name)?);
            }
        }
        Ok(found)
    }

    /// Makes a data set of files that the tenant holds; `bytes` is counted here.
    ///
    /// # Errors
    /// [`RegistryError::Exists`] when there is one of its name, [`RegistryError::NotFound`] for a file that is not the
    /// tenant's, [`RegistryError::Invalid`] and [`RegistryError::TooLarge`] beyond the bounds.
    pub async fn create_dataset(&self, tenant: &TenantId, mut dataset: Dataset) -> Result<Dataset, RegistryError> {
        for (field, text) in [("licence", &dataset.licence), ("provenance", &dataset.provenance)] {
            if text.len() > MAX_TEXT_BYTES {
                return Err(RegistryError::invalid(field, format!("at most {MAX_TEXT_BYTES} bytes")));
            }
        }
        if dataset.format.as_ref().is_some_and(|format| !FORMATS.contains(&&**format)) {
            return Err(RegistryError::invalid("format", format!("must be one of {}", FORMATS.join(", "))));
        }
        if files::is_id(dataset.name.as_str()) {
            // A job that names it could come to mean the file once the data set is gone.
            return Err(RegistryError::invalid("name", "is spelled like a file's id"));
        }
        self.measure(tenant, &mut dataset)?;
        self.joinable(tenant, &dataset).await?;
        let held = self.store().scan(&keys::datasets(tenant), None, MAX_DATASETS)?.len();
        if held >= MAX_DATASETS {
            return Err(RegistryError::TooLarge { what: "collection", size: held + 1, limit: MAX_DATASETS });
        }
        let place = keys::dataset(tenant, dataset.name.as_str());
        let key = keys::tenant(tenant);
        let extend = |b: crate::store::Batch| b.expect(key.clone(), Expect::Present);
        match self.write_value(&place, Some(&to_bytes(&dataset)?), Some(Expect::Absent), extend).await {
            Ok(_) => Ok(dataset),
            Err(RegistryError::RevisionMismatch { .. }) => {
                Err(RegistryError::Exists { what: "data set", name: dataset.name.to_string() })
            }
            Err(e) => Err(e),
        }
    }

    /// Counts a data set's files and their bytes.
    fn measure(&self, tenant: &TenantId, dataset: &mut Dataset) -> Result<(), RegistryError> {
        if dataset.files.is_empty() || dataset.files.len() > MAX_FILES {
            return Err(RegistryError::invalid("files", format!("1 to {MAX_FILES} files")));
        }
        dataset.bytes = 0;
        for id in &dataset.files {
            let file = self.file(tenant, id)?.ok_or_else(|| no_file(id))?;
            dataset.bytes = dataset.bytes.saturating_add(file.bytes);
        }
        if dataset.bytes > MAX_DATASET_BYTES {
            let (size, limit) = (dataset.bytes as usize, MAX_DATASET_BYTES as usize);
            return Err(RegistryError::TooLarge { what: "data set", size, limit });
        }
        Ok(())
    }

    /// Refuses files that are no whole one after the other.
    async fn joinable(&self, tenant: &TenantId, dataset: &Dataset) -> Result<(), RegistryError> {
        let mut first = None;
        for id in dataset.files.iter().filter(|_| dataset.files.len() > 1) {
            let file = self.file(tenant, id)?.ok_or_else(|| no_file(id))?;
            let form = self.file_form(id, &file).await?;
            let reason = match *first.get_or_insert(form) {
                FileForm::Parquet => "a parquet file is a data set by itself: it is not joined with others",
                first if first != form => "JSON lines, plain text and parquet are not joined into one data set",
                _ => continue,
            };
            return Err(RegistryError::invalid("files", reason));
        }
        Ok(())
    }

    /// Adds a file to the end of a data set that `component` has made.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] when the component has made none of this name, and as [`Self::create_dataset`].
    pub async fn extend_dataset(
        &self,
        tenant: &TenantId,
        name: &DatasetName,
        component: &ComponentName,
        file: &str,
    ) -> Result<Dataset, RegistryError> {
        for _ in 0..ATTEMPTS {
            let row = self.dataset_row(tenant, name)?.filter(|row| row.value.component.as_ref() == Some(component));
            let missing = || RegistryError::NotFound { what: "data set", name: name.to_string() };
            let Versioned { value: mut dataset, revision } = row.ok_or_else(missing)?;
            dataset.files.push(file.into());
            self.measure(tenant, &mut dataset)?;
            self.joinable(tenant, &dataset).await?;
            let place = keys::dataset(tenant, name.as_str());
            let expect = Some(Expect::Revision(revision));
            match self.write_value(&place, Some(&to_bytes(&dataset)?), expect, |b| b).await {
                Ok(_) => return Ok(dataset),
                Err(RegistryError::RevisionMismatch { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Err(RegistryError::Conflict("the data set is being changed by too many at once".into()))
    }

    /// Removes a data set, and the files that were made for it; `false` when there is none.
    pub async fn delete_dataset(&self, tenant: &TenantId, name: &DatasetName) -> Result<bool, RegistryError> {
        for _ in 0..ATTEMPTS {
            let Some(found) = self.dataset_row(tenant, name)? else { return Ok(false) };
            let expect = Some(Expect::Revision(found.revision));
            match self.write_value(&keys::dataset(tenant, name.as_str()), None, expect, |b| b).await {
                Ok(_) => {}
                // Longer by a file meanwhile, which goes as well.
                Err(RegistryError::RevisionMismatch { .. }) => continue,
                Err(e) => return Err(e),
            }
            let owned = if found.value.owns_files { found.value.files } else { Vec::new() };
            for id in &owned {
                self.delete_file(tenant, id).await?;
            }
            return Ok(true);
        }
        Err(RegistryError::Conflict("the data set is being changed by too many at once".into()))
    }
}

fn no_file(id: &str) -> RegistryError {
    RegistryError::NotFound { what: "file", name: id.chars().take(64).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{FileLabel, MemoryStore, new_document_id};
    use std::sync::Arc;

    #[tokio::test]
    async fn a_data_set_is_its_files_in_order_and_owns_only_what_was_made_for_it() {
        let store = Arc::new(MemoryStore::new());
        let registry = Registry::new(store.clone(), store);
        registry.ensure_default_tenant().await.unwrap();
        let tenant = TenantId::default_tenant();
        let mut files = Vec::new();
        for text in ["{\"text\":\"a\"}", "{\"text\":\"b\"}\n"] {
            let id = new_document_id("file", 1);
            registry.put_file(&tenant, &id, FileLabel::default(), text.as_bytes()).await.unwrap();
            files.push(id);
        }
        let dataset = |name: &str, files: &[String], owns_files| Dataset {
            name: DatasetName::new(name).unwrap(),
            purpose: DatasetPurpose::Pretraining,
            licence: "CC0-1.0".into(),
            provenance: "written for this test".into(),
            format: None,
            files: files.to_vec(),
            owns_files,
            component: None,
            bytes: 0,
            metadata: Map::new(),
            created_at: 1,
        };
        let made = registry.create_dataset(&tenant, dataset("two", &files, false)).await.unwrap();
        assert_eq!(made.bytes, 25);
        assert_eq!(registry.dataset_rows(&tenant, &made, 0, 9, 1000).await.unwrap().rows.len(), 2);
        let again = registry.create_dataset(&tenant, dataset("two", &files, false)).await.unwrap_err();
        assert!(matches!(again, RegistryError::Exists { .. }));
        let missing = registry.create_dataset(&tenant, dataset("three", &["file_none".into()], false)).await;
        assert!(matches!(missing.unwrap_err(), RegistryError::NotFound { what: "file", .. }));

        assert!(registry.delete_dataset(&tenant, &made.name).await.unwrap());
        assert!(registry.file(&tenant, &files[0]).unwrap().is_some(), "the file is its tenant's own");
        let owning = registry.create_dataset(&tenant, dataset("own", &files[..1], true)).await.unwrap();
        assert!(registry.delete_dataset(&tenant, &owning.name).await.unwrap());
        assert!(registry.file(&tenant, &files[0]).unwrap().is_none());
        assert!(registry.datasets(&tenant, None, 10).unwrap().is_empty());
    }

    #[tokio::test]
    async fn files_that_are_no_whole_together_are_refused_when_the_data_set_is_made() {
        let store = Arc::new(MemoryStore::new());
        let registry = Registry::new(store.clone(), store);
        registry.ensure_default_tenant().await.unwrap();
        let tenant = TenantId::default_tenant();
        let mut ids = Vec::new();
        for (n, (name, bytes)) in
            (0..).zip([("a.jsonl", &b"{}"[..]), ("b.txt", b"x"), ("c", b"PAR1"), ("d.json", b"{}")])
        {
            let label = FileLabel { filename: name.into(), ..FileLabel::default() };
            ids.push(new_document_id("file", n));
            registry.put_file(&tenant, &ids[n as usize], label, bytes).await.unwrap();
        }
        let create = async |name: &str, files: &[usize], format: Option<&str>| {
            let dataset = Dataset {
                name: DatasetName::new(name).unwrap(),
                purpose: DatasetPurpose::PostTraining,
                licence: "CC0-1.0".into(),
                provenance: "written for this test".into(),
                format: format.map(String::from),
                files: files.iter().map(|&i| ids[i].clone()).collect(),
                owns_files: false,
                component: None,
                bytes: 0,
                metadata: Map::new(),
                created_at: 1,
            };
            registry.create_dataset(&tenant, dataset).await.map(|_| ()).map_err(|e| e.to_string())
        };
        for (files, said) in [(&[2, 2][..], "by itself"), (&[0, 1], "not joined"), (&[0, 2], "not joined")] {
            assert!(create("bad", files, None).await.unwrap_err().contains(said), "{files:?}");
        }
        assert!(create("bad", &[0], Some("chats")).await.unwrap_err().contains("format"));
        for (name, files) in [("lines", &[0, 3][..]), ("parquet", &[2]), ("plain", &[1, 1])] {
            create(name, files, None).await.unwrap();
        }
    }
}
