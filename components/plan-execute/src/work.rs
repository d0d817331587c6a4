//! One turn's work: planning, carrying out, mending, answering.
//!
//! Invariant: whatever fails, the turn ends with the model's answer from the results that there are.

use crate::plan::{self, Task};
use agent::{Budget, Steps, Toolbox, cut, history};
use stockade_guest::prelude::*;

/// Most tokens of a plan, and of one step's work.
const PLAN_TOKENS: u32 = 768;
const TASK_TOKENS: u32 = 512;

pub struct Work<'a> {
    pub turn: &'a Turn,
    /// The conversation with the tenant's instructions.
    pub messages: Vec<Message>,
    pub toolbox: Toolbox,
    pub budget: Budget,
    pub steps: Steps,
    pub results: Vec<Done>,
}

/// A step that was carried out.
pub struct Done {
    task: String,
    result: String,
    failed: bool,
}

impl Work<'_> {
    /// Plans and carries out until a plan is through or the bounds are reached.
    pub fn carry_out(&mut self, max_steps: usize, max_replans: u32) -> Result<()> {
        for _ in 0..=max_replans {
            let Some(tasks) = self.plan(max_steps)? else { return Ok(()) };
            let mut failed = false;
            for task in tasks {
                if self.budget.is_last() {
                    return Ok(());
                }
                let done = self.perform(task)?;
                failed = done.failed;
                self.results.push(done);
                if failed {
                    break;
                }
            }
            if !failed {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The next plan, told as a step; `None` when there is no more room for one or it came out broken.
    fn plan(&mut self, max_steps: usize) -> Result<Option<Vec<Task>>> {
        if self.budget.is_last() {
            return Ok(None);
        }
        let title = if self.results.is_empty() { "plan" } else { "mended plan" };
        let told = self.steps.start(StepKind::Plan, title, &json!({}))?;
        let mut words = plan::request(self.toolbox.specs(), max_steps);
        if !self.results.is_empty() {
            words +=
                &format!("{}The last of these steps failed. Plan what is left to do, in another way.\n", self.so_far());
        }
        let constraint = plan::schema(self.toolbox.specs(), max_steps);
        let completion = self.ask(&words, PLAN_TOKENS, |request| request.constraint(Some(constraint)))?;
        let tasks = plan::read(&completion.text);
        match &tasks {
            Some(tasks) => told.done(&json!({"steps": tasks}))?,
            None => told.failed(&json!({"text": cut(&completion.text)}))?,
        }
        Ok(tasks)
    }

    fn perform(&mut self, task: Task) -> Result<Done> {
        let words = format!("{}Now do only this step: {}\n", self.so_far(), task.task);
        let spec = task.tool().and_then(|name| self.toolbox.find(name)).cloned();
        let (result, failed) = match spec {
            Some(spec) => self.call(&words, spec)?,
            None => self.think(&words, &task.task)?,
        };
        Ok(Done { task: task.task, result, failed })
    }

    /// The model writes the arguments under the tool's schema, and the tool runs.
    fn call(&mut self, words: &str, spec: ToolSpec) -> Result<(String, bool)> {
        let name = spec.name.clone();
        let completion =
            self.ask(words, TASK_TOKENS, |request| request.tools([spec]).tool_choice(ToolChoice::Named(name.clone())))?;
        let Some(call) = completion.tool_calls.first().filter(|call| call.name == name) else {
            return Ok((format!("no call of `{name}` was written"), true));
        };
        if let Some(flaw) = self.toolbox.flaw(call) {
            return Ok((flaw, true));
        }
        let output = self.toolbox.run(&[call], &mut self.steps)?.pop();
        Ok(output.map_or((String::new(), true), |output| (output.content, output.is_error)))
    }

    fn think(&mut self, words: &str, title: &str) -> Result<(String, bool)> {
        let told = self.steps.start(StepKind::Inference, cut(title), &json!({}))?;
        let completion = self.ask(words, TASK_TOKENS, |request| request)?;
        let text = completion.text.trim().to_string();
        let status = if text.is_empty() { StepStatus::Failed } else { StepStatus::Done };
        told.end(status, &json!({"text": cut(&text)}))?;
        Ok(if text.is_empty() { ("nothing was written".into(), true) } else { (text, false) })
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
        if !self.results.is_empty() {
            let words = format!("{}Now answer my request from these results.", self.so_far());
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

    fn so_far(&self) -> String {
        if self.results.is_empty() {
            return String::new();
        }
        let line = |(number, done): (usize, &Done)| {
            let failed = if done.failed { "failed: " } else { "" };
            format!("{number}. {} -> {failed}{}\n", done.task, done.result)
        };
        let lines: String = (1..).zip(&self.results).map(line).collect();
        format!("Results so far:\n{lines}")
    }
}
