//! Which models a host serves, and loading them: the command line's, the data folder's, the catalogue's defaults.
//!
//! Adapters are loaded behind all models, since each needs its base; a base that nobody asked for is served as well.

use crate::cli::Serve;
use crate::commands::data::failed;
use crate::commands::models::imports;
use crate::failure::{Exit, Failure};
use crate::folders;
use crate::progress::Progress;
use crate::settings::Settings;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stockade_core::ModelId;
use stockade_core::infer::Inference;
use stockade_infer::{Engine, LoadError, ModelOptions};
use stockade_model::adapter;
use stockade_model::catalogue::{self, Entry};
use stockade_model::hub::{self, PullOptions};

pub fn engine_settings(settings: &Settings) -> stockade_infer::Settings {
    let s = &settings.models;
    let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    stockade_infer::Settings {
        max_waiting: number(s.max_queue),
        max_running: number(s.max_sequences),
        max_step_tokens: number(s.step_tokens),
        threads: (s.threads != 0).then(|| number(s.threads)),
        memory_bytes: (s.memory_bytes != 0).then_some(s.memory_bytes),
        ..stockade_infer::Settings::default()
    }
}

/// Loads every model in order, pulling what is missing; the first is the default. A missing embedder is pulled behind the
/// start, so that a chat does not wait for it.
pub async fn load(flags: &Serve, settings: &Settings, data: &Path, engine: Arc<Engine>) -> Result<(), Failure> {
    let mut named = flags.models.iter().map(|text| Wanted::parse(text)).collect::<Result<Vec<_>, _>>()?;
    if named.is_empty() {
        named.push(Wanted::entry(catalogue::default_entry()));
    }
    let default = ModelId::new(&named[0].name).map_err(|e| Failure::usage(e.to_string()))?;
    named.extend(imports(data).into_iter().map(|(name, path)| Wanted { name, from: From::Path(path), base: None }));
    let embedder = catalogue::default_embedder();
    let (mut now, mut later) = (named, None);
    if !now.iter().any(|w| w.name == embedder.name) {
        match embedder.installed(&folders::models()) {
            Some(_) => now.push(Wanted::entry(embedder)),
            None if !settings.models.offline => later = Some(Wanted::entry(embedder)),
            None => {}
        }
    }
    let puller = Puller { offline: settings.models.offline, endpoint: settings.models.hub_endpoint.clone() };
    let loaded = {
        let (engine, puller) = (engine.clone(), puller.clone());
        let load = move || {
            let (adapters, models): (Vec<_>, Vec<_>) = now.iter().partition(|wanted| wanted.is_adapter());
            let loaded = models.into_iter().chain(adapters).try_for_each(|wanted| wanted.load(&engine, &puller));
            engine.prefer(&default);
            loaded
        };
        tokio::task::spawn_blocking(load).await
    };
    loaded.map_err(|e| Failure::new(Exit::Failed, e.to_string()))??;
    if let Some(wanted) = later {
        tokio::task::spawn_blocking(move || {
            if let Err(e) = wanted.load(&engine, &puller) {
                tracing::warn!(model = wanted.name, error = %e, "is not served");
            }
        });
    }
    Ok(())
}

/// How models are pulled.
#[derive(Clone)]
pub struct Puller {
    pub offline: bool,
    /// Empty: the default hub.
    pub endpoint: String,
}

impl Puller {
    /// Where the entry is, once it is here.
    pub fn pull(&self, entry: &'static Entry) -> Result<PathBuf, Failure> {
        let progress = Progress::new(format!("pulling {}", entry.name));
        let models_dir = folders::models();
        let options = PullOptions {
            models_dir: &models_dir,
            endpoint: &self.endpoint,
            token: None,
            offline: self.offline,
            progress: &|p| progress.set(p.done_bytes, p.total_bytes),
        };
        hub::pull(entry, &options).map_err(failed)
    }
}

/// `PATH` or `PATH@BASE`: a path, and the model that the adapter there is an adapter of. An `@` that is part of an existing
/// path belongs to it.
pub fn path_and_base(text: &str) -> (&str, Option<&str>) {
    let on_disk = |path: &str| Path::new(path).exists();
    match text.rsplit_once('@') {
        Some((path, base)) if !on_disk(text) && on_disk(path) && !base.is_empty() => (path, Some(base)),
        _ => (text, None),
    }
}

/// The path that an adapter in `folder` calls its base, if there is one of that name: relative to the folder, or as it is.
pub fn base_path(name: &str, folder: &Path) -> Option<PathBuf> {
    [folder.join(name), name.into()].iter().find_map(|path| path.canonicalize().ok())
}

/// A model to serve.
struct Wanted {
    name: String,
    from: From,
    /// Of an adapter, when the command line says so.
    base: Option<String>,
}

enum From {
    Catalogue(&'static Entry),
    Path(PathBuf),
}

impl Wanted {
    fn entry(entry: &'static Entry) -> Self {
        Self { name: entry.name.into(), from: From::Catalogue(entry), base: None }
    }

    /// `NAME=PATH` or `NAME=PATH@BASE`, or the name of a catalogue entry; a PATH that names an entry means that entry.
    fn parse(text: &str) -> Result<Self, Failure> {
        let (name, path) = text.split_once('=').unwrap_or((text, text));
        let (path, base) = path_and_base(path);
        let base = base.map(String::from);
        ModelId::new(name).map_err(|e| Failure::usage(e.to_string()))?;
        let on_disk = Path::new(path).exists();
        match catalogue::find(path) {
            Some(entry) if !on_disk => Ok(Self { name: name.into(), from: From::Catalogue(entry), base }),
            _ if text.contains('=') && on_disk => Ok(Self { name: name.into(), from: From::Path(path.into()), base }),
            _ if text.contains('=') => Err(Failure::not_found(format!("--model {text}: there is no {path}"))),
            _ => Err(Failure::not_found(format!(
                "--model {text}: not NAME=PATH, and the catalogue has {}",
                catalogue::entries().iter().map(|e| e.name).collect::<Vec<_>>().join(", ")
            ))),
        }
    }

    fn is_adapter(&self) -> bool {
        matches!(&self.from, From::Path(path) if adapter::is_adapter(path))
    }

    /// The base that an adapter in `folder` names, to be served under the catalogue's name or that of its file.
    fn base(name: &str, folder: &Path) -> Result<Self, Failure> {
        if let Some(entry) = catalogue::find(name) {
            return Ok(Self::entry(entry));
        }
        let path = base_path(name, folder).ok_or_else(|| {
            let adapter = folder.display();
            Failure::not_found(format!(
                "{adapter}: there is no model `{name}` for it; name its base: NAME={adapter}@BASE"
            ))
        })?;
        let own = if path.is_dir() { path.file_name() } else { path.file_stem() };
        let name = own.unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, from: From::Path(path), base: None })
    }

    /// Blocks for seconds, for a pull for minutes.
    fn load(&self, engine: &Engine, puller: &Puller) -> Result<(), Failure> {
        let path = match &self.from {
            From::Catalogue(entry) => puller.pull(entry)?,
            From::Path(path) => hub::resolve(path, &folders::models()).map_err(failed)?,
        };
        if self.base.is_some() && !adapter::is_adapter(&path) {
            return Err(Failure::usage(format!("{}: only an adapter has a base", path.display())));
        }
        let id = ModelId::new(&self.name).map_err(|e| Failure::usage(e.to_string()))?;
        let load = || {
            let progress = Progress::new(format!("loading {}", self.name));
            let report = |done, total| progress.set(done, Some(total));
            let options = ModelOptions { base: self.base.clone(), ..ModelOptions::default() };
            engine.load_model(id.clone(), &path, &options, &report)
        };
        let loaded = match load() {
            Err(LoadError::NoBase { base, .. }) => {
                let base = Self::base(&base, &path)?;
                if base.is_adapter() || engine.models().iter().any(|model| model.id.as_str() == base.name) {
                    let reason = format!("{}: `{}` cannot be its base", path.display(), base.name);
                    return Err(Failure::new(Exit::Failed, reason));
                }
                base.load(engine, puller)?;
                load()
            }
            loaded => loaded,
        };
        loaded.map(|_| ()).map_err(failed)
    }
}
