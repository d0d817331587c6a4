//! How far a turn has come; as JSON, where it was interrupted.

use crate::plan::Task;
use agent::budget::Spent;
use std::collections::VecDeque;
use stockade_guest::prelude::*;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// What the steps so far came to, of all plans.
    pub results: Vec<Done>,
    /// Plans that were made.
    pub plans: u32,
    /// Steps of the last plan that are still to do.
    pub left: VecDeque<Task>,
    /// Of an interrupted turn, the step in between.
    pub waiting: Option<Waiting>,
    pub spent: Spent,
    /// Steps that were told.
    pub told: u32,
}

/// A step that was carried out.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Done {
    task: String,
    result: String,
    failed: bool,
}

/// A step whose call is written and not made: somebody has to allow it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waiting {
    pub task: Task,
    id: String,
    arguments: String,
}

impl Waiting {
    pub fn new(task: Task, call: ToolCall) -> Self {
        Self { task, id: call.id, arguments: call.arguments }
    }

    pub fn call(&self) -> ToolCall {
        let name = self.task.tool().unwrap_or_default().into();
        ToolCall { id: self.id.clone(), name, arguments: self.arguments.clone() }
    }
}

impl Progress {
    /// Notes what came of a step. One that failed ends its plan.
    pub fn note(&mut self, task: Task, result: ToolOutput) {
        if result.is_error {
            self.left.clear();
        }
        self.results.push(Done { task: task.task, result: result.content, failed: result.is_error });
    }

    /// A plan was carried out to its end.
    pub fn is_through(&self) -> bool {
        self.left.is_empty() && self.results.last().is_some_and(|last| !last.failed)
    }

    /// The results for the model; empty where there are none.
    pub fn so_far(&self) -> String {
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
