//! Write plugins for Stockade: policy that a host runs as sandboxed WebAssembly components.
//!
//! A plugin is a type that reads its configuration with serde and implements the trait of its kind; [`export!`] makes
//! a component of it:
//!
//! ```
//! use stockade_guest::prelude::*;
//!
//! /// Masks the words of a list.
//! #[derive(Deserialize)]
//! struct Banned {
//!     #[serde(default)]
//!     words: Vec<String>,
//! }
//!
//! impl Finder for Banned {
//!     fn longest(&self) -> usize {
//!         self.words.iter().map(String::len).max().unwrap_or(0)
//!     }
//!     fn find(&self, text: &str) -> Result<Vec<Finding>> {
//!         let hits = self.words.iter().flat_map(|w| text.match_indices(w.as_str()));
//!         Ok(hits.map(|(at, word)| Finding::mask(at..at + word.len(), "***")).collect())
//!     }
//! }
//! stockade_guest::export!(Banned as shield);
//!
//! // And its test, without a server:
//! let config = json!({"words": ["darn"]});
//! let reply = testing::every_split::<Banned>(config, "well, darn it");
//! assert_eq!(reply.sent, "well, *** it");
//! ```
//!
//! Two groups of modules:
//!
//! - **what a plugin is**: [`shield`], [`orchestrator`], [`prompt_store`], [`memory`], [`evaluator`],
//!   [`reward_scorer`], [`generator`], [`tool`], [`toolset`]: a trait each and the values that go through it;
//! - **what a plugin may call**: [`inference`], [`output`], [`state`], [`vectors`], [`tools`], [`shields`],
//!   [`prompts`], [`memories`], [`secrets`], [`http`], [`system`], [`datasets`], [`jobs`], and the log macros [`info!`],
//!   [`warn!`] and so on.
//!   All but logs, spans, metrics, configuration, time and randomness need a grant; a call without one answers
//!   [`Error::Denied`] or [`Error::NotFound`].
//!
//! Calls look synchronous. A call that waits suspends this plugin and nothing else; [`tools::call_all`] overlaps
//! several. Each call from the host runs in a fresh instance: what shall outlive it goes into [`state`].
//!
//! Off WebAssembly the same calls reach the in-memory fakes of [`testing`], so `cargo test` runs a plugin as it is.

mod config;
mod message;
mod panic;

pub mod bindings;
pub mod calls;
pub mod filter;
pub mod kinds;
pub mod log;

#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use testing::fake as sys;

#[cfg(target_arch = "wasm32")]
pub(crate) use bindings::host::stockade::plugin as sys;

pub use bindings::host::stockade::plugin::types;
pub use calls::{
    datasets, http, inference, jobs, memories, output, prompts, secrets, shields, state, system, telemetry, tools,
    vectors,
};
pub use kinds::{evaluator, generator, memory, orchestrator, prompt_store, reward_scorer, shield, tool, toolset};
pub use types::Error;

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What most plugins need.
pub mod prelude {
    pub use crate::evaluator::Evaluator;
    pub use crate::generator::{Generator, Rows};
    pub use crate::memory::Memory;
    pub use crate::orchestrator::{Interruption, Orchestrator, Outcome, Resumption, Turn};
    pub use crate::prompt_store::PromptStore;
    pub use crate::reward_scorer::RewardScorer;
    pub use crate::shield::{Action, Channel, Edit, Finder, Finding, Ruling, Session, Shield};
    #[cfg(not(target_arch = "wasm32"))]
    pub use crate::testing;
    pub use crate::tool::Tool;
    pub use crate::toolset::Toolset;
    pub use crate::types::{
        Completion, Constraint, Direction, Event, FinishReason, Message, Part, Role, Sampling, Step, StepKind,
        StepStatus, ToolCall, ToolChoice, ToolOutput, ToolResult, ToolSpec, Usage, Verdict, Violation,
    };
    pub use crate::{Error, Result, inference, output, state, tools};
    pub use serde::{Deserialize, Serialize};
    pub use serde_json::{self, Value, json};
}

#[doc(hidden)]
pub mod __private {
    pub use crate::kinds::glue;
    pub use serde;
}

/// Exports a plugin: `export!(MyShield as shield);`, once a crate. Kinds: `shield`, `orchestrator`, `prompt_store`,
/// `memory`, `evaluator`, `reward_scorer`, `generator`, `tool`, `toolset`.
#[macro_export]
macro_rules! export {
    ($plugin:ty as shield) => {
        $crate::__export_kind!($plugin, shield, Shield, __export_shield);
    };
    ($plugin:ty as orchestrator) => {
        $crate::__export_kind!($plugin, orchestrator, Orchestrator, __export_orchestrator);
    };
    ($plugin:ty as prompt_store) => {
        $crate::__export_kind!($plugin, prompt_store, PromptStore, __export_prompt_store);
    };
    ($plugin:ty as memory) => {
        $crate::__export_kind!($plugin, memory, Memory, __export_memory);
    };
    ($plugin:ty as evaluator) => {
        $crate::__export_kind!($plugin, evaluator, Evaluator, __export_evaluator);
    };
    ($plugin:ty as reward_scorer) => {
        $crate::__export_kind!($plugin, reward_scorer, RewardScorer, __export_reward_scorer);
    };
    ($plugin:ty as generator) => {
        $crate::__export_kind!($plugin, generator, Generator, __export_generator);
    };
    ($plugin:ty as tool) => {
        $crate::__export_kind!($plugin, tool, Tool, __export_tool);
    };
    ($plugin:ty as toolset) => {
        $crate::__export_kind!($plugin, toolset, Toolset, __export_toolset);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_kind {
    ($plugin:ty, $module:ident, $kind:ident, $export:ident) => {
        const _: () = {
            // Off WebAssembly nothing is exported, but a plugin that lacks its trait still fails to compile.
            const fn implements<T: $crate::$module::$kind>() {}
            implements::<$plugin>();
        };
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Exported = $crate::__private::glue::$kind<$plugin>;
    $crate::bindings::$module::$export!(Exported with_types_in $crate::bindings::$module);
        };
    };
}

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;
