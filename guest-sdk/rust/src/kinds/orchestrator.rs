//! Orchestrators turn a request into a reply, by whatever calls of models, tools and memory they like. The reply leaves
//! through [`crate::output`]; the tenant's mandatory shields stand around them.

pub use crate::bindings::orchestrator::exports::stockade::plugin::orchestrator::{
    Interruption, Outcome, Resumption, Turn,
};

use super::glue;
use crate::bindings::orchestrator::exports::stockade::plugin::orchestrator as raw;
use crate::types::FinishReason;
use crate::{Result, config, panic};
use serde::de::DeserializeOwned;

/// Runs one turn of a conversation.
pub trait Orchestrator: DeserializeOwned + 'static {
    /// The answer says how the reply ended; a [`FinishReason`] turns `into()` one. An error after output has left ends the
    /// application's stream with an error.
    ///
    /// A turn that needs somebody's answer first returns [`Outcome::Interrupted`]. It goes on in a fresh call with
    /// [`Turn::resume`] set to the state that it left and the answer.
    fn run(&self, turn: Turn) -> Result<Outcome>;
}

impl From<FinishReason> for Outcome {
    fn from(reason: FinishReason) -> Self {
        Self::Finished(reason)
    }
}

impl<T: Orchestrator> raw::Guest for glue::Orchestrator<T> {
    fn run(turn: Turn) -> Result<Outcome> {
        panic::install();
        config::load::<T>()?.run(turn)
    }
}
