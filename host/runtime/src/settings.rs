//! What the operator sets about components. Every number has a unit and a reason; nothing is read from outside here.

use std::path::PathBuf;
use std::time::Duration;
use stockade_core::limits::Limits;

/// How components are compiled, run and bounded.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Folder of compiled components; made with mode 0700, since its files are run as machine code.
    pub artifacts: PathBuf,
    /// Other hosts keep theirs in the folder too: nothing in it is deleted.
    pub artifacts_shared: bool,
    /// Component instances alive at once. Each reserves address space, not memory.
    pub instances: u32,
    /// Instances alive at once of calls that count fuel, which have an engine of their own.
    pub metered_instances: u32,
    /// Threads that run short calls.
    pub threads: usize,
    /// Threads for guests that compute for longer than [`Self::light_cpu`].
    pub heavy_at_once: usize,
    /// Processor time after which a call counts as heavy. Honest shields and prompt stores stay far below it.
    pub light_cpu: Duration,
    /// Niceness of guest threads and of compilers, 0 to 19: above the gateway's and the engine's 0.
    pub nice: i32,
    /// Limits of a call whose grants set none.
    pub default_limits: Limits,
    /// What grants may raise a limit to.
    pub max_limits: Limits,
    /// Component handles (resources, subtasks, streams, waitables) in one instance.
    pub max_handles: usize,
    /// Calls into the host that one instance may have under way; more wait.
    pub max_host_calls_at_once: usize,
    /// Calls into the host in a second, on average over the call; asynchronous ones beyond it wait.
    pub host_calls_per_second: u64,
    /// Components that call each other in a row.
    pub max_depth: u8,
    /// Upload and compilation.
    pub compile: CompileSettings,
    /// Components kept loaded; the least recently used one goes first.
    pub max_loaded: usize,
}

/// Bounds on one upload.
#[derive(Debug, Clone)]
pub struct CompileSettings {
    /// Largest component.
    pub max_bytes: usize,
    /// Processor time of the compiler. Python's 18 MiB take 12 s.
    pub cpu: Duration,
    /// Address space of the compiler. A 11 MiB JavaScript engine takes 330 MiB.
    pub memory_bytes: u64,
    /// Wall time of the compiler.
    pub wall: Duration,
    /// Compilers at once.
    pub at_once: usize,
    /// Uploads that wait for a compiler; one more is refused.
    pub max_waiting: usize,
}

impl Settings {
    /// Defaults for a machine with `cores` processors.
    pub fn new(artifacts: impl Into<PathBuf>, cores: usize) -> Self {
        Self {
            artifacts: artifacts.into(),
            artifacts_shared: false,
            instances: 500,
            metered_instances: 16,
            threads: cores.max(2),
            heavy_at_once: (cores / 2).max(1),
            light_cpu: Duration::from_millis(5),
            nice: 10,
            default_limits: Limits::default(),
            max_limits: Limits {
                deadline_ms: 600_000,
                cpu_ms: 60_000,
                memory_bytes: 512 << 20,
                fuel: u64::MAX,
                host_calls: 10_000_000,
                output_bytes: 64 << 20,
                log_lines: 10_000,
            },
            max_handles: 4096,
            max_host_calls_at_once: 64,
            host_calls_per_second: 50_000,
            max_depth: 8,
            compile: CompileSettings::default(),
            max_loaded: 512,
        }
    }

    /// The limits of a call under what its grants ask for.
    pub(crate) fn effective(&self, asked: Option<&Limits>) -> Limits {
        let max = &self.max_limits;
        let l = asked.unwrap_or(&self.default_limits);
        Limits {
            deadline_ms: l.deadline_ms.min(max.deadline_ms),
            cpu_ms: l.cpu_ms.min(max.cpu_ms),
            memory_bytes: l.memory_bytes.min(max.memory_bytes),
            fuel: l.fuel.min(max.fuel),
            host_calls: l.host_calls.min(max.host_calls),
            output_bytes: l.output_bytes.min(max.output_bytes),
            log_lines: l.log_lines.min(max.log_lines),
        }
    }
}

impl Default for CompileSettings {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            cpu: Duration::from_secs(30),
            memory_bytes: 1 << 30,
            wall: Duration::from_secs(240),
            at_once: 1,
            max_waiting: 16,
        }
    }
}
