//! An orchestrator that says the configured text, character by character, in a span of its own, and asks no model.

use stockade_guest::prelude::*;
use stockade_guest::telemetry;

#[derive(Deserialize)]
struct Guest {
    text: String,
}

impl Orchestrator for Guest {
    fn run(&self, _: Turn) -> Result<Outcome> {
        let span = telemetry::Span::new("saying");
        span.set("bytes", &self.text.len().to_string());
        for character in self.text.chars() {
            output::text(character)?;
        }
        Ok(FinishReason::Stop.into())
    }
}
stockade_guest::export!(Guest as orchestrator);
