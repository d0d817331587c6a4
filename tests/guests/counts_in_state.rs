//! A tool that counts its calls in the bucket `counter`, by compare-and-set, and answers the count.

use stockade_guest::prelude::*;

#[derive(Deserialize)]
struct Guest {}

impl Tool for Guest {
    type Arguments = Value;

    fn describe(&self) -> ToolSpec {
        ToolSpec::new("count", "Counts its calls.", &json!({"type": "object"}))
    }
    fn call(&self, _: Value) -> Result<ToolOutput> {
        let bucket = state::open("counter")?;
        loop {
            let (count, expect) = match bucket.get_json::<u64>("count")? {
                Some((count, revision)) => (count + 1, state::Expectation::Revision(revision)),
                None => (1, state::Expectation::Absent),
            };
            match bucket.set_json("count", &count, expect) {
                Ok(_) => return Ok(ToolOutput::ok(count.to_string())),
                Err(Error::Conflict(_)) => continue,
                Err(error) => return Err(error),
            }
        }
    }
}
stockade_guest::export!(Guest as tool);
