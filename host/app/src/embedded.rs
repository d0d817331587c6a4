//! What the binary carries along: shipped components by name (and the names of those that could not be built), and the files of the guest SDK and the plugin API by
//! their path from the repository's root.

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
