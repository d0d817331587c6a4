//! The sealing seam: secrets are kept so that nobody can read them who has the state alone.

use crate::error::BoxError;
use std::fmt;

/// Which key sealed something: a digest of the key, which tells nothing about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Sealed bytes and the key that opens them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    pub key: KeyId,
    pub bytes: Vec<u8>,
}

/// Why something could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VaultError {
    #[error("it is sealed with the key {0}, which this host does not have")]
    UnknownKey(KeyId),
    /// Changed since it was sealed, or taken from another place.
    #[error("the sealed bytes are not those that were sealed for this place")]
    Damaged,
    #[error("sealing failed")]
    Host(#[source] BoxError),
}

/// Seals and opens small values with keys that are kept apart from the state.
pub trait Vault: Send + Sync + 'static {
    /// The key that seals now; others may still open.
    fn current(&self) -> KeyId;
    /// Seals `plain` with the current key. It opens for the same `place` only.
    fn seal(&self, place: &[u8], plain: &[u8]) -> Result<Sealed, VaultError>;
    fn open(&self, place: &[u8], sealed: &Sealed) -> Result<Vec<u8>, VaultError>;
}
