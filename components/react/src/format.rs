//! The text form of a step: what the model is told of it, the grammar that holds it, and how it is read back.

use stockade_guest::prelude::*;

/// Most characters of a thought.
const MAX_THOUGHT: usize = 300;
/// What the model writes in place of an action when it is done.
const DONE: &str = "Done";

/// How a thought begins while nothing is known. A small model that may write anything there guesses the result, and then
/// believes its guess rather than the observation.
const INTENT: &str = "I need to ";
/// The thought of a model that needs no tool.
const KNOWN: &str = "I know the answer.";

/// One step of the model's.
#[derive(Debug, PartialEq)]
pub enum Step {
    Act(Act),
    /// It is ready to answer.
    Done {
        thought: String,
    },
}

/// A call of a tool, with the thought that led to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Act {
    pub thought: String,
    pub tool: String,
    /// Its arguments, as JSON.
    pub input: String,
}

/// What the next step may be.
#[derive(Debug, Clone, Copy)]
pub struct Next {
    /// It may be the last.
    pub may_end: bool,
    /// Something was observed: thoughts are free.
    pub informed: bool,
}

/// What the model is told of tools and form.
pub fn describe(tools: &[&ToolSpec]) -> String {
    let line = |t: &&ToolSpec| format!("- {}: {} Arguments as JSON Schema: {}\n", t.name, t.description, t.parameters);
    let tools: String = tools.iter().map(line).collect();
    format!(
        "You solve the user's task step by step and can use tools.\nTools:\n{tools}\nA step has this form:\n\
         Thought: {INTENT}... (what to do next, in one sentence)\nAction: the name of a tool\n\
         Action Input: its arguments as a JSON object\n\nAn Observation with the result follows. \
         When nothing is left to do the step is:\nThought: why you are done\nAction: {DONE}"
    )
}

/// The grammar of one step, in llguidance's Lark dialect.
pub fn grammar(tools: &[&ToolSpec], next: Next) -> String {
    let actions: Vec<String> = (0..tools.len()).map(|n| format!("tool{n}")).collect();
    let mut rules = format!("act: \"\\nAction: \" ({})\nDONE: \"\\nAction: {DONE}\"\n", actions.join(" | "));
    for (n, tool) in tools.iter().enumerate() {
        let before = Value::String(format!("{}\nAction Input: ", tool.name));
        rules += &format!("tool{n}: {before} %json {}\n", schema(tool));
    }
    let start = match next {
        Next { informed: true, may_end: true } => "THOUGHT (act | DONE)".to_string(),
        Next { informed: true, may_end: false } => "THOUGHT act".into(),
        Next { informed: false, may_end: true } => format!("(\"{INTENT}\" THOUGHT act | \"{KNOWN}\" DONE)"),
        Next { informed: false, may_end: false } => format!("\"{INTENT}\" THOUGHT act"),
    };
    format!("start: \"Thought: \" {start}\n{rules}THOUGHT: /[^\\n]{{1,{MAX_THOUGHT}}}/\n")
}

/// The arguments of a tool: an object, without white space that a small model could lose itself in.
fn schema(tool: &ToolSpec) -> Value {
    let mut schema = match serde_json::from_str(&tool.parameters) {
        Ok(Value::Object(schema)) => schema,
        _ => serde_json::Map::new(),
    };
    schema.entry("type").or_insert_with(|| "object".into());
    schema.insert("x-guidance".into(), json!({"whitespace_flexible": false}));
    schema.into()
}

/// Reads a step; `None` when it was cut off.
pub fn read(text: &str) -> Option<Step> {
    let (thought, action) = text.strip_prefix("Thought: ")?.split_once("\nAction: ")?;
    let thought = thought.trim().to_string();
    if action == DONE {
        return Some(Step::Done { thought });
    }
    let (tool, input) = action.split_once("\nAction Input: ")?;
    serde_json::from_str::<serde_json::Map<String, Value>>(input).ok()?;
    Some(Step::Act(Act { thought, tool: tool.into(), input: input.into() }))
}

/// Earlier tool calls and results in this form, since the model's template may know neither.
pub fn as_text(messages: &[Message]) -> Vec<Message> {
    let mut all: Vec<Message> = Vec::with_capacity(messages.len());
    for message in messages {
        let mut message = message.clone();
        for part in &mut message.parts {
            match part {
                Part::ToolCall(call) => {
                    *part = Part::Text(format!("Action: {}\nAction Input: {}\n", call.name, call.arguments));
                }
                Part::ToolResult(result) => {
                    message.role = Role::User;
                    *part = Part::Text(format!("Observation: {}\n", result.content));
                }
                Part::Text(_) | Part::Image(_) | Part::Reasoning(_) => {}
            }
        }
        match all.last_mut() {
            // Results of calls that were made together are one message of the user.
            Some(last) if last.role == Role::User && message.role == Role::User => last.parts.extend(message.parts),
            _ => all.push(message),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_and_cut_ones_are_not() {
        let call = read("Thought: Look it up.\nAction: search\nAction Input: {\"q\":\"a\\nAction: b\"}");
        let [thought, tool, input] = ["Look it up.", "search", "{\"q\":\"a\\nAction: b\"}"].map(String::from);
        assert_eq!(call, Some(Step::Act(Act { thought, tool, input })));
        assert_eq!(read("Thought: x\nAction: Done"), Some(Step::Done { thought: "x".into() }));
        for cut in ["", "Thought: x", "Thought: x\nAction: se", "Thought: x\nAction: s\nAction Input: {\"q\":", "hello"]
        {
            assert_eq!(read(cut), None, "{cut}");
        }
    }

    #[test]
    fn the_grammar_names_each_tool_with_its_schema() {
        let search = ToolSpec::new("search", "", &json!({"properties": {"q": {"type": "string"}}}));
        let odd = ToolSpec { name: "odd".into(), description: String::new(), parameters: "3".into() };
        let next = |informed, may_end| grammar(&[&search, &odd], Next { informed, may_end });
        let grammar = next(false, false);
        let begin = "start: \"Thought: \" \"I need to \" THOUGHT act\nact: \"\\nAction: \" (tool0 | tool1)\n";
        assert!(grammar.starts_with(begin), "{grammar}");
        assert!(grammar.contains("tool0: \"search\\nAction Input: \" %json {"), "{grammar}");
        assert_eq!(grammar.matches("\"type\":\"object\"").count(), 2, "{grammar}");
        let may_know = "start: \"Thought: \" (\"I need to \" THOUGHT act | \"I know the answer.\" DONE)\n";
        assert!(next(false, true).starts_with(may_know), "{}", next(false, true));
        assert!(next(true, false).starts_with("start: \"Thought: \" THOUGHT act\n"));
        assert!(next(true, true).starts_with("start: \"Thought: \" THOUGHT (act | DONE)\n"));
    }

    #[test]
    fn calls_and_results_of_the_conversation_become_text() {
        let call = ToolCall { id: "1".into(), name: "f".into(), arguments: "{}".into() };
        let asked = Message { role: Role::Assistant, parts: vec![Part::ToolCall(call.clone())], name: None };
        let result = || Message::tool_result(&call, "42", false);
        let texts: Vec<_> = as_text(&[Message::user("q"), asked, result(), result()])
            .iter()
            .map(|m| (m.role, m.joined_text()))
            .collect();
        let want = [
            (Role::User, "q"),
            (Role::Assistant, "Action: f\nAction Input: {}\n"),
            (Role::User, "Observation: 42\nObservation: 42\n"),
        ];
        assert_eq!(texts, want.map(|(role, text)| (role, text.to_string())));
    }
}
