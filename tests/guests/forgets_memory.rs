//! An orchestrator that deletes from the configured memory banks and says how each call ended, a line a bank.

use stockade_guest::memories;
use stockade_guest::prelude::*;

#[derive(Deserialize)]
struct Guest {
    banks: Vec<String>,
}

impl Orchestrator for Guest {
    fn run(&self, _: Turn) -> Result<Outcome> {
        for bank in &self.banks {
            let ended = match memories::delete(bank, &["x".to_string()]) {
                Ok(_) => "deleted",
                Err(Error::Denied(_)) => "denied",
                Err(Error::Unavailable(_)) => "unavailable",
                Err(_) => "failed",
            };
            output::text(format!("{bank} {ended}\n"))?;
        }
        Ok(FinishReason::Stop.into())
    }
}
stockade_guest::export!(Guest as orchestrator);
