//! Where the tests find the reference models and vectors, which are not part of the repository.

use std::path::PathBuf;

/// `STOCKADE_REFERENCE`, else `shared` beside the repository. Without it the comparison is skipped and says so;
/// `STOCKADE_REQUIRE_REFERENCE=1` makes that a failure.
pub(crate) fn reference_file(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("STOCKADE_REFERENCE")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")), PathBuf::from);
    found(root.join(name))
}

/// A pulled model of the catalogue in `STOCKADE_MODELS` or its default folder, by the same rule.
pub(crate) fn pulled_model(name: &str) -> Option<PathBuf> {
    let set = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    let models = set("STOCKADE_MODELS").or_else(|| Some(cache()?.join("stockade-models")))?;
    found(models.join(name))
}

fn found(path: PathBuf) -> Option<PathBuf> {
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("STOCKADE_REQUIRE_REFERENCE").is_none(), "{} is missing", path.display());
    eprintln!("skipped: {} is missing", path.display());
    None
}
