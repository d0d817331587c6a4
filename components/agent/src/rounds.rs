//! The tool loop: model calls with the tenant's tools until the model answers.
//!
//! Invariant: the last model call of a turn may call no tool of the tenant's, so every turn ends with a reply, with a
//! call for the application to run, or with a question.

use crate::approval::{self, Refusals};
use crate::budget::{Budget, Limits, Spent};
use crate::steps::Steps;
use crate::toolbox::{Toolbox, arguments_for_people, events};
use crate::transcript::Entry;
use crate::{history, request};
use stockade_guest::inference::{Chat, Generation};
use stockade_guest::prelude::*;
use stockade_guest::warn;

/// How the loop goes.
#[derive(Debug, Default, Clone, Copy)]
pub struct Rules<'a> {
    /// The tenant's tools that the model may call; `None`: all that are granted.
    pub tools: Option<&'a [String]>,
    pub limits: Limits,
    /// Tools whose calls wait for a person's approval.
    pub approve: &'a [String],
    /// The first model call has to call a tool, unless the application says something else.
    pub require_tool: bool,
    /// Steps that the turn has told before.
    pub told: u32,
}

/// How often the same call, arguments included, is made in a turn. Once more than once, since some tools are polled.
const MAX_SAME_CALLS: usize = 2;

const REPEATED: &str =
    "This call has been made before and its results stand above. Answer from them or do something else.";

/// How a generation's text leaves: as by [`output::forward`], which sends it on with or without its tool calls and
/// returns what was sent.
pub type Voice<'a> = &'a mut dyn FnMut(&Generation, bool) -> Result<Completion>;

/// Runs the turn over `messages`, which are its own with whatever stands before them.
pub fn converse(turn: Turn, messages: Vec<Message>, rules: &Rules<'_>) -> Result<Outcome> {
    Ok(converse_through(turn, messages, rules, &mut output::forward)?.0)
}

/// As [`converse`], in the caller's voice; with the steps, for the caller to go on telling. A reply under the
/// application's constraint is forwarded as it is.
pub fn converse_through(
    turn: Turn,
    messages: Vec<Message>,
    rules: &Rules<'_>,
    say: Voice<'_>,
) -> Result<(Outcome, Steps)> {
    let toolbox = match turn.tool_choice {
        ToolChoice::Forbidden => Toolbox::default(),
        _ => Toolbox::open(rules.tools, &turn.tools)?,
    };
    let request = request(&turn, messages).tools(turn.tools.clone());
    if toolbox.is_empty() && turn.resume.is_none() && rules.limits.calls_at_once.is_none() {
        let request = request.tool_choice(turn.tool_choice).constraint(turn.constraint);
        let generation = history::start(&request)?;
        let completion = match request.0.constraint {
            None => say(&generation, true)?,
            Some(_) => output::forward(&generation, true)?,
        };
        return Ok((completion.reason.into(), Steps { told: rules.told }));
    }
    let (paused, answer) = approval::resume::<Paused>(turn.resume)?;
    let choice = match turn.tool_choice {
        ToolChoice::Auto if rules.require_tool => ToolChoice::Required,
        choice => choice,
    };
    let mut tool_loop = Loop {
        request,
        toolbox,
        approve: rules.approve,
        constraint: turn.constraint,
        budget: Budget::new(rules.limits, paused.spent),
        steps: Steps { told: paused.steps.max(rules.told) },
        // A tool that had to be called has been: from there on the model decides.
        choice: if answer.is_some() { ToolChoice::Auto } else { choice },
        rounds: paused.rounds.into_iter().map(Message::from).collect(),
        stuck: false,
        say,
    };
    let outcome = tool_loop.run(answer)?;
    Ok((outcome, tool_loop.steps))
}

/// Where a turn was interrupted.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Paused {
    /// What came after the turn's own messages; the last one holds the calls that wait.
    rounds: Vec<Entry>,
    spent: Spent,
    steps: u32,
}

struct Loop<'a> {
    /// Every model call with the application's tools, without what this turn has added.
    request: Chat,
    toolbox: Toolbox,
    approve: &'a [String],
    /// Holds for the answer only: a constrained text could not call tools.
    constraint: Option<Constraint>,
    budget: Budget,
    steps: Steps,
    choice: ToolChoice,
    /// Model's calls and tools' results so far.
    rounds: Vec<Message>,
    /// The model only repeats itself.
    stuck: bool,
    say: Voice<'a>,
}

impl Loop<'_> {
    fn run(&mut self, answer: Option<String>) -> Result<Outcome> {
        if let Some(answer) = answer {
            let calls = self.rounds.last().map(calls_of).unwrap_or_default();
            let waiting: Vec<&ToolCall> = calls.iter().filter(|c| approval::is_needed(self.approve, &c.name)).collect();
            match approval::read(&answer, &waiting) {
                Ok(refusals) => self.carry_out(&calls, &refusals)?,
                // The host has taken the question back with the answer: it is asked again.
                Err(form) => return self.pause(&waiting, Some(form)),
            }
        }
        loop {
            let none_left = self.budget.calls_left() == 0 && self.request.0.tools.is_empty();
            let last = self.stuck || self.budget.is_last() || none_left;
            if last && self.constraint.is_some() {
                return self.answer();
            }
            let choice = if last { ToolChoice::Forbidden } else { self.choice.clone() };
            let completion = self.ask(choice)?;
            let (mut ours, theirs) = self.toolbox.split(completion.tool_calls.clone());
            if !theirs.is_empty() {
                if !ours.is_empty() {
                    warn!("{} calls to own tools dropped: the application's go first", ours.len());
                }
                output::emit(&events(theirs))?;
                return Ok(FinishReason::ToolCalls.into());
            }
            let called = !ours.is_empty();
            ours.truncate(self.budget.calls_left());
            if ours.is_empty() && self.constraint.is_some() {
                return self.answer();
            }
            if called && (last || ours.is_empty()) {
                // Decoding was told to call no tool, or not this one, and yet did.
                return Ok(FinishReason::Stop.into());
            }
            if ours.is_empty() {
                return Ok(completion.reason.into());
            }
            let ours = self.repaired(ours)?;
            self.rounds.push(Completion { tool_calls: ours.clone(), ..completion }.into());
            let waiting: Vec<&ToolCall> = ours.iter().filter(|c| approval::is_needed(self.approve, &c.name)).collect();
            if !waiting.is_empty() {
                return self.pause(&waiting, None);
            }
            self.carry_out(&ours, &Refusals::new())?;
            self.choice = ToolChoice::Auto;
        }
    }

    /// One model call, told as a step. Its text goes out as it comes, unless a constrained answer is to follow.
    fn ask(&mut self, choice: ToolChoice) -> Result<Completion> {
        let request = self.next(choice);
        let step = self.steps.start(StepKind::Inference, "model call", &json!({"model": request.0.model}))?;
        let generation = history::start(&request)?;
        let mut completion = match self.constraint {
            None => (self.say)(&generation, false)?,
            Some(_) => generation.collect()?,
        };
        completion.tool_calls.truncate(self.budget.calls_at_once());
        self.budget.charge(&completion.usage);
        step.done(&json!({
            "model": request.0.model,
            "prompt_tokens": completion.usage.prompt_tokens,
            "completion_tokens": completion.usage.completion_tokens,
            "tool_calls": completion.tool_calls.iter().map(|c| &c.name).collect::<Vec<_>>(),
        }))?;
        Ok(completion)
    }

    /// The next model call. The tenant's tools are offered as long as calls of them are left, and where no tool at all may be
    /// called, since the prompt then begins as the ones before it.
    fn next(&self, choice: ToolChoice) -> Chat {
        let offered = self.budget.calls_left() > 0 || choice == ToolChoice::Forbidden;
        let own = if offered { self.toolbox.specs().to_vec() } else { Vec::new() };
        let request = self.request.clone().tools(own).messages(self.rounds.clone()).tool_choice(choice);
        request.sampling(self.budget.bound(&self.request.0.sampling))
    }

    /// The reply in the form that the application wants.
    fn answer(&mut self) -> Result<Outcome> {
        let request = self.next(ToolChoice::Forbidden).constraint(self.constraint.clone());
        Ok(output::forward(&history::start(&request)?, false)?.reason.into())
    }

    /// A single call whose arguments break the tool's schema is asked for again with decoding held to that schema.
    fn repaired(&mut self, calls: Vec<ToolCall>) -> Result<Vec<ToolCall>> {
        let [call] = &calls[..] else { return Ok(calls) };
        let Some(flaw) = self.toolbox.flaw(call) else { return Ok(calls) };
        if self.budget.is_last() {
            return Ok(calls);
        }
        warn!("a call of `{}` is asked for again: {flaw}", call.name);
        let again = self.ask(ToolChoice::Named(call.name.clone()))?;
        let (ours, _) = self.toolbox.split(again.tool_calls);
        Ok(if ours.is_empty() { calls } else { ours })
    }

    /// Makes the calls and adds their results, in the order of the calls. What is refused, flawed or repeated too often
    /// is not made and answered with the reason.
    fn carry_out(&mut self, calls: &[ToolCall], refusals: &Refusals) -> Result<()> {
        let mut made = self.made_before();
        let mut repeated = 0;
        let mut verdict = |call: &ToolCall| {
            if let Some(reason) = refusals.get(&call.id) {
                return Some(reason.clone());
            }
            if let Some(flaw) = self.toolbox.flaw(call) {
                return Some(flaw);
            }
            let same = (call.name.clone(), canonical(&call.arguments));
            if made.iter().filter(|m| **m == same).count() >= MAX_SAME_CALLS {
                repeated += 1;
                return Some(REPEATED.into());
            }
            made.push(same);
            None
        };
        let verdicts: Vec<Option<String>> = calls.iter().map(&mut verdict).collect();
        self.stuck = repeated == calls.len();
        let allowed: Vec<&ToolCall> =
            calls.iter().zip(&verdicts).filter(|(_, v)| v.is_none()).map(|(c, _)| c).collect();
        self.budget.charge_calls(allowed.len());
        let mut outputs = self.toolbox.run(&allowed, &mut self.steps)?.into_iter();
        for (call, verdict) in calls.iter().zip(verdicts) {
            let output = match verdict {
                None => outputs.next().unwrap_or_else(|| ToolOutput::failed("no answer")),
                Some(reason) => {
                    let arguments = arguments_for_people(call);
                    let step = self.steps.start(StepKind::Tool, &*call.name, &json!({"arguments": arguments}))?;
                    step.failed(&json!({"arguments": arguments, "result": reason}))?;
                    ToolOutput::failed(reason)
                }
            };
            self.rounds.push(Message::tool_result(call, output.content, output.is_error));
        }
        Ok(())
    }

    /// Calls that were made earlier. Those to be made now are the last message of the rounds.
    fn made_before(&self) -> Vec<(String, String)> {
        let earlier = self.rounds.split_last().map_or(&[][..], |(_, earlier)| earlier);
        earlier.iter().flat_map(calls_of).map(|call| (call.name, canonical(&call.arguments))).collect()
    }

    /// Leaves the turn with a question; it goes on in [`Loop::run`] with the answer.
    fn pause(&self, waiting: &[&ToolCall], hint: Option<String>) -> Result<Outcome> {
        let rounds = self.rounds.iter().map(Entry::from).collect();
        approval::interrupt(waiting, hint, &Paused { rounds, spent: self.budget.spent(), steps: self.steps.told })
    }
}

fn calls_of(message: &Message) -> Vec<ToolCall> {
    let call = |part: &Part| match part {
        Part::ToolCall(call) => Some(call.clone()),
        _ => None,
    };
    message.parts.iter().filter_map(call).collect()
}

/// Arguments without differences of spelling.
fn canonical(arguments: &str) -> String {
    serde_json::from_str::<Value>(arguments).map_or_else(|_| arguments.into(), |value| value.to_string())
}
