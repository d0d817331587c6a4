//! How a plugin comes by its configuration.

use crate::{Error, Result, sys};
use serde::de::DeserializeOwned;
use std::rc::Rc;

/// Builds the plugin from the binding's configuration.
pub(crate) fn load<T: DeserializeOwned>() -> Result<Rc<T>> {
    let plugin = serde_json::from_str(&sys::config::get());
    plugin.map(Rc::new).map_err(|e| Error::Invalid(format!("config: {e}")))
}

/// As [`load`], for functions that cannot answer with an error.
pub(crate) fn load_or_panic<T: DeserializeOwned>() -> Rc<T> {
    match load() {
        Ok(plugin) => plugin,
        Err(e) => panic!("{e}"),
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Invalid(error.to_string())
    }
}
