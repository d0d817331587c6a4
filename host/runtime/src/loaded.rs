//! Compiled components: on disk by engine configuration and digest, in memory while they are used.
//!
//! Invariants:
//! - an artifact is machine code: only files that this host's own compiler has written are loaded, out of a folder that
//!   nobody else may write to
//! - the files are a cache: any of them may be missing, and is then compiled again from the component's blob

use crate::artifacts;
use crate::compile::{self, CompileError};
use crate::engine;
use crate::guest::Guest;
use crate::host;
use crate::runtime::Inner;
use crate::settings::Settings;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use stockade_core::plugin::CallError;
use stockade_core::store::StoreError;
use stockade_core::{BoxError, ComponentRef, Digest};
use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime::component::{Component, InstancePre, Linker};

/// A component that can be instantiated at once.
pub(crate) struct Loaded {
    pub component: Component,
    pub pre: InstancePre<Guest>,
    last_used: AtomicU64,
}

/// An engine with all that belongs to it.
pub(crate) struct Machine {
    pub engine: Engine,
    pub slots: Arc<Semaphore>,
    pub fuel: bool,
    linker: Linker<Guest>,
    artifacts: PathBuf,
    loaded: Mutex<HashMap<Digest, Arc<Loaded>>>,
    /// One loader or compiler a component at a time.
    loading: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
    clock: AtomicU64,
    max_loaded: usize,
}

impl Machine {
    pub fn new(settings: &Settings, fuel: bool) -> Result<Self, BoxError> {
        let engine = engine::for_settings(settings, fuel)?;
        let artifacts = settings.artifacts.join(engine::config_hash(&engine));
        private_folder(&artifacts)?;
        compile::sweep(&artifacts)?;
        let instances = if fuel { settings.metered_instances } else { settings.instances };
        Ok(Self {
            linker: host::linker(&engine)?,
            engine,
            slots: Arc::new(Semaphore::new(instances.max(1) as usize)),
            fuel,
            artifacts,
            loaded: Mutex::default(),
            loading: Mutex::default(),
            clock: AtomicU64::new(0),
            max_loaded: settings.max_loaded.max(1),
        })
    }

    pub fn artifact(&self, digest: Digest) -> PathBuf {
        artifacts::path(&self.artifacts, digest)
    }

    /// The component, from memory, its artifact or its blob.
    pub async fn load(&self, host: &Arc<Inner>, component: &ComponentRef) -> Result<Arc<Loaded>, CallError> {
        let digest = component.digest;
        if let Some(loaded) = self.get(digest) {
            return Ok(loaded);
        }
        let turn = self.loading.lock().entry(digest).or_default().clone();
        let _turn = turn.lock().await;
        let loaded = match self.get(digest) {
            Some(loaded) => Ok(loaded),
            None => self.load_slowly(host, component).await,
        };
        self.loading.lock().remove(&digest);
        loaded
    }

    async fn load_slowly(&self, host: &Arc<Inner>, component: &ComponentRef) -> Result<Arc<Loaded>, CallError> {
        let artifact = self.artifact(component.digest);
        if artifact.exists() {
            match self.open(component.digest) {
                Ok(loaded) => return Ok(loaded),
                Err(e) => {
                    tracing::warn!(%component, "an artifact does not load, compiling again: {e:#}");
                }
            }
        }
        let blob = host.registry.blobs().get(component.digest).await;
        let bytes = blob.map_err(|e| match e {
            StoreError::NoBlob(_) => failed("finding the component's bytes", e),
            e => failed("reading the component's bytes", e),
        })?;
        let compiled = compile::run(host, self.fuel, &bytes, &artifact).await;
        compiled.map_err(|e: CompileError| failed("compiling the component", e))?;
        self.open(component.digest).map_err(|e| failed("loading the component", e))
    }

    /// Loads an artifact and keeps it.
    pub fn open(&self, digest: Digest) -> wasmtime::Result<Arc<Loaded>> {
        let path = self.artifact(digest);
        // SAFETY: the file was written by this host's compiler and moved here whole; the folder has mode 0700, so that
        // nobody of less than our own rights could have changed it. wasmtime checks its header for engine and settings.
        let component = unsafe { Component::deserialize_file(&self.engine, path)? };
        let loaded = Arc::new(Loaded {
            pre: self.linker.instantiate_pre(&component)?,
            component,
            last_used: AtomicU64::new(self.tick()),
        });
        let mut all = self.loaded.lock();
        if all.len() >= self.max_loaded {
            let oldest = all.iter().min_by_key(|(_, l)| l.last_used.load(Ordering::Relaxed));
            if let Some(oldest) = oldest.map(|(digest, _)| *digest) {
                all.remove(&oldest);
            }
        }
        all.insert(digest, loaded.clone());
        Ok(loaded)
    }

    /// Keeps an artifact that was compiled beforehand, unless there is one. `false` when it is for another engine or
    /// another processor.
    ///
    /// # Safety
    /// `artifact` is what this host's compiler made of the component `digest`.
    pub unsafe fn seed(&self, digest: Digest, artifact: &[u8]) -> std::io::Result<bool> {
        let place = self.artifact(digest);
        if place.exists() {
            return Ok(true);
        }
        // SAFETY: the caller's promise; wasmtime checks the header for engine, settings and processor.
        if unsafe { Component::deserialize(&self.engine, artifact) }.is_err() {
            return Ok(false);
        }
        compile::keep_bytes(artifact, &place)?;
        Ok(true)
    }

    fn get(&self, digest: Digest) -> Option<Arc<Loaded>> {
        let loaded = self.loaded.lock().get(&digest).cloned()?;
        loaded.last_used.store(self.tick(), Ordering::Relaxed);
        Some(loaded)
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }
}

fn failed(stage: &'static str, source: impl Into<BoxError>) -> CallError {
    CallError::Host { stage, source: source.into() }
}

/// Makes a folder that only this user may look into or write to.
pub(crate) fn private_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}
