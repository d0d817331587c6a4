//! Trained models of this data folder: copied in, served at once, and served again at every start.
//!
//! An adapter over a model that is an adapter itself is merged into what that is with its base: it is served as a whole
//! model.
//!
//! Order: the whole copy, then the record that names it, then the engine. What a crash leaves without a record is removed
//! at the next start; a record without its model in the engine is loaded then.

use super::resolver::{io, is_merged, visible};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stockade_core::id::ModelId;
use stockade_core::infer::Inference;
use stockade_core::registry::{Registry, RegistryError, TrainedModel};
use stockade_core::train::{Publication, Publisher, TrainError};
use stockade_core::{BoxFuture, TenantId};
use stockade_infer::{Engine, ModelOptions};
use stockade_model::adapter::{AdapterConfig, is_adapter};
use stockade_train::export::merge;
use tokio::sync::Mutex;

/// Files of a result that are a model's; the rest of a job's folder is the run's.
const EXTENSIONS: [&str; 5] = ["safetensors", "json", "model", "jinja", "toml"];

pub struct Shelf {
    registry: Registry,
    engine: Arc<Engine>,
    /// See [`super::trained`].
    folder: PathBuf,
    /// One model is taken at a time: two requests may want to serve one checkpoint.
    taking: Mutex<()>,
}

impl Shelf {
    pub fn new(registry: Registry, engine: Arc<Engine>, folder: PathBuf) -> Self {
        Self { registry, engine, folder, taking: Mutex::default() }
    }

    /// Serves what is recorded, and removes what is not. Blocks for seconds a model.
    pub fn load(&self) -> Result<(), RegistryError> {
        let models = self.registry.trained_models()?;
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !models.iter().any(|m| m.folder == name) {
                remove(&entry.path());
            }
        }
        // Adapters after the models that they lie over.
        let (adapters, whole): (Vec<_>, Vec<_>) = models.iter().partition(|m| m.base.is_some());
        for model in whole.into_iter().chain(adapters) {
            if let Err(e) = serve(&self.engine, &self.folder, model) {
                tracing::warn!(tenant = %model.tenant, model = model.name, error = %e, "a trained model is not served");
            }
        }
        Ok(())
    }

    async fn take(&self, p: Publication) -> Result<ModelId, TrainError> {
        let _alone = self.taking.lock().await;
        let wrong = |reason: String| TrainError::Model { name: p.name.clone(), reason };
        let id = TrainedModel::served_as(&p.tenant, &p.name).map_err(|e| wrong(e.to_string()))?;
        let served = self.engine.models().iter().any(|m| m.id == id);
        if served && !self.registry.owns_model(&p.tenant, &id).map_err(io)? {
            return Err(wrong("another model is served under this name".into()));
        }
        let step = p.step.map_or_else(|| "end".into(), |step| format!("step-{step}"));
        let folder = format!("{}-{step}", p.job);
        let before = self.registry.trained_model(&id).map_err(io)?;
        if p.step.is_some() && served && before.as_ref().is_some_and(|before| before.folder == folder) {
            return Ok(id);
        }
        let (base, whole) = self.base(&p)?;
        let (from, to) = (p.path.clone(), self.folder.join(&folder));
        blocking(move || keep(&from, whole.as_deref(), &to)).await?;
        let (tenant, name) = (p.tenant, p.name);
        let model =
            TrainedModel { tenant, name, folder: folder.clone(), base, job: p.job, step: p.step, created_at: 0 };
        self.registry.put_trained_model(model.clone()).await.map_err(io)?;
        let (engine, shelf, new) = (self.engine.clone(), self.folder.clone(), model.clone());
        if let Err(e) = blocking(move || serve(&engine, &shelf, &new)).await {
            // A model that cannot be served is none.
            match before {
                Some(before) => self.registry.put_trained_model(before).await.map_err(io).map(|_| ())?,
                None => self.registry.delete_trained_model(&model.tenant, &id).await.map_err(io).map(|_| ())?,
            }
            return Err(e);
        }
        if let Some(before) = before.filter(|b| b.folder != folder) {
            remove(&self.folder.join(before.folder));
        }
        tracing::info!(tenant = %model.tenant, model = model.name, job = model.job, "a trained model is served");
        Ok(id)
    }

    /// What an adapter is served over; or, in place of that, the model that it is merged into.
    fn base(&self, p: &Publication) -> Result<(Option<ModelId>, Option<PathBuf>), TrainError> {
        if !is_adapter(&p.path) {
            return Ok((None, None));
        }
        let wrong = |reason: String| TrainError::Model { name: p.name.clone(), reason };
        let Some(name) = &p.base else { return Err(wrong("an adapter needs a base".into())) };
        // Where the base was that it was trained on, in the trainer's own words.
        let trained_on = AdapterConfig::from_folder(&p.path).map_err(|e| wrong(e.to_string()))?.base.map(PathBuf::from);
        if let Some(merged) = trained_on.filter(|path| is_merged(path)) {
            return Ok((None, Some(merged)));
        }
        let base = visible(&self.registry, &p.tenant, name).map_err(io)?;
        Ok((Some(base.ok_or_else(|| wrong(format!("its base `{name}` is not served")))?), None))
    }

    async fn drop_model(&self, tenant: &TenantId, id: &ModelId) -> Result<bool, TrainError> {
        let all = self.registry.trained_models().map_err(io)?;
        if let Some(over) = all.iter().find(|m| m.base.as_ref() == Some(id)) {
            let reason = format!("the adapter `{}` lies over it", over.name);
            return Err(TrainError::Model { name: id.to_string(), reason });
        }
        let Some(model) = self.registry.delete_trained_model(tenant, id).await.map_err(io)? else { return Ok(false) };
        self.engine.remove(id);
        remove(&self.folder.join(model.folder));
        Ok(true)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TrainError> + Send + 'static,
) -> Result<T, TrainError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| TrainError::Io { stage: "serving a trained model", source: Box::new(e) })?
}

fn serve(engine: &Engine, shelf: &Path, model: &TrainedModel) -> Result<(), TrainError> {
    let options = ModelOptions { base: model.base.as_ref().map(ToString::to_string), ..ModelOptions::default() };
    let loaded = engine.load_model(model.id().map_err(io)?, &shelf.join(&model.folder), &options, &|_, _| {});
    loaded.map(|_| ()).map_err(|e| TrainError::Model { name: model.name.clone(), reason: e.to_string() })
}

impl Publisher for Shelf {
    fn publish(&self, publication: Publication) -> BoxFuture<'_, Result<ModelId, TrainError>> {
        Box::pin(self.take(publication))
    }
    fn withdraw<'a>(&'a self, tenant: &'a TenantId, id: &'a ModelId) -> BoxFuture<'a, Result<bool, TrainError>> {
        Box::pin(self.drop_model(tenant, id))
    }
}

/// A model in a folder of its own, which appears whole: the files of `from`, or that adapter merged into `base`.
fn keep(from: &Path, base: Option<&Path>, to: &Path) -> Result<(), TrainError> {
    let keeping =
        |source: std::io::Error| TrainError::Io { stage: "keeping a trained model", source: Box::new(source) };
    let beside = to.with_extension("partial");
    remove(&beside);
    match base {
        Some(base) => merge(base, from, &beside, None).map(|_| ())?,
        None => copy(from, &beside).map_err(keeping)?,
    }
    remove(to);
    std::fs::rename(&beside, to).map_err(keeping)?;
    match to.parent() {
        Some(parent) => std::fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(keeping),
        None => Ok(()),
    }
}

/// The files that are the model's.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let path = entry.path();
        let known = path.extension().is_some_and(|e| EXTENSIONS.iter().any(|known| e == *known));
        if known && entry.file_type()?.is_file() {
            let copy = to.join(entry.file_name());
            std::fs::copy(&path, &copy)?;
            std::fs::File::open(&copy)?.sync_all()?;
        }
    }
    Ok(())
}

/// A folder that may be gone already.
fn remove(folder: &Path) {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(folder = %folder.display(), error = %e, "cannot be removed");
        }
        _ => {}
    }
}
