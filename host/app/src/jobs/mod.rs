//! Jobs at work: the threads that take them, what they are given, and what becomes of their results.

pub mod components;
pub mod evaluators;
pub mod janitor;
pub mod resolver;
pub mod rewards;
pub mod shelf;
pub mod watcher;
pub mod worker;

use std::path::{Path, PathBuf};

/// Where the jobs of a data folder have their own folders, `TENANT/ID` each: checkpoints, metrics, result.
pub fn folder(data: &Path) -> PathBuf {
    data.join("jobs")
}

/// Where trained models are, a folder each. The dot keeps them out of the imported models, which everybody sees.
pub fn trained(data: &Path) -> PathBuf {
    data.join("models").join(".trained")
}
