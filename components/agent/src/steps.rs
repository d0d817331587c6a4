//! The steps that a turn tells on its way to the reply.
//!
//! Invariant: ids count up within the turn, interruptions included, and every step that was started is ended unless the
//! turn fails.

use stockade_guest::prelude::*;

/// Most bytes of one text in a step's detail: it is for people, and the output shields read all of it.
const MAX_TEXT: usize = 8000;

/// Numbers the steps of a turn.
#[derive(Debug, Default)]
pub struct Steps {
    /// How many there were; what an interrupted turn goes on from.
    pub told: u32,
}

/// A step that was told and may be told again.
#[derive(Debug)]
pub struct Told(Step);

impl Steps {
    /// Tells that a step starts. `detail` is an object; dialects know `arguments` and `result` of a tool, and `query`,
    /// `banks` and `hits` of a search.
    pub fn start(&mut self, kind: StepKind, title: impl Into<String>, detail: &Value) -> Result<Told> {
        self.told += 1;
        let step = Step {
            id: format!("step-{}", self.told),
            kind,
            status: StepStatus::Started,
            title: title.into(),
            detail: detail.to_string(),
        };
        tell(&step)?;
        Ok(Told(step))
    }
}

impl Told {
    /// Tells the end, with all of the detail anew.
    pub fn done(&self, detail: &Value) -> Result<()> {
        self.end(StepStatus::Done, detail)
    }

    pub fn failed(&self, detail: &Value) -> Result<()> {
        self.end(StepStatus::Failed, detail)
    }

    pub fn end(&self, status: StepStatus, detail: &Value) -> Result<()> {
        tell(&Step { status, detail: detail.to_string(), ..self.0.clone() })
    }
}

fn tell(step: &Step) -> Result<()> {
    output::emit(&[Event::Step(step.clone())])
}

/// The beginning of a text that is too long for a step, up to a whole character.
pub fn cut(text: &str) -> &str {
    cut_at(text, MAX_TEXT)
}

/// At most `bytes` of a text, up to a whole character.
pub fn cut_at(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}
