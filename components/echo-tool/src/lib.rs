//! The smallest tool: answers with the arguments that it was called with.

use stockade_guest::prelude::*;

#[derive(Deserialize)]
struct Echo {}

impl Tool for Echo {
    type Arguments = Value;

    fn describe(&self) -> ToolSpec {
        let parameters = json!({
            "type": "object",
            "properties": { "text": { "type": "string", "description": "What to say back." } },
            "required": ["text"],
        });
        ToolSpec::new("echo", "Answers with its own arguments.", &parameters)
    }

    fn call(&self, arguments: Value) -> Result<ToolOutput> {
        Ok(match arguments {
            Value::Object(_) => ToolOutput::ok(arguments.to_string()),
            other => ToolOutput::failed(format!("arguments: an object was expected, not {other}")),
        })
    }
}
stockade_guest::export!(Echo as tool);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_come_back_as_they_were() {
        let arguments = json!({"text": "hé", "more": [1, null]});
        let answer = testing::call::<Echo>(json!({}), arguments.clone()).unwrap();
        assert!(!answer.is_error);
        assert_eq!(serde_json::from_str::<Value>(&answer.content).unwrap(), arguments);
    }

    #[test]
    fn arguments_that_are_no_object_are_the_models_mistake() {
        assert!(testing::call::<Echo>(json!({}), json!("x")).unwrap().is_error);
    }

    #[test]
    fn schema_is_json_and_requires_text() {
        let spec = testing::plugin::<Echo>(json!({})).unwrap().describe();
        let schema: Value = serde_json::from_str(&spec.parameters).unwrap();
        assert_eq!(schema["required"], json!(["text"]));
    }

    /// Beside the same in the sandbox: the host's `bench_components`.
    #[test]
    fn latency() {
        let text = "Please send the report of March to the team in Berlin, and tell Ann that the meeting on Friday is moved to ten.";
        testing::latency("echo-tool", || {
            let answer = testing::call::<Echo>(json!({}), json!({"text": text})).unwrap();
            assert!(answer.content.contains(text));
        });
    }
}
