//! The tenant's tools in one turn.

use crate::steps::{Steps, cut, cut_at};
use stockade_guest::prelude::*;
use stockade_guest::types::ToolCallDelta;
use stockade_guest::warn;

/// Most bytes of a result that go to the model; a longer one is cut and says so.
const MAX_RESULT: usize = 32 << 10;

#[derive(Debug, Default)]
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
            // No grant for tools: a turn without them.
            Err(Error::Denied(_) | Error::Unavailable(_)) if wanted.is_none() => Vec::new(),
            Err(error) => return Err(error),
        };
        if let Some(wanted) = wanted {
            if let Some(missing) = wanted.iter().find(|w| !specs.iter().any(|s| covers(w, &s.name))) {
                return Err(Error::NotFound(format!("tool `{missing}`")));
            }
            specs.retain(|s| wanted.iter().any(|w| covers(w, &s.name)));
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

    pub fn specs(&self) -> &[ToolSpec] {
        &self.specs
    }

    pub fn find(&self, name: &str) -> Option<&ToolSpec> {
        self.specs.iter().find(|s| s.name == name)
    }

    /// Calls to the tenant's tools, and those to the application's. A name that nobody has is the application's to refuse.
    pub fn split(&self, calls: Vec<ToolCall>) -> (Vec<ToolCall>, Vec<ToolCall>) {
        calls.into_iter().partition(|call| self.find(&call.name).is_some())
    }

    /// What is wrong with a call before it is made: arguments that are no JSON or break the schema at the top level.
    pub fn flaw(&self, call: &ToolCall) -> Option<String> {
        let spec = self.find(&call.name)?;
        let schema: Value = serde_json::from_str(&spec.parameters).unwrap_or_default();
        flaw(&schema, &call.arguments)
    }

    /// Runs the calls, all at once, tells a step for each, and returns what they answered, in order. A tool that fails
    /// fails for the model to read, not the turn.
    pub fn run(&self, calls: &[&ToolCall], steps: &mut Steps) -> Result<Vec<ToolOutput>> {
        let mut told = Vec::with_capacity(calls.len());
        for call in calls {
            let arguments = arguments_for_people(call);
            told.push((steps.start(StepKind::Tool, &*call.name, &json!({"arguments": arguments}))?, arguments));
        }
        let requests = calls.iter().map(|call| (call.name.clone(), call.arguments.clone())).collect();
        let mut outputs = Vec::with_capacity(calls.len());
        for ((call, answer), (step, arguments)) in calls.iter().zip(tools::call_all(requests)).zip(told) {
            let output = bounded(answer.unwrap_or_else(|error| {
                warn!("tool `{}`: {error:?}", call.name);
                ToolOutput::failed(format!("the tool failed: {}", reason(&error)))
            }));
            let detail = json!({"arguments": arguments, "result": cut(&output.content)});
            step.end(if output.is_error { StepStatus::Failed } else { StepStatus::Done }, &detail)?;
            outputs.push(output);
        }
        Ok(outputs)
    }
}

/// Whole tool calls as events.
pub fn events(calls: Vec<ToolCall>) -> Vec<Event> {
    let event = |(index, call): (u32, ToolCall)| {
        Event::ToolCall(ToolCallDelta { index, id: Some(call.id), name: Some(call.name), arguments: call.arguments })
    };
    (0..).zip(calls).map(event).collect()
}

/// A call's arguments for a step or a question: as JSON where they are, and short.
pub fn arguments_for_people(call: &ToolCall) -> Value {
    let short = cut(&call.arguments);
    let parsed = if short.len() == call.arguments.len() { serde_json::from_str(short).ok() } else { None };
    parsed.unwrap_or_else(|| short.into())
}

fn bounded(mut output: ToolOutput) -> ToolOutput {
    let whole = output.content.len();
    if whole > MAX_RESULT {
        output.content = format!("{}\n[cut: {whole} bytes]", cut_at(&output.content, MAX_RESULT));
    }
    output
}

/// What a model may learn of a failure: its kind. The rest is in the log.
fn reason(error: &Error) -> &'static str {
    match error {
        Error::Denied(_) => "it may not be called",
        Error::NotFound(_) | Error::Unavailable(_) => "it is not available",
        Error::Invalid(_) => "the arguments are wrong",
        Error::TooLarge(_) | Error::ContextOverflow(_) => "too much was asked for",
        Error::Timeout => "it took too long",
        Error::Overloaded => "it is busy",
        Error::Blocked(_) => "a rule stands against it",
        Error::Conflict(_) | Error::Other(_) => "an error inside the tool",
    }
}

fn flaw(schema: &Value, arguments: &str) -> Option<String> {
    let arguments: Value = match serde_json::from_str(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return Some(format!("the arguments are not JSON: {error}")),
    };
    let Some(arguments) = arguments.as_object() else { return Some("the arguments are not an object".into()) };
    let mut required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    if let Some(missing) = required.find(|name| !arguments.contains_key(*name)) {
        return Some(format!("the argument `{missing}` is missing"));
    }
    let wrong = |(name, value): (&String, &Value)| {
        let kind = schema["properties"][name]["type"].as_str()?;
        (!is_of(kind, value)).then(|| format!("the argument `{name}` is not of type {kind}"))
    };
    arguments.iter().find_map(wrong)
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        // No type of JSON Schema: not ours to judge.
        _ => true,
    }
}

/// Whether a wanted name is the tool's own or that of the set that it belongs to.
fn covers(wanted: &str, name: &str) -> bool {
    name.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with("__"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use stockade_guest::testing::Host;

    #[test]
    fn flaws_are_told_and_sound_arguments_pass() {
        let schema = json!({"required": ["a"], "properties": {
            "a": {"type": "integer"}, "b": {"type": "string"}, "c": {"enum": [1]}, "d": {"type": ["string", "null"]}}});
        for (arguments, want) in [
            (r#"{"a": 1}"#, None),
            (r#"{"a": 2.0, "b": "x", "c": 9, "d": 3, "e": {}}"#, None),
            ("{", Some("not JSON")),
            ("[1]", Some("not an object")),
            ("{}", Some("`a` is missing")),
            (r#"{"a": "1"}"#, Some("`a` is not of type integer")),
            (r#"{"a": 1, "b": 2}"#, Some("`b` is not of type string")),
        ] {
            let found = flaw(&schema, arguments);
            match want {
                None => assert_eq!(found, None, "{arguments}"),
                Some(want) => assert!(found.as_deref().is_some_and(|f| f.contains(want)), "{arguments}: {found:?}"),
            }
        }
        assert_eq!(flaw(&Value::Null, "{}"), None);
    }

    #[test]
    fn failures_are_the_models_to_read_and_long_results_are_cut() {
        let host = Host::new()
            .tool("breaks", |_| Err(Error::Other("secret detail".into())))
            .tool("long", |_| Ok(ToolOutput::ok("é".repeat(MAX_RESULT))));
        let toolbox = Toolbox::open(None, &[]).unwrap();
        let call = |name: &str| ToolCall { id: name.into(), name: name.into(), arguments: "{}".into() };
        let (breaks, long) = (call("breaks"), call("long"));
        let outputs = toolbox.run(&[&breaks, &long], &mut Steps::default()).unwrap();
        assert!(outputs[0].is_error && !outputs[0].content.contains("secret"), "{:?}", outputs[0]);
        assert!(outputs[1].content.ends_with(&format!("\n[cut: {} bytes]", 2 * MAX_RESULT)));
        assert!(outputs[1].content.len() < MAX_RESULT + 40);
        let told: Vec<_> = host
            .sent()
            .into_iter()
            .map(|event| match event {
                Event::Step(step) => (step.id, step.title, step.status),
                other => panic!("{other:?}"),
            })
            .collect();
        let want = [
            ("step-1", "breaks", StepStatus::Started),
            ("step-2", "long", StepStatus::Started),
            ("step-1", "breaks", StepStatus::Failed),
            ("step-2", "long", StepStatus::Done),
        ];
        assert_eq!(told, want.map(|(id, title, status)| (id.into(), title.into(), status)));
    }
}
