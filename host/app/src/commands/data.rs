//! Backup, restore, verification and compaction of a data folder.

use crate::cli::DataFolder;
use crate::failure::{Exit, Failure};
use crate::folders;
use std::path::PathBuf;

pub fn folder(given: &DataFolder) -> PathBuf {
    given.data.clone().unwrap_or_else(folders::data)
}

pub fn failed(error: impl std::error::Error) -> Failure {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    Failure::new(Exit::Failed, text)
}
