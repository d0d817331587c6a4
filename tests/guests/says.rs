//! An orchestrator that says the configured text, character by character, and asks no model.

use stockade_guest::prelude::*;

#[derive(Deserialize)]
struct Guest {
    text: String,
}

impl Orchestrator for Guest {
    fn run(&self, _: Turn) -> Result<Outcome> {
        for character in self.text.chars() {
            output::text(character)?;
        }
        Ok(FinishReason::Stop.into())
    }
}
stockade_guest::export!(Guest as orchestrator);
