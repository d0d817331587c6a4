//! Compilation in a process of its own, under limits that the kernel holds.
//!
//! A 100 KB component can cost a compiler 40 s and gigabytes. The child limits itself before it reads a byte of the
//! upload, has no secrets and no network to lose, and is killed when it takes too long.

use crate::engine;
use crate::runtime::Inner;
use crate::threads::lower_priority;
use bytes::Bytes;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use stockade_core::BoxError;
use tokio::io::AsyncReadExt;

/// Longest complaint of the compiler that is passed on.
const MAX_COMPLAINT_BYTES: usize = 4096;
/// Beginning of the names of files that a compiler works on.
const SCRATCH: &str = ".compiling-";
/// Exit code of a child that refuses its input; others are accidents.
const REFUSED: u8 = 3;

/// How to start the compiler: usually this very executable with a hidden subcommand.
#[derive(Debug, Clone)]
pub struct CompilerCommand {
    pub program: PathBuf,
    /// What comes before the compiler's own arguments.
    pub args: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CompileError {
    /// Beyond a limit, or no valid component: the uploader's to change.
    #[error("{found}")]
    Refused { found: String, expected: String },
    #[error("too many uploads are being compiled")]
    Overloaded,
    #[error("the host failed in {stage}")]
    Host {
        stage: &'static str,
        #[source]
        source: BoxError,
    },
}

fn host(stage: &'static str, source: impl Into<BoxError>) -> CompileError {
    CompileError::Host { stage, source: source.into() }
}

/// Compiles `bytes` into the file `artifact`, whole or not at all.
pub(crate) async fn run(inner: &Arc<Inner>, fuel: bool, bytes: &Bytes, artifact: &Path) -> Result<(), CompileError> {
    let _waiting = inner.compilers.wait().map_err(|()| CompileError::Overloaded)?;
    let _turn = inner.compilers.turns.acquire().await;

    let folder = artifact.parent().unwrap_or(Path::new("."));
    let (input, output) = (TempFile::new(folder, "wasm"), TempFile::new(folder, "cwasm"));

    // Tens of MiB may go to disk: not on the guests' threads.
    let (path, upload) = (input.0.clone(), bytes.clone());
    let write = move || std::fs::write(path, upload);
    blocking(inner, "writing the upload for its compiler", write).await?;
    spawn(inner, fuel, &input.0, &output.0).await?;
    let (from, to) = (output.0.clone(), artifact.to_path_buf());
    blocking(inner, "keeping a compiled component", move || keep(&from, &to)).await
}

/// Moves a whole artifact to its place.
fn keep(from: &Path, artifact: &Path) -> std::io::Result<()> {
    std::fs::File::open(from)?.sync_all()?;
    std::fs::rename(from, artifact)?;
    std::fs::File::open(artifact.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Writes an artifact to its place, whole or not at all.
pub(crate) fn keep_bytes(bytes: &[u8], artifact: &Path) -> std::io::Result<()> {
    let beside = TempFile::new(artifact.parent().unwrap_or(Path::new(".")), "cwasm");
    std::fs::write(&beside.0, bytes)?;
    keep(&beside.0, artifact)
}

async fn blocking(
    inner: &Arc<Inner>,
    stage: &'static str,
    work: impl FnOnce() -> std::io::Result<()> + Send + 'static,
) -> Result<(), CompileError> {
    let done = inner.threads.spawn_blocking(work).await;
    done.map_err(|e| host(stage, e))?.map_err(|e| host(stage, e))
}

/// Removes what compilers of a host that is no more have left in `folder`.
pub(crate) fn sweep(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let owner = name.to_str().and_then(|n| n.strip_prefix(SCRATCH)).and_then(|n| n.split_once('-'));
        if let Some((pid, _)) = owner
            && !Path::new("/proc").join(pid).exists()
        {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

async fn spawn(inner: &Arc<Inner>, fuel: bool, input: &Path, output: &Path) -> Result<(), CompileError> {
    let limits = &inner.settings.compile;
    let command = &inner.compiler;
    let mut child = tokio::process::Command::new(&command.program)
        .args(&command.args)
        .arg(input)
        .arg(output)
        .arg(if fuel { "fuel" } else { "plain" })
        .arg(limits.cpu.as_secs().max(1).to_string())
        .arg(limits.memory_bytes.to_string())
        .arg(inner.settings.nice.to_string())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| host("starting the compiler", e))?;

    let mut complaint = Vec::new();
    let stderr = child.stderr.take();
    let finished = async {
        if let Some(stderr) = stderr {
            let mut stderr = stderr.take(MAX_COMPLAINT_BYTES as u64);
            stderr.read_to_end(&mut complaint).await?;
        }
        child.wait().await
    };
    let Ok(status) = tokio::time::timeout(limits.wall, finished).await else {
        // Dropping the child kills it.
        return Err(too_expensive(format!("compiling takes longer than {} s", limits.wall.as_secs()), limits.wall));
    };
    let status = status.map_err(|e| host("waiting for the compiler", e))?;
    let complaint = String::from_utf8_lossy(&complaint).trim().to_string();
    if status.success() {
        return Ok(());
    }
    if status.code() == Some(i32::from(REFUSED)) {
        return Err(CompileError::Refused {
            found: complaint,
            expected: "a valid component within the features of the plugin API".into(),
        });
    }
    match status.signal() {
        Some(libc::SIGXCPU | libc::SIGKILL) => Err(too_expensive(
            format!("compiling takes more than {} s of processor time", limits.cpu.as_secs()),
            limits.cpu,
        )),
        // Rust aborts when memory runs out; a compiler that crashes on an upload is the upload's end as well.
        Some(libc::SIGABRT | libc::SIGSEGV | libc::SIGBUS) => Err(CompileError::Refused {
            found: format!("compiling takes more than {} MiB of memory", limits.memory_bytes >> 20),
            expected: "smaller or fewer functions".into(),
        }),
        _ => Err(host("the compiler", format!("{status}: {complaint}"))),
    }
}

fn too_expensive(found: String, limit: Duration) -> CompileError {
    CompileError::Refused { found, expected: format!("functions that compile within {} s", limit.as_secs()) }
}

/// A file that goes when it is dropped.
struct TempFile(PathBuf);

impl TempFile {
    /// A name in `folder` that nobody else has; [`sweep`] knows it.
    fn new(folder: &Path, extension: &str) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(folder.join(format!("{SCRATCH}{}-{number}.{extension}", std::process::id())))
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // Gone already when it was moved to its place.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Compilers at once, and uploads that wait for one.
pub(crate) struct Compilers {
    turns: tokio::sync::Semaphore,
    waiting: Arc<tokio::sync::Semaphore>,
}

impl Compilers {
    pub fn new(at_once: usize, max_waiting: usize) -> Self {
        let at_once = at_once.max(1);
        Self {
            turns: tokio::sync::Semaphore::new(at_once),
            waiting: Arc::new(tokio::sync::Semaphore::new(at_once.saturating_add(max_waiting))),
        }
    }

    fn wait(&self) -> Result<tokio::sync::OwnedSemaphorePermit, ()> {
        self.waiting.clone().try_acquire_owned().map_err(|_| ())
    }
}

/// The child's whole life: `INPUT OUTPUT plain|fuel CPU_SECONDS MEMORY_BYTES NICE`.
pub fn child_main(args: impl IntoIterator<Item = String>) -> ExitCode {
    let args: Vec<String> = args.into_iter().collect();
    match child(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(ChildError::Input(e)) => {
            complain(&format!("{e:#}"));
            ExitCode::from(REFUSED)
        }
        Err(ChildError::Host(e)) => {
            complain(&e.to_string());
            ExitCode::FAILURE
        }
    }
}

enum ChildError {
    Input(wasmtime::Error),
    Host(BoxError),
}

fn child(args: &[String]) -> Result<(), ChildError> {
    let host = |e: BoxError| ChildError::Host(e);
    let [input, output, fuel, cpu, memory, nice] = args else {
        return Err(host("usage: INPUT OUTPUT plain|fuel CPU_SECONDS MEMORY_BYTES NICE".into()));
    };
    let number = |text: &str| text.parse::<u64>().map_err(|e| ChildError::Host(e.into()));
    set_limit(libc::RLIMIT_CPU, number(cpu)?).map_err(|e| host(e.into()))?;
    set_limit(libc::RLIMIT_AS, number(memory)?).map_err(|e| host(e.into()))?;
    set_limit(libc::RLIMIT_CORE, 0).map_err(|e| host(e.into()))?;
    lower_priority(nice.parse().unwrap_or(0));

    let bytes = std::fs::read(input).map_err(|e| host(e.into()))?;
    let engine = engine::compiler(fuel == "fuel").map_err(|e| host(e.into()))?;
    let artifact = engine.precompile_component(&bytes).map_err(ChildError::Input)?;
    std::fs::write(output, artifact).map_err(|e| host(e.into()))
}

fn complain(text: &str) {
    let text = &text[..text.floor_char_boundary(MAX_COMPLAINT_BYTES)];
    // Nobody is left to tell when this fails.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Sets the soft limit; the hard one a little above, so that the processor-time signal comes before the kill.
fn set_limit(which: libc::__rlimit_resource_t, value: u64) -> std::io::Result<()> {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value.saturating_add(1) };
    // SAFETY: setrlimit reads one rlimit, which `limit` is.
    if unsafe { libc::setrlimit(which, &limit) } == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
