//! ReAct: thought, action, observation, in text that a grammar holds to its form (Yao et al. 2022, arXiv:2210.03629).
//! Tools for models that were not trained to call any.
//!
//! Invariant: a step that the model ends by itself can be read, since decoding cannot leave the grammar; the answer is a
//! call of its own with the application's sampling and constraint.

mod format;
mod progress;

use agent::instructions::Prompt;
use agent::toolbox::events;
use agent::{Budget, Instructions, Limits, Steps, Toolbox, approval, cut, history};
use format::Step;
use progress::Progress;
use stockade_guest::prelude::*;

/// Most tokens of one thought and action.
const STEP_TOKENS: u32 = 512;
/// What the model is asked for a step: the first, one behind a result, one behind a step that was cut off.
const BEGIN: &str = "The next step:";
const GO_ON: &str = "The next step, with the action Done if my request is answered above:";
const AGAIN: &str = "That step was too long. Be brief. The next step:";

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
                Ok(refusals) => match refusals.get(&call.id) {
                    Some(reason) => at.refuse(reason),
                    None => {
                        budget.charge_calls(1);
                        at.observe(&make(&call, &toolbox, &mut steps)?);
                    }
                },
                // The host has taken the question back with the answer: it is asked again.
                Err(form) => return pause(at, &call, Some(form), &budget, &steps),
            }
        }
        let mut was_cut = false;
        while !offered.is_empty() && !budget.is_last() && budget.calls_left() > 0 {
            let has_to_act = at.is_empty() && requires(&turn.tool_choice);
            let next = at.next(has_to_act);
            let grammar = format::grammar(&named(&offered, &turn.tool_choice, has_to_act), next);
            let told = steps.start(StepKind::Inference, "thought", &json!({}))?;
            let words = match (was_cut, next.informed) {
                (true, _) => AGAIN,
                (false, true) => GO_ON,
                (false, false) => BEGIN,
            };
            let completion = self.think(&turn, &messages, &(at.scratchpad() + words), grammar)?;
            budget.charge(&completion.usage);
            let Some(step) = format::read(&completion.text) else {
                told.failed(&json!({"text": cut(&completion.text)}))?;
                if was_cut {
                    // It has lost itself.
                    break;
                }
                was_cut = true;
                continue;
            };
            was_cut = false;
            let act = match step {
                Step::Done { thought } => {
                    told.done(&json!({"thought": thought, "action": null}))?;
                    break;
                }
                Step::Act(act) => act,
            };
            told.done(&json!({"thought": act.thought, "action": act.tool}))?;
            if at.has_made(&act) {
                // What it would see stands above: there is nothing more to learn.
                break;
            }
            let is_ours = toolbox.find(&act.tool).is_some();
            let call = at.take_up(act);
            if !is_ours {
                output::emit(&events(vec![unique(call)]))?;
                return Ok(FinishReason::ToolCalls.into());
            }
            if approval::is_needed(&self.approve, &call.name) {
                return pause(at, &call, None, &budget, &steps);
            }
            budget.charge_calls(1);
            at.observe(&make(&call, &toolbox, &mut steps)?);
        }
        Ok(self.answer(turn, messages, &at, &budget)?.into())
    }

    fn think(&self, turn: &Turn, messages: &[Message], words: &str, grammar: String) -> Result<Completion> {
        let mut messages = messages.to_vec();
        agent::append(&mut messages, words);
        let sampling = Sampling { max_tokens: Some(STEP_TOKENS), stop: Vec::new(), ..turn.sampling.clone() };
        let request = agent::request(turn, messages).sampling(sampling).constraint(Some(Constraint::Lark(grammar)));
        history::start(&request)?.collect()
    }

    fn answer(&self, turn: Turn, mut messages: Vec<Message>, at: &Progress, budget: &Budget) -> Result<FinishReason> {
        if !at.is_empty() {
            let words = format!("{}Now answer my request from what was observed.", at.observations());
            agent::append(&mut messages, &words);
        }
        let request =
            agent::request(&turn, messages).sampling(budget.bound(&turn.sampling)).constraint(turn.constraint);
        Ok(output::forward(&history::start(&request)?, false)?.reason)
    }
}

/// Makes a call.
fn make(call: &ToolCall, toolbox: &Toolbox, steps: &mut Steps) -> Result<ToolOutput> {
    Ok(toolbox.run(&[call], steps)?.pop().unwrap_or_else(|| ToolOutput::failed("no answer")))
}

/// Leaves the turn with a question.
fn pause(mut at: Progress, call: &ToolCall, hint: Option<String>, budget: &Budget, steps: &Steps) -> Result<Outcome> {
    (at.spent, at.told) = (budget.spent(), steps.told);
    approval::interrupt(&[call], hint, &at)
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
