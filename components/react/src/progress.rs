//! How far a turn has come: what was done and seen, as the model reads it and as an interrupted turn keeps it.

use crate::format::{Act, Next};
use agent::budget::Spent;
use stockade_guest::prelude::*;

/// How far a turn has come; as JSON, where it was interrupted.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Of an interrupted turn the last one waits.
    made: Vec<Made>,
    pub spent: Spent,
    /// Steps that were told.
    pub told: u32,
}

/// A call and what came of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Made {
    act: Act,
    observation: Option<Observation>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Observation {
    Result(String),
    /// The tool failed.
    Failure(String),
    /// A person does not want the call.
    Refusal(String),
}

impl Progress {
    pub fn is_empty(&self) -> bool {
        self.made.is_empty()
    }

    pub fn has_made(&self, act: &Act) -> bool {
        self.made.iter().any(|made| (&made.act.tool, &made.act.input) == (&act.tool, &act.input))
    }

    /// Takes a call up; it waits for what comes of it.
    pub fn take_up(&mut self, act: Act) -> ToolCall {
        self.made.push(Made { act: act.clone(), observation: None });
        self.call(act)
    }

    /// The last call, where it waits.
    pub fn waiting(&self) -> Option<ToolCall> {
        let last = self.made.last().filter(|made| made.observation.is_none())?;
        Some(self.call(last.act.clone()))
    }

    fn call(&self, Act { tool, input, .. }: Act) -> ToolCall {
        ToolCall { id: format!("react-{}", self.made.len() - 1), name: tool, arguments: input }
    }

    /// Notes what the last call has answered.
    pub fn observe(&mut self, output: &ToolOutput) {
        let text = output.content.trim().to_string();
        self.note(if output.is_error { Observation::Failure(text) } else { Observation::Result(text) });
    }

    /// Notes why the last call was not made.
    pub fn refuse(&mut self, reason: &str) {
        self.note(Observation::Refusal(reason.into()));
    }

    fn note(&mut self, observation: Observation) {
        if let Some(last) = self.made.last_mut() {
            last.observation = Some(observation);
        }
    }

    /// What the next step may be. The first call that fails is to be made in another way, since a small model gives up at
    /// once; one failure more may be the tool's own.
    pub fn next(&self, has_to_act: bool) -> Next {
        let is_failure = |made: &&Made| matches!(made.observation, Some(Observation::Failure(_)));
        let failures = self.made.iter().filter(is_failure).count();
        let has_to_retry = failures == 1 && self.made.last().is_some_and(|last| is_failure(&last));
        Next {
            may_end: !has_to_act && !has_to_retry,
            informed: self.made.iter().any(|made| matches!(made.observation, Some(Observation::Result(_)))),
        }
    }

    /// All that was thought, done and seen, a line each.
    pub fn scratchpad(&self) -> String {
        self.made.iter().map(|made| format!("Thought: {}\n{}", made.act.thought, made.seen())).collect()
    }

    /// What was done and seen. Thoughts are guesses, which an answer would repeat.
    pub fn observations(&self) -> String {
        self.made.iter().map(Made::seen).collect()
    }
}

impl Made {
    fn seen(&self) -> String {
        let Act { tool, input, .. } = &self.act;
        let observation = match &self.observation {
            Some(Observation::Result(text)) => format!("Observation: {text}\n"),
            Some(Observation::Failure(text) | Observation::Refusal(text)) => format!("Observation: Error: {text}\n"),
            None => String::new(),
        };
        format!("Action: {tool}\nAction Input: {input}\n{observation}")
    }
}
