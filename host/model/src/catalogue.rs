//! wip
use std::path::PathBuf;
/// wip
pub fn default_models_dir() -> Option<PathBuf> { None }
