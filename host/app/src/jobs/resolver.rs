//! What a job of this host names: served models of its tenant, and the tenant's files and data sets.
//!
//! Data is copied into the job's folder when it is first read: what happens to a file afterwards does not change a run
//! that is resumed. A name from outside never becomes a path.

use super::worker::Parts;
use std::io::Write;
use std::path::{Path, PathBuf};
use stockade_core::TenantId;
use stockade_core::id::{DatasetName, ModelId};
use stockade_core::registry::{RegistryError, TrainedModel};
use stockade_core::train::{Resolver, TrainError};

pub struct JobResolver<'a> {
    pub parts: &'a Parts,
    pub tenant: &'a TenantId,
    /// The job's own.
    pub folder: &'a Path,
}

impl Resolver for JobResolver<'_> {
    fn model(&self, name: &str) -> Result<PathBuf, TrainError> {
        let refuse = |reason: &str| TrainError::Model { name: name.chars().take(128).collect(), reason: reason.into() };
        let Some(id) = visible(&self.parts.registry, self.tenant, name).map_err(io)? else {
            return Err(refuse("is not served"));
        };
        let source = self.parts.engine.as_ref().and_then(|engine| engine.source(&id));
        source.ok_or_else(|| refuse("is not a language model with weights of its own; adapters are merged first"))
    }

    fn data(&self, name: &str) -> Result<PathBuf, TrainError> {
        let refuse = |reason: String| TrainError::Data { name: name.chars().take(64).collect(), reason };
        let (file, bytes) = self.bytes(name).map_err(|e| match e {
            RegistryError::NotFound { what, name } => refuse(format!("there is no {what} `{name}`")),
            e => io(e),
        })?;
        let folder = self.folder.join("input");
        let path = folder.join(&file);
        if path.is_file() {
            return Ok(path);
        }
        let stage = |source: std::io::Error| TrainError::Io { stage: "copying a job's data", source: Box::new(source) };
        std::fs::create_dir_all(&folder).map_err(stage)?;
        let beside = folder.join(format!("{file}.partial"));
        let bytes = self.parts.runtime.block_on(bytes).map_err(io)?;
        let mut out = std::fs::File::create(&beside).map_err(stage)?;
        out.write_all(&bytes).and_then(|()| out.sync_all()).map_err(stage)?;
        std::fs::rename(&beside, &path).map_err(stage)?;
        Ok(path)
    }
}

type Bytes<'a> = stockade_core::BoxFuture<'a, Result<bytes::Bytes, RegistryError>>;

impl JobResolver<'_> {
    /// What the copy is called, and what is to be in it.
    fn bytes(&self, name: &str) -> Result<(String, Bytes<'_>), RegistryError> {
        let (registry, tenant) = (&self.parts.registry, self.tenant);
        let set = DatasetName::new(name).ok().map(|n| registry.dataset(tenant, &n)).transpose()?.flatten();
        let missing = || RegistryError::NotFound { what: "file or data set", name: name.chars().take(64).collect() };
        if let Some(set) = set {
            let first = set.files.first().map(|id| registry.file(tenant, id)).transpose()?.flatten();
            let file = format!("{}.{}", set.name, extension(&first.ok_or_else(missing)?.filename));
            return Ok((file, Box::pin(async move { registry.dataset_bytes(tenant, &set).await })));
        }
        let record = registry.file(tenant, name)?.ok_or_else(missing)?;
        // An id of this host: letters, digits and `_`.
        let (id, file) = (name.to_string(), format!("{name}.{}", extension(&record.filename)));
        Ok((file, Box::pin(async move { registry.file_bytes(&id, &record).await })))
    }
}

/// What tells the form of a file; anything else is JSON lines.
fn extension(filename: &str) -> &'static str {
    let given = Path::new(filename).extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    match given.as_deref() {
        Some("parquet") => "parquet",
        Some("txt") => "txt",
        _ => "jsonl",
    }
}

/// The model of this name that the tenant may know of: its own, else one that everybody sees.
pub fn visible(
    registry: &stockade_core::registry::Registry,
    tenant: &TenantId,
    name: &str,
) -> Result<Option<ModelId>, RegistryError> {
    if let Ok(own) = TrainedModel::served_as(tenant, name)
        && registry.owns_model(tenant, &own)?
    {
        return Ok(Some(own));
    }
    match ModelId::new(name) {
        Ok(id) => Ok(registry.sees_model(tenant, &id)?.then_some(id)),
        Err(_) => Ok(None),
    }
}

pub fn io(source: RegistryError) -> TrainError {
    TrainError::Io { stage: "reading the registry", source: Box::new(source) }
}
