//! The credentials file that a local `serve` writes for the client commands of the same user, mode 0600.

use crate::failure::Failure;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Servers that are remembered.
const KEPT: usize = 64;

/// What is known of a server that was started here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Credentials {
    /// Its data folder, which a key belongs to whatever the address is.
    pub data: PathBuf,
    /// Where it listened last.
    pub url: String,
    /// Its admin key, where it was made here.
    pub key: Option<String>,
}

/// `$XDG_CONFIG_HOME/stockade/credentials.json`.
pub fn path() -> PathBuf {
    crate::folders::config().join("credentials.json")
}

/// The last started first. None where the file is missing or not ours.
pub fn read() -> Vec<Credentials> {
    let text = std::fs::read(path()).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Remembers where a server listens, with its new key or the one it had. The key is never in a file that others can read,
/// not even for a moment.
pub fn remember(data: &Path, url: &str, key: Option<String>) -> Result<PathBuf, Failure> {
    let path = path();
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let beside = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    let started = Credentials { data: std::path::absolute(data)?, url: url.into(), key };
    let text = serde_json::to_vec_pretty(&with(read(), started)).map_err(std::io::Error::from)?;
    file.write_all(&text)?;
    file.sync_all()?;
    std::fs::rename(&beside, &path)?;
    Ok(path)
}

/// `started` in front; without a key of its own it keeps the one that its folder had.
fn with(mut known: Vec<Credentials>, mut started: Credentials) -> Vec<Credentials> {
    let before = known.iter().position(|server| server.data == started.data).map(|at| known.remove(at));
    started.key = started.key.or(before.and_then(|server| server.key));
    known.insert(0, started);
    known.truncate(KEPT);
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stays_with_its_data_folder() {
        let server = |data: &str, url: &str, key: Option<&str>| Credentials {
            data: data.into(),
            url: url.into(),
            key: key.map(Into::into),
        };
        let known = with(Vec::new(), server("/a", "http://1", Some("key of a")));
        let known = with(known, server("/b", "http://1", Some("key of b")));
        let known = with(known, server("/a", "http://2", None));
        assert_eq!(known, [server("/a", "http://2", Some("key of a")), server("/b", "http://1", Some("key of b"))]);
        let known = with(known, server("/c", "http://2", None));
        assert_eq!(known[0], server("/c", "http://2", None), "no key of another server");
        let many = (0..2 * KEPT).fold(known, |known, i| with(known, server(&format!("/{i}"), "", None)));
        assert_eq!(many.len(), KEPT);
    }
}
