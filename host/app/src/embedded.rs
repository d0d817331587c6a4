//! What the binary carries along: shipped components by name (and the names of those that could not be built), what some
//! of them compile to, and the files of the guest SDK and the plugin API by their path from the repository's root.
//!
//! An entry of `COMPILED` is the sha256 of the component (32 bytes), then the artifact.

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
