//! The end of artifacts: what was compiled of a component goes when the component's bytes are gone.
//!
//! Invariant: an artifact that an upload under way has made, or has found, stays until the upload is through; its bytes are
//! stored after that.

use crate::runtime::Inner;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use stockade_core::{BoxError, Digest};

/// Ending of an artifact's file name; a component's digest stands before it.
const ENDING: &str = ".cwasm";

/// The artifact of a component in the folder of an engine.
pub(crate) fn path(folder: &Path, component: Digest) -> PathBuf {
    folder.join(format!("{component}{ENDING}"))
}

/// Components that are being uploaded, each with the number of its uploads.
#[derive(Default)]
pub(crate) struct UnderWay(Mutex<HashMap<Digest, usize>>);

impl UnderWay {
    /// Keeps a component's artifact until the guard is dropped.
    pub fn begin(&self, component: Digest) -> Keeping<'_> {
        *self.0.lock().entry(component).or_default() += 1;
        Keeping { all: self, component }
    }
}

pub(crate) struct Keeping<'a> {
    all: &'a UnderWay,
    component: Digest,
}

impl Drop for Keeping<'_> {
    fn drop(&mut self) {
        let mut all = self.all.0.lock();
        if let Some(uploads) = all.get_mut(&self.component) {
            *uploads -= 1;
            if *uploads == 0 {
                all.remove(&self.component);
            }
        }
    }
}

impl Inner {
    /// Deletes the artifacts, of all engines, whose component's bytes are gone, and answers how many they were. What is
    /// loaded stays so: requests that have pinned a version go on with it.
    pub async fn sweep_artifacts(&self) -> Result<u64, BoxError> {
        if self.settings.artifacts_shared {
            return Ok(0);
        }
        let kept: HashSet<Digest> = self.registry.blobs().list().await?.into_iter().map(|(digest, _)| digest).collect();
        let mut swept = 0;
        for folder in entries(&self.settings.artifacts)?.iter().filter(|path| path.is_dir()) {
            for file in entries(folder)? {
                let name = file.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(ENDING));
                let Some(component) = name.and_then(|n| n.parse::<Digest>().ok()) else { continue };
                // Held while the file goes, so that no upload finds it and loses it.
                let under_way = self.under_way.0.lock();
                if !kept.contains(&component) && !under_way.contains_key(&component) {
                    fs::remove_file(&file)?;
                    swept += 1;
                }
            }
        }
        Ok(swept)
    }
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
}
