//! A plan: its form, which decoding holds the model to, and its words.

use stockade_guest::prelude::*;

/// The tool of a step that needs none.
const NO_TOOL: &str = "none";

#[derive(Debug, PartialEq, Deserialize)]
struct Plan {
    steps: Vec<Task>,
}

/// A step of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// What is to be done, in a sentence.
    pub task: String,
    tool: String,
}

impl Task {
    /// The tool that does it; `None`: the model itself.
    pub fn tool(&self) -> Option<&str> {
        (self.tool != NO_TOOL).then_some(&self.tool)
    }
}

/// The steps of a plan; `None` when it was cut off.
pub fn read(text: &str) -> Option<Vec<Task>> {
    serde_json::from_str::<Plan>(text).ok().map(|plan| plan.steps).filter(|steps| !steps.is_empty())
}

/// JSON Schema of a plan over these tools. Where the application wants one called, the plan begins with it.
pub fn schema(tools: &[ToolSpec], choice: &ToolChoice, max_steps: usize) -> Constraint {
    let names: Vec<&str> = tools.iter().map(|t| &*t.name).collect();
    let first = match choice {
        ToolChoice::Named(name) if names.contains(&&**name) => vec![&**name],
        ToolChoice::Required => names.clone(),
        _ => Vec::new(),
    };
    let step = |names: &[&str]| {
        json!({
            "type": "object",
            "properties": {"task": {"type": "string", "minLength": 3, "maxLength": 160}, "tool": {"enum": names}},
            "required": ["task", "tool"],
            "additionalProperties": false,
        })
    };
    let any = step(&[&names[..], &[NO_TOOL]].concat());
    let mut steps = json!({"type": "array", "items": any, "minItems": 1, "maxItems": max_steps});
    if !first.is_empty() {
        steps["prefixItems"] = json!([step(&first)]);
    }
    let schema = json!({
        "type": "object",
        "properties": {"steps": steps},
        "required": ["steps"],
        "additionalProperties": false,
    });
    Constraint::JsonSchema(schema.to_string())
}

/// What the model is asked for a plan.
pub fn request(tools: &[ToolSpec], max_steps: usize) -> String {
    let line = |t: &ToolSpec| format!("- {}: {}\n", t.name, t.description);
    let tools: String = tools.iter().map(line).collect();
    format!(
        "Do not answer yet. Write a plan with at most {max_steps} steps for my request, as JSON: \
         {{\"steps\": [{{\"task\": what to do in one sentence, \"tool\": the tool that does it or \"{NO_TOOL}\"}}]}}.\n\
         Tools:\n{tools}- {NO_TOOL}: think or write\n"
    )
}
