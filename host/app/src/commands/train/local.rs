//! What a job file names on this machine: paths, from the job's folder or from here, and models of the catalogue or of a
//! data folder.

use crate::commands::models::imports;
use crate::folders;
use crate::serve::Puller;
use std::path::{Path, PathBuf};
use stockade_core::train::{Resolver, TrainError};
use stockade_model::{catalogue, hub};

pub struct LocalResolver<'a> {
    /// The job file's folder.
    pub beside: &'a Path,
    /// Whose imported models are known by name; `None`: the default one's.
    pub data: Option<PathBuf>,
    /// Never pull a model.
    pub offline: bool,
}

impl Resolver for LocalResolver<'_> {
    fn model(&self, name: &str) -> Result<PathBuf, TrainError> {
        let fail = |reason: String| TrainError::Model { name: name.into(), reason };
        if let Some(path) = find(self.beside, name) {
            return hub::resolve(&path, &folders::models()).map_err(|e| fail(e.to_string()));
        }
        if let Some(entry) = catalogue::find(name) {
            let endpoint = std::env::var("STOCKADE_MODELS__HUB_ENDPOINT").unwrap_or_default();
            let puller = Puller { offline: self.offline, endpoint };
            return puller.pull(entry).map_err(|e| fail(e.message));
        }
        let data = self.data.clone().unwrap_or_else(folders::data);
        let imported = imports(&data).into_iter().find(|(n, _)| n == name).map(|(_, path)| path);
        let what = "path, catalogue name or imported model";
        imported.ok_or_else(|| TrainError::NotFound { what, name: name.into() })
    }

    fn data(&self, name: &str) -> Result<PathBuf, TrainError> {
        let missing = || TrainError::NotFound { what: "file of data", name: name.into() };
        find(self.beside, name).filter(|p| p.is_file()).ok_or_else(missing)
    }
}

/// A path as it stands in a job file: beside the file, else from here.
pub fn find(beside: &Path, name: &str) -> Option<PathBuf> {
    [beside.join(name), PathBuf::from(name)].into_iter().find(|p| p.exists())
}
