//! The default orchestrator: the tenant's system prompt, one model call, and a loop over the tenant's tools.
//!
//! Invariant: the last model call of a turn may call no tool of the tenant's, so every turn ends with a reply.

mod system;
mod toolbox;

use stockade_guest::inference::Chat;
use stockade_guest::prelude::*;
use stockade_guest::warn;
use system::Prompt;
use toolbox::{Toolbox, split};

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
    /// Most model calls a turn, at least 1; in the last one no tool may be called.
    #[serde(default = "eight")]
    max_model_calls: u32,
}

fn eight() -> u32 {
    8
}

impl Orchestrator for Assistant {
    fn run(&self, turn: Turn) -> Result<Outcome> {
        match self.reply(turn) {
            // A shield has ended the reply and the application knows.
            Err(Error::Blocked(_)) => Ok(FinishReason::ContentFilter.into()),
            other => Ok(other?.into()),
        }
    }
}

impl Assistant {
    fn reply(&self, turn: Turn) -> Result<FinishReason> {
        let toolbox = match turn.tool_choice {
            ToolChoice::Forbidden => Toolbox::default(),
            _ => Toolbox::open(self.tools.as_deref(), &turn.tools)?,
        };
        let mut request = Chat::new(turn.model)
            .messages(system::prepend(self, turn.messages)?)
            .tools(turn.tools)
            .tools(toolbox.specs())
            .tool_choice(turn.tool_choice)
            .sampling(turn.sampling)
            .constraint(turn.constraint)
            .template_args(turn.template_args);
        if toolbox.is_empty() {
            return Ok(output::forward(&request.start()?, true)?.reason);
        }
        for calls_left in (0..self.max_model_calls.max(1)).rev() {
            if calls_left == 0 {
                request = request.tool_choice(ToolChoice::Forbidden);
            }
            // Text goes out as it comes; whose the tool calls are shows at the end.
            let completion = output::forward(&request.start()?, false)?;
            let (ours, clients) = split(&completion.tool_calls, &toolbox);
            if !clients.is_empty() {
                if !ours.is_empty() {
                    warn!("{} calls to own tools dropped: the application's go first", ours.len());
                }
                output::emit(&toolbox::events(clients))?;
                return Ok(FinishReason::ToolCalls);
            }
            if ours.is_empty() {
                return Ok(completion.reason);
            }
            let answers = toolbox.run(&ours)?;
            // A tool that had to be called has been: from here on the model decides.
            request = request.message(completion.into()).messages(answers).tool_choice(ToolChoice::Auto);
        }
        // Decoding was told to call no tool and yet did.
        Ok(FinishReason::Stop)
    }
}

stockade_guest::export!(Assistant as orchestrator);

#[cfg(test)]
mod tests;
