//! Backup, restore, verification and compaction of a data folder that no server has open.

use crate::cli::DataFolder;
use crate::failure::{Exit, Failure};
use crate::folders;
use crate::output::{Output, fields};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stockade_core::registry::Registry;
use stockade_state::{Config, KeyVault, State};

pub fn folder(given: &DataFolder) -> PathBuf {
    given.data.clone().unwrap_or_else(folders::data)
}

pub fn failed(error: impl std::error::Error) -> Failure {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    Failure::new(Exit::Failed, text)
}

/// Copies a folder that no server has open.
pub fn backup(to: &Path, from: &DataFolder, output: Output) -> Result<(), Failure> {
    let from = folder(from);
    let copied = stockade_state::restore(&from, to).map_err(failed)?;
    let key = KeyVault::file(&from);
    output.document(&json!({"to": to, "copied": copied, "secrets_key": "not copied"}), fields);
    eprintln!(
        "The key that opens this copy's secrets is not in it. Keep {} (or STOCKADE_SECRETS_KEY) somewhere else.",
        key.display()
    );
    Ok(())
}

pub fn restore(from: &Path, to: &DataFolder, output: Output) -> Result<(), Failure> {
    let to = folder(to);
    let copied = stockade_state::restore(from, &to).map_err(failed)?;
    output.document(&json!({"to": to, "copied": copied}), fields);
    Ok(())
}

pub fn verify(data: &DataFolder, output: Output) -> Result<(), Failure> {
    let verified = stockade_state::verify(&folder(data)).map_err(failed)?;
    output.document(&json!(verified), fields);
    if verified.damage.is_empty() { Ok(()) } else { Err(Failure::new(Exit::Failed, "the state is damaged")) }
}

pub fn compact(data: &DataFolder, output: Output) -> Result<(), Failure> {
    let state = Arc::new(State::open(&folder(data), Config::default()).map_err(failed)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (swept, compacted) = runtime.block_on(async {
        let swept = Registry::new(state.clone(), state.blobs()).sweep_blobs().await.map_err(failed)?;
        Ok::<_, Failure>((swept, state.compact().await.map_err(failed)?))
    })?;
    let mut done = json!(compacted);
    done["blobs_deleted"] = json!(swept.blobs);
    done["blob_bytes_deleted"] = json!(swept.blob_bytes);
    output.document(&done, fields);
    Ok(())
}
