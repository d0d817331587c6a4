//! What a job of this host names: served models of its tenant, and the tenant's files and data sets.
//!
//! Data is copied into the job's folder when it is first read, and so is an adapter that is trained on, merged into its
//! base: what happens to either afterwards does not change a run that is resumed. No name from outside becomes a path.

use super::worker::Parts;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use stockade_core::TenantId;
use stockade_core::id::{DatasetName, ModelId};
use stockade_core::registry::{FilePieces, RegistryError, TrainedModel};
use stockade_core::train::{Resolver, TrainError};
use stockade_train::export::merge;

/// Where copies are, in the job's folder, and what names of merged models begin with.
const INPUT: &str = "input";
const MERGED: &str = "model-";

pub struct JobResolver<'a> {
    pub parts: &'a Parts,
    pub tenant: &'a TenantId,
    /// The job's own.
    pub folder: &'a Path,
}

impl Resolver for JobResolver<'_> {
    fn model(&self, name: &str) -> Result<PathBuf, TrainError> {
        let refuse = |reason: &str| TrainError::Model { name: name.chars().take(128).collect(), reason: reason.into() };
        let registry = &self.parts.registry;
        let source = |id: &ModelId| self.parts.engine.as_ref().and_then(|engine| engine.source(id));
        let merged = self.folder.join(INPUT).join(format!("{MERGED}{:x}", Sha256::digest(name)));
        if merged.is_dir() {
            return Ok(merged);
        }
        let id = visible(registry, self.tenant, name).map_err(io)?.ok_or_else(|| refuse("is not served"))?;
        match registry.trained_model(&id).map_err(io)? {
            Some(TrainedModel { base: Some(base), folder, .. }) => {
                let base = source(&base).ok_or_else(|| refuse("the model that it lies over is not served"))?;
                let adapter = self.parts.trained.join(folder);
                self.keep(&merged, |beside| merge(&base, &adapter, beside, None).map(|_| ()))
            }
            _ => source(&id).ok_or_else(|| refuse("is not a language model with weights of its own")),
        }
    }

    fn data(&self, name: &str) -> Result<PathBuf, TrainError> {
        let refuse = |reason: String| TrainError::Data { name: name.chars().take(64).collect(), reason };
        let mut pieces = self.pieces(name).map_err(|e| match e {
            RegistryError::NotFound { what, name } => refuse(format!("there is no {what} `{name}`")),
            e => io(e),
        })?;
        // The name of a data set, or a file's id: letters, digits and marks that no path knows.
        let path = self.folder.join(INPUT).join(format!("{name}.{}", pieces.form().extension()));
        if path.is_file() {
            return Ok(path);
        }
        self.keep(&path, |beside| {
            let mut out = File::create(beside).map_err(copying)?;
            while let Some(piece) = self.parts.runtime.block_on(pieces.next()).map_err(io)? {
                out.write_all(&piece).map_err(copying)?;
            }
            out.sync_all().map_err(copying)
        })
    }
}

impl JobResolver<'_> {
    fn pieces(&self, name: &str) -> Result<FilePieces<'_>, RegistryError> {
        let (registry, tenant, runtime) = (&self.parts.registry, self.tenant, &self.parts.runtime);
        let set = DatasetName::new(name).ok().map(|n| registry.dataset(tenant, &n)).transpose()?.flatten();
        if let Some(set) = set {
            return runtime.block_on(registry.dataset_pieces(tenant, &set));
        }
        let missing = || RegistryError::NotFound { what: "file or data set", name: name.chars().take(64).collect() };
        let record = registry.file(tenant, name)?.ok_or_else(missing)?;
        runtime.block_on(registry.file_pieces(name, record))
    }

    /// What `write` leaves under the name beside `path` that it is given; it appears whole.
    fn keep(&self, path: &Path, write: impl FnOnce(&Path) -> Result<(), TrainError>) -> Result<PathBuf, TrainError> {
        fs::create_dir_all(self.folder.join(INPUT)).map_err(copying)?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(".partial");
        let beside = PathBuf::from(beside);
        // What a run that was killed has left.
        if beside.is_dir() {
            fs::remove_dir_all(&beside).map_err(copying)?;
        }
        write(&beside)?;
        fs::rename(&beside, path).map_err(copying)?;
        Ok(path.to_owned())
    }
}

/// Whether a model is one that was merged for a job.
pub fn is_merged(path: &Path) -> bool {
    let named = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(MERGED));
    named && path.parent().is_some_and(|parent| parent.ends_with(INPUT)) && path.is_dir()
}

fn copying(source: std::io::Error) -> TrainError {
    TrainError::Io { stage: "copying what a job names", source: Box::new(source) }
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
