//! One turn's work: planning, carrying out, mending, answering.
//!
//! Invariant: whatever fails, the turn ends with the model's answer from the results that there are, unless a call waits
//! for somebody's approval.

use crate::PlanExecute;
use crate::plan::{self, Task};
use crate::progress::{Progress, Waiting};
use agent::{Budget, Steps, Toolbox, approval, cut, history};
use stockade_guest::prelude::*;

/// Most tokens of a plan, and of one step's work.
const PLAN_TOKENS: u32 = 768;
const TASK_TOKENS: u32 = 512;

pub struct Work<'a> {
    pub config: &'a PlanExecute,
    pub turn: &'a Turn,
    /// The conversation with the tenant's instructions.
    pub messages: Vec<Message>,
    pub toolbox: Toolbox,
    pub budget: Budget,
    pub steps: Steps,
    pub at: Progress,
}

impl Work<'_> {
    /// Plans and carries out until a plan is through, the bounds are reached or a call waits for approval.
    pub fn carry_out(&mut self) -> Result<Option<Waiting>> {
        loop {
            while let Some(task) = self.at.left.pop_front() {
                let spec = task.tool().and_then(|name| self.toolbox.find(name)).cloned();
                if self.budget.is_last() || (spec.is_some() && self.budget.calls_left() == 0) {
                    return Ok(None);
                }
                let result = match spec {
                    None => self.think(&task)?,
                    Some(spec) => match self.write_call(&task, spec)? {
                        Ok(call) if approval::is_needed(&self.config.approve, &call.name) => {
                            return Ok(Some(Waiting::new(task, call)));
                        }
                        Ok(call) => self.make(&call)?,
                        Err(flaw) => ToolOutput::failed(flaw),
                    },
                };
                self.at.note(task, result);
            }
            if self.at.is_through() || self.at.plans > self.config.max_replans || !self.plan()? {
                return Ok(None);
            }
        }
    }

    /// Goes on with the call that has waited: makes it, unless somebody has refused it.
    pub fn settle(&mut self, waiting: Waiting, refusal: Option<&String>) -> Result<()> {
        let result = match refusal {
            Some(reason) => ToolOutput::failed(reason.clone()),
            None => self.make(&waiting.call())?,
        };
        self.at.note(waiting.task, result);
        Ok(())
    }

    /// Leaves the turn with a question.
    pub fn pause(mut self, waiting: Waiting, hint: Option<String>) -> Result<Outcome> {
        let call = waiting.call();
        (self.at.waiting, self.at.spent, self.at.told) = (Some(waiting), self.budget.spent(), self.steps.told);
        approval::interrupt(&[&call], hint, &self.at)
    }

    /// Makes the next plan, told as a step; false when there is no more room for one or it came out broken.
    fn plan(&mut self) -> Result<bool> {
        if self.budget.is_last() {
            return Ok(false);
        }
        let max_steps = self.config.max_steps.clamp(1, 20);
        let title = if self.at.results.is_empty() { "plan" } else { "mended plan" };
        let told = self.steps.start(StepKind::Plan, title, &json!({}))?;
        let mut words = plan::request(self.toolbox.specs(), max_steps);
        if !self.at.results.is_empty() {
            let so_far = self.at.so_far();
            words += &format!("{so_far}The last of these steps failed. Plan what is left to do, in another way.\n");
        }
        // What had to be called has been, by the first plan.
        let choice = if self.at.plans == 0 { &self.turn.tool_choice } else { &ToolChoice::Auto };
        let constraint = plan::schema(self.toolbox.specs(), choice, max_steps);
        let completion = self.ask(&words, PLAN_TOKENS, |request| request.constraint(Some(constraint)))?;
        let Some(tasks) = plan::read(&completion.text) else {
            told.failed(&json!({"text": cut(&completion.text)}))?;
            return Ok(false);
        };
        told.done(&json!({"steps": tasks}))?;
        self.at.plans += 1;
        self.at.left = tasks.into();
        Ok(true)
    }

    /// The model writes the arguments under the tool's schema; otherwise what is wrong with the call.
    fn write_call(&mut self, task: &Task, spec: ToolSpec) -> Result<std::result::Result<ToolCall, String>> {
        let name = spec.name.clone();
        let choice = ToolChoice::Named(name.clone());
        let words = self.only(task);
        let completion = self.ask(&words, TASK_TOKENS, |request| request.tools([spec]).tool_choice(choice))?;
        let Some(call) = completion.tool_calls.into_iter().next().filter(|call| call.name == name) else {
            return Ok(Err(format!("no call of `{name}` was written")));
        };
        Ok(self.toolbox.flaw(&call).map_or(Ok(call), Err))
    }

    fn make(&mut self, call: &ToolCall) -> Result<ToolOutput> {
        self.budget.charge_calls(1);
        let output = self.toolbox.run(&[call], &mut self.steps)?.pop();
        Ok(output.unwrap_or_else(|| ToolOutput::failed("no answer")))
    }

    fn think(&mut self, task: &Task) -> Result<ToolOutput> {
        let told = self.steps.start(StepKind::Inference, cut(&task.task), &json!({}))?;
        let words = self.only(task);
        let completion = self.ask(&words, TASK_TOKENS, |request| request)?;
        let text = completion.text.trim();
        let status = if text.is_empty() { StepStatus::Failed } else { StepStatus::Done };
        told.end(status, &json!({"text": cut(text)}))?;
        Ok(if text.is_empty() { ToolOutput::failed("nothing was written") } else { ToolOutput::ok(text) })
    }

    /// What the model is asked for one step.
    fn only(&self, task: &Task) -> String {
        format!("{}Now do only this step: {}\n", self.at.so_far(), task.task)
    }

    /// A model call of the work, whose text the application does not see.
    fn ask(
        &mut self,
        words: &str,
        max_tokens: u32,
        set: impl FnOnce(inference::Chat) -> inference::Chat,
    ) -> Result<Completion> {
        let mut messages = self.messages.clone();
        agent::append(&mut messages, words);
        let sampling = self.budget.bound(&agent::inner_sampling(max_tokens));
        let request = set(agent::request(self.turn, messages).sampling(sampling));
        let completion = history::start(&request)?.collect()?;
        self.budget.charge(&completion.usage);
        Ok(completion)
    }

    /// The reply, in the application's own terms. `with_choice`: its choice of tool holds.
    pub fn answer(mut self, with_choice: bool) -> Result<FinishReason> {
        if !self.at.results.is_empty() {
            let words = format!("{}Now answer my request from these results.", self.at.so_far());
            agent::append(&mut self.messages, &words);
        }
        let turn = self.turn;
        let choice = match &turn.tool_choice {
            // It was the tenant's tools that had to be called.
            ToolChoice::Required | ToolChoice::Named(_) if !with_choice => ToolChoice::Auto,
            choice => choice.clone(),
        };
        let request = agent::request(turn, self.messages)
            .sampling(self.budget.bound(&turn.sampling))
            .tools(turn.tools.clone())
            .tool_choice(choice)
            .constraint(turn.constraint.clone());
        Ok(output::forward(&history::start(&request)?, true)?.reason)
    }
}
