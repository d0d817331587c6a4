//! A chat before it becomes a prompt: tools that the template does not know, and the grammar of an enforced call.
//!
//! Invariant: whatever is promised to the model about the form of a call is what [`crate::tool_calls`] reads back.

use crate::constrain::strict;
use crate::text::ModelText;
use crate::tool_calls::{CallFormat, ReplyFormat, marks_reasoning};
use serde_json::{Map, Value, json};
use stockade_core::chat::{ToolChoice, ToolSpec};
use stockade_core::infer::{ChatPrompt, Constraint, InferError, Rendered};
use stockade_model::conversation;

/// A chat that is ready to run.
#[derive(Debug)]
pub(crate) struct PreparedChat {
    pub rendered: Rendered,
    pub format: ReplyFormat,
    /// Enforces the tool choice.
    pub constraint: Option<Constraint>,
}

pub(crate) fn prepare(text: &dyn ModelText, prompt: &ChatPrompt) -> Result<PreparedChat, InferError> {
    let template = text.template().ok_or_else(|| InferError::Template("the model has no chat template".into()))?;
    let offered: &[ToolSpec] = if prompt.tool_choice == ToolChoice::None { &[] } else { &prompt.tools };
    let constraint_tools = match &prompt.tool_choice {
        ToolChoice::Auto | ToolChoice::None => None,
        ToolChoice::Required => Some(offered.iter().collect::<Vec<_>>()),
        ToolChoice::Named(name) => Some(offered.iter().filter(|tool| tool.name == *name).collect()),
    };
    if constraint_tools.as_ref().is_some_and(Vec::is_empty) {
        let reason = "the tool that must be called is not among the tools".into();
        return Err(InferError::Invalid { field: "tool_choice", reason });
    }
    let adapted = conversation::adapted(template, &prompt.messages, offered);
    let rendered = text.render(&adapted.messages, adapted.tools, &prompt.template_args)?;
    let calls = adapted.native.unwrap_or(CallFormat::Hermes);
    let reasoning = marks_reasoning(template);
    let format = ReplyFormat {
        calls: (!offered.is_empty()).then_some(calls),
        tools: offered.iter().map(|tool| tool.name.clone()).collect(),
        reasoning,
        starts_in_reasoning: reasoning && rendered.text.trim_end().ends_with("<think>"),
    };
    let constraint = constraint_tools.map(|tools| call_grammar(calls, &tools)).transpose()?;
    Ok(PreparedChat { rendered, format, constraint })
}

/// Exactly one call of one of `tools`.
fn call_grammar(format: CallFormat, tools: &[&ToolSpec]) -> Result<Constraint, InferError> {
    let arguments = match format {
        CallFormat::Hermes | CallFormat::Mistral => "arguments",
        CallFormat::Llama => "parameters",
    };
    let mut definitions = Map::new();
    let mut calls = Vec::new();
    for (index, tool) in tools.iter().enumerate() {
        let place = format!("tool{index}");
        let mut parameters = match &tool.parameters {
            Value::Object(map) if !map.is_empty() => Value::Object(map.clone()),
            Value::Object(_) | Value::Null => json!({"type": "object"}),
            _ => {
                let reason = format!("the parameters of `{}` are not a JSON schema object", tool.name);
                return Err(InferError::Invalid { field: "tools", reason });
            }
        };
        // Without a type anything would do; arguments are an object.
        if let Value::Object(map) = &mut parameters {
            map.entry("type").or_insert_with(|| json!("object"));
        }
        relocate(&mut parameters, &place);
        definitions.insert(place.clone(), parameters);
        calls.push(json!({
            "type": "object",
            "properties": {"name": {"const": tool.name}, arguments: {"$ref": format!("#/$defs/{place}")}},
            "required": ["name", arguments],
            "additionalProperties": false,
        }));
    }
    let schema = strict(&json!({"$defs": definitions, "anyOf": calls}))?;
    Ok(Constraint::Lark(match format {
        CallFormat::Hermes => {
            format!("start: \"<tool_call>\\n\" call \"\\n</tool_call>\"\ncall: %json {schema}\n")
        }
        CallFormat::Llama => format!("start: %json {schema}\n"),
        CallFormat::Mistral => format!("start: \"[TOOL_CALLS] [\" call \"]\"\ncall: %json {schema}\n"),
    }))
}

/// Makes references that start from the schema's own root start from its new place.
fn relocate(schema: &mut Value, place: &str) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(target) if key == "$ref" && target.starts_with('#') => {
                        *target = format!("#/$defs/{place}{}", &target[1..]);
                    }
                    // `$id` would give inner references another base.
                    _ => relocate(value, place),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| relocate(item, place)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stockade_core::chat::{Message, Part, Role, ToolCall, ToolResult};
    use stockade_core::infer::TokenizeOptions;

    /// A template that prints role and text, or a given source.
    struct Plain(&'static str);

    impl ModelText for Plain {
        fn encode(&self, text: &str, _: TokenizeOptions) -> Result<Vec<u32>, InferError> {
            Ok(text.bytes().map(u32::from).collect())
        }
        fn decode(&self, _: &[u32]) -> Result<String, InferError> {
            Ok(String::new())
        }
        fn template(&self) -> Option<&str> {
            Some(self.0)
        }
        fn render(
            &self,
            messages: &[Message],
            tools: &[ToolSpec],
            _: &Map<String, Value>,
        ) -> Result<Rendered, InferError> {
            let mut text: String =
                messages.iter().map(|m| format!("[{}]{}", m.role.as_str(), m.joined_text())).collect();
            text.push_str(&format!("[tools {}]", tools.len()));
            Ok(Rendered { tokens: vec![], text })
        }
    }

    fn tool(name: &str) -> ToolSpec {
        ToolSpec {
            name: name.into(),
            description: "d".into(),
            parameters: json!({"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"type": "integer"}}}),
        }
    }

    fn chat(choice: ToolChoice) -> ChatPrompt {
        let call = Message {
            role: Role::Assistant,
            parts: vec![Part::ToolCall(ToolCall { id: "1".into(), name: "f".into(), arguments: "{\"a\":1}".into() })],
            name: None,
        };
        let result = Message {
            role: Role::Tool,
            parts: vec![Part::ToolResult(ToolResult { call_id: "1".into(), content: "42".into(), is_error: false })],
            name: None,
        };
        ChatPrompt {
            messages: vec![Message::text(Role::System, "Be brief."), Message::text(Role::User, "hi"), call, result],
            tools: vec![tool("f"), tool("g")],
            tool_choice: choice,
            template_args: Map::new(),
        }
    }

    #[test]
    fn tools_are_spelled_out_for_a_template_that_does_not_know_them() {
        let prepared = prepare(&Plain("{{ messages }}"), &chat(ToolChoice::Auto)).unwrap();
        let text = prepared.rendered.text;
        assert!(text.starts_with("[system]Be brief.\n\n# Tools"), "{text}");
        assert!(text.contains("<tools>\n{\"type\":\"function\""), "{text}");
        assert!(
            text.contains("[assistant]<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\":1}}\n</tool_call>"),
            "{text}"
        );
        assert!(text.contains("[user]<tool_response>\n42\n</tool_response>[tools 0]"), "{text}");
        assert_eq!(prepared.format.calls, Some(CallFormat::Hermes));
        assert!(prepared.constraint.is_none());
    }

    #[test]
    fn a_template_that_knows_tools_gets_them_and_fixes_the_form_of_calls() {
        let llama = Plain("{% if tools %} ipython {% endif %}");
        let prepared = prepare(&llama, &chat(ToolChoice::Auto)).unwrap();
        assert!(prepared.rendered.text.ends_with("[tools 2]"));
        assert_eq!(prepared.format.calls, Some(CallFormat::Llama));
        let none = prepare(&llama, &chat(ToolChoice::None)).unwrap();
        assert!(none.rendered.text.ends_with("[tools 0]"));
        assert_eq!(none.format.calls, None);
    }

    #[test]
    fn an_enforced_call_names_only_tools_that_exist_and_relocates_their_references() {
        let text = Plain("x");
        let Some(Constraint::Lark(grammar)) = prepare(&text, &chat(ToolChoice::Named("g".into()))).unwrap().constraint
        else {
            panic!("a grammar")
        };
        assert!(grammar.contains("\"const\":\"g\"") && !grammar.contains("\"const\":\"f\""), "{grammar}");
        assert!(grammar.contains("#/$defs/tool0/$defs/x"), "{grammar}");
        for choice in [ToolChoice::Named("h".into()), ToolChoice::Named(String::new())] {
            assert!(matches!(prepare(&text, &chat(choice)), Err(InferError::Invalid { field: "tool_choice", .. })));
        }
    }
}
