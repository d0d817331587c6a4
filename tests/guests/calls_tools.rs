//! An orchestrator that calls every tool it may, all at once and with its configured arguments, and says what each
//! answered, a line a tool.

use stockade_guest::prelude::*;

#[derive(Deserialize)]
struct Guest {
    #[serde(default)]
    arguments: Option<String>,
}

impl Orchestrator for Guest {
    fn run(&self, _: Turn) -> Result<Outcome> {
        let specs = tools::available()?;
        let arguments = self.arguments.as_deref().unwrap_or("{}");
        let calls = specs.iter().map(|t| (t.name.clone(), arguments.to_string()));
        for (tool, answer) in specs.iter().zip(tools::call_all(calls.collect())) {
            let said = answer.map_or_else(|error| format!("{error:?}"), |output| format!("{:?}", output.content));
            output::text(format!("{}: {said}\n", tool.name))?;
        }
        Ok(FinishReason::Stop.into())
    }
}
stockade_guest::export!(Guest as orchestrator);
