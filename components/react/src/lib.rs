//! ReAct: thought, action, observation, in text that a grammar holds to its form (Yao et al. 2022, arXiv:2210.03629).
//! Tools for models that were not trained to call any.
//!
//! Invariant: a step that the model ends by itself can be read, since decoding cannot leave the grammar; the answer is a
//! call of its own with the application's sampling and constraint.

mod format;

use agent::instructions::Prompt;
use agent::toolbox::events;
use agent::{Budget, Instructions, Limits, Steps, Toolbox, approval, budget::Spent, cut, history};
use format::Move;
use stockade_guest::prelude::*;

/// Most tokens of one thought and action.
const STEP_TOKENS: u32 = 512;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct React {
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
}

/// How far a turn has come; as JSON, where it was interrupted.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    /// What the model has thought, done and seen; it stands behind the question.
    scratchpad: String,
    /// Moves with an action. Of an interrupted turn the last one waits.
    made: Vec<Move>,
    spent: Spent,
    /// Steps that were told.
    told: u32,
}

impl Orchestrator for React {
    fn run(&self, turn: Turn) -> Result<Outcome> {
        agent::finish(self.reply(turn))
    }
}

impl React {
    fn reply(&self, mut turn: Turn) -> Result<Outcome> {
        let toolbox = match turn.tool_choice {
            ToolChoice::Forbidden => Toolbox::default(),
            _ => Toolbox::open(self.tools.as_deref(), &turn.tools)?,
        };
        let offered: Vec<&ToolSpec> = match turn.tool_choice {
            ToolChoice::Forbidden => Vec::new(),
            _ => toolbox.specs().iter().chain(&turn.tools).collect(),
        };
        let instructions = Instructions { system: self.system.as_deref(), prompt: self.prompt.as_ref() };
        let own = (!offered.is_empty()).then(|| format::describe(&offered));
        let messages = instructions.prepend(format::as_text(&turn.messages), own)?;
        let (mut at, answer) = approval::resume::<Progress>(turn.resume.take())?;
        let mut budget = Budget::new(self.limits, at.spent);
        let mut steps = Steps { told: at.told };
        if let (Some(answer), Some(call)) = (answer, at.waiting()) {
            match approval::read(&answer, &[&call]) {
                Ok(refusals) => {
                    let refusal = refusals.get(&call.id);
                    budget.charge_calls(usize::from(refusal.is_none()));
                    at.observe(&call, refusal, &toolbox, &mut steps)?;
                }
                // The host has taken the question back with the answer: it is asked again.
                Err(form) => return at.pause(&call, Some(form), &budget, &steps),
            }
        }
        while !offered.is_empty() && !budget.is_last() && budget.calls_left() > 0 {
            let has_to_act = at.made.is_empty() && requires(&turn.tool_choice);
            let grammar = format::grammar(&named(&offered, &turn.tool_choice, has_to_act), !has_to_act);
            let told = steps.start(StepKind::Inference, "thought", &json!({}))?;
            let completion = self.think(&turn, &messages, &at.scratchpad, grammar)?;
            budget.charge(&completion.usage);
            let Some(step) = format::read(&completion.text) else {
                // Cut off in the middle.
                told.failed(&json!({"text": cut(&completion.text)}))?;
                at.scratchpad += "Observation: That step was too long. Be brief.\n";
                continue;
            };
            told.done(&json!({"thought": step.thought, "action": step.action.as_ref().map(|a| &a.0)}))?;
            at.scratchpad += &format!("Thought: {}\n", step.thought);
            if step.action.is_none() || at.made.iter().any(|earlier| earlier.action == step.action) {
                // Done, or what it would see stands above: there is nothing more to learn.
                break;
            }
            at.made.push(step);
            let Some(call) = at.waiting() else { break };
            if toolbox.find(&call.name).is_none() {
                output::emit(&events(vec![unique(call)]))?;
                return Ok(FinishReason::ToolCalls.into());
            }
            at.scratchpad += &format!("Action: {}\nAction Input: {}\n", call.name, call.arguments);
            if approval::is_needed(&self.approve, &call.name) {
                return at.pause(&call, None, &budget, &steps);
            }
            budget.charge_calls(1);
            at.observe(&call, None, &toolbox, &mut steps)?;
        }
        Ok(self.answer(turn, messages, &at.scratchpad, &budget)?.into())
    }

    fn think(&self, turn: &Turn, messages: &[Message], scratchpad: &str, grammar: String) -> Result<Completion> {
        let mut messages = messages.to_vec();
        agent::append(&mut messages, &format!("{scratchpad}The next step:"));
        let sampling = Sampling { max_tokens: Some(STEP_TOKENS), stop: Vec::new(), ..turn.sampling.clone() };
        let request = agent::request(turn, messages).sampling(sampling).constraint(Some(Constraint::Lark(grammar)));
        history::start(&request)?.collect()
    }

    fn answer(
        &self,
        turn: Turn,
        mut messages: Vec<Message>,
        scratchpad: &str,
        budget: &Budget,
    ) -> Result<FinishReason> {
        if !scratchpad.is_empty() {
            agent::append(&mut messages, &format!("{scratchpad}Now write the final answer for the user."));
        }
        let request =
            agent::request(&turn, messages).sampling(budget.bound(&turn.sampling)).constraint(turn.constraint);
        Ok(output::forward(&history::start(&request)?, false)?.reason)
    }
}

impl Progress {
    /// The call of the last move.
    fn waiting(&self) -> Option<ToolCall> {
        let (name, arguments) = self.made.last()?.action.clone()?;
        Some(ToolCall { id: format!("react-{}", self.made.len() - 1), name, arguments })
    }

    /// Makes a call, unless there is a reason not to, and notes what came of it.
    fn observe(
        &mut self,
        call: &ToolCall,
        refusal: Option<&String>,
        toolbox: &Toolbox,
        steps: &mut Steps,
    ) -> Result<()> {
        let output = match refusal {
            Some(reason) => ToolOutput::failed(reason.clone()),
            None => toolbox.run(&[call], steps)?.pop().unwrap_or_else(|| ToolOutput::failed("no answer")),
        };
        let failed = if output.is_error { "Error: " } else { "" };
        self.scratchpad += &format!("Observation: {failed}{}\n", output.content.trim());
        Ok(())
    }

    /// Leaves the turn with a question.
    fn pause(mut self, call: &ToolCall, hint: Option<String>, budget: &Budget, steps: &Steps) -> Result<Outcome> {
        (self.spent, self.told) = (budget.spent(), steps.told);
        approval::interrupt(&[call], hint, &self)
    }
}

/// Whether the application wants some tool called.
fn requires(choice: &ToolChoice) -> bool {
    matches!(choice, ToolChoice::Required | ToolChoice::Named(_))
}

/// The tools that the next step may call: all, or the one that has to be called.
fn named<'a>(offered: &[&'a ToolSpec], choice: &ToolChoice, has_to_act: bool) -> Vec<&'a ToolSpec> {
    let wanted = |spec: &&&ToolSpec| match choice {
        ToolChoice::Named(name) if has_to_act => spec.name == *name,
        _ => true,
    };
    offered.iter().filter(wanted).copied().collect()
}

/// The call with an id that no other reply has.
fn unique(mut call: ToolCall) -> ToolCall {
    let random = stockade_guest::system::random(8);
    call.id = format!("call_{}", random.iter().map(|b| format!("{b:02x}")).collect::<String>());
    call
}

stockade_guest::export!(React as orchestrator);

#[cfg(test)]
mod tests;
