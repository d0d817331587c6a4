//! Runs sandboxed components: compiles uploads, keeps them loaded, and calls them one fresh instance at a time.
//!
//! Owns the wasmtime engine, the guests' threads, limits, grants and the host's side of `wit/v0.1`. Refuses to own what
//! a call is for: which components a tenant has bound, and what follows from a verdict, is the gateway's. Models and
//! state come in as seams; no weights and no candle are in this crate's dependency graph.
//!
//! Invariants:
//! - nothing of a guest outlives its call, and its failure is the failure of that call alone
//! - a guest reaches what its grants name, checked at each call, and nothing else
//! - everything that a guest can make grow has a bound

mod admit;
mod artifacts;
mod bindings;
mod call;
pub mod compile;
mod convert;
mod engine;
mod exports;
mod gate;
mod guest;
mod host;
mod invoke;
mod judge;
mod loaded;
mod meter;
mod metrics;
mod runtime;
mod screen;
mod settings;
mod threads;
mod toolbox;
mod turn;
mod value;

pub use compile::CompilerCommand;
pub use gate::{Inspected, inspect};
pub use runtime::{Runtime, Seams, StartError};
pub use settings::{CompileSettings, Settings};
