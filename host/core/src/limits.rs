//! Bounds on one component call, and what a call used of them.

use serde::{Deserialize, Serialize};

/// Limits of one call. Each has a default in the host's settings; a grant may change it within the operator's maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Wall time in milliseconds, waits for models and tools included.
    pub deadline_ms: u64,
    /// Processor time in milliseconds spent inside the component.
    pub cpu_ms: u64,
    /// Bytes of all linear memories and tables of the call together.
    pub memory_bytes: u64,
    /// wasmtime fuel; 0: not metered.
    pub fuel: u64,
    /// Calls from the component into the host.
    pub host_calls: u64,
    /// Bytes the component may hand out: events, results, log text.
    pub output_bytes: u64,
    /// Log lines.
    pub log_lines: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline_ms: 120_000,
            cpu_ms: 5_000,
            memory_bytes: 64 << 20,
            fuel: 0,
            host_calls: 100_000,
            output_bytes: 8 << 20,
            log_lines: 1_000,
        }
    }
}

/// Which bound ended a call; the `limit` field of `component_failed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    Cpu,
    Deadline,
    Memory,
    Fuel,
    HostCalls,
    Output,
    /// Not a limit: the component broke its contract or crashed.
    Trap,
}

impl LimitKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Fuel => "fuel",
            Self::HostCalls => "host_calls",
            Self::Output => "output",
            Self::Trap => "trap",
        }
    }
}

/// What a call used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CallUsage {
    pub wall_us: u64,
    pub cpu_us: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
    pub peak_memory_bytes: u64,
    pub host_calls: u64,
}
