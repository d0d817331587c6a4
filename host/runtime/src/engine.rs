//! wasmtime's configuration and the tick that lets guests be interrupted.
//!
//! Invariant: the compiler's engine and the host's differ in the pool alone, so an artifact of the one loads in the
//! other; [`config_hash`] names everything else that an artifact depends on.

use crate::settings::Settings;
use sha2::{Digest, Sha256};
use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

/// Time between epochs: how soon a guest notices its deadline.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// Largest linear memory of any call; a store's own limit is lower. Larger initial memories are refused at load.
const MAX_MEMORY_BYTES: usize = 512 << 20;
/// Kept resident of a freed memory, so that the next instance does not fault it in again.
const KEEP_RESIDENT: usize = 1 << 20;

/// The engine of the compile process: no pool, nothing in parallel, so that its limits hold.
pub(crate) fn compiler(fuel: bool) -> wasmtime::Result<Engine> {
    let mut config = common(fuel);
    config.parallel_compilation(false);
    Engine::new(&config)
}

/// The engine that runs guests out of a pool of `instances`.
pub(crate) fn pooled(instances: u32, fuel: bool) -> wasmtime::Result<Engine> {
    let mut config = common(fuel);
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(64))
        .total_memories(instances.saturating_mul(4))
        .total_tables(instances.saturating_mul(24))
        .total_stacks(instances.saturating_mul(4))
        .max_core_instances_per_component(64)
        .max_memories_per_component(8)
        .max_tables_per_component(64)
        .max_tables_per_module(16)
        .max_memories_per_module(8)
        .max_memory_size(MAX_MEMORY_BYTES)
        .table_elements(60_000)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .max_unused_warm_slots(100);
    // Measured: 1 MiB kept resident is faster with the page-map scan and slower without it.
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Yes);
        pool.linear_memory_keep_resident(KEEP_RESIDENT);
    } else {
        pool.linear_memory_keep_resident(64 << 10);
    }
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
}

fn common(fuel: bool) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .consume_fuel(fuel)
        .concurrency_support(true)
        .memory_init_cow(true)
        .wasm_backtrace_max_frames(NonZeroUsize::new(20))
        .wasm_component_model(true)
        .wasm_component_model_async(true)
        .wasm_component_model_threading(false)
        .wasm_component_model_error_context(false)
        .wasm_simd(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .wasm_tail_call(false)
        .wasm_wide_arithmetic(false)
        .wasm_stack_switching(false);
    config
}

/// Names the engine version, its settings and the machine's instruction set.
pub(crate) fn config_hash(engine: &Engine) -> String {
    struct Sink(Sha256);
    impl Hasher for Sink {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut sink = Sink(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut sink);
    let hash: [u8; 32] = sink.0.finalize().into();
    let text = stockade_core::Digest(hash).to_string();
    text[..16].to_string()
}

/// One thread that advances the epoch of all engines until it is dropped.
pub(crate) struct Ticker {
    stop: Arc<AtomicBool>,
}

impl Ticker {
    pub fn start(engines: Vec<Engine>) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        std::thread::Builder::new().name("guest-epoch".into()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(TICK);
                engines.iter().for_each(Engine::increment_epoch);
            }
        })?;
        Ok(Self { stop })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A pooled engine with room for what `settings` ask for.
pub(crate) fn for_settings(settings: &Settings, fuel: bool) -> wasmtime::Result<Engine> {
    let instances = if fuel { settings.metered_instances } else { settings.instances };
    pooled(instances.max(1), fuel)
}
