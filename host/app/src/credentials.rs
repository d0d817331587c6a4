//! The credentials file that a local `serve` writes for the client commands of the same user, mode 0600.

use crate::failure::Failure;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Credentials {
    pub url: String,
    pub key: String,
}

/// `$XDG_CONFIG_HOME/stockade/credentials.json`.
pub fn path() -> PathBuf {
    crate::folders::config().join("credentials.json")
}

pub fn read() -> Option<Credentials> {
    let text = std::fs::read(path()).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Replaces the file; the key is never in a file that others can read, not even for a moment.
pub fn write(credentials: &Credentials) -> Result<PathBuf, Failure> {
    let path = path();
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let beside = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    let text = serde_json::to_vec_pretty(credentials).map_err(std::io::Error::from)?;
    file.write_all(&text)?;
    file.sync_all()?;
    std::fs::rename(&beside, &path)?;
    Ok(path)
}
