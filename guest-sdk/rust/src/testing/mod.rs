//! Runs a plugin natively, without a server: the host's side is played by in-memory fakes.
//!
//! [`Host::new`] puts a fresh host in place for the current thread; what is called without one meets an empty host.
//! The functions here drive a plugin as the host does, configuration included:
//!
//! ```
//! use stockade_guest::prelude::*;
//! #[derive(Deserialize)]
//! struct Parrot {}
//! impl Orchestrator for Parrot {
//!     fn run(&self, turn: Turn) -> Result<Outcome> {
//!         let reply = inference::Chat::new(turn.model).messages(turn.messages).start()?;
//!         Ok(output::forward(&reply, true)?.reason.into())
//!     }
//! }
//! let host = testing::Host::new().reply("Polly wants a cracker");
//! let reason = testing::run::<Parrot>(json!({}), testing::turn("Hello"));
//! assert_eq!(reason, Ok(FinishReason::Stop.into()));
//! assert_eq!(host.sent_text(), "Polly wants a cracker");
//! assert_eq!(host.requests()[0].messages[0].joined_text(), "Hello");
//! ```

pub mod fake;
mod host;
mod latency;
mod stream;

pub use host::Host;
pub use latency::latency;
pub use stream::{Reply, every_split, every_split_of, stream, stream_after};

use crate::orchestrator::{Orchestrator, Outcome, Turn};
use crate::shield::Shield;
use crate::tool::Tool;
use crate::toolset::Toolset;
use crate::types::{Direction, Message, Sampling, ToolChoice, ToolOutput, Verdict};
use crate::{Result, config};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::rc::Rc;

/// The plugin as this configuration makes it.
pub fn plugin<T: DeserializeOwned>(config: Value) -> Result<Rc<T>> {
    fake::with(|state| state.config = config);
    config::load()
}

/// A shield's verdict over one user message.
pub fn check<T: Shield>(config: Value, text: &str) -> Result<Verdict> {
    check_messages::<T>(config, Direction::Input, vec![Message::user(text)])
}

/// A shield's verdict over messages.
pub fn check_messages<T: Shield>(config: Value, direction: Direction, messages: Vec<Message>) -> Result<Verdict> {
    plugin::<T>(config)?.check(direction, messages)
}

/// Runs an orchestrator; its output is in [`Host::sent`].
pub fn run<T: Orchestrator>(config: Value, turn: Turn) -> Result<Outcome> {
    plugin::<T>(config)?.run(turn)
}

/// Calls a tool with JSON arguments.
pub fn call<T: Tool>(config: Value, arguments: Value) -> Result<ToolOutput> {
    let tool = plugin::<T>(config)?;
    match serde_json::from_value(arguments) {
        Ok(arguments) => tool.call(arguments),
        Err(e) => Ok(ToolOutput::failed(format!("arguments: {e}"))),
    }
}

/// Calls a tool of a set with JSON arguments.
pub fn call_of<T: Toolset>(config: Value, name: &str, arguments: Value) -> Result<ToolOutput> {
    plugin::<T>(config)?.call(name, arguments)
}

/// A turn with one user message and nothing else set.
pub fn turn(text: &str) -> Turn {
    Turn {
        model: String::new(),
        messages: vec![Message::user(text)],
        tools: Vec::new(),
        tool_choice: ToolChoice::Auto,
        sampling: Sampling::default(),
        constraint: None,
        metadata: Vec::new(),
        template_args: None,
        resume: None,
    }
}
