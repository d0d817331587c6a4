//! Sha256 of bytes at hand.

use sha2::Digest as _;
use stockade_core::Digest;

pub fn sha256(bytes: &[u8]) -> Digest {
    Digest(sha2::Sha256::digest(bytes).into())
}
