//! The targets, by the part of the host that parses.

pub mod adapter;
pub mod http;
pub mod model;
pub mod reply;
pub mod state;
pub mod training;
pub mod upload;

use std::path::{Path, PathBuf};

/// Where files are written for parsers that open them: in memory, where there is such a folder.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { PathBuf::from(memory) } else { std::env::temp_dir() };
    tempfile::tempdir_in(parent).expect("a folder for scratch files")
}
