//! An orchestrator that searches the bank `notes` for its configured text and says what it finds, a line a hit.

use stockade_guest::memories::{Query, search};
use stockade_guest::prelude::*;

#[derive(Deserialize)]
struct Guest {
    text: String,
}

impl Orchestrator for Guest {
    fn run(&self, _: Turn) -> Result<Outcome> {
        for hit in search("notes", &Query::new(&self.text, 10))? {
            output::text(format!("{}\n", hit.item.text))?;
        }
        Ok(FinishReason::Stop.into())
    }
}
stockade_guest::export!(Guest as orchestrator);
