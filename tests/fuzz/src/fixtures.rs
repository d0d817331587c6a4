//! Reference files that stand beside a full checkout; without them targets begin from their built-in seeds.

use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures")
}

/// The file, if it is here.
pub fn file(name: &str) -> Option<Vec<u8>> {
    std::fs::read(folder().join(name)).ok()
}

/// Those of the files that are here.
pub fn files(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().filter_map(|name| file(name)).collect()
}
