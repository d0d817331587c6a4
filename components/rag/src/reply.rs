//! A reply that is sent on as it comes, without citations of sources that do not exist.

use crate::citations::Checker;
use agent::toolbox::events;
use stockade_guest::inference::Generation;
use stockade_guest::prelude::*;

pub struct Reply {
    checker: Checker,
    text: String,
}

impl Reply {
    /// Sources are numbered from 1.
    pub fn new(sources: usize) -> Self {
        Self { checker: Checker::new(sources), text: String::new() }
    }

    /// Sends a generation on, its tool calls only where they are wanted, and returns what it was.
    pub fn pass(&mut self, generation: &Generation, tool_calls: bool) -> Result<Completion> {
        let usage = Usage { prompt_tokens: 0, cached_tokens: 0, completion_tokens: 0 };
        let mut whole = Completion {
            text: String::new(),
            reasoning: String::new(),
            tool_calls: Vec::new(),
            reason: FinishReason::Stop,
            usage,
        };
        while let Some(batch) = generation.next()? {
            for event in batch {
                match event {
                    Event::Text(text) => {
                        let checked = self.checker.push(&text);
                        self.say(checked, &mut whole)?;
                    }
                    Event::ToolCall(delta) => match whole.tool_calls.get_mut(delta.index as usize) {
                        Some(call) => call.arguments += &delta.arguments,
                        None => whole.tool_calls.push(ToolCall {
                            id: delta.id.unwrap_or_default(),
                            name: delta.name.unwrap_or_default(),
                            arguments: delta.arguments,
                        }),
                    },
                    Event::Reasoning(text) => {
                        whole.reasoning += &text;
                        output::emit(&[Event::Reasoning(text)])?;
                    }
                    Event::Step(step) => output::emit(&[Event::Step(step)])?,
                    Event::End(end) => (whole.reason, whole.usage) = (end.reason, end.usage),
                }
            }
        }
        let held = self.checker.finish();
        self.say(held, &mut whole)?;
        if tool_calls {
            output::emit(&events(whole.tool_calls.clone()))?;
        }
        Ok(whole)
    }

    /// All text that was sent on.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Numbers of the sources that were cited, in order.
    pub fn cited(&self) -> Vec<usize> {
        self.checker.cited()
    }

    fn say(&mut self, text: String, whole: &mut Completion) -> Result<()> {
        self.text += &text;
        whole.text += &text;
        if text.is_empty() { Ok(()) } else { output::text(text) }
    }
}
