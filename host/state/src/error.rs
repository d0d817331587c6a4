//! Why a state folder could not be opened, copied or repaired, and how that reads through the store seam.

use std::io;
use std::path::{Path, PathBuf};
use stockade_core::error::Fault;
use stockade_core::store::StoreError;

/// Why a state folder was refused. Nothing is changed on disk before one of these is answered, except that files
/// left half written by a crash are removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    #[error("state folder `{}` is in use by another process", folder.display())]
    Locked { folder: PathBuf },
    #[error(
        "state folder `{}` has layout {found}, this program knows up to {supported}",
        folder.display()
    )]
    NewerLayout { folder: PathBuf, found: u32, supported: u32 },
    /// Acknowledged data is damaged or missing. Restore a backup.
    #[error("`{}` is damaged at byte {offset}: {what}", file.display())]
    Corrupt { file: PathBuf, offset: u64, what: &'static str },
    /// The index has applied commits that the journal no longer holds: the end of the journal was lost. Restore a
    /// backup, or delete the `index` folder to go on with what the journal has.
    #[error(
        "`{}` ends at commit {journal}, but the index has applied commit {index}: the journal has lost its end",
        folder.display()
    )]
    JournalBehind { folder: PathBuf, journal: u64, index: u64 },
    /// The file of the key that seals secrets.
    #[error("`{}`: {what}", path.display())]
    Key { path: PathBuf, what: String },
    #[error("`{}` is not empty", folder.display())]
    NotEmpty { folder: PathBuf },
    /// A backup or restore read its own copy back and it was not whole, mostly because the original is not.
    #[error("the copy in `{}` is not whole: {damage}", folder.display())]
    CopyDamaged { folder: PathBuf, damage: String },
    #[error("{stage} failed on `{}`", path.display())]
    Io {
        stage: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the index failed in {stage}")]
    Index {
        stage: &'static str,
        #[source]
        source: IndexError,
    },
}

/// What went wrong inside sled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    #[error(transparent)]
    Sled(#[from] sled::Error),
    #[error("sled panicked: {0}")]
    Panicked(String),
    #[error("a row has fewer bytes than its revision")]
    ShortRow,
}

impl OpenError {
    /// Always the host's move: no request can cause one of these.
    pub fn fault(&self) -> Fault {
        Fault::Host
    }

    /// For `map_err`: names what was being done and to which file.
    pub(crate) fn io(stage: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { stage, path: path.to_owned(), source }
    }

    /// For `map_err` of a read through the seam.
    pub(crate) fn reading(source: IndexError) -> StoreError {
        let stage = "reading the index";
        Self::Index { stage, source }.into()
    }

    /// Whether the disk or the quota is full.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_full(source))
    }

    pub(crate) fn corrupt(file: &Path, offset: u64, what: &'static str) -> Self {
        Self::Corrupt { file: file.to_owned(), offset, what }
    }
}

/// Whether the disk or the quota is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl From<OpenError> for StoreError {
    fn from(error: OpenError) -> Self {
        match error {
            _ if error.is_full() => Self::Full,
            OpenError::Corrupt { .. } | OpenError::JournalBehind { .. } | OpenError::CopyDamaged { .. } => {
                Self::Corrupt { what: error.to_string() }
            }
            OpenError::Io { stage, .. } | OpenError::Index { stage, .. } => Self::Io { stage, source: Box::new(error) },
            OpenError::Locked { .. }
            | OpenError::NewerLayout { .. }
            | OpenError::NotEmpty { .. }
            | OpenError::Key { .. } => Self::Io { stage: "folder", source: Box::new(error) },
        }
    }
}
