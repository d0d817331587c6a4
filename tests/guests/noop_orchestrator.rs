//! Asks the model that was named and forwards its reply untouched: what an orchestrator costs.

use stockade_guest::prelude::*;

#[derive(Deserialize)]
struct Guest {}

impl Orchestrator for Guest {
    fn run(&self, turn: Turn) -> Result<Outcome> {
        let request = inference::Chat::new(turn.model)
            .messages(turn.messages)
            .tools(turn.tools)
            .tool_choice(turn.tool_choice)
            .sampling(turn.sampling)
            .constraint(turn.constraint);
        Ok(output::forward(&request.start()?, true)?.reason.into())
    }
}
stockade_guest::export!(Guest as orchestrator);
