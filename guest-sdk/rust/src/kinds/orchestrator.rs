//! Orchestrators turn a request into a reply, by whatever calls of models, tools and memory they like. The reply leaves
//! through [`crate::output`]; the tenant's mandatory shields stand around them.

pub use crate::bindings::orchestrator::exports::stockade::plugin::orchestrator::Turn;

use super::glue;
use crate::bindings::orchestrator::exports::stockade::plugin::orchestrator as raw;
use crate::types::FinishReason;
use crate::{Result, config, panic};
use serde::de::DeserializeOwned;

/// Runs one turn of a conversation.
pub trait Orchestrator: DeserializeOwned + 'static {
    /// The answer says how the reply ended. An error after output has left ends the application's stream with an error.
    fn run(&self, turn: Turn) -> Result<FinishReason>;
}

impl<T: Orchestrator> raw::Guest for glue::Orchestrator<T> {
    fn run(turn: Turn) -> Result<FinishReason> {
        panic::install();
        config::load::<T>()?.run(turn)
    }
}
