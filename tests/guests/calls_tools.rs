//! An orchestrator that calls every tool it may, all at once, and says what each answered, a line a tool.

use stockade_guest::prelude::*;

#[derive(Deserialize)]
struct Guest {}

impl Orchestrator for Guest {
    fn run(&self, _: Turn) -> Result<Outcome> {
        let specs = tools::available()?;
        let calls = specs.iter().map(|t| (t.name.clone(), "{}".to_string()));
        for (tool, answer) in specs.iter().zip(tools::call_all(calls.collect())) {
            output::text(format!("{}: {:?}\n", tool.name, answer?.content))?;
        }
        Ok(FinishReason::Stop.into())
    }
}
stockade_guest::export!(Guest as orchestrator);
