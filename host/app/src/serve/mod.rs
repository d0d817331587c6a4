//! `stockade serve`: builds the parts, hands them to each other, shuts them down.

mod keys;
mod logging;
mod models;
mod shipped;
mod upkeep;

use crate::cli::Serve;
use crate::commands::data::failed;
use crate::credentials;
use crate::failure::{Exit, Failure};
use crate::folders;
use crate::jobs;
use crate::jobs::shelf::Shelf;
use crate::jobs::worker::Workers;
use crate::outbound::Outbound;
use crate::output::print_line;
use crate::settings::Settings;
use crate::vault;
pub use models::{Puller, base_path, path_and_base};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use stockade_core::error::BoxFuture;
use stockade_core::infer::Inference;
use stockade_core::jobs::Jobs;
use stockade_core::limits::Limits;
use stockade_core::plugin::Plugins;
use stockade_core::registry::Registry;
use stockade_gateway::{Gateway, GatewayParts, Readiness};
use stockade_infer::Engine;
use stockade_runtime::{CompilerCommand, Runtime, Seams};
use stockade_state::State;
use stockade_train::trainer::HostTrainer;
use stockade_vectors::Indexes;
use tokio::net::TcpListener;

/// Most jobs at once, whatever the settings say: each has a thread and models' weights.
const MAX_JOBS_AT_ONCE: usize = 64;

pub fn run(flags: &Serve) -> Result<(), Failure> {
    let (settings, values) = Settings::load(flags)?;
    if flags.print_config {
        print_line(values.render().trim_end());
        return Ok(());
    }
    logging::start(&settings.log)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("gateway").enable_all().build()?;
    let served = runtime.block_on(serve(flags, &settings));
    // What is still blocking (a model that computes, a compiler) does not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(5));
    served
}

async fn serve(flags: &Serve, settings: &Settings) -> Result<(), Failure> {
    let started = Instant::now();
    let data = flags.data.clone().unwrap_or_else(folders::data);
    let listener = TcpListener::bind(&settings.server.listen)
        .await
        .map_err(|e| Failure::new(Exit::Failed, format!("{} cannot be listened on: {e}", settings.server.listen)))?;
    let url = format!("http://{}", listener.local_addr()?);

    let state = open_state(&data).await?;
    let registry = Registry::with_vault(state.clone(), state.blobs(), Arc::new(vault::open(&data)?));
    upkeep::run(&registry, &state).await?;
    let vectors = Indexes::new(state.clone(), stockade_vectors::Settings::default());
    let engine = Arc::new(Engine::new(models::engine_settings(settings)));
    let trainer = Arc::new(HostTrainer::default());
    let per_tenant = u32::try_from(settings.jobs.per_tenant).unwrap_or(u32::MAX);
    let jobs = Jobs::new(registry.clone(), engine.clone(), trainer.clone(), per_tenant);
    let components = Arc::new(
        Runtime::new(
            runtime_settings(&data, settings),
            Seams {
                inference: engine.clone(),
                registry: registry.clone(),
                vectors: Arc::new(vectors),
                http: Arc::new(Outbound::new()),
                jobs: Some(jobs.clone()),
            },
            compiler()?,
        )
        .map_err(failed)?,
    );

    components.sweep().await;

    let key = keys::seed(&registry).await?;
    let loading = models::load(flags, settings, &data, engine.clone());
    let shipping = async {
        if settings.components.bind_shipped {
            shipped::bind(&registry, &components).await?;
        }
        shipped::warm(&registry, &*components).await
    };
    tokio::try_join!(loading, shipping)?;
    let shelf = Arc::new(Shelf::new(registry.clone(), engine.clone(), jobs::trained(&data)));
    let trained = shelf.clone();
    tokio::task::spawn_blocking(move || trained.load()).await.map_err(failed)?.map_err(failed)?;

    let readiness = Readiness::starting();
    let gateway = Gateway::new(GatewayParts {
        registry: registry.clone(),
        inference: engine.clone(),
        plugins: components.clone(),
        jobs,
        publisher: shelf.clone(),
        settings: gateway_settings(settings),
        shipped: shipped::names(),
        readiness: readiness.clone(),
    });
    let workers = Workers::start(
        &jobs::worker::Parts {
            registry: registry.clone(),
            trainer,
            publisher: shelf,
            plugins: components.clone(),
            engine: Some(engine.clone()),
            folder: jobs::folder(&data),
            trained: jobs::trained(&data),
            threads: job_threads(settings),
            nice: i32::try_from(settings.jobs.nice.min(19)).unwrap_or(19),
            runtime: tokio::runtime::Handle::current(),
        },
        usize::try_from(settings.jobs.at_once).unwrap_or(usize::MAX).min(MAX_JOBS_AT_ONCE),
    )?;
    announce(&url, &data, key, engine.as_ref(), started)?;
    readiness.set_ready();
    let unbound = settings.components.bind_shipped;
    let unbound = unbound.then(|| tokio::spawn(async move { shipped::push_unbound(&registry, &*components).await }));
    let (shutdown, stopping) = (shutdown(readiness)?, workers.stopping());
    let going_down = async move {
        shutdown.await;
        // Runs save their checkpoints while the last requests end.
        stopping.store(true, Ordering::Release);
    };
    gateway.serve(listener, going_down).await?;
    let patience = Duration::from_secs(settings.server.drain_seconds);
    tokio::task::spawn_blocking(move || workers.stop(patience)).await.map_err(failed)?;
    // What is not in yet comes with the next start.
    if let Some(pushing) = unbound {
        pushing.abort();
        let _ = pushing.await;
    }
    match Arc::try_unwrap(state) {
        Ok(state) => state.close().await,
        // A task that outlived the drain still holds it; its queue is flushed when that ends.
        Err(_) => tracing::warn!("state is closed by the last task that uses it"),
    }
    tracing::info!("ended");
    Ok(())
}

async fn open_state(data: &Path) -> Result<Arc<State>, Failure> {
    let folder = data.to_path_buf();
    let opened = tokio::task::spawn_blocking(move || State::open(&folder, stockade_state::Config::default())).await;
    let state = opened.map_err(|e| Failure::new(Exit::Failed, e.to_string()))?.map_err(failed)?;
    let status = state.status();
    tracing::info!(folder = %data.display(), commits = status.last_commit, rows = status.rows, "state is open");
    Ok(Arc::new(state))
}

/// This very executable compiles components, in a process of its own.
pub fn compiler() -> Result<CompilerCommand, Failure> {
    Ok(CompilerCommand { program: std::env::current_exe()?, args: vec!["compile-component".into()] })
}

fn runtime_settings(data: &Path, settings: &Settings) -> stockade_runtime::Settings {
    let s = &settings.components;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // A folder that is named may be named by several hosts.
    let shared = !s.artifacts.is_empty();
    let artifacts = if shared { PathBuf::from(&s.artifacts) } else { data.join("components") };
    let defaults = stockade_runtime::Settings::new(artifacts, cores);
    let number = |n: u64, default: usize| if n == 0 { default } else { usize::try_from(n).unwrap_or(usize::MAX) };
    stockade_runtime::Settings {
        artifacts_shared: shared,
        instances: u32::try_from(s.max_instances).unwrap_or(u32::MAX),
        threads: number(s.threads, defaults.threads),
        default_limits: Limits {
            deadline_ms: s.deadline_ms,
            cpu_ms: s.cpu_ms,
            memory_bytes: s.memory_bytes,
            ..Limits::default()
        },
        compile: stockade_runtime::CompileSettings {
            max_bytes: number(s.max_upload_bytes, usize::MAX),
            cpu: Duration::from_secs(s.compile_cpu_seconds),
            memory_bytes: s.compile_memory_bytes,
            ..defaults.compile.clone()
        },
        ..defaults
    }
}

fn job_threads(settings: &Settings) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match usize::try_from(settings.jobs.threads).unwrap_or(usize::MAX) {
        0 => (cores / 2).max(1),
        n => n.min(cores),
    }
}

fn gateway_settings(settings: &Settings) -> stockade_gateway::Settings {
    let s = &settings.server;
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    stockade_gateway::Settings {
        max_body_bytes: size(s.max_body_bytes),
        max_component_bytes: size(settings.components.max_upload_bytes),
        max_requests: size(s.max_concurrent_requests),
        request_timeout: Duration::from_secs(s.request_timeout_seconds),
        write_timeout: Duration::from_secs(s.write_timeout_seconds),
        interruption: Duration::from_secs(s.interruption_seconds),
        drain: Duration::from_secs(s.drain_seconds),
        keep_traces: size(settings.traces.keep),
        ..stockade_gateway::Settings::default()
    }
}

/// Says where the server is, and shows a new key this once.
fn announce(
    url: &str,
    data: &Path,
    key: keys::AdminKey,
    inference: &dyn Inference,
    started: Instant,
) -> Result<(), Failure> {
    match key {
        keys::AdminKey::Fresh(key) => {
            print_line(&format!("key {key}"));
            let path = credentials::remember(data, url, Some(key))?;
            eprintln!("The admin key above is shown this once; client commands find it in {}.", path.display());
        }
        keys::AdminKey::Seeded(key) => {
            credentials::remember(data, url, Some(key))?;
        }
        keys::AdminKey::Kept => {
            credentials::remember(data, url, None)?;
        }
    }
    for model in inference.models() {
        tracing::info!(model = %model.id, quantization = model.quantization, context = model.context_tokens, "serving");
    }
    tracing::info!(url, startup_ms = started.elapsed().as_millis() as u64, "ready");
    print_line(&format!("ready {url}"));
    Ok(())
}

/// Done at the first SIGTERM or SIGINT, which begins the drain; a second one ends the process at once.
fn shutdown(readiness: Readiness) -> Result<BoxFuture<'static, ()>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(Box::pin(async move {
        let interrupted = tokio::select! {
            _ = terminate.recv() => false,
            _ = interrupt.recv() => true,
        };
        readiness.set_draining();
        tracing::info!("draining; a second signal ends at once");
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            std::process::exit(if interrupted { Exit::Interrupted as i32 } else { 1 });
        });
    }))
}

/// Where models imported into this data folder are.
pub fn imported(data: &Path) -> PathBuf {
    data.join("models")
}
