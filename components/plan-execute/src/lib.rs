//! Plan and execute: the model writes a plan as JSON, each step of it is carried out with its tool or by a model call,
//! a step that fails makes it plan anew, and the answer is written from the results.
//!
//! Source: Wang et al. 2023, "Plan-and-Solve Prompting", arXiv:2305.04091; tools and replanning are added.

mod plan;
mod progress;
mod work;

use agent::instructions::Prompt;
use agent::{Budget, Instructions, Limits, Steps, Toolbox, approval};
use progress::Progress;
use stockade_guest::prelude::*;
use work::Work;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanExecute {
    /// A system prompt, as text.
    #[serde(default)]
    system: Option<String>,
    /// A prompt from the prompt store, instead of or after `system`.
    #[serde(default)]
    prompt: Option<Prompt>,
    /// The tenant's tools that a plan may use; without it all that are granted.
    #[serde(default)]
    tools: Option<Vec<String>>,
    /// Tools whose calls wait for a person's approval; `*` at a name's end stands for anything.
    #[serde(default)]
    approve: Vec<String>,
    /// Most steps of a plan, 1 to 20.
    #[serde(default = "five")]
    max_steps: usize,
    /// How often a plan may be mended.
    #[serde(default = "two")]
    max_replans: u32,
    #[serde(default = "limits")]
    limits: Limits,
}

fn five() -> usize {
    5
}
fn two() -> u32 {
    2
}
/// A plan of five steps, mended twice, and the answer.
fn limits() -> Limits {
    Limits { model_calls: 16, ..Limits::default() }
}

impl Orchestrator for PlanExecute {
    fn run(&self, turn: Turn) -> Result<Outcome> {
        agent::finish(self.reply(turn))
    }
}

impl PlanExecute {
    fn reply(&self, mut turn: Turn) -> Result<Outcome> {
        let toolbox = match turn.tool_choice {
            ToolChoice::Forbidden => Toolbox::default(),
            _ => Toolbox::open(self.tools.as_deref(), &turn.tools)?,
        };
        let instructions = Instructions { system: self.system.as_deref(), prompt: self.prompt.as_ref() };
        let messages = instructions.prepend(std::mem::take(&mut turn.messages), None)?;
        // The application wants one of its own tools called: there is nothing to plan.
        let at_once = match &turn.tool_choice {
            ToolChoice::Named(name) => turn.tools.iter().any(|t| t.name == *name),
            ToolChoice::Required => !turn.tools.is_empty(),
            ToolChoice::Auto | ToolChoice::Forbidden => false,
        };
        let (at, answer) = approval::resume::<Progress>(turn.resume.take())?;
        let (budget, steps) = (Budget::new(self.limits, at.spent), Steps { told: at.told });
        let mut work = Work { config: self, turn: &turn, messages, toolbox, budget, steps, at };
        if let (Some(answer), Some(waiting)) = (answer, work.at.waiting.take()) {
            let call = waiting.call();
            match approval::read(&answer, &[&call]) {
                Ok(refusals) => work.settle(waiting, refusals.get(&call.id))?,
                // The host has taken the question back with the answer: it is asked again.
                Err(form) => return work.pause(waiting, Some(form)),
            }
        }
        if !at_once && let Some(waiting) = work.carry_out()? {
            return work.pause(waiting, None);
        }
        Ok(work.answer(at_once)?.into())
    }
}

stockade_guest::export!(PlanExecute as orchestrator);

#[cfg(test)]
mod tests;
