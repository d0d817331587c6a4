//! Arithmetic for models: exact where the result is a fraction, in double precision where it is not, and said so.
//!
//! Invariant: the work is bounded by the length and depth of the expression and by the size of every number in between,
//! each checked before the step that would exceed it.

mod functions;
mod number;
mod parser;

use stockade_guest::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Calculator {}

#[derive(Deserialize)]
struct Arguments {
    expression: String,
}

impl Tool for Calculator {
    type Arguments = Arguments;

    fn describe(&self) -> ToolSpec {
        let parameters = json!({
            "type": "object",
            "properties": {
                "expression": {
                    "type": "string",
                    "description": "For example `(2 + 3.5) * 4 ^ 2`, `sqrt(2)`, `round(10 / 3, 2)`. Operators: + - * / % ^ !; \
                        functions: sqrt cbrt abs floor ceil round min max gcd lcm exp ln log log2 sin cos tan asin acos atan; \
                        constants: pi e.",
                },
            },
            "required": ["expression"],
            "additionalProperties": false,
        });
        ToolSpec::new("calculator", "Evaluates an arithmetic expression exactly.", &parameters)
    }

    fn call(&self, arguments: Arguments) -> Result<ToolOutput> {
        Ok(match parser::evaluate(&arguments.expression) {
            Ok(number) => ToolOutput::ok(number.to_string()),
            Err(why) => ToolOutput::failed(why),
        })
    }
}
stockade_guest::export!(Calculator as tool);

#[cfg(test)]
mod tests;
