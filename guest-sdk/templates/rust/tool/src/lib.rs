//! Adds two numbers.

use stockade_guest::prelude::*;

#[derive(Deserialize)]
struct Plugin {}

#[derive(Deserialize)]
struct Arguments {
    a: f64,
    b: f64,
}

impl Tool for Plugin {
    type Arguments = Arguments;

    fn describe(&self) -> ToolSpec {
        let parameters = json!({
            "type": "object",
            "properties": { "a": { "type": "number" }, "b": { "type": "number" } },
            "required": ["a", "b"],
        });
        ToolSpec::new("{{crate}}", "Adds two numbers.", &parameters)
    }

    fn call(&self, Arguments { a, b }: Arguments) -> Result<ToolOutput> {
        Ok(ToolOutput::ok((a + b).to_string()))
    }
}

stockade_guest::export!(Plugin as tool);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_added_and_mistakes_go_back_to_the_model() {
        assert_eq!(testing::call::<Plugin>(json!({}), json!({"a": 1, "b": 2.5})).unwrap().content, "3.5");
        assert!(testing::call::<Plugin>(json!({}), json!({"a": 1})).unwrap().is_error);
    }
}
