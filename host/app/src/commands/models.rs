//! Models on this machine: the catalogue, what was pulled, what was imported into a data folder.

use super::data::{failed, folder};
use crate::cli::Models;
use crate::failure::{Exit, Failure};
use crate::folders;
use crate::output::{Output, fields, listing};
use crate::progress::Progress;
use crate::serve::{Puller, base_path, imported, path_and_base};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use stockade_core::ModelId;
use stockade_model::adapter::{self, AdapterConfig};
use stockade_model::catalogue::{self, Entry};
use stockade_model::hub::{self, Download};
use stockade_model::{Checkpoint, ModelError};
use stockade_train::export::{self, GgufType};
use stockade_train::job::Named;

/// Largest model that is fetched by address: 1 TiB.
const MAX_DOWNLOAD_BYTES: u64 = 1 << 40;

pub fn run(command: Models, output: Output) -> Result<(), Failure> {
    match command {
        Models::Pull { name, offline } => {
            let entry = catalogue::find(&name).ok_or_else(|| unknown(&name))?;
            let endpoint = std::env::var("STOCKADE_MODELS__HUB_ENDPOINT").unwrap_or_default();
            let path = Puller { offline, endpoint }.pull(entry)?;
            output.document(&json!({"name": name, "path": path, "size_bytes": entry.size_bytes()}), fields);
        }
        Models::Add { name, source, data } => {
            let path = add(&name, &source, &folder(&data))?;
            output.document(&json!({"name": name, "path": path}), fields);
        }
        Models::List(data) => {
            let mut rows: Vec<Value> = catalogue::entries().iter().map(describe_entry).collect();
            for (name, path) in imports(&folder(&data)) {
                let base = adapter::is_adapter(&path).then(|| AdapterConfig::from_folder(&path).ok()?.base).flatten();
                let mut row = json!({"name": name, "licence": null, "size_bytes": null, "here": true, "path": path});
                row["base"] = base.into();
                rows.push(row);
            }
            output.document(&json!({"data": rows}), |v| listing(v, &["name", "licence", "size_bytes", "here", "path"]));
        }
        Models::Show { name, data } => output.document(&show(&name, &folder(&data))?, fields),
        Models::Quantize { model, to, out, data } => {
            output.document(&quantize(&model, &to, &out, &folder(&data))?, fields);
        }
        Models::Rm { name, data } => {
            let removed = remove(&name, &folder(&data))?;
            output.document(&json!({"name": name, "removed": removed}), fields);
        }
    }
    Ok(())
}

fn describe_entry(entry: &Entry) -> Value {
    let path = entry.installed(&folders::models());
    json!({"name": entry.name, "description": entry.description, "licence": entry.licence,
        "size_bytes": entry.size_bytes(), "here": path.is_some(), "path": path})
}

fn show(name: &str, data: &Path) -> Result<Value, Failure> {
    let entry = catalogue::find(name);
    let path = entry
        .and_then(|e| e.installed(&folders::models()))
        .or_else(|| imports(data).into_iter().find(|(n, _)| n == name).map(|(_, path)| path));
    let mut shown = entry.map_or_else(|| json!({"name": name}), describe_entry);
    match path {
        Some(path) => {
            let looked = look(&path).map_err(failed)?;
            if let (Value::Object(shown), Value::Object(looked)) = (&mut shown, looked) {
                shown.extend(looked);
            }
            Ok(shown)
        }
        None if entry.is_some() => Ok(shown),
        None => Err(unknown(name)),
    }
}

fn look(path: &Path) -> Result<Value, ModelError> {
    let checkpoint = Checkpoint::open(path)?;
    let parameters: u64 = checkpoint.tensors().map(|t| t.rows as u64 * t.cols as u64).sum();
    if adapter::is_adapter(path) {
        let config = AdapterConfig::from_folder(path)?;
        return Ok(json!({"path": path, "architecture": "adapter", "base": config.base, "rank": config.rank,
            "parameters": parameters, "digest": checkpoint.digest()?}));
    }
    let config = checkpoint.config()?;
    Ok(json!({"path": path, "architecture": format!("{:?}", config.architecture), "parameters": parameters,
        "context_tokens": config.context_tokens, "digest": checkpoint.digest()?}))
}

/// Copies beside and renames, so that a broken-off import is never taken for a model.
fn add(name: &str, source: &str, data: &Path) -> Result<PathBuf, Failure> {
    ModelId::new(name).map_err(|e| Failure::usage(e.to_string()))?;
    if name.starts_with('.') || name.contains(['/', '\\']) {
        return Err(Failure::usage(format!("`{name}` cannot be the name of an import")));
    }
    let folder = imported(data);
    std::fs::create_dir_all(&folder)?;
    if imports(data).iter().any(|(n, _)| n == name) {
        return Err(Failure::new(Exit::Refused, format!("there is a model `{name}` already")));
    }
    let beside = folder.join(format!(".{name}.partial"));
    let (source, base) = path_and_base(source);
    let from = if source.starts_with("http://") || source.starts_with("https://") {
        let progress = Progress::new(format!("downloading {name}"));
        hub::download(&Download {
            url: source,
            to: &beside,
            bytes: None,
            max_bytes: MAX_DOWNLOAD_BYTES,
            token: None,
            progress: &|done, total| progress.set(done, total),
        })
        .map_err(failed)?;
        beside.clone()
    } else {
        hub::resolve(Path::new(source), &folders::models()).map_err(failed)?
    };
    // Opened before it is taken in: what cannot be a model is refused with file, tensor and reason.
    let checkpoint = Checkpoint::open(&from).map_err(failed)?;
    let base = match adapter::is_adapter(&from) {
        true => Some(base_of(&from, base)?),
        false if base.is_some() => return Err(Failure::usage(format!("{source}: only an adapter has a base"))),
        false => checkpoint.config().map(|_| None).map_err(failed)?,
    };
    let is_folder = from.is_dir();
    if from != beside {
        copy(&from, &beside)?;
    }
    if let Some(base) = base {
        name_base(&beside.join(adapter::CONFIG_FILE), &base)?;
    }
    let to = folder.join(if is_folder { name.to_string() } else { format!("{name}.gguf") });
    std::fs::rename(&beside, &to)?;
    Ok(to)
}

/// What an adapter's base will be found by from another folder: the model's name, or a path from the root.
fn base_of(folder: &Path, named: Option<&str>) -> Result<String, Failure> {
    let config = AdapterConfig::from_folder(folder).map_err(failed)?;
    let base = named.map(String::from).or(config.base).ok_or_else(|| {
        let adapter = folder.display();
        Failure::usage(format!("{adapter} does not say which model it adapts; name it: {adapter}@BASE"))
    })?;
    match base_path(&base, folder) {
        Some(path) if catalogue::find(&base).is_none() => Ok(path.display().to_string()),
        _ => Ok(base),
    }
}

fn name_base(config: &Path, base: &str) -> Result<(), Failure> {
    let mut settings: Value = serde_json::from_slice(&std::fs::read(config)?).map_err(anyhow::Error::from)?;
    settings["base_model_name_or_path"] = base.into();
    // Copied as it was, which may be read-only.
    std::fs::remove_file(config)?;
    Ok(std::fs::write(config, settings.to_string())?)
}

fn quantize(model: &str, to: &str, out: &Path, data: &Path) -> Result<Value, Failure> {
    let types = || GgufType::ALL.iter();
    let ty = types().find(|ty| ty.name() == to).ok_or_else(|| {
        let names: Vec<&str> = types().map(|ty| ty.name()).collect();
        Failure::usage(format!("`{to}` is no type of weights here; there are {}", names.join(", ")))
    })?;
    if out.exists() {
        return Err(Failure::new(Exit::Refused, format!("{} is there already", out.display())));
    }
    let installed = || catalogue::find(model).and_then(|entry| entry.installed(&folders::models()));
    let imported = || imports(data).into_iter().find(|(name, _)| name == model).map(|(_, path)| path);
    let from = if Path::new(model).exists() {
        hub::resolve(Path::new(model), &folders::models()).map_err(failed)?
    } else {
        installed().or_else(imported).ok_or_else(|| unknown(model))?
    };
    export::to_gguf(&from, out, *ty).map_err(failed)?;
    let size_bytes = std::fs::metadata(out)?.len();
    Ok(json!({"path": out, "type": ty.name(), "size_bytes": size_bytes, "from": from}))
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    if from.is_file() {
        std::fs::copy(from, to)?;
        return std::fs::File::open(to)?.sync_all();
    }
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() || entry.path().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn remove(name: &str, data: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut removed = Vec::new();
    if let Some((_, path)) = imports(data).into_iter().find(|(n, _)| n == name) {
        if path.is_dir() {
            std::fs::remove_dir_all(&path)?
        } else {
            std::fs::remove_file(&path)?
        }
        removed.push(path);
    } else if let Some(entry) = catalogue::find(name) {
        for file in entry.files {
            let path = folders::models().join(file.path);
            if path.is_file() {
                std::fs::remove_file(&path)?;
                removed.push(path);
            }
        }
    }
    if removed.is_empty() {
        Err(Failure::not_found(format!("there is no `{name}` on this machine")))
    } else {
        Ok(removed)
    }
}

/// Imported models of a data folder, by name: a folder or `.gguf` each.
pub fn imports(data: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(imported(data)).into_iter().flatten().flatten();
    let mut found: Vec<(String, PathBuf)> = entries
        .filter_map(|e| {
            let name = e.file_name().into_string().ok()?;
            let id = name.strip_suffix(".gguf").unwrap_or(&name);
            // A dot at the beginning: an import that was not finished.
            (!name.starts_with('.') && ModelId::new(id).is_ok()).then(|| (id.to_string(), e.path()))
        })
        .collect();
    found.sort();
    found
}

fn unknown(name: &str) -> Failure {
    let known: Vec<&str> = catalogue::entries().iter().map(|e| e.name).collect();
    Failure::not_found(format!("there is no model `{name}`; the catalogue has {}", known.join(", ")))
}
