//! An orchestrator that never stops talking.

use stockade_guest::prelude::*;

#[derive(Deserialize)]
struct Guest {}

impl Orchestrator for Guest {
    fn run(&self, _: Turn) -> Result<Outcome> {
        let text = "x".repeat(64 << 10);
        loop {
            output::text(&*text)?;
        }
    }
}
stockade_guest::export!(Guest as orchestrator);
