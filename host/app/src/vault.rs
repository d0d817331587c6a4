//! The keys that seal secrets: from `STOCKADE_SECRETS_KEY`, else out of the data folder.

use crate::commands::data::failed;
use crate::failure::{Exit, Failure};
use std::path::Path;
use stockade_core::vault::{KeyId, Vault};
use stockade_state::KeyVault;

/// Keys with white space between them: the first seals, the others open what they once sealed.
const VARIABLE: &str = "STOCKADE_SECRETS_KEY";

/// The keys for a data folder, which makes its first one when nobody gives any.
pub fn open(data: &Path) -> Result<KeyVault, Failure> {
    match from_environment() {
        Some(given) => given,
        None => KeyVault::open(data).map_err(failed),
    }
}

/// Which key would seal, and where it stands; `None` when none was made yet.
pub fn current(data: &Path) -> Result<Option<(KeyId, String)>, Failure> {
    if let Some(given) = from_environment() {
        return Ok(Some((given?.current(), VARIABLE.into())));
    }
    let file = KeyVault::file(data);
    if !file.exists() {
        return Ok(None);
    }
    let vault = KeyVault::read(&file).map_err(failed)?;
    Ok(Some((vault.current(), file.display().to_string())))
}

fn from_environment() -> Option<Result<KeyVault, Failure>> {
    let text = std::env::var(VARIABLE).ok()?;
    Some(text.parse().map_err(|e| Failure::new(Exit::Usage, format!("{VARIABLE}: {e}"))))
}
