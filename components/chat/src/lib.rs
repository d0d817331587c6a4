//! The default orchestrator: the tenant's system prompt, one model call, and a loop over the tenant's tools.

use agent::instructions::Prompt;
use agent::{Instructions, Limits, Memory, Rules, memory};
use stockade_guest::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Assistant {
    /// A system prompt, as text.
    #[serde(default)]
    system: Option<String>,
    /// A prompt from the prompt store, instead of or after `system`.
    #[serde(default)]
    prompt: Option<Prompt>,
    /// The tenant's tools that the model may call; without it all that are granted.
    #[serde(default)]
    tools: Option<Vec<String>>,
    /// Tools whose calls wait for a person's approval; `*` at a name's end stands for anything.
    #[serde(default)]
    approve: Vec<String>,
    #[serde(default)]
    limits: Limits,
    /// What is recalled before the reply and kept after it.
    #[serde(default)]
    memory: Option<Memory>,
}

impl Orchestrator for Assistant {
    fn run(&self, turn: Turn) -> Result<Outcome> {
        let instructions = Instructions { system: self.system.as_deref(), prompt: self.prompt.as_ref() };
        let rules =
            Rules { tools: self.tools.as_deref(), limits: self.limits, approve: &self.approve, ..Rules::default() };
        agent::finish(memory::converse(turn, &instructions, self.memory.as_ref(), &rules))
    }
}

stockade_guest::export!(Assistant as orchestrator);

#[cfg(test)]
mod tests;
