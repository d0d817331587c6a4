//! Does nothing, successfully.

use stockade_guest::prelude::*;

#[derive(Deserialize)]
struct Guest {}

impl Tool for Guest {
    type Arguments = Value;

    fn describe(&self) -> ToolSpec {
        ToolSpec::new("noop", "Does nothing.", &json!({"type": "object"}))
    }
    fn call(&self, _: Value) -> Result<ToolOutput> {
        Ok(ToolOutput::ok(""))
    }
}
stockade_guest::export!(Guest as tool);
