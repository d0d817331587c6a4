//! The tenant's tools in one turn.

use stockade_guest::prelude::*;
use stockade_guest::types::ToolCallDelta;
use stockade_guest::warn;

#[derive(Default)]
pub struct Toolbox {
    specs: Vec<ToolSpec>,
}

impl Toolbox {
    /// The tools that this component may call, of `wanted` where that is given. A tool of the application hides one of
    /// the tenant's of the same name.
    pub fn open(wanted: Option<&[String]>, application: &[ToolSpec]) -> Result<Self> {
        if wanted.is_some_and(<[_]>::is_empty) {
            return Ok(Self::default());
        }
        let mut specs = match tools::available() {
            Ok(specs) => specs,
            // No grant for tools: a chat without them.
            Err(Error::Denied(_) | Error::Unavailable(_)) if wanted.is_none() => Vec::new(),
            Err(error) => return Err(error),
        };
        if let Some(wanted) = wanted {
            if let Some(missing) = wanted.iter().find(|w| specs.iter().all(|s| s.name != **w)) {
                return Err(Error::NotFound(format!("tool `{missing}`")));
            }
            specs.retain(|s| wanted.contains(&s.name));
        }
        specs.retain(|s| {
            let hidden = application.iter().any(|a| a.name == s.name);
            if hidden {
                warn!("the application has a tool `{}` of its own", s.name);
            }
            !hidden
        });
        Ok(Self { specs })
    }

    pub fn is_empty(&self) -> bool {
        self.specs.is_empty()
    }

    pub fn specs(&self) -> Vec<ToolSpec> {
        self.specs.clone()
    }

    fn has(&self, name: &str) -> bool {
        self.specs.iter().any(|s| s.name == name)
    }

    /// Runs the calls, all at once, and returns a message for each.
    pub fn run(&self, calls: &[ToolCall]) -> Result<Vec<Message>> {
        let (valid, mut answers): (Vec<_>, Vec<_>) =
            calls.iter().map(|call| (call, mistake(call))).partition(|(_, mistake)| mistake.is_none());
        let requests = valid.iter().map(|(call, _)| (call.name.clone(), call.arguments.clone()));
        let outputs = tools::call_all(requests.collect());
        for ((call, _), output) in valid.into_iter().zip(outputs) {
            answers.push((call, Some(output?)));
        }
        // In the order of the calls.
        let answer = |call: &ToolCall| {
            let found = answers.iter_mut().find(|(c, _)| std::ptr::eq(*c, call));
            let output = found.and_then(|(_, output)| output.take()).unwrap_or_else(|| ToolOutput::failed(""));
            Message::tool_result(call, output.content, output.is_error)
        };
        Ok(calls.iter().map(answer).collect())
    }
}

/// What is wrong with a call before it is made; the model reads it and may try again.
fn mistake(call: &ToolCall) -> Option<ToolOutput> {
    let arguments = serde_json::from_str::<serde::de::IgnoredAny>(&call.arguments);
    arguments.err().map(|e| ToolOutput::failed(format!("the arguments are not JSON: {e}")))
}

/// Calls to the tenant's tools, and those to the application's. A name that nobody has is the application's to refuse.
pub fn split(calls: &[ToolCall], toolbox: &Toolbox) -> (Vec<ToolCall>, Vec<ToolCall>) {
    calls.iter().cloned().partition(|call| toolbox.has(&call.name))
}

/// Whole tool calls as events.
pub fn events(calls: Vec<ToolCall>) -> Vec<Event> {
    let event = |(index, call): (u32, ToolCall)| {
        Event::ToolCall(ToolCallDelta { index, id: Some(call.id), name: Some(call.name), arguments: call.arguments })
    };
    (0..).zip(calls).map(event).collect()
}
