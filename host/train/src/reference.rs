//! Where the tests find the reference models and vectors, which are not part of the repository.

use std::path::PathBuf;

/// `STOCKADE_REFERENCE`, else `shared` beside the repository. Without it the comparison is skipped and says so;
/// `STOCKADE_REQUIRE_REFERENCE=1` makes that a failure.
pub(crate) fn reference_file(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("STOCKADE_REFERENCE")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")), PathBuf::from);
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("STOCKADE_REQUIRE_REFERENCE").is_none(), "{} is missing", path.display());
    eprintln!("skipped: {} is missing", path.display());
    None
}
