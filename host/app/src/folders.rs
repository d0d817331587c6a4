//! Where things live when nobody says otherwise: the XDG base folders.

use std::path::PathBuf;

pub fn data() -> PathBuf {
    from_env("STOCKADE_DATA").unwrap_or_else(|| xdg("XDG_DATA_HOME", ".local/share").join("stockade"))
}

/// Pulled models, shared by all data folders.
pub fn models() -> PathBuf {
    from_env("STOCKADE_MODELS").unwrap_or_else(|| xdg("XDG_CACHE_HOME", ".cache").join("stockade-models"))
}

pub fn config() -> PathBuf {
    xdg("XDG_CONFIG_HOME", ".config").join("stockade")
}

fn xdg(variable: &str, below_home: &str) -> PathBuf {
    from_env(variable).unwrap_or_else(|| from_env("HOME").unwrap_or_else(|| PathBuf::from(".")).join(below_home))
}

fn from_env(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from)
}
