//! What is put in order in the state at each start: secrets under the current key, and no blobs that nobody names.

use crate::commands::data::failed;
use crate::failure::Failure;
use stockade_core::registry::Registry;
use stockade_state::State;

pub async fn run(registry: &Registry, state: &State) -> Result<(), Failure> {
    let sealing = registry.seal_secrets().await.map_err(failed)?;
    if sealing.sealed > 0 {
        // The journal forgets what it held in plain text, or under a key that may have been given up.
        state.compact().await.map_err(failed)?;
        tracing::info!(secrets = sealing.sealed, "sealed under the current key");
    }
    if sealing.lost > 0 {
        tracing::error!(
            secrets = sealing.lost,
            "cannot be opened: set them again, or give back the key that sealed them"
        );
    }
    let swept = registry.sweep_blobs().await.map_err(failed)?;
    if swept.blobs > 0 {
        tracing::info!(blobs = swept.blobs, bytes = swept.blob_bytes, "blobs that nothing names are deleted");
    }
    Ok(())
}
